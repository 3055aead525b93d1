/* See link.h. A bridge, and not a redirection with tc(8): that has lost packets silently on some kernels. */

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../init/netlink.h"
#include "link.h"

int open_tap(int index)
{
    /* With headers that tell what the guest left to the device: checksums, and packets still to be cut to size. */
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    snprintf(request.ifr_name, sizeof request.ifr_name, "tap%d", index);
    int fd = open("/dev/net/tun", O_RDWR);
    if (fd >= 0 && ioctl(fd, TUNSETIFF, &request) < 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int no_ipv6_on(const char *device)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", device);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1; /* a kernel without IPv6 */
    int failed = write(fd, "1", 1) != 1;
    close(fd);
    return failed ? -1 : 0;
}

static int bring_up(int fd, const char *device, int mtu)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", device);
    request.ifr_mtu = mtu;
    if (no_ipv6_on(device) < 0 || ioctl(fd, SIOCSIFMTU, &request) < 0)
        return -1;
    request.ifr_flags = IFF_UP | IFF_PROMISC;
    return ioctl(fd, SIOCSIFFLAGS, &request);
}

static int join(int fd, const char *bridge, const char *port)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", bridge);
    request.ifr_ifindex = (int)if_nametoindex(port);
    return ioctl(fd, SIOCBRADDIF, &request);
}

int join_tap(int index)
{
    char port[IFNAMSIZ], tap[IFNAMSIZ], bridge[IFNAMSIZ];
    struct ifreq request = {0};
    snprintf(port, sizeof port, "eth%d", index);
    snprintf(tap, sizeof tap, "tap%d", index);
    snprintf(bridge, sizeof bridge, "br%d", index);
    int error = wait_for_device(port);
    if (error)
        return error;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", port);
    if (ioctl(fd, SIOCGIFMTU, &request) < 0 || ioctl(fd, SIOCBRADDBR, bridge) < 0 || join(fd, bridge, port) < 0 ||
        join(fd, bridge, tap) < 0 || bring_up(fd, tap, request.ifr_mtu) < 0 || bring_up(fd, port, request.ifr_mtu) < 0 ||
        bring_up(fd, bridge, request.ifr_mtu) < 0)
        error = errno;
    close(fd);
    return error;
}
