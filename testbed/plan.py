"""What a lab is to be, with nothing left open, and how that differs from what there is. Pure.

What a host is to be is its *settings*: plain JSON data, kept as a label on its container. So the labels alone tell
what there is, and a difference is a comparison of two settings, key by key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from testbed.architecture import ARCHITECTURES, EMULATED, Architecture
from testbed.errors import InputError
from testbed.guest import MEMORY, Guest
from testbed.network import Address, Segment, Taken, assign, choose_subnets, device_name, mac_of

if TYPE_CHECKING:
    from testbed.topology import Host, Topology  # types alone: pydantic takes long to load

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Existing:
    """A lab as the labels tell it: its networks and, by name, its hosts' settings; ``broken`` hosts cannot be kept, and why;
    ``switch``: there is one, and it works."""

    segments: Mapping[str, Segment]
    hosts: Mapping[str, Settings]
    broken: Mapping[str, str]
    switch: bool

    def addresses(self) -> dict[tuple[str, str], list[Address]]:
        """(host, network) -> the addresses there."""
        return {
            (name, link["network"]): [ip_interface(one).ip for one in link["addresses"]]
            for name, settings in self.hosts.items()
            for link in settings["links"]
        }


@dataclass(frozen=True)
class Plan:
    """A lab with nothing left open."""

    lab: str
    segments: Mapping[str, Segment]
    hosts: Mapping[str, Settings]


@dataclass(frozen=True)
class Difference:
    """What has to be done: names, and for changed and broken hosts and networks why."""

    new_networks: tuple[str, ...]
    changed_networks: Mapping[str, str]
    gone_networks: tuple[str, ...]
    new_hosts: tuple[str, ...]
    changed_hosts: Mapping[str, str]
    gone_hosts: tuple[str, ...]
    kept_hosts: tuple[str, ...]
    renamed: bool  # the kept hosts have to learn other names or addresses

    @property
    def nothing(self) -> bool:
        return not (
            self.new_networks or self.changed_networks or self.gone_networks or self.new_hosts or self.changed_hosts or self.gone_hosts
        )

    def lines(self) -> list[str]:
        """The difference in words, a line each."""
        return [
            *(f"network {name}: new" for name in self.new_networks),
            *(f"network {name}: {why}" for name, why in self.changed_networks.items()),
            *(f"network {name}: no longer in the file" for name in self.gone_networks),
            *(f"host {name}: new" for name in self.new_hosts),
            *(f"host {name}: {why}" for name, why in self.changed_hosts.items()),
            *(f"host {name}: no longer in the file" for name in self.gone_hosts),
        ]


def make_plan(
    topology: Topology,
    *,
    machine: Architecture,
    images: Mapping[str, str],
    guests: Mapping[str, Guest],
    taken: Sequence[Taken],
    existing: Existing,
    files: Mapping[str, Mapping[str, bytes]],
) -> Plan:
    """Choose what the topology leaves open. ``images`` are references by host, ``guests`` what each vm host is, ``files`` contents
    by host and path.

    Raises :class:`InputError` for what only shows beside the machine and other labs: a subnet that is taken, an
    architecture that is not this machine's.
    """
    sizes = {name: len(topology.hosts_on(name)) for name in topology.networks}
    segments = choose_subnets(topology.networks, sizes, taken, existing.segments)
    addresses = assign(topology, segments, existing.addresses())
    hosts = {}
    for name, host in topology.hosts.items():
        architecture = architecture_of(host, machine)
        hosts[name] = {
            "kind": host.kind,
            "arch": architecture.name,
            "image": images[name],
            "packages": [*host.packages, *host.pip],
            "guest": asdict(guests[name]) if name in guests else None,
            "links": [
                {
                    "network": network,
                    "device": f"eth{index}",
                    "port": device_name(f"{name}.{index}"),
                    "mac": mac_of(addresses[name][network][0]),  # type: ignore[arg-type]  # the first is IPv4
                    "mtu": segments[network].mtu,
                    "addresses": [f"{address}/{_subnet(segments[network], address).prefixlen}" for address in addresses[name][network]],
                }
                for index, network in enumerate(host.networks)
            ],
            "sysctls": _sysctls(host, segments),
            "external": any(segments[network].external for network in host.networks),
            "routes": _routes(host, topology, segments, addresses),
            "environment": dict(host.environment),
            "files": {path: [hashlib.sha256(files[name][path]).hexdigest(), file.mode] for path, file in host.files.items()},
            "memory": host.memory,
            "cpus": host.cpus,
            "capabilities": ["NET_ADMIN"] if name in guests else sorted({*host.capabilities, "NET_ADMIN"}),
            "command": None if host.command is None else list(host.command),
            "ready": None if host.ready is None else host.ready.model_dump(mode="json", exclude_none=True),
        }
    return Plan(topology.name, segments, hosts)


def architecture_of(host: Host, machine: Architecture) -> Architecture:
    """The architecture of a host on a machine. Raises :class:`InputError` when the machine cannot be that."""
    if host.kind == "vm":
        return ARCHITECTURES[host.arch or EMULATED.name]
    if host.kind == "emulated":
        if machine == EMULATED:
            raise InputError(f"host '{host.name}': this machine is a {machine.name} itself", hint="kind: native is s390x here")
        return EMULATED
    if host.arch not in (None, machine.name):
        other = "kind: emulated" if host.arch == EMULATED.name else f"leave `arch` out: native is {machine.name} here"
        raise InputError(f"host '{host.name}': a native host cannot be {host.arch} on this machine ({machine.name})", hint=other)
    return machine


def guest_of(host: Host, machine: Architecture, *, kvm: bool) -> Guest:
    """What kind of guest a vm host is; with ``kvm`` the machine's processor runs guests of its own architecture."""
    architecture = architecture_of(host, machine)
    assert host.own_kernel, f"{host.name} is a vm"
    return Guest(
        arch=architecture.name,
        kernel=host.own_kernel,
        memory=host.memory or MEMORY,
        networks=len(host.networks),
        accelerator="kvm" if kvm and architecture == machine else "tcg",
    )


