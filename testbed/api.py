"""The Python interface: a lab for as long as a ``with`` block runs.

    with Lab.from_file("pair.yaml") as lab:
        with lab.host("server").start(["echo-server", "8001"]) as server:
            server.wait_listening(8001)
            lab.host("client").run(["echo-client", "server", "8001", "hello"]).check()

What is exported is named in ``testbed/__init__.py``, and docs/python-api.md tells how it is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Self

from testbed import capture as capturing
from testbed import lab as labs
from testbed import wire
from testbed.arguments import load, only_network
from testbed.capture import ALL_PORTS, Packet
from testbed.change import Progress, silent
from testbed.engine import Engine
from testbed.errors import InputError, UnknownName
from testbed.host import Host
from testbed.runs import this_run
from testbed.up import up

if TYPE_CHECKING:
    from testbed.topology import Topology

__all__ = ["Capture", "Lab"]


class Lab:
    """A lab to work with, made by :meth:`from_file`, :meth:`from_topology` or :meth:`attach`.

    It is used in a ``with`` block, or between :meth:`up` and :meth:`down`. Any number of threads may use it.
    """

    def __init__(self, name: str, topology: Topology | None, *, keep: bool = False, progress: Progress = silent) -> None:
        self.name = name
        self.topology = topology
        self.keep = keep
        self.warnings: tuple[str, ...] = ()
        self._progress = progress
        self._engine: Engine | None = None
        self._lab: labs.Lab | None = None

    @classmethod
    def from_file(cls, file: str | Path, *, name: str | None = None, keep: bool = False, progress: Progress = silent) -> Self:
        """The lab of a topology file, or of a topology that comes with testbed (``"pair"``), brought up on entering.

        ``name`` is the lab's, by default the topology's: under another name the same file can be up several times.
        With ``keep`` the lab is left up, and one that is up already is used and changed to what the file says; without, the
        lab must not be there yet, and is removed on leaving. It goes with this process: should that be killed, its lab is
        nobody's, and the next one of that name takes its place. ``progress(what, step)`` is called, from several threads, with what
        is being done.

        Raises :class:`TopologyError` for a file that is wrong, :class:`UnknownName` for a topology that is not there.
        """
        return cls.from_topology(load(str(file)), name=name, keep=keep, progress=progress)

    @classmethod
    def from_topology(cls, topology: Topology, *, name: str | None = None, keep: bool = False, progress: Progress = silent) -> Self:
        """The lab of a topology built in Python; otherwise like :meth:`from_file`."""
        if name is not None:
            from testbed.topology_values import read_name

            topology = topology.model_copy(update={"name": read_name(name)})
        return cls(topology.name, topology, keep=keep, progress=progress)

    @classmethod
    def attach(cls, name: str) -> Self:
        """The lab of that name, which is up, and stays up on leaving. It can be used at once; leaving or ``close`` ends the
        connections. Raises :class:`UnknownName` when there is none."""
        found = cls(name, None, keep=True)
        found._connect()
        return found

    # Its life

    def up(self) -> Self:
        """Bring it up, as entering does. Raises :class:`InputError` when a lab of that name is up already (unless ``keep``),
        other :class:`TestbedError` when it does not come up; then nothing of it is left."""
        if self._lab is not None:
            raise InputError(f"lab '{self.name}' is up already, by this very object", hint="enter it once, and use it inside")
        if self.topology is None:
            self._connect()
            return self
        engine = Engine()
        try:
            if labs.abandoned({self.name: labs.parts_of(engine, self.name)}):
                labs.down(engine, self.name)
            run = None if self.keep else this_run()
            self.warnings = up(engine, self.topology, progress=self._progress, new=not self.keep, run=run).warnings
            try:
                self._connect()
            except BaseException:  # above all Ctrl-C: nobody would take it down any more
                if not self.keep:
                    labs.down(engine, self.name)
                raise
        finally:
            engine.close()
        return self

    def down(self) -> None:
        """End the connections, and remove the lab with all that is in it. Again is fine."""
        self.close()
        engine = Engine()
        try:
            labs.down(engine, self.name)
        finally:
            engine.close()

    def close(self) -> None:
        """End what runs on the hosts for this object, detached commands apart, and the connections; the lab stays up."""
        lab, engine = self._lab, self._engine
        self._lab = self._engine = None
        if lab is not None:
            lab.close()
        if engine is not None:
            engine.close()

    def __enter__(self) -> Self:
        if self.topology is None and self._lab is not None:
            return self  # attached
        return self.up()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.keep:
            self.close()
        else:
            self.down()

    # What is in it

    @property
    def hosts(self) -> Mapping[str, Host]:
        """Its hosts by name, in the order of names (client-2 before client-10)."""
        return MappingProxyType(self.running.hosts)

    def host(self, name: str) -> Host:
        """The host of that name. Raises :class:`UnknownName`, which lists those that there are."""
        return self.running.host(name)

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of its networks."""
        return tuple(self.running.segments)

    @property
    def running(self) -> labs.Lab:
        """The lab as the rest of testbed knows it. Raises :class:`InputError` when it is not up."""
        if self._lab is None:
            hint = f"use it inside `with ... as lab:`, or attach to one that is up: Lab.attach('{self.name}')"
            raise InputError(f"lab '{self.name}' is not up", hint=hint)
        return self._lab

    def status(self) -> list[labs.HostStatus]:
        """What `testbed status` shows of its hosts: kind, architecture, byte order, whose kernel, addresses, state."""
        return labs.status(self.running.engine, self.name)

    def reset(self, hosts: Iterable[str] | None = None) -> None:
        """Make hosts (by default all) what they were when the lab had come up: processes, sockets, counters, firewall, queueing
        disciplines, sysctls and files. Connections stay usable; commands that ran there raise :class:`LabError`.

        Raises :class:`UnknownName` for a host that is not there, and :class:`LabError` when one cannot be reset.
        """
        from testbed.reset import reset

        reset(self.running, [hosts] if isinstance(hosts, str) else hosts)

    @contextmanager
    def capture(
        self,
        host: str | None = None,
        network: str | None = None,
        *,
        filter: str = "",  # noqa: A002 - the field's own word
        file: Path | str | None = None,
        snap: int | None = None,
        count: int | None = None,
        immediate: bool = True,
    ) -> Iterator[Capture]:
        """Capture packets while the block runs, from outside the hosts; afterwards its packets can be read.

        Of a host, at its port on ``network`` (which may be left out when it is on one only); of all of a network without
        ``host``; of the whole lab without either (then a packet is seen at every device of the switch that it passes).
        ``filter`` as in pcap-filter(7); ``snap`` the most bytes kept of a packet, by default all; the pcap goes to
        ``file``, or is kept in memory, up to 64 MB; ``count`` ends it after so many packets. Without ``immediate`` it bears more
        traffic, and leaving the block takes a second more.

        Raises :class:`UnknownName` and :class:`InputError` for what is not there or makes no sense, and
        :class:`LabError` when packets were lost.
        """
        lab = self.running
        path = None if file is None else Path(file)
        device = _device(lab, host, network)
        with (
            lab.switch as switch,
            capturing.capture(switch, device, filter=filter, snap=snap, file=path, count=count, immediate=immediate) as running,
        ):
            yield Capture(running, path)

    def _connect(self) -> None:
        engine = Engine()
        try:
            known = labs.read_parts(engine)
            if self.name not in known:
                raise UnknownName("lab", self.name, known)
            self._lab = labs.Lab(engine, known[self.name])
        except BaseException:
            engine.close()
            raise
        self._engine = engine

    def __repr__(self) -> str:
        hosts = f", hosts: {', '.join(self._lab.hosts)}" if self._lab else ", not up"
        return f"<Lab {self.name}{hosts}>"


