"""A command that runs on a host: its streams, its end, signals to it."""

from __future__ import annotations

import re
import signal as signals
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from testbed.agent import DATA_MOST, OUTPUT_WINDOW, STDERR, STDOUT, Command, cut
from testbed.errors import DeadlineExceeded, InputError, LabError
from testbed.observe import Holders, Protocol, check_port
from testbed.process import Deadline, Result, rest_s, wait_until

DEATH_S = 5.0  # a process that was sent SIGKILL is gone by then, or its host is
LISTENING_EVERY_S = 0.01  # from one look at who listens to the next, where a look takes few milliseconds itself


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
    ``result`` reads all. The output of a detached command is in the files ``output_files`` of the host instead. On a
    terminal all output is ``stdout``, and closing ``stdin`` types Ctrl-D.
    """

    def __init__(
        self,
        host: str,
        command: Command,
        argv: tuple[str, ...],
        began: float,
        read: Callable[[str], bytes],
        holders: Callable[[int, Protocol, int], Holders | None],
    ) -> None:
        self.argv = argv
        self.pid = command.pid
        self.detached = command.order.detached
        self.output_files = command.order.files[1:] if self.detached else None
        self._read = read  # a file of the host
        self._holders = holders  # of a port of the host
        self._command = command
        self._began = began
        where = self._where = f"'{' '.join(argv)}' on host {host}"
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

    def wait_listening(self, port: int, *, timeout_s: float | None = 60, protocol: Protocol = "tcp") -> None:
        """Wait until it listens on a TCP port, over IPv4 or IPv6, or is bound to a UDP port.

        It, or what it started: the socket is held by a process of its group or session, or by a descendant. A socket of somebody else
        on that port is not enough. Where nobody can be told to hold it (it belongs to a process of another user), any is.

        Raises :class:`LabError` at once when the command ends before, with the end of its output, and
        :class:`DeadlineExceeded`.
        """
        deadline, command = Deadline(timeout_s), self._command
        listens = f"listen on {protocol.upper()} port {check_port(port)}"
        others = ""
        while True:
            ended, last, began = self._has_ended(), deadline.passed, time.monotonic()  # asked first: what is seen then is no remains of it
            if ended and command.failure is not None:
                raise command.failure
            if ended:
                message = f"{self._where} ended with exit code {command.exit_code}, and did not {listens}"
                raise LabError(message, hint=others + self._tail())
            if holders := self._holders(port, protocol, self.pid):
                if holders.ours:
                    return
                others = f"that port is held by {holders.named}\n  "
            if last:
                raise DeadlineExceeded(f"{self._where} to {listens}", timeout_s or 0, hint=others + self._tail())
            pause_s, left_s = max(LISTENING_EVERY_S, rest_s(time.monotonic() - began)), deadline.left_s
            command.wait(self._has_ended, Deadline(pause_s if left_s is None else min(pause_s, left_s)))

    def send_signal(self, number: int) -> None:
        """Send a signal to its whole process group; if it has ended, nothing happens."""
        if not 1 <= number <= 64:
            raise InputError(f"there is no signal {number}", hint="signals are 1 (HUP) to 64, 2 is INT, 15 is TERM")
        self._command.signal(number)

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size; what runs on it is told by SIGWINCH. If it has ended, nothing happens.

        Raises :class:`InputError` when it was started without a terminal.
        """
        self._command.resize((rows, columns))

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

    def _has_ended(self) -> bool:
        return self._command.exit_code is not None or self._command.failure is not None

    def _has_more(self) -> bool:
        command = self._command
        return command.over or bool(command.available(STDOUT)) or bool(command.available(STDERR))

    def _output_so_far(self) -> tuple[bytes, bytes]:
        if self.output_files is not None:
            return self._read(self.output_files[0]), self._read(self.output_files[1])
        for stream in (self.stdout, self.stderr):
            self._seen[stream.number] += stream.rest()
        return bytes(self._seen[STDOUT]), bytes(self._seen[STDERR])

    def _tail(self) -> str:
        return tail(*self._output_so_far())

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


def tail(stdout: bytes, stderr: bytes) -> str:
    """The last lines of an output, for an error."""
    parts = []
    for name, data in (("output", stdout), ("error output", stderr)):
        if lines := data.decode(errors="backslashreplace").splitlines()[-10:]:
            parts.append("\n".join([f"its {name} so far:", *(f"  | {line}" for line in lines)]))
    return "\n  ".join(parts) or "it has written nothing"
