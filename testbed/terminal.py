"""A command on a host, connected to this process's own standard streams or terminal."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from testbed.errors import LabError
from testbed.host import Host, OutputStream, Process

T = TypeVar("T")
CHUNK = 65536
END, HANG_UP = 0, 255  # what threads tell the one that waits, beside the numbers of signals
PATIENCE_S = 1.0


def attached(
    host: Host,
    argv: Sequence[str],
    *,
    user: str | None = None,
    directory: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> int:
    """Run a command with this process's standard input and outputs; gives its exit code. Ctrl-C goes to the command.

    Raises :class:`DeadlineExceeded` when it was ended after ``timeout_s`` seconds.
    """
    started = host.start(argv, user=user, directory=directory, environment=environment)
    with started as process, _events(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as (here, there):
        # A daemon: it may hang on a terminal's input long after the command has ended.
        threading.Thread(target=_feed, args=(process,), daemon=True).start()
        with ThreadPoolExecutor(2) as pool:
            copies = [
                pool.submit(_copy, process, source, target.fileno())
                for source, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
            ]
            waiting = _in_background(lambda: process.wait(timeout_s=timeout_s))
            waiting.add_done_callback(lambda _: _tell(there, END))
            try:
                _pass_signals(process, here)
                code = waiting.result()
            except BaseException:
                process.kill()
                raise
        try:
            for copy in copies:
                copy.result()
        except BrokenPipeError:
            nobody_reads()
            return 128 + signal.SIGPIPE
        return code


def _feed(process: Process) -> None:
    try:
        while data := _read(sys.stdin.fileno()):
            process.stdin.write(data, timeout_s=None)
        process.stdin.close()
    except LabError:
        pass  # it is over, or reads no more; its exit code tells the rest


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError:
        return b""  # a directory, or a terminal that is gone: nothing comes from there


def _copy(process: Process, source: OutputStream, target: int) -> None:
    try:
        while data := source.read_some(CHUNK, timeout_s=None):
            left = memoryview(data)
            while left:
                left = left[os.write(target, left) :]
    except OSError:
        process.kill()  # whoever reads has seen enough, or the disk is full: it would write in vain for ever
        raise


def nobody_reads() -> None:
    """Let what is still to be written to standard output vanish, so that the interpreter does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _pass_signals(process: Process, here: socket.socket) -> None:
    """Signals to this process go to the command, which decides what they mean, until its end is told."""
    while True:
        for event in here.recv(CHUNK):
            if event == END:
                return
            process.send_signal(event)


def interactive(host: Host, argv: Sequence[str]) -> int:
    """Run a command on a terminal of its own on the host, joined with this process's; gives its exit code.

    Without a terminal here it is as :func:`attached`. To be called in the main thread. Whatever ends it, this terminal
    has its settings back, and the one on the host is hung up.
    """
    if not sys.stdin.isatty():
        return attached(host, argv)
    descriptor = sys.stdin.fileno()
    environment = {"TERM": os.environ.get("TERM", "linux"), "PS1": f"{host.name}:$PWD# "}
    size = _size(descriptor)
    with host.start(argv, environment=environment, terminal=size) as process, _events(signal.SIGWINCH) as (here, there), _raw(descriptor):
        typing = _in_background(lambda: _type(process, descriptor, there))
        showing = _in_background(lambda: _copy(process, process.stdout, sys.stdout.fileno()))
        showing.add_done_callback(lambda _: _tell(there, END))
        try:
            if not _wait_for_end(process, descriptor, size, here):
                return 128 + signal.SIGHUP
            showing.result()
        except BrokenPipeError:
            nobody_reads()
            return 128 + signal.SIGPIPE
        except LabError:
            sys.stderr.write("\r\n")  # the error stands on a line of its own
            raise
        finally:
            # What is typed from now on is not ours. The thread may be held by a command that does not read, and leaves with it.
            here.shutdown(socket.SHUT_WR)
            wait([typing], PATIENCE_S)
        return process.wait()


def _wait_for_end(process: Process, descriptor: int, size: tuple[int, int], here: socket.socket) -> bool:
    """Pass the sizes of this terminal on until the output of the other one has ended; False when this one is gone first."""
    while True:
        try:
            now = _size(descriptor)
        except OSError:
            return False  # it is gone already
        if now != size:
            size = now
            process.resize(*size)
        events = here.recv(CHUNK)
        if END in events:
            return True
        if HANG_UP in events:
            return False


def _type(process: Process, descriptor: int, there: socket.socket) -> None:
    """Pass on what is typed here, until the other end of ``there`` is shut down or the command is over."""
    try:
        while there.fileno() not in select.select([descriptor, there.fileno()], [], [])[0]:
            data = _read(descriptor)
            if not data:
                _tell(there, HANG_UP)
                return
            process.stdin.write(data, timeout_s=None)
    except LabError:
        pass  # it is over; its exit code tells the rest


def _tell(there: socket.socket, event: int) -> None:
    try:
        there.send(bytes([event]))
    except OSError:
        pass  # nobody waits any more


def _in_background(work: Callable[[], T]) -> Future[T]:
    """Do it in a thread for which the end of this program does not wait: the terminal may take nothing any more."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, daemon=True).start()
    return future


def _size(descriptor: int) -> tuple[int, int]:
    """Rows and columns, 0 where they are not known."""
    size = os.get_terminal_size(descriptor)
    return size.lines, size.columns


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Every key as it is pressed, Ctrl-C too. Now: what was typed before is kept, and nobody waits until all output is taken."""
    settings = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        try:
            termios.tcsetattr(descriptor, termios.TCSANOW, settings)
        except termios.error:
            pass  # it is gone, and its settings with it


@contextmanager
def _events(*numbers: signal.Signals) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection. Signals, these numbers too, are bytes that arrive at the first one.

    A wait for a lock is not ended by a signal that arrives a moment before it begins, nor by one that interrupts another
    thread; a wait for these bytes is. Sockets and no descriptors: a thread that is late cannot hit another file of that number.
    """
    here, there = socket.socketpair()
    there.setblocking(False)
    before = {number: signal.getsignal(number) for number in numbers}
    wakeup = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)  # first: no signal is lost between
    try:
        for number in numbers:
            signal.signal(number, lambda *_: None)
        yield here, there
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        here.close()
        there.close()
