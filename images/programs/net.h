/* What every program here needs: arguments, errors, addresses, and bytes that arrive in pieces. */

#ifndef NET_H
#define NET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum { FAILED = 1, BAD_ARGUMENTS = 2 }; /* exit codes */

/* The first line of every main: its name for error messages, what --help and a wrong call show,
 * and a standard output whose lines leave at once, also into a pipe. */
void begin(char *const argv[], const char *usage);

/* Say on standard error what is wrong, and end: with the usage and BAD_ARGUMENTS, or with errno and FAILED. */
_Noreturn void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void failed(const char *what);

/* getopt with messages of our own: the next option letter, or -1 after the last. Ends on an unknown one. */
int next_option(int argc, char *const argv[], const char *letters);

/* TEXT as a decimal number from LEAST to MOST; ends with BAD_ARGUMENTS when it is none. */
long number(const char *what, const char *text, long least, long most);
uint16_t port_number(const char *text);

/* A socket that listens on PORT for IPv6 and IPv4; for IPv4 only where the kernel has no IPv6. */
int listen_on(uint16_t port, int backlog, int reuse_address);

/* The first address of HOST (a name, an IPv4 or IPv6 address) to which this host has a way, with PORT. */
struct target {
    struct sockaddr_storage address;
    socklen_t length;
};
struct target look_up(const char *host, const char *port);

/* A socket connected to HOST and PORT. */
int connect_to(const char *host, const char *port);

/* "ADDRESS PORT" of a socket address, in a static buffer; an IPv4 client of an IPv6 socket is shown as IPv4. */
const char *show(const struct sockaddr_storage *address);

/* Send all SIZE bytes: 0, or -1 and errno. */
int send_all(int fd, const void *bytes, size_t size);

/* Receive until there are SIZE bytes, the peer has no more (errno 0), or an error: how many there are. */
size_t receive_all(int fd, void *bytes, size_t size);

/* " 01 02 0a" and text with what is not printable as \x0a, on standard output. */
void print_hex(const void *bytes, size_t size);
void print_text(const void *bytes, size_t size);

/* "little" or "big". */
const char *byte_order(void);

#endif
