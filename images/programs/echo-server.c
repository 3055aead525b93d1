/* The echo server of every textbook: what a client sends comes back, one client after the other.
 *
 *     echo-server [-1] PORT        -1: end after the first client
 *
 * Prints "listening PORT" when clients may come, then for each "client ADDRESS PORT" and "echoed BYTES". */

#include "net.h"

#include <stdio.h>
#include <unistd.h>

/* Give back what comes until the client stops sending or is gone: the number of bytes. */
static size_t echo(int client)
{
    char piece[4096];
    size_t echoed = 0;
    ssize_t got;
    while ((got = recv(client, piece, sizeof piece, 0)) > 0 && send_all(client, piece, (size_t)got) == 0)
        echoed += (size_t)got;
    return echoed;
}

int main(int argc, char *argv[])
{
    int once = 0;
    begin(argv, "echo-server [-1] PORT");
    while (next_option(argc, argv, "1") != -1)
        once = 1;
    if (argc - optind != 1)
        wrong("it takes one PORT");
    uint16_t port = port_number(argv[optind]);

    int listener = listen_on(port, 128, 1);
    printf("listening %u\n", port);
    do {
        struct sockaddr_storage from;
        socklen_t length = sizeof from;
        int client = accept(listener, (struct sockaddr *)&from, &length);
        if (client < 0)
            failed("accept");
        printf("client %s\n", show(&from));

        printf("echoed %zu\n", echo(client));
        close(client);
    } while (!once);
    return 0;
}