def guest_from(settings: Settings) -> Guest | None:
    """The guest of a vm host's settings, None for a host that is a container."""
    return Guest(**settings["guest"]) if settings.get("guest") else None


def compare(existing: Existing, plan: Plan) -> Difference:
    """How what there is differs from the plan."""
    changed_networks = {
        name: _changed(asdict(existing.segments[name]), asdict(segment))
        for name, segment in plan.segments.items()
        if name in existing.segments and existing.segments[name] != segment
    }
    changed_hosts, kept_hosts = {}, []
    for name, settings in plan.hosts.items():
        if name not in existing.hosts:
            continue
        before = existing.hosts[name]
        on_changed = [link["network"] for link in before["links"] if link["network"] in changed_networks]
        if name in existing.broken:
            changed_hosts[name] = existing.broken[name]
        elif before != settings:
            changed_hosts[name] = _changed(before, settings)
        elif on_changed:
            changed_hosts[name] = f"its network {on_changed[0]} changed"
        else:
            kept_hosts.append(name)
    return Difference(
        new_networks=tuple(name for name in plan.segments if name not in existing.segments),
        changed_networks=changed_networks,
        gone_networks=tuple(name for name in existing.segments if name not in plan.segments),
        new_hosts=tuple(name for name in plan.hosts if name not in existing.hosts),
        changed_hosts=changed_hosts,
        gone_hosts=tuple(name for name in existing.hosts if name not in plan.hosts),
        kept_hosts=tuple(kept_hosts),
        renamed={name: _all_addresses(one) for name, one in existing.hosts.items()}
        != {name: _all_addresses(one) for name, one in plan.hosts.items()},
    )


def names_for(viewer: Settings, hosts: Mapping[str, Settings]) -> list[tuple[str, str]]:
    """(name, address) pairs for a host's /etc/hosts: every host by the addresses on a network that both are on, else by all."""
    networks = {link["network"] for link in viewer["links"]}
    pairs = []
    for name, settings in hosts.items():
        near = [link for link in settings["links"] if link["network"] in networks]
        for link in near or settings["links"]:
            pairs += [(name, one.partition("/")[0]) for one in link["addresses"]]
    return pairs


