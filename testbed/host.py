"""A host of a lab: commands run on it, files put there and fetched, the same way on every kind of host.

A command is its process group: it is over when its first process has ended. What is left of the group then has a quarter
of a second to finish writing and is killed, also when it was put in the background by a shell; to leave something
running, start it ``detached``. A daemon that made a session of its own is not of the group and stays.
"""

from __future__ import annotations

import os
import signal as signals
import stat
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePosixPath
from types import TracebackType
from uuid import uuid4

from testbed import observe, transfer
from testbed.agent import ANSWER_S, INPUT_WINDOW, STDERR, STDOUT, Agent, Command, Order, Reset, Transport
from testbed.architecture import ByteOrder
from testbed.counters import Counters, counters
from testbed.engine import ContainerState, Engine
from testbed.errors import CommandFailed, DeadlineExceeded, EngineError, InputError, LabError
from testbed.guest import CONNECT
from testbed.host_sysctls import Sysctls
from testbed.observe import Holders, ListenQueue, Protocol, Socket
from testbed.process import Deadline, Result, wait_until
from testbed.running import DEATH_S, LISTENING_EVERY_S, InputStream, OutputStream, Process, tail
from testbed.transcript import Transcript

__all__ = ["Host", "HostFacts", "InputStream", "OutputStream", "Process"]

AGENT = "/usr/lib/testbed/agent"
# What init and the agent need to make a host new (images/init/fresh.h), with the numbers of linux/capability.h.
OWN_CAPABILITIES = {"DAC_OVERRIDE": 1, "KILL": 5, "SETPCAP": 8, "SYS_CHROOT": 18, "SYS_ADMIN": 21}
DETACHED_OUTPUT = "/run/testbed"
CONSOLE_LINES = 12
# QEMU's user mode keeps clear of the two real-time signals that its own C library uses: a program's 32 is the kernel's 34.
EMULATED_SHIFT = 2
GRACE_S = 0.5  # between SIGTERM and SIGKILL

Argument = str | os.PathLike[str]


@dataclass(frozen=True)
class HostFacts:
    """What is known of a host. ``arch`` is Debian's name, ``container`` the id of its container, ``addresses`` by network,
    ``own`` as of :func:`own_capabilities`; a host without can not be reset."""

    lab: str
    name: str
    kind: str
    arch: str
    byte_order: ByteOrder
    container: str
    addresses: Mapping[str, tuple[IPv4Address | IPv6Address, ...]]
    own: str = ""


def own_capabilities(capabilities: Collection[str]) -> str:
    """Those of a host in a container that its commands do not get, as init and the agent are told them, when commands are
    to have ``capabilities``."""
    return ",".join(str(number) for name, number in OWN_CAPABILITIES.items() if name not in capabilities)


def last_words(engine: Engine, facts: HostFacts) -> str:
    """The end of a guest's console, for an error; nothing for a host without one."""
    if facts.kind != "vm":
        return ""
    lines = engine.written(facts.container, stream=STDERR).decode(errors="backslashreplace").splitlines()
    return "; the end of its console:\n" + "\n".join(f"  | {line}" for line in end_of_console(lines))


def end_of_console(lines: Sequence[str]) -> list[str]:
    """The last lines of a guest's console, after the one in which its kernel says why it panics: a long trace may follow that."""
    end, before = list(lines[-CONSOLE_LINES:]), lines[:-CONSOLE_LINES]
    return [line for line in before if "Kernel panic" in line][-1:] + end


