"""A topology: networks and the hosts on them, as a frozen model that is right in itself.

    Topology.build({"name": "pair", "networks": {"lan": {}}, "hosts": {"client": {}, "server": {}}})

builds one from plain data and raises :class:`TopologyError` with every problem in it. The constructors run the same
checks, but raise pydantic's own ValidationError. Nothing here touches the engine or the file system; files are read by
``topology_file``, which adds positions, ``defaults:`` and ``count:``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from testbed import sysctls
from testbed import topology_values as values
from testbed.errors import InputError, TopologyError, UnknownName, did_you_mean
from testbed.topology_values import DEFAULT_CAPABILITIES

Kind = Literal["native", "emulated"]
ArchitectureName = Literal["amd64", "arm64", "s390x"]
Step = str | int
T = TypeVar("T")

# A bridge of Linux has 1,023 ports.
MOST_HOSTS = 1000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong at ``path``, the keys that lead to it; ``on_key``: the last key itself is what is wrong."""

    path: tuple[Step, ...]
    message: str
    hint: str = ""
    on_key: bool = False


def _reader(read: Callable[[object], T]) -> BeforeValidator:
    """pydantic's form of a reader of ``topology_values``: its InputError keeps message and hint."""

    def validate(value: object) -> T | None:
        if value is None:
            return None
        try:
            return read(value)
        except InputError as error:
            raise _problems([Problem((), error.message, error.hint)]) from None

    return BeforeValidator(validate)


def _problems(problems: Sequence[Problem]) -> PydanticCustomError:
    """Problems on their way through pydantic; their paths begin where the validator stands."""
    text = "; ".join(one.message for one in problems)
    return PydanticCustomError("topology", "{text}", {"text": text, "problems": list(problems)})


Name = Annotated[str, _reader(values.read_name)]
Address = Annotated[IPv4Address, _reader(values.read_address)]
Address6 = Annotated[IPv6Address, _reader(values.read_address6)]


class _Part(BaseModel):
    """What all parts share. A key whose value is nothing counts as not written, so that its default holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nothing(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        return data


class Attachment(_Part):
    """A host's place on a network. An address that is None is chosen when the lab comes up."""

    address: Address | None = None
    address6: Address6 | None = None


class Network(_Part):
    """A bridge network. ``subnet`` None means that a free one is chosen when the lab comes up, ``gateway`` None its first address."""

    name: Annotated[str, _reader(values.read_network_name)]
    subnet: Annotated[IPv4Network, _reader(values.read_subnet)] | None = None
    gateway: Address | None = None
    ipv6: bool = False
    subnet6: Annotated[IPv6Network, _reader(values.read_subnet6)] | None = None
    gateway6: Address6 | None = None
    mtu: int = Field(default=1500, ge=576, le=65535)
    external: bool = False

    @model_validator(mode="before")
    @classmethod
    def _a_subnet6_means_ipv6(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("subnet6") is not None and data.get("ipv6") is None:
            return {**data, "ipv6": True}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._own_problems())
        if problems:
            raise _problems(problems)
        return self

    def _own_problems(self) -> Iterator[Problem]:
        if self.subnet6 and not self.ipv6:
            yield Problem(("subnet6",), "there is a subnet6, but ipv6 is false", "leave one of them out")
        if self.ipv6 and self.mtu < 1280:
            yield Problem(("mtu",), f"{self.mtu} is less than the 1280 that IPv6 asks of every link", "at least 1280, or no IPv6")
        for key, gateway, subnet in (("gateway", self.gateway, self.subnet), ("gateway6", self.gateway6, self.subnet6)):
            if gateway is None:
                continue
            if subnet is None:
                wanted = key.replace("gateway", "subnet")
                yield Problem((key,), f"there is a {key}, but no {wanted}", f"give the {wanted} too, or leave the {key} to be chosen")
            else:
                wrong = _misplaced(gateway, subnet)
                if wrong:
                    yield Problem((key,), wrong, f"an address from {subnet[1]} to {_last(subnet)}")

    @property
    def gateway_address(self) -> IPv4Address | None:
        """The gateway of a fixed subnet: as written, else its first address; None when the subnet is a free choice."""
        return self.gateway or (self.subnet[1] if self.subnet else None)

    @property
    def gateway6_address(self) -> IPv6Address | None:
        """The same for IPv6."""
        return self.gateway6 or (self.subnet6[1] if self.subnet6 else None)


