"""A command on a host, connected to this process's own standard streams or terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from testbed.engine import Engine, ExecStream
from testbed.errors import LabError
from testbed.host import Host, OutputStream, Process
from testbed.process import wait_until

CHUNK = 65536


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
    with host.start(argv, user=user, directory=directory, environment=environment) as process, _passing_signals(process):
        # A daemon: it may hang on a terminal's input long after the command has ended.
        threading.Thread(target=_feed, args=(process,), daemon=True).start()
        # This thread, which signals interrupt, only waits: a lock that it held would be waited for by its own handler.
        with ThreadPoolExecutor(2) as pool:
            copies = [
                pool.submit(_copy, process, source, target)
                for source, target in ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
            ]
            try:
                code = process.wait(timeout_s=timeout_s)
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


def _copy(process: Process, source: OutputStream, target: BinaryIO) -> None:
    try:
        while data := source.read_some(CHUNK, timeout_s=None):
            target.write(data)
            target.flush()
    except OSError:
        process.kill()  # whoever reads has seen enough, or the disk is full: it would write in vain for ever
        raise


def nobody_reads() -> None:
    """Let what is still to be written to standard output vanish, so that the interpreter does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _passing_signals(process: Process) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP to this process go to the command, which decides what they mean."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda received, _: process.send_signal(received)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interactive(engine: Engine, host: Host, argv: Sequence[str]) -> int:
    """Run a command on a terminal of its own on the host, joined with this one; gives its exit code."""
    if not sys.stdin.isatty():
        return attached(host, argv)
    descriptor = sys.stdin.fileno()
    environment = {"TERM": os.environ.get("TERM", "linux"), "PS1": f"{host.name}:$PWD# "}
    stream = engine.exec_stream(host.container, argv, tty=True, environment=environment)
    settings = termios.tcgetattr(descriptor)
    try:
        with _size_changes() as changes:
            _pass_size(descriptor, stream)
            tty.setraw(descriptor)
            _join(descriptor, stream, changes)
        # The engine sees the end of the command a little later than we see the end of its terminal.
        wait_until(lambda: stream.exit_code() is not None, timeout_s=10, what=f"the exit code of '{' '.join(argv)}' on host {host.name}")
        return stream.exit_code() or 0
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
        stream.close()


def _join(descriptor: int, stream: ExecStream, changes: int) -> None:
    """Carry bytes both ways until the command's terminal ends; ``changes`` is readable when this one has a new size."""
    sources = [descriptor, stream.fileno(), changes]
    while True:
        readable, _, _ = select.select(sources, [], [])
        if changes in readable:
            os.read(changes, CHUNK)
            _pass_size(descriptor, stream)
        if descriptor in readable:
            data = _read(descriptor)
            if data:
                stream.send(data)
            else:
                sources.remove(descriptor)
        if stream.fileno() in readable:
            data = os.read(stream.fileno(), CHUNK)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)


def _pass_size(descriptor: int, stream: ExecStream) -> None:
    size = os.get_terminal_size(descriptor)
    if size.lines and size.columns:  # a terminal may not know
        stream.resize(size.lines, size.columns)


@contextmanager
def _size_changes() -> Iterator[int]:
    """A descriptor that is readable once this terminal has a new size: select() is not interrupted by a signal."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGWINCH, before)
        os.close(readable)
        os.close(writable)
