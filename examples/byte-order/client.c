/* Sends a text to the server, and prints what it answers. docs/endian.md finds out what is wrong with it. */
#include "message.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char *argv[])
{
    const char *text = argc > 1 ? argv[1] : "hello";
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
    if (getaddrinfo("server", "7000", &hints, &found) != 0)
        return 1;
    int connection = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(connection, found->ai_addr, found->ai_addrlen) != 0) {
        perror("connect");
        return 1;
    }
    struct header header = {.version = 1, .kind = 2, .length = (uint16_t)strlen(text), .id = 4711};
    send(connection, &header, sizeof header, 0);
    send(connection, text, strlen(text), 0);

    uint32_t answer;
    if (recv(connection, &answer, sizeof answer, MSG_WAITALL) != sizeof answer) {
        puts("no answer");
        return 1;
    }
    printf("answer %u\n", ntohl(answer));
    return 0;
}
