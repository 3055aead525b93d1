"""A lab's networks: which subnet each one gets, which address each host, and the names of the devices.

Pure, but for :func:`machine_routes`. Which subnets are taken is told by the engine's networks (of other labs and of
anybody else) and by the routes of this machine: a lab that took one of those would cut its machine off from it.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.errors import InputError, LabError
from testbed.topology_values import misplaced

if TYPE_CHECKING:
    from testbed.topology import Network, Topology  # types alone: pydantic takes long to load

Subnet = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# Free choices are made here, first to last: private (RFC 1918) and unique local (RFC 4193).
POOL = IPv4Network("10.77.0.0/16")
POOL6 = IPv6Network("fd77:7465:7374::/48")
FREE_PREFIX, FREE_PREFIX6 = 24, 64
DEVICE_NAME_SIZE = 15  # IFNAMSIZ - 1


@dataclass(frozen=True, order=True)
class Endpoint:
    """One end of a conversation: an address and a TCP or UDP port."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Taken:
    """A subnet that something else has; ``by`` names it in words."""

    subnet: Subnet
    by: str


@dataclass(frozen=True)
class Segment:
    """A network of a lab with nothing left open."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    subnet6: IPv6Network | None
    gateway6: IPv6Address | None
    mtu: int
    external: bool


def overlapping(subnet: Subnet, taken: Iterable[Taken]) -> Taken | None:
    """The first of ``taken`` that shares an address with ``subnet``."""
    for one in taken:
        if isinstance(subnet, IPv4Network) and isinstance(one.subnet, IPv4Network):
            if subnet.overlaps(one.subnet):
                return one
        elif isinstance(subnet, IPv6Network) and isinstance(one.subnet, IPv6Network) and subnet.overlaps(one.subnet):
            return one
    return None


def choose_subnets(
    networks: Mapping[str, Network], sizes: Mapping[str, int], taken: Sequence[Taken], kept: Mapping[str, Segment]
) -> dict[str, Segment]:
    """Every network with its subnets: the file's, else those it has already (``kept``), else free ones.

    ``sizes`` are the numbers of hosts. Raises :class:`InputError` naming what has a subnet that the file asks for.
    """
    now = list(taken)
    for network in networks.values():
        for subnet in (network.subnet, network.subnet6):
            if subnet is not None and (other := overlapping(subnet, now)):
                raise InputError(
                    f"network '{network.name}': its subnet {subnet} overlaps {other.subnet}, which {other.by} has",
                    hint="leave `subnet` out and a free one is chosen, or name another",
                )
    now += [Taken(subnet, "the file") for one in networks.values() for subnet in (one.subnet, one.subnet6) if subnet is not None]
    settled = {}
    for name, network in networks.items():
        before = kept.get(name)
        subnet = network.subnet
        if subnet is None:
            subnet = before.subnet if before and not overlapping(before.subnet, now) else _free(now, sizes[name])
            now.append(Taken(subnet, "the file"))
        subnet6 = network.subnet6
        if subnet6 is None and network.ipv6:
            subnet6 = before.subnet6 if before and before.subnet6 and not overlapping(before.subnet6, now) else _free6(now)
            now.append(Taken(subnet6, "the file"))
        settled[name] = Segment(
            name=name,
            subnet=subnet,
            gateway=network.gateway or subnet[1],
            subnet6=subnet6,
            gateway6=None if subnet6 is None else network.gateway6 or subnet6[1],
            mtu=network.mtu,
            external=network.external,
        )
    return settled


def _free(taken: Sequence[Taken], hosts: int) -> IPv4Network:
    """The first free subnet of the pool with room for ``hosts``, the gateway, and as many hosts again."""
    prefix = min(FREE_PREFIX, 32 - (2 * hosts + 3).bit_length())
    for subnet in POOL.subnets(new_prefix=max(prefix, POOL.prefixlen)):
        if overlapping(subnet, taken) is None:
            return subnet
    raise LabError(f"no free subnet is left in {POOL}", hint="testbed down --all removes every lab; or name a `subnet` in the file")


def _free6(taken: Sequence[Taken]) -> IPv6Network:
    for subnet in POOL6.subnets(new_prefix=FREE_PREFIX6):
        if overlapping(subnet, taken) is None:
            return subnet
    raise LabError(f"no free subnet is left in {POOL6}", hint="testbed down --all removes every lab; or name a `subnet6` in the file")


def assign(
    topology: Topology, segments: Mapping[str, Segment], kept: Mapping[tuple[str, str], Sequence[Address]]
) -> dict[str, dict[str, list[Address]]]:
    """host -> network -> addresses (IPv4, then IPv6 where the network has it).

    An address is the file's, else the one that the host has there already (``kept``, by host and network), else the
    lowest that is free. So a host keeps its addresses when others come and go.
    """
    given: dict[str, dict[str, list[Address]]] = {name: {network: [] for network in host.networks} for name, host in topology.hosts.items()}
    for name, segment in segments.items():
        members = [host for host in topology.hosts.values() if name in host.networks]
        for subnet, gateway, wish in (
            (segment.subnet, segment.gateway, "address"),
            (segment.subnet6, segment.gateway6, "address6"),
        ):
            if subnet is None:
                continue
            fixed: dict[str, Address] = {host.name: fix for host in members if (fix := getattr(host.networks[name], wish)) is not None}
            used = {gateway, *fixed.values()}
            for host in members:
                if host.name not in fixed:
                    before = [one for one in kept.get((host.name, name), ()) if one not in used and not misplaced(one, subnet)]
                    if before:
                        fixed[host.name] = before[0]
                        used.add(before[0])
            free = (address for address in _usable(subnet) if address not in used)
            for host in members:
                address = fixed.get(host.name) or next(free, None)
                if address is None:
                    raise InputError(f"network '{name}': {subnet} has no room for {len(members)} hosts", hint="give it a larger subnet")
                given[host.name][name].append(address)
    return given


def _usable(subnet: Subnet) -> Iterator[Address]:
    """The addresses that hosts may have, lowest first; of a large IPv6 subnet as many as anybody wants."""
    hosts: Iterator[Address] = iter(subnet.hosts())
    return islice(hosts, 1 << 16)


def mac_of(address: IPv4Address, *, first: int = 0x02) -> str:
    """The MAC that goes with an address: locally administered, and the same whenever the host comes up again."""
    return ":".join(f"{octet:02x}" for octet in (first, 0x42, *address.packed))


def device_name(readable: str) -> str:
    """A device name for ``readable``: itself when the kernel takes it (15 bytes), else its beginning and a digest."""
    if len(readable) <= DEVICE_NAME_SIZE:
        return readable
    digest = hashlib.sha256(readable.encode()).hexdigest()[:6]
    return f"{readable[: DEVICE_NAME_SIZE - 7]}-{digest}"


def machine_resolver() -> bytes:
    """What /etc/resolv.conf of this machine says to those who are not on it: name servers on its loopback device are none for them."""
    for path in (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf")):
        if path.exists():
            lines = path.read_text(errors="replace").splitlines()
            return "".join(f"{line}\n" for line in lines if not re.match(r"\s*nameserver\s+(127\.|::1)", line)).encode()
    return b""


def machine_routes(proc: Path = Path("/proc/net")) -> list[Taken]:
    """The subnets that this machine reaches by a route of its own (not the default route, not a lab's bridge)."""
    routes: list[tuple[str, Subnet]] = []
    for line in _lines(proc / "route")[1:]:
        device, destination, _, _, _, _, _, mask, *_ = line.split()
        # The kernel prints the words in its own byte order (fib_route_seq_show in net/ipv4/fib_trie.c).
        address, netmask = (socket.inet_ntoa(struct.pack("=I", int(word, 16))) for word in (destination, mask))
        routes.append((device, IPv4Network(f"{address}/{netmask}")))
    for line in _lines(proc / "ipv6_route"):
        address, length, *_, device = line.split()
        routes.append((device, IPv6Network((int(address, 16), int(length, 16)))))
    # Docker's bridges have networks of their own in the engine's list, by name.
    return [
        Taken(subnet, f"a route of this machine, through {device},")
        for device, subnet in routes
        if subnet.prefixlen > 0 and not subnet.is_link_local and not subnet.is_multicast and not device.startswith(("br-", "docker", "lo"))
    ]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
