/* Joins its standard input and output with AGENT_SOCKET: a client's way into a container whose guest's agent it wants.
 *
 * A process for each direction: a client that waits for room for what it says may not be reading, and what it does not read
 * must not keep us from taking what it says. */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sessions.h"

/* Pass on all that comes, to its end or until nobody takes it. */
static void pass(int from, int to)
{
    static unsigned char bytes[64 * 1024];
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

static _Noreturn void end(int signal_number)
{
    (void)signal_number;
    _exit(0);
}

int main(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = AGENT_SOCKET};
    const pid_t self = getpid();
    int agent = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (agent < 0 || connect(agent, (const struct sockaddr *)&address, sizeof address) < 0) {
        fprintf(stderr, "its guest cannot be reached: %s\n", strerror(errno));
        return 1;
    }
    signal(SIGCHLD, end); /* the end of one direction is that of the other */
    pid_t pid = fork();
    if (pid < 0) {
        fprintf(stderr, "its guest cannot be reached: %s\n", strerror(errno));
        return 1;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == self)
            pass(STDIN_FILENO, agent);
    } else {
        pass(agent, STDOUT_FILENO);
    }
    return 0;
}
