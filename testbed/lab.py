"""A lab: its switch, its networks and hosts, as the labels on them tell.

Every lab has one *switch*: a container whose network namespace holds a Linux bridge for each network and a veth *port*
for each host on it; the other end of the port is the host's eth0, eth1, ... So the packets between two hosts pass
neither the machine's firewall nor its connection tracking, a host's own namespace has nothing in it but the host's, and
everything a host sends can be captured at its port. Docker keeps a network for each of ours as well: it
reserves the subnet and, for an external network, is the way out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from ipaddress import ip_interface
from typing import TypeVar

from testbed.architecture import ARCHITECTURES, of_machine
from testbed.engine import STDERR, Container, DockerNetwork, Engine
from testbed.errors import LabError, UnknownName
from testbed.host import Host, HostFacts, end_of_console, own_capabilities
from testbed.lock import lock
from testbed.network import Address, Segment, device_name
from testbed.plan import Existing, Settings, guest_from, segment_from_label
from testbed.process import Deadline, Result, wait_until
from testbed.runs import Run

LAB, ROLE, HOST, NETWORK, SETTINGS = "testbed.lab", "testbed.role", "testbed.host", "testbed.network", "testbed.settings"
RUN = "testbed.run"  # the process whose lab this is, see testbed.runs
SWITCH, HOST_ROLE = "switch", "host"
READY, WAITING = b"init: ready", b"init: waiting"
CUT_OFF = "cut off: the lab's switch does not run, or was started again, or has no links to it"
WORKERS = 6  # what two cores can use; the engine itself is the limit beyond that
# How long nothing of a killed `up` may appear before the engine counts as done with it.
QUIET_S = 2.0
NOT_RESTORED = b"vm: the snapshot could not be restored"
# What images/vm/runner.c says, and what the kernel does (mm/oom_kill.c).
_CAME_UP = re.compile(r"^vm: (restored|booted) (\S+)$", re.MULTILINE)
_OUT_OF_MEMORY = re.compile(r"Out of memory: Killed process \d+ \(([^)]*)\)")

T = TypeVar("T")
R = TypeVar("R")


def container_name(lab: str, host: str = "") -> str:
    """Docker's name for a host's container, or for the switch of the lab. Names have no dots, so this is one to one."""
    return f"testbed.{lab}.{host}" if host else f"testbed.{lab}"


def network_name(lab: str, network: str) -> str:
    return f"testbed.{lab}.{network}"


def bridge_name(network: str) -> str:
    """The bridge of a network, a device in the switch."""
    return device_name(f"br-{network}")


@dataclass(frozen=True)
class Parts:
    """Everything of one lab that the engine has. ``retired`` are hosts that a change replaced and did not get to remove."""

    lab: str
    switch: Container | None
    hosts: Mapping[str, Container]
    retired: Sequence[Container]
    networks: Mapping[str, DockerNetwork]

    def __bool__(self) -> bool:
        return bool(self.switch or self.hosts or self.retired or self.networks)

    @property
    def containers(self) -> list[Container]:
        return [*self.hosts.values(), *self.retired, *([self.switch] if self.switch else [])]

    @property
    def run(self) -> Run | None:
        """The process that the lab is to end with; None for one that stays until it is taken down."""
        parts: list[Container | DockerNetwork] = [*self.containers, *self.networks.values()]
        labels = {one.labels[RUN] for one in parts if RUN in one.labels}
        # Of several, or beside parts without one, the lab is not that run's alone.
        return Run.parse(labels.pop()) if len(labels) == 1 and all(RUN in one.labels for one in parts) else None

    @property
    def segments(self) -> dict[str, Segment]:
        """The networks as their labels describe them."""
        return {name: segment_from_label(one.labels[SETTINGS]) for name, one in self.networks.items()}

    @property
    def settings(self) -> dict[str, Settings]:
        """The hosts as their labels describe them."""
        return {name: json.loads(one.labels[SETTINGS]) for name, one in self.hosts.items()}


def read_parts(engine: Engine) -> dict[str, Parts]:
    """The parts of every lab, by the lab's name."""
    # Docker lists the last made first, and several are made at once.
    containers = sorted(engine.containers(LAB), key=lambda one: natural(one.labels.get(HOST, "")))
    networks = [one for one in engine.networks() if LAB in one.labels]
    labs = sorted({*(one.labels[LAB] for one in containers), *(one.labels[LAB] for one in networks)})
    return {
        lab: Parts(
            lab,
            switch=next((one for one in containers if one.labels[LAB] == lab and one.labels.get(ROLE) == SWITCH), None),
            hosts={
                one.labels[HOST]: one
                for one in containers
                if one.labels[LAB] == lab and one.labels.get(ROLE) == HOST_ROLE and not _is_retired(one)
            },
            retired=[one for one in containers if one.labels[LAB] == lab and _is_retired(one)],
            networks={one.labels[NETWORK]: one for one in networks if one.labels[LAB] == lab},
        )
        for lab in labs
    }


