"""The parts of a topology: network, host, and what a host has. Each is right in itself; ``topology`` puts them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from testbed import guest, sysctls
from testbed import topology_values as values
from testbed.errors import InputError
from testbed.guest import DEFAULT_KERNEL, MODELS
from testbed.package_names import Extras, read_packages, read_requirements
from testbed.topology_problems import Problem, Step, as_pydantic, problems_of, reader, topology_error
from testbed.topology_values import DEFAULT_CAPABILITIES

Kind = Literal["native", "emulated", "vm"]
ArchitectureName = Literal["amd64", "arm64", "s390x"]
KernelName = Literal["bookworm", "bookworm-backports", "trixie"]
T = TypeVar("T")

# The validation context of ``defaults:``, which are not one host's: each host is judged with what it says itself.
SOME_HOST = object()

# Far above what anybody writes by hand; what is below them takes no noticeable time.
MOST_NETWORKS = 250
MOST_ENTRIES = 1000  # of sysctls, variables or files on one host


Name = Annotated[str, reader(values.read_name)]
Address = Annotated[IPv4Address, reader(values.read_address)]
Address6 = Annotated[IPv6Address, reader(values.read_address6)]


class Part(BaseModel):
    """What all parts share. A key whose value is nothing counts as not written, so that its default holds.

    A constructor takes what may stand in a file, and raises :class:`TopologyError` with every problem, as a file does. (Its type is
    written in each class, for type checkers, since a field takes more than it holds: "64M" for a number of bytes.)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    PLACE: ClassVar[tuple[Step, ...]] = ()
    """Where in a topology such a part stands."""

    if not TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise topology_error(problems_of(error, self._keys_at)) from None

        # So pydantic makes the parts inside another one without calling it, and collects their problems.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def _keys_at(cls, path: tuple[Step, ...]) -> set[str]:
        """The keys that may stand at a path inside this part."""
        return keys_at((*cls.PLACE, *path)) if path else set(cls.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nothing(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = list(self._own_problems())
        if problems:
            raise as_pydantic(problems)
        return self

    def _own_problems(self) -> Iterator[Problem]:
        """What is wrong with this part although each of its values is right."""
        return iter(())


class Attachment(Part):
    """A host's place on a network. An address that is None is chosen when the lab comes up."""

    PLACE = ("hosts", "*", "networks", "*")

    address: Address | None = None
    address6: Address6 | None = None

    if TYPE_CHECKING:

        def __init__(self, *, address: str | IPv4Address | None = None, address6: str | IPv6Address | None = None) -> None: ...


class Network(Part):
    """A bridge network. ``subnet`` None means that a free one is chosen when the lab comes up, ``gateway`` None its first address.

    ``name`` is nothing until it is in a topology, which calls it like its key.
    """

    PLACE = ("networks", "*")

    name: Annotated[str, reader(values.read_network_name)] = ""
    subnet: Annotated[IPv4Network, reader(values.read_subnet)] | None = None
    gateway: Address | None = None
    ipv6: bool = False
    subnet6: Annotated[IPv6Network, reader(values.read_subnet6)] | None = None
    gateway6: Address6 | None = None
    mtu: int = Field(default=1500, ge=576, le=65535)
    external: bool = False

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str = "",
            subnet: str | IPv4Network | None = None,
            gateway: str | IPv4Address | None = None,
            ipv6: bool | None = None,
            subnet6: str | IPv6Network | None = None,
            gateway6: str | IPv6Address | None = None,
            mtu: int = 1500,
            external: bool = False,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _a_subnet6_means_ipv6(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("subnet6") is not None and data.get("ipv6") is None:
            return {**data, "ipv6": True}
        return data

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
                wrong = values.misplaced(gateway, subnet)
                if wrong:
                    yield Problem((key,), wrong, f"an address from {subnet[1]} to {values.last_address(subnet)}")

    @property
    def gateway_address(self) -> IPv4Address | None:
        """The gateway of a fixed subnet: as written, else its first address; None when the subnet is a free choice."""
        return self.gateway or (self.subnet[1] if self.subnet else None)

    @property
    def gateway6_address(self) -> IPv6Address | None:
        """The same for IPv6."""
        return self.gateway6 or (self.subnet6[1] if self.subnet6 else None)


class File(Part):
    """A file on a host: its ``content``, or the file of this machine (``source``) that holds it; exactly one."""

    PLACE = ("hosts", "*", "files", "*")

    content: str | None = None
    source: Path | None = None
    mode: Annotated[int, reader(values.read_mode)] = 0o644

    if TYPE_CHECKING:

        def __init__(self, *, content: str | None = None, source: str | Path | None = None, mode: int | str = 0o644) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _text_is_the_content(cls, data: Any) -> Any:
        return {"content": data} if isinstance(data, str) else data

    def _own_problems(self) -> Iterator[Problem]:
        if (self.content is None) == (self.source is None):
            wrong = "there is neither content nor source" if self.content is None else "there is both content and source"
            yield Problem((), wrong, "content: the text itself, or source: a file beside the topology; one of them")


class Route(Part):
    """A route: ``to`` is a subnet, ``default`` or a network's name; ``via`` an address, or a host on a network that both share."""

    PLACE = ("hosts", "*", "routes", 0)

    to: str
    via: str


class Ready(Part):
    """When a host counts as up: exactly one of a TCP port listened on, a command with exit code 0, a pattern in the command's output."""

    PLACE = ("hosts", "*", "ready")

    listening: int | None = Field(default=None, ge=1, le=65535)
    command: Annotated[tuple[str, ...], reader(values.read_command)] | None = None
    log: Annotated[str, reader(values.read_pattern)] | None = None
    timeout_s: float = Field(default=10.0, gt=0, le=3600, allow_inf_nan=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            listening: int | None = None,
            command: str | Sequence[str] | None = None,
            log: str | None = None,
            timeout_s: float = 10.0,
        ) -> None: ...

    def _own_problems(self) -> Iterator[Problem]:
        if sum(one is not None for one in (self.listening, self.command, self.log)) != 1:
            yield Problem((), "a host is ready by exactly one condition", "one of: listening, command, log")


class Host(Part):
    """A host. ``arch`` None is the machine's own for a native host, s390x for an emulated one and a vm.

    ``memory`` is in bytes: a limit, and for a vm the memory that its guest has (None: 128 MiB). ``kernel`` None is bookworm
    for a vm; no other host has one. ``name`` is nothing until it is in a topology, which calls it like its key.
    """

    PLACE = ("hosts", "*")

    name: Annotated[str, reader(values.read_host_name)] = ""
    kind: Kind = "native"
    arch: ArchitectureName | None = None
    kernel: KernelName | None = None
    networks: dict[str, Attachment] = {}
    sysctls: dict[str, str] = {}
    environment: dict[str, str] = {}
    files: dict[str, File] = {}
    packages: Annotated[tuple[str, ...], reader(read_packages)] = ()
    pip: Annotated[tuple[str, ...], reader(read_requirements)] = ()
    memory: Annotated[int, reader(values.read_memory)] | None = None
    cpus: float | None = Field(default=None, ge=0.01, le=1024, allow_inf_nan=False)
    capabilities: Annotated[tuple[str, ...], reader(values.read_capabilities)] = DEFAULT_CAPABILITIES
    routes: tuple[Route, ...] = ()
    forwarding: bool = False
    command: Annotated[tuple[str, ...], reader(values.read_command)] | None = None
    ready: Ready | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str = "",
            kind: Kind = "native",
            arch: ArchitectureName | None = None,
            kernel: KernelName | None = None,
            networks: Sequence[str] | Mapping[str, Attachment | str | IPv4Address | IPv6Address | None] = (),
            sysctls: Mapping[str, str | int | bool | Sequence[int]] = ...,
            environment: Mapping[str, str | int | float | bool] = ...,
            files: Mapping[str, File | str] = ...,
            packages: str | Sequence[str] = (),
            pip: str | Sequence[str] = (),
            memory: str | int | None = None,
            cpus: float | None = None,
            capabilities: Sequence[str] = DEFAULT_CAPABILITIES,
            routes: Sequence[Route] = (),
            forwarding: bool = False,
            command: str | Sequence[str] | None = None,
            ready: Ready | None = None,
        ) -> None: ...

    @field_validator("networks", mode="before")
    @classmethod
    def _short_networks(cls, value: Any) -> Any:
        """A list of names, or a mapping whose values may be nothing, an address, or both addresses."""
        if isinstance(value, Mapping | list | tuple) and len(value) > MOST_NETWORKS:
            raise as_pydantic([Problem((), f"there are {len(value)} networks", f"at most {MOST_NETWORKS} in one topology")])
        if isinstance(value, list | tuple):
            names = [one for one in value if isinstance(one, str)]
            strange = [Problem((index,), "a network's name belongs here") for index, one in enumerate(value) if not isinstance(one, str)]
            first = {one: index for index, one in reversed(list(enumerate(names)))}
            twice = [Problem((index,), f"{values.shown(one)} is there already") for index, one in enumerate(names) if first[one] != index]
            if strange or twice:
                raise as_pydantic(strange or twice)
            return {name: {} for name in names}
        if not isinstance(value, Mapping):
            raise as_pydantic([Problem((), f"{values.shown(value)} is neither a list nor a mapping", "[lan, wan], or lan: 10.1.0.5")])
        return {name: _attachment(one) for name, one in value.items()}

    @field_validator("sysctls", mode="before")
    @classmethod
    def _read_sysctls(cls, value: Any, info: ValidationInfo) -> Any:
        # Where the kind is open (defaults), or wrong itself, only what no kind would take is wrong for sure.
        own_kernel = info.context is SOME_HOST or info.data.get("kind", "vm") == "vm"
        return _each(value, partial(sysctls.check, own_kernel=own_kernel), example="net.core.somaxconn: 128")

    @field_validator("environment", mode="before")
    @classmethod
    def _read_environment(cls, value: Any) -> Any:
        return _each(value, values.read_variable, example="NAME: value")

    @field_validator("files", mode="before")
    @classmethod
    def _read_paths(cls, value: Any) -> Any:
        def check(path: object, file: object) -> object:
            read = values.read_path(path)
            above = next((one for one in map(str, PurePosixPath(read).parents) if one in value), None)
            if above:
                raise InputError(f"{values.shown(above)} is a file, so nothing can be under it", hint="another path")
            return file

        return _each(value, check, example="/etc/motd: the text", on_key=True)

    def _own_problems(self) -> Iterator[Problem]:
        if self.kind == "emulated" and self.arch not in (None, "s390x"):
            yield Problem(("arch",), f"an emulated host cannot be {self.arch}", "arch: s390x, or kind: native")
        yield from self._problems_of_a_vm() if self.kind == "vm" else self._problems_without_a_kernel()
        if self.ready and self.command is None and self.ready.command is None:
            key = "listening" if self.ready.listening is not None else "log"
            yield Problem(("ready", key), "the host has no command, so this never comes about", "give the host a command: as well")
        if "forwarding" in self.model_fields_set:
            wanted = "1" if self.forwarding else "0"
            for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"):
                if self.sysctls.get(name, wanted) != wanted:
                    contrary = f"{self.sysctls[name]} contradicts forwarding: {str(self.forwarding).lower()}"
                    yield Problem(("sysctls", name), contrary, "leave one of them out")

    def _problems_of_a_vm(self) -> Iterator[Problem]:
        if self.arch not in (None, *MODELS):
            yield Problem(("arch",), f"a vm cannot be {self.arch}", f"arch: {' or '.join(MODELS)}")
        if self.memory is not None:
            wrong = values.not_a_guests_memory(self.memory)
            if wrong:
                yield Problem(("memory",), wrong, "the memory of the guest in whole MiB, from 64M to 4G; 128M without it")
        if "capabilities" in self.model_fields_set:
            message = "a vm has no capabilities to give or take: its commands are root of its own kernel"
            yield Problem(("capabilities",), message, "leave it out; an empty capabilities: takes a default away")
        if len(self.networks) > guest.MOST_NETWORKS:
            yield Problem(("networks",), f"there are {len(self.networks)} networks", f"at most {guest.MOST_NETWORKS} on a vm")

    def _problems_without_a_kernel(self) -> Iterator[Problem]:
        if self.kernel is not None:
            message = f"{'an' if self.kind == 'emulated' else 'a'} {self.kind} host runs on this machine's kernel"
            yield Problem(("kernel",), message, "kind: vm, a host with a kernel of its own; or leave it out")

    @property
    def extras(self) -> Extras:
        """What it has beside its image."""
        return Extras(self.packages, self.pip)

    @property
    def own_kernel(self) -> str | None:
        """The kernel that a vm boots; None for a host that runs on the machine's."""
        return (self.kernel or DEFAULT_KERNEL) if self.kind == "vm" else None


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


def _each(value: Any, read: Callable[[object, object], T], *, example: str, on_key: bool = False) -> dict[Any, T]:
    """A mapping whose entries are read one by one, so that each problem has its own place."""
    if not isinstance(value, Mapping):
        raise as_pydantic([Problem((), f"{values.shown(value)} is not a mapping", f"{example}, one a line")])
    if len(value) > MOST_ENTRIES:
        raise as_pydantic([Problem((), f"there are {len(value)} entries", f"at most {MOST_ENTRIES}")])
    result: dict[Any, T] = {}
    problems = []
    for name, one in value.items():
        try:
            result[name] = read(name, one)
        except InputError as error:
            problems.append(Problem((name,), error.message, error.hint, on_key))
    if problems:
        raise as_pydantic(problems)
    return result


def keys_at(path: tuple[Step, ...]) -> set[str]:
    """The keys that may stand at a path of a topology file, below its top: what an error offers."""
    match path:
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
