/* Sends an integer and a text to an exchange server.
 *
 *     exchange-client [-r] HOST PORT INTEGER TEXT
 *
 * -r: raw, forget htonl and htons. The bytes leave as they lie in this machine's memory, and a server of the other
 * byte order reads another number.
 *
 * Prints, a line each: byte-order little|big, integer N, memory and the integer's bytes here, text, sent and the bytes
 * given to the kernel, acknowledged yes|no. Exit code 0 when the server has read a whole message. */

#include "exchange.h"
#include "net.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    int raw = 0;
    begin(argv, "exchange-client [-r] HOST PORT INTEGER TEXT");
    while (next_option(argc, argv, "+r") != -1)
        raw = 1;
    if (argc - optind != 4)
        wrong("it takes HOST, PORT, INTEGER and TEXT");
    const uint32_t integer = (uint32_t)number("INTEGER", argv[optind + 2], 0, UINT32_MAX);
    const char *text = argv[optind + 3];
    const size_t size = strlen(text);
    if (size > LONGEST_TEXT)
        wrong("TEXT has %zu bytes, and the longest message holds %d", size, LONGEST_TEXT);
    const uint16_t length = (uint16_t)size;

    static unsigned char message[HEADER_SIZE + LONGEST_TEXT];
    const uint32_t integer_sent = raw ? integer : htonl(integer);
    const uint16_t length_sent = raw ? length : htons(length);
    memcpy(message, &integer_sent, sizeof integer_sent);
    memcpy(message + 4, &length_sent, sizeof length_sent);
    memcpy(message + HEADER_SIZE, text, size);

    printf("byte-order %s\ninteger %" PRIu32 "\nmemory", byte_order(), integer);
    print_hex(&integer, sizeof integer);
    printf("\ntext ");
    print_text(text, size);
    printf("\n");

    int server = connect_to(argv[optind], argv[optind + 1]);
    if (send_all(server, message, HEADER_SIZE + size) < 0)
        failed("send");
    shutdown(server, SHUT_WR); /* a server that waits for more learns that there is none */
    printf("sent");
    print_hex(message, HEADER_SIZE + size);

    unsigned char answer = 0;
    int whole = receive_all(server, &answer, 1) == 1 && answer == ACKNOWLEDGED;
    printf("\nacknowledged %s\n", whole ? "yes" : "no");
    return whole ? 0 : FAILED;
}
