/* Sends TEXT to an echo server and prints what comes back.
 *
 *     echo-client HOST PORT TEXT
 *
 * Exit code 0 when it is the same text. It stops sending after TEXT, so that the server sees the end. */

#include "net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char *argv[])
{
    begin(argv, "echo-client HOST PORT TEXT");
    if (argc != 4)
        wrong("it takes HOST, PORT and TEXT");
    const char *text = argv[3];
    const size_t size = strlen(text);
    char *answer = malloc(size + 1);
    if (!answer)
        failed("malloc");

    int server = connect_to(argv[1], argv[2]);
    if (send_all(server, text, size) < 0)
        failed("send");
    shutdown(server, SHUT_WR);
    size_t got = receive_all(server, answer, size + 1); /* one more than sent: what is too much is seen too */
    printf("echo ");
    print_text(answer, got);
    printf("\n");
    return got == size && memcmp(answer, text, size) == 0 ? 0 : FAILED;
}
