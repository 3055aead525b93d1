/* A server that accepts only when told: the way to look at the accept queue.
 *
 *     listener [-b BACKLOG] [-r] PORT       -b: listen's second argument (default 5)   -r: SO_REUSEADDR
 *
 * Prints "listening PORT backlog BACKLOG", then reads commands from standard input and answers each with one line:
 *
 *     accept      accepted ADDRESS PORT, or: accepted nothing (EAGAIN) when the queue is empty
 *     close       closed ADDRESS PORT, the oldest accepted connection, or: closed nothing
 *     listen N    listening PORT backlog N, by a second listen on the same socket
 *     quit        quit; the end of standard input does the same, without a word
 */

#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 1000 };

static int connections[MOST_CONNECTIONS];
static int oldest, newest; /* connections[oldest] up to connections[newest - 1] are open */

static void accept_one(int listener)
{
    struct sockaddr_storage from;
    socklen_t size = sizeof from;
    if (newest == MOST_CONNECTIONS) {
        printf("accepted nothing (%d is the most)\n", MOST_CONNECTIONS);
        return;
    }
    int connection = accept(listener, (struct sockaddr *)&from, &size);
    if (connection < 0) {
        printf("accepted nothing (%s)\n", strerrorname_np(errno));
        return;
    }
    connections[newest++] = connection;
    printf("accepted %s\n", show(&from));
}

static void close_oldest(void)
{
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    if (oldest == newest) {
        printf("closed nothing\n");
        return;
    }
    int connection = connections[oldest++];
    if (getpeername(connection, (struct sockaddr *)&peer, &size) < 0)
        printf("closed a connection whose client is gone (%s)\n", strerrorname_np(errno));
    else
        printf("closed %s\n", show(&peer));
    close(connection);
}

int main(int argc, char *argv[])
{
    int backlog = 5, reuse = 0, option;
    begin(argv, "listener [-b BACKLOG] [-r] PORT");
    while ((option = next_option(argc, argv, "b:r")) != -1) {
        if (option == 'b')
            backlog = (int)number("BACKLOG", optarg, -1, 1000000);
        else
            reuse = 1;
    }
    if (argc - optind != 1)
        wrong("it takes one PORT");
    uint16_t port = port_number(argv[optind]);

    int listener = listen_on(port, backlog, reuse);
    fcntl(listener, F_SETFL, O_NONBLOCK); /* an accept on an empty queue answers instead of waiting */
    printf("listening %u backlog %d\n", port, backlog);

    char line[80];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "accept") == 0) {
            accept_one(listener);
        } else if (strcmp(line, "close") == 0) {
            close_oldest();
        } else if (sscanf(line, "listen %d", &backlog) == 1) {
            if (listen(listener, backlog) < 0)
                failed("listen");
            printf("listening %u backlog %d\n", port, backlog);
        } else if (strcmp(line, "quit") == 0) {
            printf("quit\n");
            break;
        } else {
            printf("unknown command; there is: accept, close, listen N, quit\n");
        }
    }
    return 0;
}
