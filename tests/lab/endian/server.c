/* Serves one client: reads to the end, and answers how many bytes came, in network order. */
#include "common.h"

int main(void)
{
    int listener = listen_on(PORT), connection = accept(listener, NULL, NULL);
    uint32_t count = 0;
    unsigned char data[64];
    for (ssize_t size; (size = recv(connection, data, sizeof data, 0)) > 0;)
        count += (uint32_t)size;
    uint32_t answer = htonl(count);
    if (count > 0)
        send(connection, &answer, sizeof answer, 0);
    printf("%u bytes\n", count);
    return 0;
}
