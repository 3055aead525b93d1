"""A host of a lab: commands run on it, files put there and fetched, the same way on every kind of host.

A command is its process group: it is over when its first process has ended. What is left of the group then has a quarter
of a second to finish writing and is killed, also when it was put in the background by a shell; to leave something
running, start it ``detached``. A daemon that made a session of its own is not of the group and stays.
"""

from __future__ import annotations

import os
import re
import signal as signals
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path, PurePosixPath
from types import TracebackType
from uuid import uuid4

from testbed import transfer
from testbed.agent import ANSWER_S, DATA_MOST, INPUT_WINDOW, OUTPUT_WINDOW, STDERR, STDOUT, Agent, Command, Order, Transport, cut
from testbed.architecture import ByteOrder
from testbed.engine import ContainerState, Engine
from testbed.errors import CommandFailed, DeadlineExceeded, EngineError, InputError, LabError
from testbed.process import Deadline, Result, wait_until

AGENT = "/usr/lib/testbed/agent"
DETACHED_OUTPUT = "/run/testbed"
GRACE_S = 0.5  # between SIGTERM and SIGKILL
DEATH_S = 5.0  # a process that was sent SIGKILL is gone by then, or the host is

Argument = str | os.PathLike[str]


@dataclass(frozen=True)
class HostFacts:
    """What is known of a host. ``arch`` is Debian's name, ``container`` the id of its container, ``addresses`` by network."""

    lab: str
    name: str
    kind: str
    arch: str
    byte_order: ByteOrder
    container: str
    addresses: Mapping[str, tuple[IPv4Address | IPv6Address, ...]]


class InputStream:
    """A running command's standard input. A context manager that closes it."""

    def __init__(self, command: Command, where: str) -> None:
        self._command = command
        self._where = where

    def write(self, data: bytes | memoryview, *, timeout_s: float | None = 60) -> int:
        """Send all of ``data``; waits while the command does not read. Gives its size, as files do.

        Raises :class:`DeadlineExceeded` when the command reads nothing for so long, :class:`LabError` when it reads
        no more, or is over, or the host is.
        """
        sent = 0
        while sent < len(data):
            went = self._command.write(data[sent : sent + DATA_MOST], Deadline(timeout_s))
            sent += went
            if self._command.failure is not None:
                raise self._command.failure
            if sent < len(data) and not self._command.reads_input:
                raise LabError(f"{self._where} does not read its standard input any more: {sent} of {len(data)} bytes went")
            if not went:
                raise DeadlineExceeded(f"{self._where} to read its standard input", timeout_s or 0)
        return len(data)

    def close(self) -> None:
        """The end of the input, for the command. Again is fine."""
        self._command.end_input()

    def __enter__(self) -> InputStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class OutputStream:
    """A running command's standard output or error, as bytes. Iterating gives lines with their ends.

    Every read waits at most ``timeout_s`` seconds (None: without end) and raises :class:`DeadlineExceeded` then,
    :class:`LabError` when the host is gone. For one reader at a time.
    """

    def __init__(self, command: Command, number: int, where: str) -> None:
        self._command = command
        self.number = number
        self._where = where
        self._here = bytearray()  # taken from the command, not yet by the reader

    def read(self, size: int = -1, *, timeout_s: float | None = 60) -> bytes:
        """``size`` bytes, fewer only at the end; all that come until the end when it is negative."""
        deadline = Deadline(timeout_s)
        while (size < 0 or len(self._here) < size) and self._fill(deadline):
            pass
        return cut(self._here, len(self._here) if size < 0 else size)

    def read_some(self, size: int = OUTPUT_WINDOW, *, timeout_s: float | None = 60) -> bytes:
        """At least one byte as soon as there is one, at most ``size``; none at the end."""
        if self._here:
            return cut(self._here, size)
        return self._next(size, Deadline(timeout_s))

    def readline(self, *, timeout_s: float | None = 60) -> bytes:
        """The next line with its end; the last one may have none; empty at the end."""
        deadline, searched = Deadline(timeout_s), 0
        while (end := self._here.find(b"\n", searched)) < 0:
            searched = len(self._here)
            if not self._fill(deadline):
                return cut(self._here, len(self._here))
        return cut(self._here, end + 1)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def line_here(self) -> bytes:
        """The next line if all of it is here already, or what follows the last line end of a stream that has ended; else nothing."""
        ended = self._command.ended(self.number)  # asked first: what is here then is all
        self._here += self._command.take(self.number, OUTPUT_WINDOW)
        end = self._here.find(b"\n")
        if end < 0 and not ended:
            return b""
        return cut(self._here, end + 1 if end >= 0 else len(self._here))

    def rest(self) -> bytes:
        """All that is here, without waiting."""
        self._here += self._command.take(self.number, len(self._command.available(self.number)))
        return cut(self._here, len(self._here))

    def _fill(self, deadline: Deadline) -> bool:
        """Wait for more; False at the end."""
        data = self._next(OUTPUT_WINDOW, deadline)
        self._here += data
        return bool(data)

    def _next(self, size: int, deadline: Deadline) -> bytes:
        """What comes next, at most ``size`` bytes; nothing at the end."""
        command, number = self._command, self.number
        if not command.wait(lambda: bool(command.available(number)) or command.ended(number), deadline):
            raise DeadlineExceeded(f"output of {self._where}", deadline.timeout_s or 0)
        data = command.take(number, size)
        if not data and command.failure is not None:
            raise command.failure
        return data


