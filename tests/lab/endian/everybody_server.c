/* Prints the first two bytes of whatever is told to everybody. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

int main(void)
{
    int own = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(7005)};
    struct ip_mreq group = {.imr_interface.s_addr = INADDR_ANY};
    inet_pton(AF_INET, "239.1.2.3", &group.imr_multiaddr);
    if (setsockopt(own, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group) || bind(own, (struct sockaddr *)&here, sizeof here)) {
        perror("group");
        return 1;
    }
    unsigned char message[100];
    while (recv(own, message, sizeof message, 0) > 0) {
        printf("%02x %02x\n", message[0], message[1]);
        fflush(stdout);
    }
    return 1;
}