class File(_Part):
    """A file on a host: its ``content``, or the file of this machine (``source``) that holds it; exactly one."""

    content: str | None = None
    source: Path | None = None
    mode: Annotated[int, _reader(values.read_mode)] = 0o644

    @model_validator(mode="before")
    @classmethod
    def _text_is_the_content(cls, data: Any) -> Any:
        return {"content": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.content is None) == (self.source is None):
            wrong = "there is neither content nor source" if self.content is None else "there is both content and source"
            raise _problems([Problem((), wrong, "content: the text itself, or source: a file beside the topology; one of them")])
        return self


class Route(_Part):
    """A route: ``to`` is a subnet, ``default`` or a network's name; ``via`` an address, or a host on a network that both share."""

    to: str
    via: str


class Ready(_Part):
    """When a host counts as up: exactly one of a TCP port listened on, a command with exit code 0, a pattern in the command's output."""

    listening: int | None = Field(default=None, ge=1, le=65535)
    command: Annotated[tuple[str, ...], _reader(values.read_command)] | None = None
    log: Annotated[str, _reader(values.read_pattern)] | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=3600, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(one is not None for one in (self.listening, self.command, self.log)) != 1:
            raise _problems([Problem((), "a host is ready by exactly one condition", "one of: listening, command, log")])
        return self


