/* Takes one text, prints it, and answers with the next id. */
#include "message.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_ANY)};
    if (bind(listener, (struct sockaddr *)&own, sizeof own) != 0 || listen(listener, 5) != 0) {
        perror("listen");
        return 1;
    }
    int connection = accept(listener, NULL, NULL);
    struct header header;
    if (recv(connection, &header, sizeof header, MSG_WAITALL) != sizeof header)
        return 1;
    char text[256];
    if (header.length > sizeof text || recv(connection, text, header.length, MSG_WAITALL) != header.length) {
        fprintf(stderr, "a text of %u bytes did not come\n", header.length);
        return 1;
    }
    printf("%u: %.*s\n", header.id, header.length, text);
    uint32_t answer = htonl(header.id + 1);
    send(connection, &answer, sizeof answer, 0);
    return 0;
}
