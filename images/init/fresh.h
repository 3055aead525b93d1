/* Making a container host new without a new container: see init.c for when. Each gives NULL, or what failed, with errno. */

#ifndef TESTBED_INIT_FRESH_H
#define TESTBED_INIT_FRESH_H

#include <sys/types.h>

/* End every process of this PID namespace but the first and SPARED (0: none), and wait until they are gone. */
const char *end_others(pid_t spared);

/* A network namespace with nothing in it but the loopback device, which is up. What the engine set in the first one stays set. */
const char *fresh_network(void);

/* A root file system that shows the container's own until something is written, which goes to memory; what the engine
 * mounted is in its place, and /sys is that of the network namespace of now. To be called after fresh_network(). It lies on top of
 * the container's own, so whoever enters the container comes into it. (pivot_root(2) is what Docker lets nobody call.) */
const char *fresh_root(void);

/* Without what stays of ended processes in the kernel or in memory: System V IPC, shared memory, message queues. */
const char *fresh_ipc(void);

#endif
