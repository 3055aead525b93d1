/* Joins its standard input and output with AGENT_SOCKET: a client's way into a container whose guest's agent it wants. */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sessions.h"

/* Pass what can be read on: false at its end. */
static int pass(int from, int to)
{
    static unsigned char bytes[64 * 1024];
    ssize_t count = read(from, bytes, sizeof bytes);
    if (count <= 0)
        return count < 0 && errno == EINTR;
    for (ssize_t done = 0; done < count;) {
        ssize_t went = write(to, bytes + done, (size_t)(count - done));
        if (went < 0 && errno != EINTR)
            return 0;
        done += went > 0 ? went : 0;
    }
    return 1;
}

int main(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = AGENT_SOCKET};
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (agent < 0 || connect(agent, (const struct sockaddr *)&address, sizeof address) < 0) {
        fprintf(stderr, "its guest cannot be reached: %s\n", strerror(errno));
        return 1;
    }
    struct pollfd ends[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = agent, .events = POLLIN}};
    for (;;) {
        if (poll(ends, 2, -1) < 0 && errno != EINTR)
            return 1;
        /* Both directions wait for the other side's reader, which cannot stop both: each side always reads. */
        if (ends[1].revents && !pass(agent, STDOUT_FILENO))
            return 0;
        if (ends[0].revents && !pass(STDIN_FILENO, agent))
            return 0;
    }
}
