"""Commands on a host over one connection to its agent, many at once: the client side of images/agent/protocol.h.

Nothing here knows Docker: a :class:`Transport` is any pair of byte streams to an agent. One thread a connection reads
what the agent says and hands it to the commands; the callers' threads write.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from testbed.errors import DeadlineExceeded, InputError, LabError, TestbedError
from testbed.process import Deadline, wait_for
from testbed.transcript import Entry, Transcript

STDIN, STDOUT, STDERR = 0, 1, 2
MAGIC, VERSION = b"TESTBED\n", 2
INPUT_WINDOW = 256 * 1024  # bytes of one stream on their way, the agent's figures too: it keeps input in its memory,
OUTPUT_WINDOW = 1024 * 1024  # and output waits in ours
DATA_MOST = 64 * 1024
FRAME_MOST = 256 * 1024
SESSION_IDS = 1 << 20  # ids from here on are those of other clients of the same agent
ANSWER_S = 20  # an agent that says nothing to a request for so long is not there any more

_HEADER = struct.Struct(">IBI")
_START = struct.Struct(">IIHHII")
_SIZE = struct.Struct(">HH")
_CREDIT = struct.Struct(">BI")
LAST_SIGNAL = 64
REALTIME = 32  # the first of the kernel's real-time signals
_DETACHED, _TERMINAL, _BRIEF = 1, 2, 4


class Kind(IntEnum):
    HELLO = 1
    START = 2
    STDIN = 3
    STDIN_END = 4
    SIGNAL = 5
    RESIZE = 6
    CREDIT = 7
    GOODBYE = 8
    STARTED = 9
    FAILED = 10
    STDOUT = 11
    STDERR = 12
    END = 13
    EXITED = 14
    ENVIRONMENT = 15
    RESET = 16


WAITING, DONE = 1, 2  # steps of a reset


class Transport(Protocol):
    """The way to an agent. ``send`` raises ConnectionError when the other end is gone, another OSError when it has
    taken nothing for a while. ``frames`` gives (1, bytes of its output) and (2, bytes of its complaints) until it is gone; after
    ``close``, which may come from another thread and twice, it ends or raises soon."""

    def send(self, data: bytes) -> None: ...
    def frames(self) -> Iterator[tuple[int, bytes]]: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Order:
    """What to start. ``files`` are used as standard input, output and error where not empty, and one that is written
    has ``mode`` afterwards. ``user`` is a name, a uid or uid:gid; empty for the agent's own, which is root. ``terminal``
    is the size, rows and columns, of one that it gets instead of pipes; 0 is a size that is not known."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str = ""
    user: str = ""
    files: tuple[str, str, str] = ("", "", "")
    mode: int = 0o644
    detached: bool = False
    terminal: tuple[int, int] | None = None

    def packed(self, *, brief: bool = False) -> bytes:
        """START's body; ``brief`` when only the end counts. Raises :class:`InputError` for what no command can be given."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        if not self.argv or not self.argv[0]:
            raise InputError("there is no command to run: its list of arguments is empty, or begins with an empty one")
        if wrong := [name for name in self.environment if not name or "=" in name]:
            raise InputError(f"'{wrong[0]}' cannot be the name of an environment variable")
        if self.detached and self.terminal is not None:
            raise InputError(f"'{self.argv[0]}' cannot be detached and have a terminal, which ends with the connection")
        texts = [os.fsencode(text) for text in (self.directory, self.user, *self.files, *self.argv, *variables)]
        if wrong_bytes := [text for text in texts if b"\0" in text]:
            raise InputError(f"{wrong_bytes[0]!r} holds a zero byte, which no argument, path or variable can")
        flags = _DETACHED if self.detached else _TERMINAL if self.terminal is not None else 0
        flags |= _BRIEF if brief else 0
        size = _checked(self.terminal or (0, 0))
        body = _START.pack(flags, self.mode, *size, len(self.argv), len(variables)) + b"".join(text + b"\0" for text in texts)
        if len(body) > FRAME_MOST - 5:
            raise InputError(
                f"the arguments and environment of '{self.argv[0]}' are {len(body)} bytes, and {FRAME_MOST - 5} fit",
                hint="give long data on the standard input, or in a file",
            )
        return body


class Command:
    """One command on a host. Its output waits here, at most OUTPUT_WINDOW bytes of each stream, until it is read.

    Everything is guarded by ``changed``, which is notified of every change.
    """

    def __init__(self, agent: Agent, number: int, order: Order, *, collect: bool, has_input: bool, entry: Entry | None = None) -> None:
        self.order = order
        self._entry = entry  # of a transcript
        self.changed = threading.Condition()
        self.pid = 0
        self.exit_code: int | None = None
        self.failure: TestbedError | None = None  # why it was not started, or what became of its host
        self._agent = agent
        self._number = number
        self._collect = collect  # take all output at once, however much, as somebody waits for all of it
        self._output = {STDOUT: bytearray(), STDERR: bytearray()}
        self._owed = {STDOUT: 0, STDERR: 0}  # bytes that were used and not yet credited
        self._discarded = False
        self._open = {STDIN, STDOUT, STDERR} if has_input else {STDOUT, STDERR}
        self._credit = INPUT_WINDOW

    # For whoever runs the command

    @property
    def over(self) -> bool:
        """It has ended and all of its output is here, or it will never be."""
        return self.failure is not None or (self.exit_code is not None and not self._open & {STDOUT, STDERR})

    def wait(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``condition``, asked under ``changed``, holds; False when the deadline passed first."""
        return wait_for(self.changed, condition, deadline)

    def wait_started(self) -> None:
        """Wait until it runs; raise why it does not."""
        if not self.wait(lambda: self.pid > 0 or self.failure is not None, Deadline(ANSWER_S)):
            raise self._agent.silent()
        if self.failure is not None:
            raise self.failure

    def write(self, data: bytes | memoryview, deadline: Deadline) -> int:
        """Send ``data`` to its standard input as it takes it.

        Gives how many bytes went: fewer when it has closed its input or ended, or the deadline has passed.
        """
        view, sent = memoryview(data).cast("B"), 0
        while sent < len(view):
            if not self.wait(lambda: self._credit > 0 or self.over or STDIN not in self._open, deadline):
                break
            with self.changed:
                if self.over or STDIN not in self._open:
                    break
                size = min(self._credit, len(view) - sent, DATA_MOST)
                self._credit -= size
            self._agent.send(Kind.STDIN, self._number, view[sent : sent + size])
            sent += size
        return sent

    def end_input(self) -> None:
        with self.changed:
            if self.over or STDIN not in self._open:
                return
            self._open.discard(STDIN)
        self._agent.send(Kind.STDIN_END, self._number)

    @property
    def reads_input(self) -> bool:
        return STDIN in self._open and self.exit_code is None

    def available(self, stream: int) -> bytearray:
        """What of a stream is here and not yet taken; look at it under ``changed``."""
        return self._output[stream]

    def ended(self, stream: int) -> bool:
        """No more will come of a stream."""
        return stream not in self._open or self.failure is not None

    def take(self, stream: int, size: int) -> bytes:
        """Up to ``size`` bytes of what is here; the command may write as much again."""
        with self.changed:
            data = cut(self._output[stream], size)
            credit = 0 if self._collect else self._credit_for(stream, len(data))
        self._give(stream, credit)
        return data

    def collect(self, *, discard: bool = False) -> None:
        """From now on take all output as it comes, and with ``discard`` forget it."""
        due = []
        with self.changed:
            for stream, data in self._output.items():
                if not self._collect:
                    due.append((stream, self._credit_for(stream, len(data))))
                if discard:
                    data.clear()
            self._collect, self._discarded = True, discard
        for stream, credit in due:
            self._give(stream, credit)

    def signal(self, number: int) -> None:
        """Send a signal to its process group; one that has ended is left in peace."""
        if number >= REALTIME:
            number += self._agent.realtime_shift
        if number > LAST_SIGNAL:
            raise InputError(f"no program on host {self._agent.name} can be sent signal {number - self._agent.realtime_shift}")
        if self.exit_code is None and self.failure is None:
            self._agent.send(Kind.SIGNAL, self._number, bytes([number]))

    def resize(self, size: tuple[int, int]) -> None:
        """Give its terminal another size, in rows and columns."""
        if self.order.terminal is None:
            raise InputError(f"'{self.order.argv[0]}' on host {self._agent.name} has no terminal, so it has no size")
        body = _SIZE.pack(*_checked(size))
        if self.exit_code is None and self.failure is None:
            self._agent.send(Kind.RESIZE, self._number, body)

    # For the thread that reads

    def take_frame(self, kind: int, body: bytes) -> None:
        credit, stream = 0, STDOUT
        with self.changed:
            if kind in (Kind.STDOUT, Kind.STDERR):
                stream = STDOUT if kind == Kind.STDOUT else STDERR
                if self._entry is not None:
                    self._entry.wrote(stream, body)
                if not self._discarded:
                    self._output[stream] += body
                if self._collect:
                    credit = self._credit_for(stream, len(body))
            elif kind == Kind.CREDIT:
                self._credit += _CREDIT.unpack(body)[1]
            elif kind == Kind.STARTED:
                self.pid = int.from_bytes(body, "big")
            elif kind == Kind.END:
                self._open.discard(body[0])
            elif kind == Kind.EXITED:
                by_signal, value = body
                shift = self._agent.realtime_shift if value >= REALTIME + self._agent.realtime_shift else 0
                self.exit_code = 128 + value - shift if by_signal else value
                self._note_end(f"exit code {self.exit_code}")
            elif kind == Kind.FAILED:
                self.failure = _failure(self._agent.name, self.order, body[0], int.from_bytes(body[1:], "big"))
                self._note_end(self.failure.message)
            else:
                raise LabError(f"host {self._agent.name}: its agent sent a frame of kind {kind}")
            # A thread that collects only waits for the end: it need not run for every piece.
            if not self._collect or kind not in (Kind.STDOUT, Kind.STDERR):
                self.changed.notify_all()
        self._give(stream, credit)

    def fail(self, why: TestbedError) -> None:
        with self.changed:
            if not self.over:
                self.failure = why
                self._note_end(why.message)
            self.changed.notify_all()

    def _note_end(self, how: str) -> None:
        if self._entry is not None and not self._entry.ending:
            self._entry.ending = how

    def _credit_for(self, stream: int, size: int) -> int:
        """Note that ``size`` bytes were used; what to credit now, as a frame for every small read would cost more than it gives."""
        self._owed[stream] += size
        if self._owed[stream] < OUTPUT_WINDOW // 4 or stream not in self._open:
            return 0
        credit, self._owed[stream] = self._owed[stream], 0
        return credit

    def _give(self, stream: int, credit: int) -> None:
        if credit and self.failure is None:
            self._agent.send(Kind.CREDIT, self._number, _CREDIT.pack(stream, credit))