class Host:
    """A host that runs. ``connect`` opens a way to its agent, ``why`` says what became of it when that breaks off.

    Any number of threads may use it. The connection is made at the first use and kept until ``close``.
    """

    def __init__(
        self,
        facts: HostFacts,
        connect: Callable[[], Transport],
        *,
        why: Callable[[], str] = lambda: "",
        pid: Callable[[], int] = lambda: 0,
    ) -> None:
        self.facts = facts
        self.lab = facts.lab
        self.name = facts.name
        self.kind = facts.kind
        self.arch = facts.arch
        self.byte_order = facts.byte_order
        self.container = facts.container
        self.addresses = facts.addresses
        self.transcript: Transcript | None = None  # what is run from now on is noted there
        self._connect = connect
        self._why = why
        self._find_pid = pid
        self._pid: tuple[Agent, int] | None = None
        self._lock = threading.Lock()
        self._agent: Agent | None = None

    @classmethod
    def in_container(cls, facts: HostFacts, engine: Engine) -> Host:
        """A host that is a container of this engine, or the guest in one."""
        way = [CONNECT] if facts.kind == "vm" else [AGENT, "--own", facts.own] if facts.own else [AGENT]

        def connect() -> Transport:
            try:
                stream = engine.exec_stream(facts.container, way)
                stream.give_up_sending_after(ANSWER_S)
                return stream
            except EngineError as error:
                hint = error.hint or "testbed up mends a lab"
                raise LabError(f"host {facts.name} cannot be reached: {error.message}", hint=hint) from error

        def ended() -> ContainerState | None:
            state = engine.inspect(facts.container)
            return None if state.running else state

        def why() -> str:
            # The engine sees the end of a container a little later than we see the end of the agent in it.
            try:
                state = wait_until(ended, timeout_s=0.5, what="the end of the container")
                return f"its container has ended with exit code {state.exit_code}{last_words(engine, facts)}"
            except DeadlineExceeded:
                return ""
            except EngineError as error:  # it is being removed
                return error.message

        return cls(facts, connect, why=why, pid=lambda: engine.inspect(facts.container).pid)

    def run(
        self,
        argv: Sequence[Argument],
        *,
        stdin: bytes = b"",
        timeout_s: float | None = 60,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        user: str | None = None,
    ) -> Result:
        """Run a command to its end, without a shell; whatever its exit code is, it is in the result.

        ``environment`` is added to the host's own, ``directory`` is / by default, ``user`` (name, uid or uid:gid) root.
        After ``timeout_s`` seconds its process group gets SIGTERM, half a second later SIGKILL, and
        :class:`DeadlineExceeded` has the end of its output. Raises :class:`InputError` when there is no such command,
        directory or user, and :class:`LabError` when the host cannot run it or is gone.
        """
        order = _order(argv, environment, directory, user, files=("", "", "") if stdin else ("/dev/null", "", ""))
        return self._run(order, stdin, timeout_s, self.transcript)

    def _ask(self, argv: Sequence[Argument], *, stdin: bytes = b"", timeout_s: float | None = 60) -> Result:
        """``run``, for what this class itself wants to know: no part of a transcript."""
        return self._run(_order(argv, None, None, None, files=("", "", "") if stdin else ("/dev/null", "", "")), stdin, timeout_s, None)

    def _run(self, order: Order, stdin: bytes, timeout_s: float | None, transcript: Transcript | None) -> Result:
        began = time.monotonic()
        short = len(stdin) <= INPUT_WINDOW
        command = self._connection().start(order, stdin=stdin if short else None, collect=True, transcript=transcript)
        deadline = Deadline(timeout_s)
        try:
            if not short:
                command.write(stdin, deadline)
                command.end_input()
            in_time = command.wait(lambda: command.over, deadline)
        except BaseException:  # above all KeyboardInterrupt: nobody waits for it any more
            command.signal(signals.SIGKILL)
            raise
        if not in_time:
            _end(command, self.name)
        stdout, stderr = (command.take(number, len(command.available(number))) for number in (STDOUT, STDERR))
        if not in_time:
            raise DeadlineExceeded(f"the end of '{' '.join(order.argv)}' on host {self.name}", timeout_s or 0, hint=tail(stdout, stderr))
        if command.failure is not None:
            raise command.failure
        assert command.exit_code is not None
        return Result(order.argv, command.exit_code, stdout, stderr, time.monotonic() - began)

    def start(
        self,
        argv: Sequence[Argument],
        *,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        user: str | None = None,
        detached: bool = False,
        terminal: tuple[int, int] | None = None,
    ) -> Process:
        """Start a command and give it while it runs; arguments and errors as for ``run``.

        A ``detached`` one has no input, writes to files on the host (``Process.output_files``) and outlives this object.
        Every other one is killed when this host is closed or this program ends.

        With ``terminal``, a size in rows and columns (0: not known), it has a terminal of its own: all that it shows,
        the echo of what is typed too, is ``Process.stdout``, with CR LF at the ends of lines, and Ctrl-C is the byte 3.
        What a shell on it left in the background stays when the shell has ended.
        """
        files = ("", "", "")
        if detached:
            name = f"{DETACHED_OUTPUT}/{uuid4().hex[:12]}"
            files = ("/dev/null", f"{name}.stdout", f"{name}.stderr")
        order = _order(argv, environment, directory, user, files=files, detached=detached, terminal=terminal)
        return self._start(order, self.transcript)

    def read(self, path: str) -> bytes:
        """The content of a file. Raises :class:`InputError` when there is none that can be read."""
        return self._start(Order(("cat",), files=(_absolute(path), "", ""))).result(timeout_s=None).check(where=f"host {self.name}").stdout

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Make ``data`` the content of a file, new or not, which has ``mode`` afterwards. Its directory must be there."""
        order = Order(("cat",), files=("", _absolute(path), ""), mode=mode)
        self._copy(order, path, lambda stdin: stdin.write(data))

    def put(self, local: Path, remote: str) -> None:
        """Copy a file or directory to the path ``remote`` of the host; into the directory ``remote`` if that ends with a slash.

        Modes are kept, owners are not: root owns what is made. A directory is merged into one that is there. Symbolic
        links in a directory stay links. Raises :class:`InputError` for a wrong path here or there, :class:`LabError`
        with the host's own words when it has no room.
        """
        target = _absolute(f"{remote}{local.name}" if remote.endswith("/") else remote)
        with transfer.local_errors(local):
            if local.is_dir():
                path = PurePosixPath(target)
                order = Order(("tar", "-x", "-p", "--no-same-owner", "-f", "-", "-C", str(path.parent)))
                self._copy(order, target, lambda stdin: transfer.pack(local, path.name, stdin))
                return
            with local.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                order = Order(("cat",), files=("", target, ""), mode=mode)
                self._copy(order, target, lambda stdin: transfer.copy(file, stdin))

    def get(self, remote: str, local: Path) -> None:
        """Copy a file or directory of the host to the path ``local``. Modes are kept; a directory is merged into one
        that is there. Raises as ``put`` does."""
        remote = _absolute(remote)
        found = self._ask(["stat", "-L", "-c", "%a %F", "--", remote])
        if found.exit_code != 0:
            raise InputError(f"host {self.name}: {found.error_text.strip().removeprefix('stat: ')}")
        mode, kind = found.text.strip().split(maxsplit=1)
        if kind == "directory":
            self._get_directory(remote, local)
            return
        process = self._start(Order(("cat",), files=(remote, "", "")))
        with process, transfer.local_errors(local), transfer.new_file(local, int(mode, 8)) as file:
            transfer.copy(process.stdout, file)
            process.result().check(where=f"host {self.name}")

    @property
    def pid(self) -> int:
        """The number of its container's first process on the engine's machine. While the connection stays, so does that."""
        agent = self._connection()
        if self._pid is None or self._pid[0] is not agent:
            self._pid = agent, self._find_pid()
        return self._pid[1]

    def ask_for_reset(self, hosts: str) -> Reset:
        """Begin to make it new, with ``hosts`` as its /etc/hosts; testbed/reset.py does the rest."""
        return self._connection().reset(hosts)

    # What its kernel says

    def sockets(
        self,
        port: int | None = None,
        *,
        state: str | None = None,
        protocol: Protocol | None = None,
        address: IPv4Address | IPv6Address | str | None = None,
        peer_port: int | None = None,
    ) -> list[Socket]:
        """Its TCP and UDP sockets; of a local ``port``, a ``state`` (LISTEN, ESTABLISHED, TIME_WAIT, ..., however one writes it), a
        ``protocol`` (tcp, udp), a local ``address``, a port of the peer.

        Raises :class:`InputError` for a state, protocol or address that is none.
        """
        found = observe.sockets(self._ask, self.name)
        return observe.chosen(found, port=port, peer_port=peer_port, state=state, protocol=protocol, address=address)

    def listen_queue(self, port: int, *, address: IPv4Address | IPv6Address | str | None = None) -> ListenQueue:
        """The accept queue of what listens on a TCP port; ``address`` says which one when several do, each at an address.

        Raises :class:`LabError` when nobody listens there, which names what is listened on, and :class:`InputError` when
        several do.
        """
        now = self.counters()
        return observe.listen_queue(
            observe.sockets(self._ask, self.name),
            self.name,
            port,
            overflows=now["TcpExt.ListenOverflows"],
            drops=now["TcpExt.ListenDrops"],
            address=address,
        )

    def counters(self) -> Counters:
        """All counters of its kernel and its interfaces at this moment: ``counters()["TcpExt.ListenOverflows"]``. The difference of
        two, ``later - earlier``, is what happened in between."""
        return counters(self._ask, self.name)

    @property
    def sysctl(self) -> Sysctls:
        """Its sysctls, to read and set: ``host.sysctl["net.core.somaxconn"] = 4``."""
        return Sysctls(self._ask, self.name, own_kernel=self.kind == "vm")

    def is_listening(self, port: int, *, protocol: Protocol = "tcp") -> bool:
        """Whether something listens on a TCP port, over IPv4 or IPv6, or is bound to a UDP port."""
        return observe.is_listening(self._ask, self.name, observe.check_port(port), protocol, own_kernel=self.kind == "vm")

    def wait_listening(self, port: int, *, timeout_s: float = 60, protocol: Protocol = "tcp") -> None:
        """Wait until something listens on a TCP port, over IPv4 or IPv6, or is bound to a UDP port. For a command that was started here
        :meth:`Process.wait_listening` is better: it hears of the command's end. Raises :class:`DeadlineExceeded`."""
        wait_until(
            lambda: self.is_listening(port, protocol=protocol),
            timeout_s=timeout_s,
            what=f"something that listens on {protocol.upper()} port {port} of host {self.name}",
            every_s=LISTENING_EVERY_S,
        )

    def close(self) -> None:
        """End what runs on it for us, detached commands apart, and the connection. The next use makes a new one."""
        with self._lock:
            agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _connection(self) -> Agent:
        with self._lock:
            if self._agent is not None and not self._agent.alive:
                self._agent.close()
                self._agent = None
            if self._agent is None:
                shift = EMULATED_SHIFT if self.kind == "emulated" else 0
                self._agent = Agent(self._connect(), self.name, why=self._why, realtime_shift=shift)
            return self._agent

    def _start(self, order: Order, transcript: Transcript | None = None) -> Process:
        began = time.monotonic()
        command = self._connection().start(order, transcript=transcript)
        command.wait_started()
        return Process(self.name, command, order.argv, began, self.read, self._holders)

    def _holders(self, port: int, protocol: Protocol, leader: int) -> Holders | None:
        """Who holds the sockets that are listened on at a port, None when there is none; asked by a process."""
        return observe.holders(self._ask, self.name, port, protocol, leader, own_kernel=self.kind == "vm")

    def _copy(self, order: Order, path: str, write: Callable[[InputStream], object]) -> None:
        """Run a command that makes ``path`` of what ``write`` gives it as its standard input."""
        stopped: LabError | None = None
        with self._start(order) as process:
            try:
                write(process.stdin)
            except DeadlineExceeded:
                raise
            except LabError as error:
                stopped = error  # it reads no more; its own words, if it has any, say why
            result = process.result()
        if result.exit_code != 0:
            raise CommandFailed(order.argv, result.exit_code, result.error_text, where=f"host {self.name}, which was to make {path},")
        if stopped is not None:
            raise stopped

    def _get_directory(self, remote: str, local: Path) -> None:
        order = Order(("tar", "-c", "--hard-dereference", "-f", "-", "-C", remote, "."))
        with self._start(order) as process, transfer.local_errors(local):
            transfer.unpack(process.stdout, local)
            process.result().check(where=f"host {self.name}")


