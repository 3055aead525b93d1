/* See netlink.h. One request, one acknowledgement, one socket each: init asks for a handful of things in its life. */

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netlink.h"

/* An address with the length of a prefix. */
struct prefix {
    int family;
    unsigned char length;
    unsigned char address[16];
};

struct request {
    struct nlmsghdr header;
    union { /* which one, header.nlmsg_type says */
        struct ifinfomsg link;
        struct ifaddrmsg address;
        struct rtmsg route;
    } body;
    char attributes[2 * RTA_SPACE(16)];
};

static size_t address_size(int family)
{
    return family == AF_INET ? 4 : 16;
}

/* TEXT is ADDRESS/LENGTH: 0 or -1. */
static int parse_prefix(const char *text, struct prefix *prefix)
{
    char address[INET6_ADDRSTRLEN], *end;
    const char *slash = strchr(text, '/');
    if (!slash || !isdigit((unsigned char)slash[1]) || (size_t)(slash - text) >= sizeof address)
        return -1;
    memcpy(address, text, (size_t)(slash - text));
    address[slash - text] = '\0';
    prefix->family = strchr(address, ':') ? AF_INET6 : AF_INET;
    unsigned long length = strtoul(slash + 1, &end, 10);
    if (*end || length > 8 * address_size(prefix->family))
        return -1;
    prefix->length = (unsigned char)length;
    return inet_pton(prefix->family, address, prefix->address) == 1 ? 0 : -1;
}

static void begin(struct request *request, unsigned short type, unsigned short flags, size_t body_size)
{
    *request = (struct request){.header = {.nlmsg_len = (unsigned)NLMSG_LENGTH(body_size),
                                           .nlmsg_type = type,
                                           .nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags)}};
}

static void add_attribute(struct request *request, unsigned short type, const void *value, size_t size)
{
    struct rtattr *attribute = (struct rtattr *)(void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + (unsigned)RTA_SPACE(size);
}

/* Send the request, read its acknowledgement. */
static int ask(const struct request *request)
{
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char request_again[sizeof *request + 256];
    } answer = {0};
    int error = 0;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return errno;
    if (send(fd, request, request->header.nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof answer, 0) < 0)
        error = errno;
    else if (answer.header.nlmsg_type == NLMSG_ERROR)
        error = -answer.error.error;
    close(fd);
    return error;
}

int wait_for_device(const char *device)
{
    /* Listen first, then look: a device that comes in between is in the socket's queue. */
    struct sockaddr_nl changes = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        return errno;
    int error = bind(fd, (struct sockaddr *)&changes, sizeof changes) < 0 ? errno : 0;
    while (!error && if_nametoindex(device) == 0) {
        char message[8192];
        if (recv(fd, message, sizeof message, 0) < 0 && errno != EINTR && errno != ENOBUFS)
            error = errno;
    }
    close(fd);
    return error;
}

enum { NUMBERS = 16 };

static int rename_device(int fd, const char *name, const char *new_name)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    snprintf(request.ifr_newname, sizeof request.ifr_newname, "%s", new_name);
    return ioctl(fd, SIOCSIFNAME, &request) < 0 ? errno : 0;
}

int name_devices(int count)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), error = fd < 0 ? errno : 0, in_order = 1;
    int called[NUMBERS] = {0}; /* called[N] is 1 + I when the device whose number is N is ethI */
    char name[IFNAMSIZ], other[IFNAMSIZ];
    for (int i = 0; i < count && !error; i++) {
        struct ifreq request = {0};
        snprintf(request.ifr_name, sizeof request.ifr_name, "eth%d", i);
        const int there = ioctl(fd, SIOCGIFHWADDR, &request) == 0, number = (unsigned char)request.ifr_hwaddr.sa_data[5];
        if (!there || number >= count || number >= NUMBERS || called[number]) { /* they have no such numbers */
            close(fd);
            return 0;
        }
        called[number] = 1 + i;
        in_order &= number == i;
    }
    for (int phase = 0; phase < 2; phase++) /* by way of names that none of them has */
        for (int i = 0; i < count && !error && !in_order; i++) {
            snprintf(name, sizeof name, "eth%d", phase == 0 ? called[i] - 1 : i);
            snprintf(other, sizeof other, "link%d", i);
            error = phase == 0 ? rename_device(fd, name, other) : rename_device(fd, other, name);
        }
    if (fd >= 0)
        close(fd);
    return error;
}

