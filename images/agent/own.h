/* Capabilities that init and the agent have for themselves, to make a host new: no command gets them. */

#ifndef TESTBED_AGENT_OWN_H
#define TESTBED_AGENT_OWN_H

#include <linux/capability.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* TEXT is numbers of capabilities, each followed by a comma: the set of them, a bit each. */
static inline uint64_t capability_set(const char *text)
{
    uint64_t set = 0;
    for (char *end; *text; text = *end ? end + 1 : end)
        set |= UINT64_C(1) << (strtoul(text, &end, 10) & 63);
    return set;
}

/* Lose the capabilities of SET for good: neither this process nor what it executes can have them again. 0, or -1 with errno.
 * Only system calls: it runs between vfork and execve. */
static inline int give_up(uint64_t set)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (set == 0)
        return 0;
    for (unsigned long one = 0; one < 64; one++)
        if (set >> one & 1 && prctl(PR_CAPBSET_DROP, one, 0, 0, 0) < 0)
            return -1;
    if (syscall(SYS_capget, &header, data) < 0)
        return -1;
    for (int half = 0; half < 2; half++) {
        const uint32_t kept = ~(uint32_t)(set >> (32 * half));
        data[half].effective &= kept;
        data[half].permitted &= kept;
        data[half].inheritable &= kept;
    }
    return (int)syscall(SYS_capset, &header, data);
}

#endif