class Reset:
    """A host that is being made new. ``step`` is the last one that it told of: 0, WAITING for its links, DONE."""

    def __init__(self, agent: Agent) -> None:
        self.step = 0
        self._agent = agent
        self._changed = threading.Condition()
        self._failure: TestbedError | None = None

    def wait_for_links(self) -> None:
        """Wait until its links are to be put in; raise why it does not come so far."""
        self._wait(WAITING)

    def wait_done(self) -> None:
        """Wait until it is new; raise why it is not."""
        self._wait(DONE)

    def _wait(self, step: int) -> None:
        there = wait_for(self._changed, lambda: self.step >= step or self._failure is not None, Deadline(ANSWER_S))
        if self._failure is not None:
            raise self._failure
        if not there:
            raise self._agent.silent()

    @property
    def done(self) -> bool:
        return self.step == DONE

    @property
    def over(self) -> bool:
        return self.done or self._failure is not None

    def take_frame(self, kind: int, body: bytes) -> None:
        if kind != Kind.RESET:
            raise LabError(f"its agent answered a reset with a frame of kind {kind}")
        with self._changed:
            self.step = body[0]
            self._changed.notify_all()

    def fail(self, why: TestbedError) -> None:
        with self._changed:
            self._failure = self._failure or why
            self._changed.notify_all()


