"""A command on a host, connected to this process's own standard streams or terminal."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from testbed.engine import Engine
from testbed.errors import LabError
from testbed.host import Host, OutputStream, Process

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
    """Run a command with this process's standard input and outputs; gives its exit code. Ctrl-C goes to the command."""
    with host.start(argv, user=user, directory=directory, environment=environment) as process, _passing_signals(process):
        # A daemon: it may hang on a terminal's input long after the command has ended.
        threading.Thread(target=_feed, args=(process,), daemon=True).start()
        errors = threading.Thread(target=_copy, args=(process.stderr, sys.stderr.buffer))
        errors.start()
        _copy(process.stdout, sys.stdout.buffer)
        errors.join()
        return process.wait(timeout_s=timeout_s)


def _feed(process: Process) -> None:
    try:
        while data := os.read(sys.stdin.fileno(), CHUNK):
            process.stdin.write(data, timeout_s=None)
        process.stdin.close()
    except LabError:
        pass  # it is over, or reads no more; its exit code tells the rest


def _copy(source: OutputStream, target: BinaryIO) -> None:
    while data := source.read_some(CHUNK, timeout_s=None):
        target.write(data)
        target.flush()


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
    size = shutil.get_terminal_size()
    environment = {"TERM": os.environ.get("TERM", "linux"), "PS1": f"{host.name}:\\w# "}
    stream = engine.exec_stream(host.container, argv, tty=True, environment=environment)
    stream.resize(size.lines, size.columns)
    changed = threading.Event()
    before = signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    descriptor = sys.stdin.fileno()
    settings = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        while True:
            if changed.is_set():
                changed.clear()
                size = shutil.get_terminal_size()
                stream.resize(size.lines, size.columns)
            try:
                readable, _, _ = select.select([descriptor, stream], [], [])
            except InterruptedError:
                continue
            if descriptor in readable:
                stream.send(os.read(descriptor, CHUNK))
            if stream in readable:
                data = os.read(stream.fileno(), CHUNK)
                if not data:
                    break
                os.write(sys.stdout.fileno(), data)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
        signal.signal(signal.SIGWINCH, before)
        code = stream.exit_code()
        stream.close()
    return code or 0