def parts_of(engine: Engine, lab: str) -> Parts:
    """The parts of one lab; empty when there is none of that name."""
    return read_parts(engine).get(lab) or Parts(lab, None, {}, [], {})


def _is_retired(container: Container) -> bool:
    """A host's container that was renamed to make room for its successor."""
    return container.labels.get(ROLE) == HOST_ROLE and container.name != container_name(container.labels[LAB], container.labels[HOST])


def existing(engine: Engine, parts: Parts, *, interrupted: bool = False) -> Existing:
    """What is there in the plan's terms, with what is wrong with each host that cannot be kept.

    After an ``interrupted`` `up` or reset the switch is looked into as well.
    """
    switch_works = parts.switch is not None and _works(engine, parts.switch)
    unplugged: set[str] = set()
    if switch_works and parts.switch and interrupted:
        with make_switch(engine, parts.lab, parts.switch.id) as switch:
            bridges, ports = (set(devices(switch, "link", "show", "up", "type", kind)) for kind in ("bridge", "veth"))
        switch_works = bridges >= {bridge_name(name) for name in parts.networks}
        unplugged = {name for name, one in parts.settings.items() if not ports >= {link["port"] for link in one["links"]}}

    def wrong(name: str) -> str:
        return what_is_wrong(engine, parts.hosts[name]) or ("" if switch_works and name not in unplugged else CUT_OFF)

    broken = side_by_side(wrong, parts.hosts)
    return Existing(
        segments=parts.segments,
        hosts=parts.settings,
        broken={name: why for name, why in zip(parts.hosts, broken, strict=True) if why},
        switch=switch_works,
    )


def _works(engine: Engine, switch: Container) -> bool:
    """Whether a lab's switch runs, and has since it was made: one that was started again has lost its bridges and ports."""
    return switch.state == "running" and engine.written(switch.id, stream=STDERR).count(READY) == 1


def devices(switch: Host, *question: str) -> list[str]:
    """The names of the devices that ip(8) shows in the switch. It lists an empty object for each one that it leaves out."""
    listed = switch.run(["ip", "-json", *question]).check(where="the switch")
    return [str(one["ifname"]) for one in json.loads(listed.text or "[]") if "ifname" in one]


def ip_batch(switch: Host, commands: Iterable[str], *, force: bool = False) -> Result:
    """Commands of ip(8) in the switch, in one batch; with ``force`` those after one that fails, too."""
    return switch.run(["ip", *(["-force"] if force else []), "-batch", "-"], stdin="\n".join(commands).encode())


def what_is_wrong(engine: Engine, container: Container) -> str:
    """Why a host's container is no host of a lab that is up, or nothing."""
    if container.state != "running":
        return f"not running ({container.status or container.state})"
    since_start = engine.written(container.id, stream=STDERR, since=_seconds(engine.inspect(container.id).started_at))
    return "" if READY in since_start else "cut off: it was started outside its lab, or is not ready yet"