def _order(
    argv: Sequence[Argument],
    environment: Mapping[str, str] | None,
    directory: str | None,
    user: str | None,
    *,
    files: tuple[str, str, str],
    detached: bool = False,
    terminal: tuple[int, int] | None = None,
) -> Order:
    if isinstance(argv, str | bytes):
        raise InputError(f"a command is a list of arguments, not the text {argv!r}", hint=f"for a shell: ['sh', '-c', {argv!r}]")
    words = tuple(os.fspath(word) if isinstance(word, str | os.PathLike) else word for word in argv)
    for word in words:
        if not isinstance(word, str):
            raise InputError(f"an argument of a command is a text or a path, not {word!r}")
    return Order(words, environment or {}, directory or "", user or "", files, detached=detached, terminal=terminal)


def _end(command: Command, host: str) -> None:
    """End a command that has used up its time: SIGTERM, a grace, SIGKILL."""
    for number, patience_s in ((signals.SIGTERM, GRACE_S), (signals.SIGKILL, DEATH_S)):
        command.signal(number)
        if command.wait(lambda: command.over, Deadline(patience_s)):
            return
    raise DeadlineExceeded(f"the end of '{' '.join(command.order.argv)}' on host {host} after SIGKILL", DEATH_S, hint="is the host paused?")


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise InputError(f"'{path}' is no path on a host", hint="it begins with /")
    return path