class Process:
    """A command that was started. As a context manager it is killed at the end, unless it is detached.

    At most 1 MiB of each output stream wait to be read, then the command waits, as it would with a pipe;
    ``result`` reads all. The output of a detached command is in the files ``output_files`` of the host instead.
    """

    def __init__(self, host: Host, command: Command, argv: tuple[str, ...], began: float) -> None:
        self.argv = argv
        self.pid = command.pid
        self.detached = command.order.detached
        self.output_files = command.order.files[1:] if self.detached else None
        self._host = host
        self._command = command
        self._began = began
        where = self._where = f"'{' '.join(argv)}' on host {host.name}"
        self.stdin = InputStream(command, where)
        self.stdout = OutputStream(command, STDOUT, where)
        self.stderr = OutputStream(command, STDERR, where)
        self._seen = {STDOUT: bytearray(), STDERR: bytearray()}  # by wait_for_line

    @property
    def exit_code(self) -> int | None:
        """Its exit code, 128 + n when signal n ended it; None while it runs."""
        return self._command.exit_code

    def wait(self, timeout_s: float | None = 60) -> int:
        """Wait for its end, whether or not its output is read; gives the exit code. It goes on after :class:`DeadlineExceeded`."""
        command = self._command
        if not command.wait(lambda: command.exit_code is not None or command.failure is not None, Deadline(timeout_s)):
            raise DeadlineExceeded(f"the end of {self._where}", timeout_s or 0)
        if command.exit_code is None:
            assert command.failure is not None
            raise command.failure
        return command.exit_code

    def result(self, timeout_s: float | None = 60) -> Result:
        """Close its input, read all of its output that has not been read, and wait for its end. It goes on after
        :class:`DeadlineExceeded`."""
        command = self._command
        self.stdin.close()
        command.collect()
        if not command.wait(lambda: command.over, Deadline(timeout_s)):
            raise DeadlineExceeded(f"the end of {self._where}", timeout_s or 0)
        if command.failure is not None:
            raise command.failure
        stdout, stderr = self._output_so_far()
        assert command.exit_code is not None
        return Result(self.argv, command.exit_code, stdout, stderr, time.monotonic() - self._began)

    def wait_for_line(self, pattern: str | re.Pattern[str], timeout_s: float | None = 60) -> re.Match[str]:
        """The first match of a regular expression in a whole line of its output or error output, from the first one not yet read.

        The lines up to it count as read, but ``result`` has them too. Raises :class:`DeadlineExceeded`, or
        :class:`LabError` when it ends before, with its output so far.
        """
        wanted, deadline = re.compile(pattern), Deadline(timeout_s)
        what = f"a line that matches '{wanted.pattern}' from {self._where}"
        if self.detached:
            return self._wait_for_line_in_files(wanted, timeout_s, what)
        command = self._command
        while True:
            was_over = command.over  # asked first: then no line comes after those that are looked at now
            for stream in (self.stdout, self.stderr):
                while line := stream.line_here():
                    self._seen[stream.number] += line
                    if match := wanted.search(line.decode(errors="backslashreplace").rstrip("\r\n")):
                        return match
            if was_over and command.failure is not None:
                raise command.failure
            if was_over:
                raise LabError(f"{self._where} ended with exit code {command.exit_code} before {what}", hint=self._tail())
            if not command.wait(self._has_more, deadline):
                raise DeadlineExceeded(what, timeout_s or 0, hint=self._tail())

    def send_signal(self, number: int) -> None:
        """Send a signal to its whole process group; if it has ended, nothing happens."""
        if not 1 <= number <= 64:
            raise InputError(f"there is no signal {number}", hint="signals are 1 (HUP) to 64, 2 is INT, 15 is TERM")
        self._command.signal(number)

    def kill(self) -> None:
        """Send SIGKILL to its whole process group."""
        self._command.signal(signals.SIGKILL)

    def close(self) -> None:
        """Kill it if it still runs (not when detached), forget its output, and wait until it is gone."""
        if self.detached:
            return
        self.kill()
        self._command.collect(discard=True)
        if not self._command.wait(lambda: self._command.over, Deadline(DEATH_S)):
            raise DeadlineExceeded(f"the end of {self._where} after SIGKILL", DEATH_S)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _has_more(self) -> bool:
        command = self._command
        return command.over or bool(command.available(STDOUT)) or bool(command.available(STDERR))

    def _output_so_far(self) -> tuple[bytes, bytes]:
        if self.output_files is not None:
            return self._host.read(self.output_files[0]), self._host.read(self.output_files[1])
        for stream in (self.stdout, self.stderr):
            self._seen[stream.number] += stream.rest()
        return bytes(self._seen[STDOUT]), bytes(self._seen[STDERR])

    def _tail(self) -> str:
        return _tail(*self._output_so_far())

    def _wait_for_line_in_files(self, wanted: re.Pattern[str], timeout_s: float | None, what: str) -> re.Match[str]:
        def found() -> re.Match[str] | None:
            ended = self.exit_code is not None
            for data in self._output_so_far():
                lines = data.decode(errors="backslashreplace").splitlines(keepends=True)
                for line in lines:
                    if (ended or line.endswith("\n")) and (match := wanted.search(line.rstrip("\r\n"))):
                        return match
            if ended:
                raise LabError(f"{self._where} ended with exit code {self.exit_code} before {what}", hint=self._tail())
            return None

        try:
            return wait_until(found, timeout_s=float("inf") if timeout_s is None else timeout_s, what=what, every_s=0.05)
        except DeadlineExceeded as error:
            raise DeadlineExceeded(what, error.timeout_s, hint=self._tail()) from None