def _seconds(moment: str) -> float:
    """A time as the engine writes it (nanoseconds, Z) in seconds since 1970, rounded down to microseconds."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00").timestamp()


class Lab:
    """A lab that is up: its hosts, and the switch that they hang on. Closing it ends the connections, not the lab."""

    def __init__(self, engine: Engine, parts: Parts) -> None:
        self.name = parts.lab
        self.engine = engine
        self.segments = parts.segments
        self.settings = parts.settings
        self.hosts = {name: make_host(engine, parts.lab, name, parts.hosts[name].id, self.settings[name]) for name in parts.hosts}
        self._switch = parts.switch

    @property
    def switch(self) -> Host:
        """The lab's switch, to run commands in: captures, impairments. Over a connection of its own, to be closed."""
        if self._switch is None:
            raise UnknownName("switch", self.name, [])
        return make_switch(self.engine, self.name, self._switch.id)

    @cached_property
    def own_switch(self) -> Host:
        """The switch over a connection that stays until the lab is closed, for what is done again and again."""
        return self.switch

    def host(self, name: str) -> Host:
        """The host called ``name``, or :class:`UnknownName`."""
        if name not in self.hosts:
            raise UnknownName("host", name, self.hosts)
        return self.hosts[name]

    def port(self, host: str, network: str) -> str:
        """The device of a host's port on a network, in the switch."""
        self.host(host)
        for link in self.settings[host]["links"]:
            if link["network"] == network:
                return str(link["port"])
        raise UnknownName("network of this host", network, [link["network"] for link in self.settings[host]["links"]])

    def bridge(self, network: str) -> str:
        """The device of a network's bridge, in the switch."""
        if network not in self.segments:
            raise UnknownName("network", network, self.segments)
        return bridge_name(network)

    def close(self) -> None:
        for host in (*self.hosts.values(), *([self.own_switch] if "own_switch" in vars(self) else [])):
            host.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``work`` of every item, several at a time, results in order; the first error is raised when all have ended."""
    with ThreadPoolExecutor(WORKERS) as pool:
        return [one.result() for one in [pool.submit(work, item) for item in items]]


def make_host(engine: Engine, lab: str, name: str, container: str, settings: Settings) -> Host:
    addresses = {link["network"]: tuple(ip_interface(one).ip for one in link["addresses"]) for link in settings["links"]}
    own = "" if settings["guest"] else own_capabilities(settings["capabilities"])
    return Host.in_container(_facts(lab, name, settings["kind"], settings["arch"], container, addresses, own), engine)


def make_switch(engine: Engine, lab: str, container: str) -> Host:
    architecture = of_machine(engine.machine)
    return Host.in_container(_facts(lab, SWITCH, "native", architecture.name, container, {}, ""), engine)


def _facts(lab: str, name: str, kind: str, arch: str, container: str, addresses: Mapping[str, tuple[Address, ...]], own: str) -> HostFacts:
    return HostFacts(lab, name, kind, arch, ARCHITECTURES[arch].byte_order, container, addresses, own)


@dataclass(frozen=True)
class Console:
    """What a guest's console tells since its container was last started. ``how`` it came up: restored or booted, and
    what its kernel did for want of memory since."""

    kernel: str
    how: str
    lines: Sequence[str]

    @classmethod
    def read(cls, engine: Engine, container: Container) -> Console:
        written = engine.written(container.id, stream=STDERR, since=_seconds(engine.inspect(container.id).started_at))
        text = written.decode(errors="backslashreplace")
        *_, came_up = [None, *_CAME_UP.finditer(text)]  # the last time: a reset makes another guest
        how, kernel = came_up.groups() if came_up else ("not up", "unknown")
        killed = _OUT_OF_MEMORY.findall(text, came_up.end() if came_up else 0)
        if killed:
            how += f", out of memory: its kernel killed {', '.join(killed[-3:])}"
        return cls(kernel, how, text.splitlines())


@dataclass(frozen=True)
class HostStatus:
    """A row of `status`. ``kernel`` is the release of the kernel whose TCP/IP stack answers, ``kernel_of`` whose it is."""

    lab: str
    name: str
    kind: str
    arch: str
    byte_order: str
    kernel_of: str
    kernel: str
    addresses: Mapping[str, Sequence[str]]
    state: str
    console: Sequence[str] = ()  # the last lines of a guest's that is gone

    def as_json(self) -> dict[str, object]:
        return {"host": self.name, **{key: value for key, value in asdict(self).items() if key != "name"}}


def status(engine: Engine, lab: str | None = None) -> list[HostStatus]:
    """The hosts of a lab, or of all labs. Raises :class:`UnknownName`."""
    labs = read_parts(engine)
    if lab is not None and lab not in labs:
        raise UnknownName("lab", lab, labs)
    kernel = engine.info().kernel
    rows = []
    for name, parts in labs.items():
        if lab not in (None, name):
            continue
        there = existing(engine, parts)
        for host, settings in there.hosts.items():
            guest = guest_from(settings)
            console = Console.read(engine, parts.hosts[host]) if guest else None
            rows.append(
                HostStatus(
                    lab=name,
                    name=host,
                    kind=settings["kind"],
                    arch=settings["arch"],
                    byte_order=ARCHITECTURES[settings["arch"]].byte_order,
                    kernel_of="its own" if console else "the machine's",
                    kernel=console.kernel if console else kernel,
                    addresses={link["network"]: link["addresses"] for link in settings["links"]},
                    state=there.broken.get(host) or (f"running ({console.how}, {guest.accelerator})" if console and guest else "running"),
                    console=end_of_console(console.lines) if console and host in there.broken else (),
                )
            )
    return rows


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts client-2 before client-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def down(engine: Engine, lab: str) -> Parts:
    """Remove everything of a lab that the engine has, whatever state it is in, and give what that was."""
    with lock(lab, engine.socket) as held:
        if held.interrupted:
            settle(engine, lab)
        parts = parts_of(engine, lab)
        side_by_side(engine.remove_container, [one.id for one in parts.containers])
        # After them: the switch is on the external ones.
        for network in parts.networks.values():
            engine.remove_network(network.id)
        held.done()
    return parts


def abandoned(labs: Mapping[str, Parts]) -> list[str]:
    """The labs whose run is over, so that nobody will take them down. Those of a boot before this one, or of another machine, count only
    when all of their containers have ended: that is what a boot leaves of a lab."""

    def is_abandoned(parts: Parts) -> bool:
        run = parts.run
        if run is None:
            return False
        ended = bool(parts.containers) and all(one.state == "exited" for one in parts.containers)
        return ended if run.over is None else run.over

    return [name for name, parts in labs.items() if is_abandoned(parts)]


def remove_abandoned(engine: Engine) -> list[str]:
    """Remove the labs of runs that were killed, and give their names. Several processes may do that at the same time."""

    def removed(name: str) -> bool:
        try:
            return bool(down(engine, name))
        except LabError:
            return False  # another one is removing it at this moment, or the next one will

    return [name for name in abandoned(read_parts(engine)) if removed(name)]


def settle(engine: Engine, lab: str) -> None:
    """After a killed `up`: the engine may still be making what it had been asked for. Wait until nothing of the lab changes."""
    before: list[tuple[str, str]] | None = None
    quiet = Deadline(QUIET_S)

    def at_rest() -> bool:
        nonlocal before, quiet
        parts = parts_of(engine, lab)
        # The engine lists networks in no order.
        now = sorted([(one.id, one.state) for one in parts.containers] + [(one.id, "") for one in parts.networks.values()])
        if now != before:
            before, quiet = now, Deadline(QUIET_S)
        return quiet.passed

    wait_until(at_rest, timeout_s=60, every_s=0.1, what=f"the engine at rest after an interrupted up of lab '{lab}'")
