/* Tells everybody, by broadcast and by multicast, what it reads, after its length in the host's order. Says to no socket which interface. */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(void)
{
    char message[100];
    if (!fgets(message + 2, sizeof message - 2, stdin))
        return 1;
    uint16_t length = (uint16_t)strlen(message + 2);
    memcpy(message, &length, sizeof length);
    const char *everybody[] = {"255.255.255.255", "239.1.2.3"};
    for (int i = 0; i < 2; i++) {
        int own = socket(AF_INET, SOCK_DGRAM, 0), yes = 1;
        setsockopt(own, SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(7005)};
        inet_pton(AF_INET, everybody[i], &to.sin_addr);
        if (sendto(own, message, 2 + (size_t)length, 0, (struct sockaddr *)&to, sizeof to) < 0) {
            perror(everybody[i]);
            return 1;
        }
    }
    return 0;
}