class Host:
    """A host that runs. ``connect`` opens a way to its agent, ``why`` says what became of it when that breaks off.

    Any number of threads may use it. The connection is made at the first use and kept until ``close``.
    """

    def __init__(self, facts: HostFacts, connect: Callable[[], Transport], *, why: Callable[[], str] = lambda: "") -> None:
        self.facts = facts
        self.lab = facts.lab
        self.name = facts.name
        self.kind = facts.kind
        self.arch = facts.arch
        self.byte_order = facts.byte_order
        self.container = facts.container
        self.addresses = facts.addresses
        self._connect = connect
        self._why = why
        self._lock = threading.Lock()
        self._agent: Agent | None = None

    @classmethod
    def in_container(cls, facts: HostFacts, engine: Engine) -> Host:
        """A host that is a container of this engine."""

        def connect() -> Transport:
            try:
                stream = engine.exec_stream(facts.container, [AGENT])
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
            except DeadlineExceeded:
                return ""
            except EngineError as error:
                return error.message
            return f"its container has ended with exit code {state.exit_code}"

        return cls(facts, connect, why=why)

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
        began = time.monotonic()
        short = len(stdin) <= INPUT_WINDOW
        command = self._connection().start(order, stdin=stdin if short else None, collect=True)
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
            raise DeadlineExceeded(f"the end of '{' '.join(order.argv)}' on host {self.name}", timeout_s or 0, hint=_tail(stdout, stderr))
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
    ) -> Process:
        """Start a command and give it while it runs; arguments and errors as for ``run``.

        A ``detached`` one has no input, writes to files on the host (``Process.output_files``) and outlives this object.
        Every other one is killed when this host is closed or this program ends.
        """
        files = ("", "", "")
        if detached:
            name = f"{DETACHED_OUTPUT}/{uuid4().hex[:12]}"
            files = ("/dev/null", f"{name}.stdout", f"{name}.stderr")
        order = _order(argv, environment, directory, user, files=files, detached=detached)
        return self._start(order)

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
        found = self.run(["stat", "-L", "-c", "%a %F", "--", remote])
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
                self._agent = Agent(self._connect(), self.name, why=self._why)
            return self._agent

    def _start(self, order: Order) -> Process:
        began = time.monotonic()
        command = self._connection().start(order)
        command.wait_started()
        return Process(self, command, order.argv, began)

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
) -> Order:
    if isinstance(argv, str | bytes):
        raise InputError(f"a command is a list of arguments, not the text {argv!r}", hint=f"for a shell: ['sh', '-c', {argv!r}]")
    words = tuple(os.fspath(word) if isinstance(word, str | os.PathLike) else word for word in argv)
    for word in words:
        if not isinstance(word, str):
            raise InputError(f"an argument of a command is a text or a path, not {word!r}")
    return Order(words, environment or {}, directory or "", user or "", files, detached=detached)


def _end(command: Command, host: str) -> None:
    """End a command that has used up its time: SIGTERM, a grace, SIGKILL."""
    for number, patience_s in ((signals.SIGTERM, GRACE_S), (signals.SIGKILL, DEATH_S)):
        command.signal(number)
        if command.wait(lambda: command.over, Deadline(patience_s)):
            return
    raise DeadlineExceeded(f"the end of '{' '.join(command.order.argv)}' on host {host} after SIGKILL", DEATH_S, hint="is the host paused?")


def _tail(stdout: bytes, stderr: bytes) -> str:
    """The last lines of an output, for an error."""
    parts = []
    for name, data in (("output", stdout), ("error output", stderr)):
        if lines := data.decode(errors="backslashreplace").splitlines()[-10:]:
            parts.append("\n".join([f"its {name} so far:", *(f"  | {line}" for line in lines)]))
    return "\n  ".join(parts) or "it has written nothing"


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise InputError(f"'{path}' is no path on a host", hint="it begins with /")
    return path
