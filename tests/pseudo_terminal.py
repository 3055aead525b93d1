"""A terminal for a test to type into and read from, with a command on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from testbed.process import Deadline

Settings = list[int | list[bytes | int]]


class Terminal:
    """A pseudo terminal of a given size, and a command that it controls."""

    def __init__(self, argv: Sequence[str], *, rows: int, columns: int, stdout: int | None) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.settings_before = self.settings()
        environment = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env=environment,
        )
        os.close(slave)
        self.seen = ""

    def settings(self) -> Settings:
        """How it treats what is typed; a terminal that is raw has others than before."""
        return termios.tcgetattr(self._master)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def fill(self) -> int:
        """Type until nothing is taken for a while; how many characters that were."""
        typed = 0
        while select.select([], [self._master], [], 0.3)[1]:
            typed += os.write(self._master, b"x" * 256)
        return typed

    def expect(self, pattern: str) -> re.Match[str]:
        """The first match in what has come since the last one."""
        deadline = Deadline(30)
        while not (match := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self._master], [], [], deadline.left_s)
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self._master, 65536).decode(errors="replace")
        self.seen = self.seen[match.end() :]
        return match

    def hang_up(self) -> None:
        """As when its window is closed."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        self.hang_up()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@contextmanager
def terminal(*argv: str, rows: int = 30, columns: int = 90, stdout: int | None = None) -> Iterator[Terminal]:
    """A command on a terminal; both gone at the end. ``stdout`` is where its output goes instead."""
    opened = Terminal(argv, rows=rows, columns=columns, stdout=stdout)
    try:
        yield opened
    finally:
        opened.close()
