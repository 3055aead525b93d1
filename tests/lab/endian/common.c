#include "common.h"

/* A socket that listens for IPv4 and IPv6. */
int listen_on(uint16_t port)
{
    int listener = socket(AF_INET6, SOCK_STREAM, 0);
    struct sockaddr_in6 own = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
    if (bind(listener, (struct sockaddr *)&own, sizeof own) != 0 || listen(listener, 5) != 0)
        perror("listen");
    return listener;
}
