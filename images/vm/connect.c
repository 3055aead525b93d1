/* Joins its standard input and output with AGENT_SOCKET: a client's way into a container whose guest's agent it wants.
 *
 * A thread for each direction: a client that waits for room for what it says may not be reading, and what it does not read
 * must not keep us from taking what it says. The end of one direction is that of both. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <threads.h>
#include <unistd.h>

#include "sessions.h"

/* Pass on all that comes, to its end or until nobody takes it. */
static void pass(int from, int to)
{
    unsigned char bytes[64 * 1024];
    for (;;) {
        ssize_t count = read(from, bytes, sizeof bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return;
        for (ssize_t done = 0; done < count;) {
            ssize_t went = write(to, bytes + done, (size_t)(count - done));
            if (went < 0 && errno != EINTR)
                return;
            done += went > 0 ? went : 0;
        }
    }
}

static int pass_input(void *agent)
{
    pass(STDIN_FILENO, *(int *)agent);
    exit(0);
}

int main(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = AGENT_SOCKET};
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (agent < 0 || connect(agent, (const struct sockaddr *)&address, sizeof address) < 0) {
        fprintf(stderr, "its guest cannot be reached: %s\n", strerror(errno));
        return 1;
    }
    thrd_t input;
    if (thrd_create(&input, pass_input, &agent) != thrd_success) {
        fprintf(stderr, "its guest cannot be reached: there is no room for a thread\n");
        return 1;
    }
    pass(agent, STDOUT_FILENO);
    return 0;
}