def _device(lab: labs.Lab, host: str | None, network: str | None) -> str:
    """The device of the switch to capture on."""
    if host is None:
        return ALL_PORTS if network is None else lab.bridge(network)
    lab.host(host)  # which says if there is none
    return lab.port(host, only_network(lab, host, "network=") if network is None else network)


class Capture:
    """A capture of :meth:`Lab.capture`. Its packets can be read when its block is over."""

    def __init__(self, capture: capturing.Capture, file: Path | None) -> None:
        self._capture = capture
        self._file = file

    def wait(self, *, timeout_s: float | None = 60) -> bool:
        """Wait until the ``count`` of the capture is reached; False when it is not within ``timeout_s`` seconds."""
        return self._capture.wait(timeout_s=timeout_s)

    @property
    def pcap(self) -> bytes:
        """All of it, as a pcap file."""
        return self._capture.pcap if self._file is None else self._file.read_bytes()

    @property
    def packets(self) -> list[Packet]:
        """Its packets, in the order in which they were seen."""
        return capturing.read_pcap(self.pcap)

    def conversations(self) -> list[wire.Conversation]:
        """Its TCP connections, put together: the bytes of each direction."""
        return wire.conversations(self.packets)

    def segments(self) -> list[wire.Segment]:
        """Its TCP segments, one by one."""
        return list(wire.segments_of(self.packets))

    def datagrams(self) -> list[wire.Datagram]:
        """Its UDP datagrams."""
        return wire.datagrams(self.packets)
