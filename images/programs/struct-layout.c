/* How the socket address structures lie in memory: the size of each, the offset and size of each member.
 *
 *     struct-layout
 *
 * One line each: "STRUCT size BYTES", then "STRUCT.MEMBER offset BYTES size BYTES". sockaddr_in and sockaddr
 * are interchangeable because the family is in the same place and both have one size. Linux has no sin_len;
 * the BSDs have it, one byte in front of a family of one byte. */

#include "net.h"

#include <netinet/in.h>
#include <stdio.h>

#define STRUCT(name) printf(#name " size %zu\n", sizeof(struct name))
#define MEMBER(name, member) \
    printf(#name "." #member " offset %zu size %zu\n", offsetof(struct name, member), sizeof((struct name *)0)->member)

int main(int argc, char *argv[])
{
    begin(argv, "struct-layout");
    if (argc != 1)
        wrong("it takes no arguments");

    STRUCT(sockaddr);
    MEMBER(sockaddr, sa_family);
    MEMBER(sockaddr, sa_data);

    STRUCT(in_addr);
    MEMBER(in_addr, s_addr);

    STRUCT(sockaddr_in);
    MEMBER(sockaddr_in, sin_family);
    MEMBER(sockaddr_in, sin_port);
    MEMBER(sockaddr_in, sin_addr);
    MEMBER(sockaddr_in, sin_zero);

    STRUCT(sockaddr_in6);
    MEMBER(sockaddr_in6, sin6_family);
    MEMBER(sockaddr_in6, sin6_port);
    MEMBER(sockaddr_in6, sin6_flowinfo);
    MEMBER(sockaddr_in6, sin6_addr);
    MEMBER(sockaddr_in6, sin6_scope_id);

    STRUCT(sockaddr_storage);
    MEMBER(sockaddr_storage, ss_family);
    return 0;
}
