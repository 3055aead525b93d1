/* How this machine holds numbers, what the four conversions give, and what a forgotten one does.
 *
 *     byte-order
 *
 * Run on a little-endian and on a big-endian host: the lines "memory" differ, the lines "network" do not. The
 * forgotten htons makes a server listen on another port, but only on a little-endian host. */

#include "net.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char *argv[])
{
    begin(argv, "byte-order");
    if (argc != 1)
        wrong("it takes no arguments");

    const uint32_t number = 0x01020304;
    const uint16_t half = 0x0102, port = 8001;
    const uint32_t network = htonl(number);

    printf("byte-order %s\n", byte_order());
    printf("memory 0x%08" PRIx32, number);
    print_hex(&number, sizeof number);
    printf("\nnetwork 0x%08" PRIx32, number);
    print_hex(&network, sizeof network);
    printf("\nhtonl 0x%08" PRIx32 " 0x%08" PRIx32 "\n", number, htonl(number));
    printf("ntohl 0x%08" PRIx32 " 0x%08" PRIx32 "\n", number, ntohl(number));
    printf("htons 0x%04" PRIx16 " 0x%04" PRIx16 "\n", half, htons(half));
    printf("ntohs 0x%04" PRIx16 " 0x%04" PRIx16 "\n", half, ntohs(half));

    /* The kernel reads sin_port as two bytes in network order, whatever the program put there. */
    unsigned char as_stored[sizeof port];
    memcpy(as_stored, &port, sizeof port);
    printf("forgotten-htons %" PRIu16 " %d\n", port, as_stored[0] << 8 | as_stored[1]);
    return 0;
}
