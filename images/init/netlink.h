/* What init asks of the kernel over rtnetlink(7). Every function gives 0 or an errno. */

#ifndef TESTBED_NETLINK_H
#define TESTBED_NETLINK_H

/* Return when there is a device of that name in this network namespace; 0, or an errno. */
int wait_for_device(const char *device);

/* Give the devices eth0, eth1, ... (COUNT of them, all down) their names again, so that ethN is the one whose MAC address ends in
 * N, where their addresses end in these numbers. A kernel names them as it finds them, which is in any order. */
int name_devices(int count);

/* Bring DEVICE up. */
int set_up(const char *device);

/* Give DEVICE, which must be down, its MAC address (six pairs of hexadecimal digits) and MTU. */
int set_link(const char *device, const char *mac, int mtu);

/* Give DEVICE, which is brought up, the address CIDR (ADDRESS/LENGTH, IPv4 or IPv6). An IPv6 address is usable at once,
 * without duplicate address detection: the lab has given each host its own. */
int set_address(const char *device, const char *cidr);

/* Create the route to DESTINATION (a CIDR, or "default") via the address VIA, or put it in the place of the one there is. */
int set_route(const char *destination, const char *via);

#endif
