"""A topology: networks and the hosts on them, as a frozen model that is right in itself.

    Topology(name="pair", networks={"lan": Network()}, hosts={"client": Host(), "server": Host(kind="emulated")})
    Topology.build({"name": "pair", "networks": {"lan": {}}, "hosts": {"client": {}, "server": {"kind": "emulated"}}})

build the same one, from its parts and from plain data; both raise :class:`TopologyError` with every problem in it. Nothing
here touches the engine or the file system; files are read by ``topology_file``, which adds positions, ``defaults:`` and
``count:``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError, ValidationInfo, field_validator, model_validator

from testbed import topology_parts
from testbed.errors import InputError, UnknownName, did_you_mean
from testbed.topology_parts import (
    MOST_NETWORKS,
    ArchitectureName,
    Attachment,
    File,
    Host,
    KernelName,
    Kind,
    Name,
    Network,
    Part,
    Ready,
    Route,
)
from testbed.topology_problems import Problem, Step, as_pydantic, problems_of, topology_error
from testbed.topology_values import DEFAULT_CAPABILITIES, last_address, misplaced, read_host_name, read_network_name, shown

__all__ = [
    "DEFAULT_CAPABILITIES",
    "MOST_HOSTS",
    "MOST_NETWORKS",
    "MOST_OF_A_COUNT",
    "ArchitectureName",
    "Attachment",
    "File",
    "Host",
    "KernelName",
    "Kind",
    "Network",
    "Ready",
    "Route",
    "Topology",
]

MOST_HOSTS = 1000  # a bridge of Linux has 1,023 ports
MOST_OF_A_COUNT = 500


class Topology(Part):
    """Networks and the hosts on them, by name; ``defaults:`` merged in and ``count:`` expanded."""

    name: Name
    description: str = ""
    networks: dict[str, Network]
    hosts: dict[str, Host]

    if TYPE_CHECKING:

        def __init__(
            self, *, name: str, description: str = "", networks: Mapping[str, Network | None], hosts: Mapping[str, Host | None]
        ) -> None: ...

    @classmethod
    def _keys_at(cls, path: tuple[Step, ...]) -> set[str]:
        return keys_at(path) - {"count", "defaults"}  # a file's alone

    @classmethod
    def build(cls, data: Mapping[str, Any]) -> Topology:
        """A topology from plain data, in which a network's or host's name may be its key alone. Raises :class:`TopologyError`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise topology_error(problems_of(error, cls._keys_at)) from None

    def host(self, name: str) -> Host:
        """The host called ``name``, or :class:`UnknownName`."""
        if name not in self.hosts:
            raise UnknownName("host", name, self.hosts)
        return self.hosts[name]

    def network(self, name: str) -> Network:
        """The network called ``name``, or :class:`UnknownName`."""
        if name not in self.networks:
            raise UnknownName("network", name, self.networks)
        return self.networks[name]

    def hosts_on(self, network: str) -> tuple[Host, ...]:
        """The hosts on a network, in the order of the file."""
        return tuple(host for host in self.hosts.values() if network in host.networks)

    @field_validator("networks", "hosts", mode="before")
    @classmethod
    def _names_are_keys(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            raise as_pydantic([Problem((), "this is not a mapping", "a name and a colon, one a line, with what it has indented below")])
        part, read = (Network, read_network_name) if info.field_name == "networks" else (Host, read_host_name)
        named: dict[Any, Any] = {}
        problems = []
        for key, one in value.items():
            name = one.get("name") if isinstance(one, Mapping) else getattr(one, "name", None)
            if isinstance(one, Part) and not isinstance(one, part):
                article = "an" if type(one).__name__[0] in "AEIO" else "a"
                problems.append(Problem((key,), f"{article} {type(one).__name__} stands here", f"a {part.__name__} belongs here"))
            elif isinstance(one, Network | Host) and not one.name:
                # A part that was made in Python is right in itself, and only now learns how it is called.
                try:
                    named[key] = one.model_copy(update={"name": read(key)})
                except InputError as error:
                    problems.append(Problem((key,), error.message, error.hint, on_key=True))
            elif name is not None and name != key:
                problems.append(Problem((key,), f"{shown(name)} stands under the key {shown(key)}"))
            else:
                named[key] = {**one, "name": key} if isinstance(one, Mapping) else {"name": key} if one is None else one
        if problems:
            raise as_pydantic(problems)
        return named

    @model_validator(mode="after")
    def _check(self) -> Self:
        # The only network is everybody's; the model is frozen for everyone but its own validator.
        if len(self.networks) == 1:
            only = next(iter(self.networks))
            hosts = {
                name: host if host.networks else host.model_copy(update={"networks": {only: Attachment()}})
                for name, host in self.hosts.items()
            }
            object.__setattr__(self, "hosts", hosts)
        problems = list(_problems_between(self))
        if problems:
            raise as_pydantic(problems)
        return self


def _problems_between(topology: Topology) -> Iterator[Problem]:
    """What is wrong although every part is right in itself."""
    if not topology.networks:
        yield Problem(("networks",), "there is no network", "networks: {lan: }")
    if not topology.hosts:
        yield Problem(("hosts",), "there is no host", "hosts: {client: , server: }")
    if len(topology.hosts) > MOST_HOSTS:
        yield Problem(("hosts",), f"there are {len(topology.hosts)} hosts", f"at most {MOST_HOSTS} in one topology")
        return
    if len(topology.networks) > MOST_NETWORKS:
        yield Problem(("networks",), f"there are {len(topology.networks)} networks", f"at most {MOST_NETWORKS} in one topology")
        return
    yield from _subnet_problems(topology)
    for host in topology.hosts.values():
        yield from _attachment_problems(host, topology)
        for index, route in enumerate(host.routes):
            for problem in _route_problems(host, route, topology):
                yield Problem(("hosts", host.name, "routes", index, *problem.path), problem.message, problem.hint)
    yield from _shared_addresses(topology)


def _subnet_problems(topology: Topology) -> Iterator[Problem]:
    seen: list[Network] = []
    for network in topology.networks.values():
        for key, gateway in (("subnet", network.gateway_address), ("subnet6", network.gateway6_address)):
            subnet: IPv4Network | IPv6Network | None = getattr(network, key)
            if subnet is None:
                continue
            for other in seen:
                theirs = getattr(other, key)
                if theirs is not None and subnet.overlaps(theirs):
                    message = f"{subnet} overlaps {theirs} of network '{other.name}'"
                    yield Problem(("networks", network.name, key), message, f"another subnet, or no {key}: a free one is chosen then")
            room = subnet.num_addresses - (2 if subnet.version == 4 else 1) - (gateway is not None)
            wanted = len(topology.hosts_on(network.name))
            if wanted > room:
                message = f"{subnet} has room for {room} hosts beside the gateway, and {wanted} are on it"
                yield Problem(("networks", network.name, key), message, "a shorter prefix makes a larger subnet")
        seen.append(network)


def _attachment_problems(host: Host, topology: Topology) -> Iterator[Problem]:
    place = ("hosts", host.name, "networks")
    known = ", ".join(topology.networks)
    if not host.networks and topology.networks:
        yield Problem(place[:2], "the host is on no network", f"networks: a list of: {known}")
    for name, attachment in host.networks.items():
        network = topology.networks.get(name)
        if network is None:
            if topology.networks:
                message = f"there is no network {shown(name)}{did_you_mean(name, topology.networks)}"
                yield Problem((*place, name), message, f"networks of this topology: {known}", on_key=True)
            continue
        for key, address, subnet, gateway in (
            ("address", attachment.address, network.subnet, network.gateway_address),
            ("address6", attachment.address6, network.subnet6, network.gateway6_address),
        ):
            if address is None:
                continue
            here = (*place, name, key)
            if subnet is None:
                wanted = key.replace("address", "subnet")
                message = f"network '{name}' has no fixed {wanted}, so no host can have a fixed {key} on it"
                yield Problem(here, message, f"give network '{name}' a {wanted}:, or leave the address to be chosen")
            elif address == gateway:
                yield Problem(here, f"{address} is the gateway of network '{name}'", f"another address of {subnet}")
            else:
                wrong = misplaced(address, subnet)
                if wrong:
                    yield Problem(
                        here,
                        f"{wrong}, the {key.replace('address', 'subnet')} of network '{name}'",
                        f"an address from {subnet[1]} to {last_address(subnet)}",
                    )


def _shared_addresses(topology: Topology) -> Iterator[Problem]:
    owners: dict[tuple[str, IPv4Address | IPv6Address], str] = {}
    for host in topology.hosts.values():
        for name, attachment in host.networks.items():
            for key, address in (("address", attachment.address), ("address6", attachment.address6)):
                if address is None:
                    continue
                owner = owners.setdefault((name, address), host.name)
                if owner != host.name:
                    here = ("hosts", host.name, "networks", name, key)
                    yield Problem(here, f"host '{owner}' has {address} on network '{name}' already", "another address, or none")


def _route_problems(host: Host, route: Route, topology: Topology) -> Iterator[Problem]:
    destination = _destination(route.to)
    if destination is None and route.to != "default":
        if route.to in host.networks:
            yield Problem(("to",), f"host '{host.name}' is on network '{route.to}' itself and needs no route to it")
        elif route.to not in topology.networks:
            hint = f"a subnet like 10.2.0.0/24, default, or a network: {', '.join(topology.networks)}"
            near = did_you_mean(route.to, [*topology.networks, "default"])
            yield Problem(("to",), f"{shown(route.to)} is no subnet, and there is no network of that name{near}", hint)
    try:
        via = IPv6Address(route.via) if ":" in route.via else IPv4Address(route.via)
    except ValueError:
        yield from _named_router_problems(host, route.via, topology)
        return
    if destination is not None and destination.version != via.version:
        yield Problem(("via",), f"{via} is IPv{via.version}, and {destination} is IPv{destination.version}", "both of one version")
    mine = [topology.networks[name] for name in host.networks if name in topology.networks]
    subnets = [one.subnet6 if via.version == 6 else one.subnet for one in mine]
    link_local = via.is_link_local and via.version == 6
    if subnets and all(subnets) and not link_local and not any(subnet is not None and via in subnet for subnet in subnets):
        listed = ", ".join(map(str, subnets))
        yield Problem(("via",), f"{via} is on no network of host '{host.name}'", f"an address of {listed}, or the name of a host there")


def _named_router_problems(host: Host, via: str, topology: Topology) -> Iterator[Problem]:
    others = [name for name, one in topology.hosts.items() if name != host.name and one.networks.keys() & host.networks.keys()]
    hint = f"an address, or a host on a network with '{host.name}': {', '.join(others[:12]) or 'there is none'}"
    if via == host.name:
        yield Problem(("via",), f"host '{host.name}' cannot be its own router", hint)
    elif via not in topology.hosts:
        near = did_you_mean(via, others or topology.hosts)
        yield Problem(("via",), f"{shown(via)} is no address, and there is no host of that name{near}", hint)
    elif via not in others:
        yield Problem(("via",), f"hosts '{host.name}' and '{via}' share no network", hint)


def _destination(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return IPv6Network(text) if ":" in text else IPv4Network(text)
    except ValueError:
        return None


def keys_at(path: tuple[Step, ...]) -> set[str]:
    """The keys that may stand at a path of a topology file."""
    return topology_parts.keys_at(path) if path else {*Topology.model_fields, "defaults"}