class Agent:
    """A connection to one host's agent. ``why`` is asked when it breaks off, and says what became of the host.

    ``realtime_shift`` is how much higher the numbers of real-time signals are for the kernel than for the programs.
    """

    def __init__(self, transport: Transport, name: str, *, why: Callable[[], str] = lambda: "", realtime_shift: int = 0) -> None:
        self.realtime_shift = realtime_shift
        self.name = name
        self._transport = transport
        self._why = why
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._commands: dict[int, Command | Reset] = {}
        self._numbers = itertools.cycle(range(1, SESSION_IDS))  # one that comes again is long over
        self._complaints = b""
        self._gone: LabError | None = None
        self._closing = False
        self._stuck = False
        self._greeted = threading.Event()
        # Chosen anew, so that an answer to an earlier client of the same device is not taken for ours.
        self._session = int.from_bytes(os.urandom(4), "big")
        self._reader = threading.Thread(target=self._read, name=f"agent of {name}", daemon=True)
        self._reader.start()
        self._greet()

    @property
    def alive(self) -> bool:
        return self._gone is None

    def start(self, order: Order, *, stdin: bytes | None = None, collect: bool = False, transcript: Transcript | None = None) -> Command:
        """Ask for a command, without waiting for it to run; with ``stdin`` (at most INPUT_WINDOW bytes) as all of its input."""
        body = order.packed(brief=collect)
        entry = transcript.begin(order.argv, order.files[1:]) if transcript is not None else None
        with self._lock:
            if self._gone is not None:
                raise self._gone
            number = next(self._numbers)
            command = self._commands[number] = Command(self, number, order, collect=collect, has_input=stdin is None, entry=entry)
        frames = [_frame(Kind.START, number, body)]
        if stdin is not None:
            assert len(stdin) <= INPUT_WINDOW
            frames += [_frame(Kind.STDIN, number, stdin[i : i + DATA_MOST]) for i in range(0, len(stdin), DATA_MOST)]
            frames.append(_frame(Kind.STDIN_END, number))
        self._send(b"".join(frames))
        return command

    def reset(self, hosts: str) -> Reset:
        """Ask for the host to be made new, with ``hosts`` as its /etc/hosts. Whatever runs on it is over at once, for us too."""
        with self._lock:
            if self._gone is not None:
                raise self._gone
            commands = list(self._commands.values())
            self._commands.clear()
            number = next(self._numbers)
            reset = self._commands[number] = Reset(self)
        why = LabError(f"host {self.name} was reset, which ended what ran on it")
        for command in commands:
            command.fail(why)
        self.send(Kind.RESET, number, hosts.encode())
        return reset

    def send(self, kind: Kind, number: int, body: bytes | memoryview = b"") -> None:
        self._send(_frame(kind, number, body))

    def silent(self) -> LabError:
        """The error for an agent that does not answer: a paused container, a machine that is stuck."""
        return DeadlineExceeded(f"an answer from the agent of host {self.name}", ANSWER_S, hint="is the host paused, or out of memory?")

    def close(self) -> None:
        """End all commands that are not detached, and the connection."""
        self._closing = True
        if self.alive:
            self.send(Kind.GOODBYE, 0)
            self._reader.join(2)
        self._transport.close()
        self._reader.join(2)

    def _send(self, data: bytes) -> None:
        try:
            with self._sending:
                self._transport.send(data)
        except OSError as error:
            # The other end is gone. The reading thread finds out why, and tells every command.
            if not isinstance(error, ConnectionError):
                self._stuck = True  # half a frame went, so nothing can follow it
                self._transport.close()
            if threading.current_thread() is not self._reader:
                self._reader.join(ANSWER_S)

    def _greet(self) -> None:
        self.send(Kind.HELLO, self._session, MAGIC)
        if not self._greeted.wait(ANSWER_S):
            error = self._gone or self.silent()
            self.close()
            raise error
        if self._gone is not None:
            self.close()
            raise self._gone

    def _read(self) -> None:
        reason = ""
        try:
            self._take_frames()
        except (OSError, TestbedError) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread, nobody may wait for it for ever
            reason = f"{type(error).__name__}: {error}"
        if self._stuck:
            reason = f"its agent took no input for {ANSWER_S} s; is the host paused, or out of memory?"
        complaints = self._complaints.decode(errors="backslashreplace").strip()
        if self._closing:
            gone = LabError(f"the connection to host {self.name} was closed")
        else:
            said = next((text for text in (self._asked_why(), complaints, reason) if text), "its agent ended")
            what = "is gone" if self._greeted.is_set() else "cannot be reached"
            gone = LabError(f"host {self.name} {what}: {said}", hint="testbed status shows the hosts, testbed up mends a lab")
        with self._lock:
            self._gone = gone
            commands = list(self._commands.values())
            self._commands.clear()
        for command in commands:
            command.fail(gone)
        self._greeted.set()

    def _asked_why(self) -> str:
        try:
            return self._why()
        except Exception as error:  # noqa: BLE001 - commands must hear of the end, whatever becomes of the question
            return str(error)

    def _take_frames(self) -> None:
        received = bytearray()
        for stream, data in self._transport.frames():
            if stream != STDOUT:
                self._complaints = (self._complaints + data)[-4096:]
                continue
            received += data
            at = 0
            if not self._greeted.is_set() and not (at := self._answered(received)):
                continue
            while len(received) - at >= _HEADER.size:
                size, kind, number = _HEADER.unpack_from(received, at)
                if not 5 <= size <= FRAME_MOST:
                    raise LabError(f"its agent sent a frame of {size} bytes")
                if len(received) - at < 4 + size:
                    break
                body = bytes(memoryview(received)[at + _HEADER.size : at + 4 + size])
                at += 4 + size
                self._dispatch(kind, number, body)
            del received[:at]
        if not self._greeted.is_set():
            raise LabError(f"its agent does not answer, and there came: {bytes(received[:300])!r}")

    def _answered(self, received: bytearray) -> int:
        """Where frames begin, behind the agent's HELLO; 0 before it came. What is before it was meant for an earlier client."""
        answer = _frame(Kind.HELLO, self._session, MAGIC + bytes([VERSION]))
        at = received.find(answer[4:-1])
        if at < 0 or len(received) < at + len(answer) - 4:
            return 0
        version = received[at + len(answer) - 5]
        if version != VERSION:
            raise LabError(f"its agent speaks version {version} of the protocol, and this is version {VERSION}")
        self._greeted.set()
        return at + len(answer) - 4

    def _dispatch(self, kind: int, number: int, body: bytes) -> None:
        with self._lock:
            command = self._commands.get(number)
        if command is None:
            return
        command.take_frame(kind, body)
        if command.over:
            with self._lock:
                self._commands.pop(number, None)


