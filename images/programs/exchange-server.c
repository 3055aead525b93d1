/* Receives integers and texts from exchange clients.
 *
 *     exchange-server [-n COUNT] PORT       ends after COUNT clients (default 1)
 *
 * Prints "listening PORT" when clients may come, then for each, a line each: client ADDRESS PORT, byte-order little|big
 * (this machine's), received and the bytes as they came, integer N after ntohl, memory and the integer's bytes here,
 * length N after ntohs, text, complete yes|no. Exit code 0 when every message was complete.
 *
 * TCP has no boundaries: a message may come in any number of pieces. So the header is received to its last byte, then
 * as much text as it announces. A wrong length (a client without htons) cannot hold the server for ever: it stops at
 * the end of what the client sends, or after PATIENCE_S seconds of silence. */

#include "exchange.h"
#include "net.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { PATIENCE_S = 10 };

/* One client, from its message to the answer: whether the message was complete. */
static int serve(int client)
{
    static unsigned char message[HEADER_SIZE + LONGEST_TEXT];
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    uint32_t integer = 0;
    uint16_t length = 0;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);

    size_t have = receive_all(client, message, HEADER_SIZE);
    if (have == HEADER_SIZE) {
        memcpy(&integer, message, sizeof integer);
        memcpy(&length, message + 4, sizeof length);
        integer = ntohl(integer);
        length = ntohs(length);
        have += receive_all(client, message + HEADER_SIZE, length);
    }
    int complete = have == HEADER_SIZE + (size_t)length;

    printf("byte-order %s\nreceived", byte_order());
    print_hex(message, have);
    if (have >= HEADER_SIZE) {
        printf("\ninteger %" PRIu32 "\nmemory", integer);
        print_hex(&integer, sizeof integer);
        printf("\nlength %" PRIu16 "\ntext ", length);
        print_text(message + HEADER_SIZE, have - HEADER_SIZE);
    }
    printf("\ncomplete %s\n", complete ? "yes" : "no");

    const unsigned char answer = complete ? ACKNOWLEDGED : CUT_SHORT;
    send_all(client, &answer, 1); /* a client that is gone already does not need it */

    /* Take what is still to come, to the client's end: closing over unread bytes would reset the connection, and the
     * answer could be lost with it. */
    while (recv(client, message, sizeof message, 0) > 0)
        ;
    return complete;
}

int main(int argc, char *argv[])
{
    long count = 1;
    int all_complete = 1;
    begin(argv, "exchange-server [-n COUNT] PORT");
    while (next_option(argc, argv, "n:") != -1)
        count = number("COUNT", optarg, 1, 1000000);
    if (argc - optind != 1)
        wrong("it takes one PORT");
    uint16_t port = port_number(argv[optind]);

    int listener = listen_on(port, 128, 1);
    printf("listening %u\n", port);
    while (count-- > 0) {
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        int client = accept(listener, (struct sockaddr *)&from, &size);
        if (client < 0)
            failed("accept");
        printf("client %s\n", show(&from));
        all_complete &= serve(client);
        close(client);
    }
    return all_complete ? 0 : FAILED;
}