class Host(_Part):
    """A host. ``arch`` None is the machine's own for a native host, s390x for an emulated one; ``memory`` is in bytes."""

    name: Annotated[str, _reader(values.read_host_name)]
    kind: Kind = "native"
    arch: ArchitectureName | None = None
    networks: dict[str, Attachment] = {}
    sysctls: dict[str, str] = {}
    environment: Annotated[dict[str, str], _reader(values.read_environment)] = {}
    files: dict[str, File] = {}
    memory: Annotated[int, _reader(values.read_memory)] | None = None
    cpus: float | None = Field(default=None, ge=0.01, le=1024, allow_inf_nan=False)
    capabilities: Annotated[tuple[str, ...], _reader(values.read_capabilities)] = DEFAULT_CAPABILITIES
    routes: tuple[Route, ...] = ()
    forwarding: bool = False
    command: Annotated[tuple[str, ...], _reader(values.read_command)] | None = None
    ready: Ready | None = None

    @field_validator("networks", mode="before")
    @classmethod
    def _short_networks(cls, value: Any) -> Any:
        """A list of names, or a mapping whose values may be nothing, an address, or both addresses."""
        if isinstance(value, list | tuple):
            names = [one for one in value if isinstance(one, str)]
            strange = [Problem((index,), "a network's name belongs here") for index, one in enumerate(value) if not isinstance(one, str)]
            twice = [Problem((index,), f"'{one}' is there already") for index, one in enumerate(value) if one in value[:index]]
            if strange or twice:
                raise _problems(strange or twice)
            return {name: {} for name in names}
        if not isinstance(value, Mapping):
            raise _problems([Problem((), "this is neither a list nor a mapping", "[lan, wan], or lan: 10.1.0.5")])
        return {name: _attachment(one) for name, one in value.items()}

    @field_validator("sysctls", mode="before")
    @classmethod
    def _read_sysctls(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _problems([Problem((), "this is not a mapping", "net.core.somaxconn: 128, one a line")])
        read: dict[str, str] = {}
        problems = []
        for name, one in value.items():
            try:
                read[name] = sysctls.check(name, one)
            except InputError as error:
                problems.append(Problem((name,), error.message, error.hint))
        if problems:
            raise _problems(problems)
        return read

    @field_validator("files", mode="before")
    @classmethod
    def _read_paths(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _problems([Problem((), "this is not a mapping", "/etc/motd: the text, one a line")])
        problems = []
        for path in value:
            try:
                values.read_path(path)
            except InputError as error:
                problems.append(Problem((path,), error.message, error.hint, on_key=True))
            else:
                above = next((one for one in value if isinstance(one, str) and path.startswith(f"{one}/")), None)
                if above:
                    problems.append(Problem((path,), f"'{above}' is a file, so nothing can be under it", on_key=True))
        if problems:
            raise _problems(problems)
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._own_problems())
        if problems:
            raise _problems(problems)
        return self

    def _own_problems(self) -> Iterator[Problem]:
        if self.kind == "emulated" and self.arch not in (None, "s390x"):
            yield Problem(("arch",), f"an emulated host cannot be {self.arch}", "arch: s390x, or kind: native")
        if self.ready and self.command is None and self.ready.command is None:
            key = "listening" if self.ready.listening is not None else "log"
            yield Problem(("ready", key), "the host has no command, so this never comes about", "give the host a command: as well")
        if "forwarding" in self.model_fields_set:
            wanted = "1" if self.forwarding else "0"
            for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"):
                if self.sysctls.get(name, wanted) != wanted:
                    contrary = f"{self.sysctls[name]} contradicts forwarding: {str(self.forwarding).lower()}"
                    yield Problem(("sysctls", name), contrary, "leave one of them out")


class Topology(_Part):
    """Networks and the hosts on them, by name; ``defaults:`` merged in and ``count:`` expanded."""

    name: Name
    description: str = ""
    networks: dict[str, Network]
    hosts: dict[str, Host]

    @classmethod
    def build(cls, data: Mapping[str, Any]) -> Topology:
        """A topology from plain data, in which a network's or host's name may be its key alone. Raises :class:`TopologyError`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise topology_error(problems_of(error)) from None

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
    def _names_are_keys(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _problems([Problem((), "this is not a mapping", "a name and a colon, one a line, with what it has indented below")])
        named: dict[Any, Any] = {}
        problems = []
        for key, one in value.items():
            name = one.get("name") if isinstance(one, Mapping) else getattr(one, "name", None)
            if name is not None and name != key:
                problems.append(Problem((key,), f"'{name}' stands under the key '{key}'"))
            named[key] = {**one, "name": key} if isinstance(one, Mapping) else {"name": key} if one is None else one
        if problems:
            raise _problems(problems)
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
            raise _problems(problems)
        return self


def _attachment(value: Any) -> Any:
    if value is None:
        return {}
    if isinstance(value, str):
        return {"address6" if ":" in value else "address": value}
    if isinstance(value, IPv4Address):
        return {"address": value}
    if isinstance(value, IPv6Address):
        return {"address6": value}
    return value


def _misplaced(address: IPv4Address | IPv6Address, subnet: IPv4Network | IPv6Network) -> str:
    """Why an address cannot be a host's in that subnet, or nothing."""
    if address not in subnet:
        return f"{address} is not in {subnet}"
    if address == subnet.network_address:
        return f"{address} is the address of {subnet} itself"
    if subnet.version == 4 and address == subnet.broadcast_address:
        return f"{address} is the broadcast address of {subnet}"
    return ""


def _last(subnet: IPv4Network | IPv6Network) -> IPv4Address | IPv6Address:
    """The last address that a host may have."""
    return subnet[-2] if subnet.version == 4 else subnet[-1]


def _problems_between(topology: Topology) -> Iterator[Problem]:
    """What is wrong although every part is right in itself."""
    if not topology.networks:
        yield Problem(("networks",), "there is no network", "networks: {lan: }")
    if not topology.hosts:
        yield Problem(("hosts",), "there is no host", "hosts: {client: , server: }")
    if len(topology.hosts) > MOST_HOSTS:
        yield Problem(("hosts",), f"there are {len(topology.hosts)} hosts", f"at most {MOST_HOSTS} in one topology")
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
                message = f"there is no network '{name}'{did_you_mean(name, topology.networks)}"
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
                yield Problem(here, f"{address} is the gateway of network '{name}'", f"another address from {subnet[1]} to {_last(subnet)}")
            else:
                wrong = _misplaced(address, subnet)
                if wrong:
                    yield Problem(here, f"{wrong}, the {key.replace('address', 'subnet')} of network '{name}'",
                                  f"an address from {subnet[1]} to {_last(subnet)}")  # fmt: skip


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
            yield Problem(("to",), f"'{route.to}' is no subnet, and there is no network of that name{near}", hint)
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
        shown = ", ".join(map(str, subnets))
        yield Problem(("via",), f"{via} is on no network of host '{host.name}'", f"an address of {shown}, or the name of a host there")


def _named_router_problems(host: Host, via: str, topology: Topology) -> Iterator[Problem]:
    others = [name for name, one in topology.hosts.items() if name != host.name and one.networks.keys() & host.networks.keys()]
    hint = f"an address, or a host on a network with '{host.name}': {', '.join(others[:12]) or 'there is none'}"
    if via == host.name:
        yield Problem(("via",), f"host '{host.name}' cannot be its own router", hint)
    elif via not in topology.hosts:
        near = did_you_mean(via, others or topology.hosts)
        yield Problem(("via",), f"'{via}' is no address, and there is no host of that name{near}", hint)
    elif via not in others:
        yield Problem(("via",), f"hosts '{host.name}' and '{via}' share no network", hint)


def _destination(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return IPv6Network(text) if ":" in text else IPv4Network(text)
    except ValueError:
        return None


def problems_of(error: ValidationError) -> list[Problem]:
    """pydantic's findings in plain words."""
    problems: list[Problem] = []
    for one in error.errors(include_url=False):
        path = tuple(one["loc"])
        inner: list[Problem] = one.get("ctx", {}).get("problems", [])
        if inner:
            problems += [Problem((*path, *found.path), found.message, found.hint, found.on_key) for found in inner]
        else:
            problems.append(_in_plain_words(one["type"], path, one["input"], one.get("ctx", {}), one["msg"]))
    return [_name_is_key(one) for one in problems]


def _name_is_key(problem: Problem) -> Problem:
    """A host's or network's name is not written as a value: its key is."""
    path = problem.path
    if len(path) == 3 and path[0] in ("hosts", "networks") and path[2] == "name":
        return Problem(path[:2], problem.message, problem.hint, on_key=True)
    return problem


def _in_plain_words(kind: str, path: tuple[Step, ...], value: object, context: Mapping[str, Any], message: str) -> Problem:
    shown = values.shown(value)
    match kind:
        case "extra_forbidden":
            known = sorted(_keys_at(path[:-1]))
            near = did_you_mean(str(path[-1]), known)
            return Problem(path, f"there is no key '{path[-1]}'{near}", f"keys here: {', '.join(known)}", on_key=True)
        case "missing":
            return Problem(path[:-1], f"'{path[-1]}' is missing", f"write {path[-1]}: and its value")
        case "literal_error":
            allowed = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
            near = did_you_mean(value, allowed) if isinstance(value, str) else ""
            return Problem(path, f"there is no {path[-1]} {shown}{near}", f"one of: {', '.join(allowed)}")
        case "bool_parsing" | "bool_type":
            return Problem(path, f"{shown} is neither true nor false", "true or false")
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return Problem(path, f"{shown} is not a whole number", "a number without quotes, point or unit")
        case "float_parsing" | "float_type" | "finite_number":
            return Problem(path, f"{shown} is not a number", "a number like 2 or 0.5")
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than":
            words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
            key = next(key for key in words if key in context)
            return Problem(path, f"{shown} is out of range", f"{words[key]} {context[key]:g}")
        case "string_type":
            return Problem(path, f"{shown} is not text")
        case "tuple_type" | "list_type":
            return Problem(path, f"{shown} is not a list", "one entry a line, each after '- '")
        case "dict_type" | "model_type" | "model_attributes_type":
            return Problem(path, f"{shown} is not a mapping", f"keys here: {', '.join(sorted(_keys_at(path)))}")
        case "path_type":
            return Problem(path, f"{shown} is not a path")
        case _:
            return Problem(path, message[:1].lower() + message[1:])


def _keys_at(path: Sequence[Step]) -> set[str]:
    """The keys that may stand at a path: what an error offers."""
    match tuple(path):
        case ():
            return {*Topology.model_fields, "defaults"}
        case ("networks", _):
            return set(Network.model_fields) - {"name"}
        case ("hosts" | "defaults", *_, "networks", _):
            return set(Attachment.model_fields)
        case ("hosts", _):
            return (set(Host.model_fields) - {"name"}) | {"count"}
        case ("defaults",):
            return set(Host.model_fields) - {"name"}
        case (*_, "files", _):
            return set(File.model_fields)
        case (*_, "routes", int()):
            return set(Route.model_fields)
        case (*_, "ready"):
            return set(Ready.model_fields)
        case _:
            return set()


def topology_error(
    problems: Sequence[Problem], *, file: str = "", locate: Callable[[Problem], tuple[int, int]] = lambda _: (0, 0), most: int = 20
) -> TopologyError:
    """One error for all problems in the order of the file; ``locate`` gives line and column of each, from 1 (0: unknown)."""
    placed = sorted({(locate(one), _sentence(one), one.hint) for one in problems})
    (line, column), message, hint = placed[0]
    if len(placed) == 1:
        return TopologyError(message, file=file, line=line, column=column, hint=hint)
    texts = [f"{message}\n  {hint}" if hint else message]
    for (its_line, its_column), its_message, its_hint in placed[1:most]:
        texts.append(str(TopologyError(its_message, file=file, line=its_line, column=its_column, hint=its_hint)))
    if len(placed) > most:
        texts.append(f"and {len(placed) - most} more problems")
    return TopologyError("\n".join(texts), file=file, line=line, column=column)


def _sentence(problem: Problem) -> str:
    place = ".".join(str(step) for step in problem.path)
    return f"{place}: {problem.message}" if place else problem.message
