/* Sends one message to the server, in the way that its argument names: right, or with one of the usual mistakes. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct record {
    uint8_t kind;
    uint16_t length;
    uint32_t number;
    double value;
} __attribute__((packed));

struct flags {
    unsigned char version : 4, length : 4;
};

static size_t message(const char *mistake, unsigned char *data)
{
    size_t size = 0;
    if (strcmp(mistake, "struct") == 0) {
        struct record record = {7, 5, 0x01020304, 2.5};
        memcpy(data, &record, size = sizeof record);
    } else if (strcmp(mistake, "long") == 0) {
        long number = 123456;
        memcpy(data, &number, size = sizeof number);
    } else if (strcmp(mistake, "bits") == 0) {
        struct flags flags = {.version = 4, .length = 5};
        data[size++] = 'F';
        memcpy(data + size++, &flags, sizeof flags);
    } else if (strcmp(mistake, "time") == 0) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        /* The lowest byte is another one in every run, and the others stay: a time in runs that follow each other soon. */
        uint32_t seconds = 0x665e5f00 | (uint32_t)(now.tv_nsec >> 20 & 0xff);
        memcpy(data, &seconds, size = sizeof seconds);
    } else if (strcmp(mistake, "nothing") != 0) {
        uint16_t length = strcmp(mistake, "length") == 0 ? 5 : htons(5);
        uint32_t process = htonl((uint32_t)getpid());
        memcpy(data, &length, sizeof length);
        memcpy(data + 2, "hello", 5);
        memcpy(data + 7, &process, sizeof process);
        size = 11;
    }
    return size;
}

int main(int argc, char *argv[])
{
    const char *mistake = argc > 1 ? argv[1] : "right";
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM};
    if (getaddrinfo("server", "7000", &hints, &found) != 0) {
        fprintf(stderr, "no address of server\n");
        return 1;
    }
    if (strcmp(mistake, "port") == 0)
        ((struct sockaddr_in *)found->ai_addr)->sin_port = 7000;
    int connection = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(connection, found->ai_addr, found->ai_addrlen) != 0) {
        perror("connect");
        return 1;
    }
    unsigned char data[64];
    size_t size = message(mistake, data);
    if (send(connection, data, size, 0) != (ssize_t)size)
        return 1;
    shutdown(connection, SHUT_WR);
    uint32_t answer = 0;
    if (size > 0 && recv(connection, &answer, sizeof answer, MSG_WAITALL) != sizeof answer) {
        printf("no answer\n");
        return 1;
    }
    printf("%u bytes\n", ntohl(answer));
    return 0;
}
