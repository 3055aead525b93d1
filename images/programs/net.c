#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *program;
static const char *usage_text;

void begin(char *const argv[], const char *usage)
{
    const char *slash = strrchr(argv[0], '/');
    program = slash ? slash + 1 : argv[0];
    usage_text = usage;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argv[1] && strcmp(argv[1], "--help") == 0) {
        printf("usage: %s\n", usage);
        exit(0);
    }
}

void wrong(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\nusage: %s\n", usage_text);
    va_end(arguments);
    exit(BAD_ARGUMENTS);
}

void failed(const char *what)
{
    const char *name = strerrorname_np(errno);
    fprintf(stderr, "%s: %s: %s (%s)\n", program, what, strerror(errno), name ? name : "?");
    exit(FAILED);
}

int next_option(int argc, char *const argv[], const char *letters)
{
    opterr = 0;
    int letter = getopt(argc, argv, letters);
    if (letter == '?')
        wrong("option -%c is unknown or lacks its value", optopt);
    return letter;
}

long number(const char *what, const char *text, long least, long most)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most)
        wrong("%s '%s' is not a number from %ld to %ld", what, text, least, most);
    return value;
}

uint16_t port_number(const char *text)
{
    return (uint16_t)number("PORT", text, 1, 65535);
}

/* Why not AI_PASSIVE and getaddrinfo: one socket has to serve both families, so IPv6 comes first and V6ONLY goes. */
int listen_on(uint16_t port, int backlog, int reuse_address)
{
    const int on = 1, off = 0;
    struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_ANY_INIT};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};

    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd >= 0) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        if (reuse_address)
            setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(fd, (struct sockaddr *)&any6, sizeof any6) == 0)
            goto bound;
        if (errno != EADDRNOTAVAIL) /* what disable_ipv6=1 gives */
            failed("bind");
        close(fd);
    } else if (errno != EAFNOSUPPORT) {
        failed("socket");
    }
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        failed("socket");
    if (reuse_address)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&any4, sizeof any4) < 0)
        failed("bind");
bound:
    if (listen(fd, backlog) < 0)
        failed("listen");
    return fd;
}

static struct addrinfo *addresses_of(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    port_number(port);
    int error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        fprintf(stderr, "%s: %s: %s\n", program, host, gai_strerror(error));
        exit(FAILED);
    }
    return found;
}

/* A datagram socket's connect sends nothing: it only asks whether this host has a way to the address. */
static int has_a_way(const struct addrinfo *to)
{
    int fd = socket(to->ai_family, SOCK_DGRAM, 0);
    int has = fd >= 0 && connect(fd, to->ai_addr, to->ai_addrlen) == 0;
    if (fd >= 0)
        close(fd);
    return has;
}

struct target look_up(const char *host, const char *port)
{
    struct addrinfo *found = addresses_of(host, port), *chosen = found;
    while (chosen->ai_next && !has_a_way(chosen))
        chosen = chosen->ai_next;
    struct target target = {.length = chosen->ai_addrlen};
    memcpy(&target.address, chosen->ai_addr, chosen->ai_addrlen);
    freeaddrinfo(found);
    return target;
}

int connect_to(const char *host, const char *port)
{
    struct addrinfo *found = addresses_of(host, port);
    int fd = -1;
    for (struct addrinfo *one = found; one; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (fd < 0)
            continue;
        if (connect(fd, one->ai_addr, one->ai_addrlen) == 0)
            break;
        int error = errno;
        close(fd);
        errno = error;
        fd = -1;
    }
    if (fd < 0)
        failed("connect");
    freeaddrinfo(found);
    return fd;
}

const char *show(const struct sockaddr_storage *address)
{
    static char shown[INET6_ADDRSTRLEN + sizeof " 65535"];
    char text[INET6_ADDRSTRLEN] = "?";
    uint16_t port = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &four->sin_addr, text, sizeof text);
        port = ntohs(four->sin_port);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
        if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
            inet_ntop(AF_INET, &six->sin6_addr.s6_addr[12], text, sizeof text);
        else
            inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof text);
        port = ntohs(six->sin6_port);
    }
    snprintf(shown, sizeof shown, "%s %u", text, port);
    return shown;
}

int send_all(int fd, const void *bytes, size_t size)
{
    const char *next = bytes;
    while (size > 0) {
        ssize_t sent = send(fd, next, size, MSG_NOSIGNAL);
        if (sent < 0)
            return -1;
        next += sent;
        size -= (size_t)sent;
    }
    return 0;
}

size_t receive_all(int fd, void *bytes, size_t size)
{
    size_t have = 0;
    errno = 0;
    while (have < size) {
        ssize_t got = recv(fd, (char *)bytes + have, size - have, 0);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    return have;
}

void print_hex(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        printf(" %02x", ((const unsigned char *)bytes)[i]);
}

void print_text(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char one = ((const unsigned char *)bytes)[i];
        if (one == '\\' || one < ' ' || one == 0x7f)
            printf("\\x%02x", one);
        else
            putchar(one);
    }
}

const char *byte_order(void)
{
    const uint16_t one = 1;
    return *(const unsigned char *)&one ? "little" : "big";
}
