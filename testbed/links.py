"""The links of hosts, each a veth pair between a port of the switch's bridge and a device of the host: commands of ip(8). Pure."""

from __future__ import annotations

from uuid import uuid4

from testbed.lab import bridge_name
from testbed.plan import Settings

OUTER_MAC_BEGINS = 0x0A


def put_in(settings: Settings, pid: int) -> list[str]:
    """What puts a host's links into the network namespace of process ``pid``, its first one."""
    return [
        f"link add {link['port']} mtu {link['mtu']} master {bridge_name(link['network'])} up type veth "
        f"peer name {link['device']} mtu {link['mtu']} address {_outer_mac(link['mac']) if settings['guest'] else link['mac']} "
        f"netns {pid}"
        for link in settings["links"]
    ]


def set_aside(settings: Settings) -> list[str]:
    """What makes room for new links of a host: the old ones are down, and go away with its old namespace, of which nobody
    waits for the end. To remove them takes 20 ms each, as the kernel waits until nobody can see them.

    Some of these commands fail: kernels before 6.2 rename no device that is up, others have done all with the first line,
    and a link may be gone already.
    """
    aside = {link["port"]: f"x{uuid4().hex[:12]}" for link in settings["links"]}
    return [
        line
        for port, name in aside.items()
        for line in (f"link set {port} down name {name}", f"link set {port} down", f"link set {port} name {name}")
    ]


def take_out(settings: Settings) -> list[str]:
    """What removes a host's links, which may be gone already, with the host's namespace."""
    return [f"link delete {link['port']}" for link in settings["links"]]


def _outer_mac(mac: str) -> str:
    """The MAC of the device that stands between a guest and its network: not the guest's own, whose frames would end there."""
    return f"{OUTER_MAC_BEGINS:02x}{mac[2:]}"
