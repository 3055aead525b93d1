/* The guest's network interfaces on the container's side. */

#ifndef TESTBED_VM_LINK_H
#define TESTBED_VM_LINK_H

/* A new tap device for QEMU, called tapINDEX: its file descriptor, or -1 with errno. */
int open_tap(int index);

/* Wait for the device ethINDEX, the host's port of its network, and make it and tapINDEX the two ports of a bridge: 0 or an
 * errno. None of the three has an address, so on that network nobody but the guest answers. */
int join_tap(int index);

#endif