def init_arguments(settings: Settings) -> list[str]:
    """What the host's first process is to do: sysctls, addresses, routes, then the command."""
    arguments: list[str] = []
    if settings["guest"]:
        for link in settings["links"]:
            arguments += ["--link", link["device"], link["mac"], str(link["mtu"])]
    for name, value in settings["sysctls"].items():
        if name.startswith("net.") or settings["guest"]:  # the engine sets the others, which are read-only in a container
            arguments += ["--sysctl", f"{name}={value}"]
    for link in settings["links"]:
        for address in link["addresses"]:
            arguments += ["--address", link["device"], address]
    for destination, via in settings["routes"]:
        arguments += ["--route", destination, via]
    if settings["command"]:
        arguments += ["--", *settings["command"]]
    return arguments


def to_label(value: Settings | Segment) -> str:
    """Settings or a segment as a label's text."""
    return json.dumps(value if isinstance(value, Mapping) else asdict(value), default=str, sort_keys=True, separators=(",", ":"))


def segment_from_label(text: str) -> Segment:
    read = json.loads(text)
    return Segment(
        name=read["name"],
        subnet=IPv4Network(read["subnet"]),
        gateway=IPv4Address(read["gateway"]),
        subnet6=IPv6Network(read["subnet6"]) if read["subnet6"] else None,
        gateway6=IPv6Address(read["gateway6"]) if read["gateway6"] else None,
        mtu=read["mtu"],
        external=read["external"],
    )


def _subnet(segment: Segment, address: Address) -> Any:
    return segment.subnet if address.version == 4 else segment.subnet6


def _sysctls(host: Host, segments: Mapping[str, Segment]) -> dict[str, str]:
    # A new network namespace inherits the machine's, which forwards where Docker runs. First: it resets others.
    wanted = {"net.ipv4.ip_forward": "0", **host.sysctls}
    if host.forwarding:
        wanted["net.ipv4.ip_forward"] = "1"
        if any(segments[name].subnet6 for name in host.networks):
            wanted["net.ipv6.conf.all.forwarding"] = "1"
    return wanted


def _routes(
    host: Host, topology: Topology, segments: Mapping[str, Segment], addresses: Mapping[str, Mapping[str, Sequence[Address]]]
) -> list[list[str]]:
    """(destination, via) pairs, both as addresses; a name stands for its IPv4 and, where both ends have one, its IPv6 address."""
    routes: list[list[str]] = []
    for route in host.routes:
        if route.via in topology.hosts:
            shared = next(name for name in host.networks if name in topology.hosts[route.via].networks)
            gateways: Iterable[Address] = addresses[route.via][shared]
        else:
            gateways = [ip_address(route.via)]
        for gateway in gateways:
            if route.to == "default":
                routes.append(["default", str(gateway)])
            elif route.to in segments:
                subnet = _subnet(segments[route.to], gateway)
                if subnet is not None:
                    routes.append([str(subnet), str(gateway)])
            elif ip_network(route.to, strict=False).version == gateway.version:
                routes.append([route.to, str(gateway)])
    # An external network leads out of the lab, unless the file leads elsewhere.
    for name in host.networks:
        if segments[name].external and not any(destination == "default" for destination, _ in routes):
            routes.append(["default", str(segments[name].gateway)])
    return routes


def _all_addresses(settings: Settings) -> list[str]:
    return [address for link in settings["links"] for address in link["addresses"]]


def _changed(before: Settings, after: Settings) -> str:
    """``sysctls: net.core.somaxconn 8 -> 16; memory None -> 64``: every key that differs, from what to what where that is short."""
    parts = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            differing = [one for one in sorted({*old, *new}) if old.get(one) != new.get(one)]
            values = [f"{one} {_short(old.get(one))} -> {_short(new.get(one))}" for one in differing]
            # of a file the label holds a digest, which tells nobody anything
            parts.append(f"{key}: {', '.join(differing if key == 'files' else values)}")
        else:
            parts.append(f"{key} {_short(old)} -> {_short(new)}" if key != "links" else "its place on the networks")
    return f"changed: {'; '.join(parts)}"


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