def cut(data: bytearray, size: int) -> bytes:
    """Take up to ``size`` bytes off the beginning; copied once."""
    taken = bytes(memoryview(data)[:size])
    del data[:size]
    return taken


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if not all(0 <= length <= 0xFFFF for length in size):
        raise InputError(f"no terminal has {size[0]} rows and {size[1]} columns", hint="both are 0 (not known) to 65535")
    return size


def _frame(kind: Kind, number: int, body: bytes | memoryview = b"") -> bytes:
    return b"".join((_HEADER.pack(5 + len(body), kind, number), body))


# What the user asked for in vain (else the host could not do it).
_ASKED = (
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EISDIR, errno.ENOEXEC, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG, errno.E2BIG,
)  # fmt: skip


def _failure(host: str, order: Order, what: int, number: int) -> TestbedError:
    """Why a command was not started, in words."""
    reason = os.strerror(number)
    if what == 1 and number == errno.ENOENT:
        message, hint = f"there is no command '{order.argv[0]}' on host {host}", ""
    elif what == 1:
        message = f"'{order.argv[0]}' on host {host} cannot be run: {reason}"
        foreign = "is it a program of that host's architecture? testbed doctor checks what runs foreign ones"
        hint = foreign if number == errno.ENOEXEC else ""
    elif what == 2:
        message, hint = f"directory '{order.directory}' on host {host}: {reason}", ""
    elif what == 3 and number == errno.EINVAL:
        message, hint = f"there is no user '{order.user}' on host {host}", "a name of its /etc/passwd, a uid, or uid:gid"
    elif what == 3:
        message, hint = f"user '{order.user}' on host {host}: {reason}", "the host needs the capabilities SETUID and SETGID for that"
    elif 4 <= what <= 6:
        message, hint = f"'{order.files[what - 4]}' on host {host}: {reason}", ""
    elif what == 8:
        return LabError(f"host {host} has no terminal for '{order.argv[0]}': {reason}", hint="is /dev/pts mounted there, and room in it?")
    else:
        message, hint = f"host {host} cannot start '{order.argv[0]}': {reason}", "it has no room for more processes, files or memory"
    return (InputError if number in _ASKED else LabError)(message, hint=hint)
