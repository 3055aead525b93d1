/* Opens N connections at once and holds them: the way to fill a server's queues.
 *
 *     connector HOST PORT N
 *
 * Prints a line for each connection I (from 1), again whenever something happens to it:
 *
 *     connection I connecting LOCAL-PORT
 *     connection I connected               the handshake is done, as far as this side knows
 *     connection I failed ERRNO            ECONNREFUSED, ETIMEDOUT, ECONNRESET, ...
 *     connection I closed                  the server has closed it
 *
 * and reads commands from standard input: "state" answers "connecting C connected D failed F closed E"; "quit", like
 * the end of standard input, ends it. What the server sends is thrown away. */

#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 1000 };
enum state { CONNECTING, CONNECTED, FAILURE, CLOSED, STATES };
static const char *const names[STATES] = {"connecting", "connected", "failed", "closed"};

static enum state states[MOST_CONNECTIONS];
static struct pollfd watched[1 + MOST_CONNECTIONS]; /* standard input, then the connections */

static void becomes(int i, enum state state, int error)
{
    states[i] = state;
    printf("connection %d %s", i + 1, names[state]);
    if (state == FAILURE)
        printf(" %s", strerrorname_np(error));
    printf("\n");
    if (state == FAILURE || state == CLOSED)
        watched[1 + i].fd = -1 - watched[1 + i].fd; /* poll passes over it, and it stays open to the end */
    else
        watched[1 + i].events = state == CONNECTING ? POLLOUT : POLLIN;
}

static void open_connection(int i, const struct target *target)
{
    struct sockaddr_storage local = {0};
    socklen_t size = sizeof local;
    int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0)
        failed("socket");
    watched[1 + i].fd = fd;
    if (connect(fd, (const struct sockaddr *)&target->address, target->length) < 0 && errno != EINPROGRESS) {
        becomes(i, FAILURE, errno);
        return;
    }
    getsockname(fd, (struct sockaddr *)&local, &size);
    printf("connection %d connecting %s\n", i + 1, strrchr(show(&local), ' ') + 1);
    watched[1 + i].events = POLLOUT;
}

static void look_at(int i)
{
    char thrown_away[4096];
    int fd = watched[1 + i].fd, error = 0;
    socklen_t size = sizeof error;
    if (states[i] == CONNECTING) {
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        becomes(i, error ? FAILURE : CONNECTED, error);
        return;
    }
    ssize_t got = recv(fd, thrown_away, sizeof thrown_away, 0);
    if (got == 0)
        becomes(i, CLOSED, 0);
    else if (got < 0 && errno != EAGAIN)
        becomes(i, FAILURE, errno);
}

/* One command from standard input; 0 when it is time to end. */
static int obey(int count)
{
    char line[80];
    if (!fgets(line, sizeof line, stdin) || strcmp(line, "quit\n") == 0)
        return 0;
    if (strcmp(line, "state\n") == 0) {
        int sums[STATES] = {0};
        for (int i = 0; i < count; i++)
            sums[states[i]]++;
        for (int state = 0; state < STATES; state++)
            printf("%s%s %d", state ? " " : "", names[state], sums[state]);
        printf("\n");
    } else {
        printf("unknown command; there is: state, quit\n");
    }
    return 1;
}

int main(int argc, char *argv[])
{
    begin(argv, "connector HOST PORT N");
    if (argc != 4)
        wrong("it takes HOST, PORT and N");
    int count = (int)number("N", argv[3], 1, MOST_CONNECTIONS);
    struct target target = look_up(argv[1], argv[2]);

    setvbuf(stdin, NULL, _IONBF, 0); /* or lines would wait in the buffer, where poll does not see them */
    watched[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    for (int i = 0; i < count; i++)
        open_connection(i, &target);

    while (poll(watched, (nfds_t)count + 1, -1) >= 0) {
        for (int i = 0; i < count; i++)
            if (watched[1 + i].fd >= 0 && watched[1 + i].revents)
                look_at(i);
        if (watched[0].revents && !obey(count))
            return 0;
    }
    failed("poll");
}