int set_up(const char *device)
{
    unsigned index = if_nametoindex(device);
    if (index == 0)
        return errno;
    struct request request;
    begin(&request, RTM_NEWLINK, 0, sizeof request.body.link);
    request.body.link = (struct ifinfomsg){.ifi_family = AF_UNSPEC, .ifi_index = (int)index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    return ask(&request);
}

int set_link(const char *device, const char *mac, int mtu)
{
    unsigned char address[6];
    unsigned index = if_nametoindex(device);
    if (index == 0)
        return errno;
    if (sscanf(mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", address, address + 1, address + 2, address + 3, address + 4, address + 5) != 6)
        return EINVAL;
    struct request request;
    begin(&request, RTM_NEWLINK, 0, sizeof request.body.link);
    request.body.link = (struct ifinfomsg){.ifi_family = AF_UNSPEC, .ifi_index = (int)index};
    add_attribute(&request, IFLA_ADDRESS, address, sizeof address);
    add_attribute(&request, IFLA_MTU, &mtu, sizeof mtu);
    return ask(&request);
}

int set_address(const char *device, const char *cidr)
{
    struct prefix prefix;
    if (parse_prefix(cidr, &prefix) < 0)
        return EINVAL;
    unsigned index = if_nametoindex(device);
    if (index == 0)
        return errno;
    int error = set_up(device);
    if (error)
        return error;

    struct request request;
    begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.body.address);
    request.body.address = (struct ifaddrmsg){.ifa_family = (unsigned char)prefix.family,
                                              .ifa_prefixlen = prefix.length,
                                              .ifa_flags = prefix.family == AF_INET6 ? IFA_F_NODAD : 0,
                                              .ifa_scope = RT_SCOPE_UNIVERSE,
                                              .ifa_index = index};
    add_attribute(&request, IFA_LOCAL, prefix.address, address_size(prefix.family));
    add_attribute(&request, IFA_ADDRESS, prefix.address, address_size(prefix.family));
    if (prefix.family == AF_INET && prefix.length < 31) {
        /* The kernel takes it as it is; programs ask for it with SIOCGIFBRDADDR and would send to 0.0.0.0 (RFC 3021: not of a /31). */
        unsigned char broadcast[4];
        memcpy(broadcast, prefix.address, sizeof broadcast);
        for (unsigned bit = prefix.length; bit < 32; bit++)
            broadcast[bit / 8] |= (unsigned char)(0x80 >> bit % 8);
        add_attribute(&request, IFA_BROADCAST, broadcast, sizeof broadcast);
    }
    return ask(&request);
}

int set_route(const char *destination, const char *via)
{
    unsigned char gateway[16];
    int family = strchr(via, ':') ? AF_INET6 : AF_INET;
    struct prefix prefix = {.family = family};
    if (inet_pton(family, via, gateway) != 1)
        return EINVAL;
    if (strcmp(destination, "default") != 0 && (parse_prefix(destination, &prefix) < 0 || prefix.family != family))
        return EINVAL;

    struct request request;
    begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.body.route);
    request.body.route = (struct rtmsg){.rtm_family = (unsigned char)family,
                                        .rtm_dst_len = prefix.length,
                                        .rtm_table = RT_TABLE_MAIN,
                                        .rtm_protocol = RTPROT_BOOT,
                                        .rtm_scope = RT_SCOPE_UNIVERSE,
                                        .rtm_type = RTN_UNICAST};
    if (prefix.length > 0)
        add_attribute(&request, RTA_DST, prefix.address, address_size(family));
    add_attribute(&request, RTA_GATEWAY, gateway, address_size(family));
    return ask(&request);
}
