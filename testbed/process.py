"""What a finished command left, deadlines, and waiting for a condition instead of sleeping."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import TypeVar

from testbed.errors import CommandFailed, DeadlineExceeded, LabError
from testbed.shipped import setup_command

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """A command that ended. ``exit_code`` is the command's own; 128 + n when signal n ended it."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes
    duration_s: float

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 stay visible as escapes."""
        return self.stdout.decode(errors="backslashreplace")

    @property
    def error_text(self) -> str:
        """Standard error as text, likewise."""
        return self.stderr.decode(errors="backslashreplace")

    def check(self, *, where: str = "", hint: str = "") -> Result:
        """Itself when the exit code is 0, else :class:`CommandFailed` with the output."""
        if self.exit_code != 0:
            raise CommandFailed(self.argv, self.exit_code, self.error_text or self.text, where=where, hint=hint)
        return self


class Deadline:
    """A moment on the monotonic clock, ``timeout_s`` seconds from now; None means never."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._end = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def left_s(self) -> float | None:
        """Seconds left, never below 0; None means without end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.left_s == 0.0

    @property
    def look_s(self) -> float:
        """How long to wait for a lock before looking again. A signal that comes a moment before such a wait begins, or interrupts
        another thread, does not end it, so Ctrl-C would have no effect until the other side moves."""
        return 1.0 if self._end is None else min(1.0, self._end - time.monotonic())


def wait_for(changed: Condition, condition: Callable[[], bool], deadline: Deadline) -> bool:
    """Wait until ``condition``, asked under ``changed``, holds; False when the deadline passed first. Ctrl-C ends it."""
    with changed:
        while not changed.wait_for(condition, deadline.look_s):
            if deadline.passed:
                return False
        return True


LONGEST_REST_S = 0.25


def rest_s(look_s: float) -> float:
    """How long to leave alone what one waits for, after a look that took ``look_s`` seconds: it may run on the one processor that is
    looked at, an emulated one, where looks without rest are most of the work."""
    return min(2 * look_s, LONGEST_REST_S)


def wait_until(
    condition: Callable[[], T | None], *, timeout_s: float, what: str, every_s: float = 0.02, at_least_every_s: float = 0.0, hint: str = ""
) -> T:
    """The first true value of ``condition``, asked every ``every_s`` seconds and once more at the end, less often where that takes long
    (:func:`rest_s`); with ``at_least_every_s`` ever less often, until the time between is that.

    Raises :class:`DeadlineExceeded` naming ``what`` when there is none within ``timeout_s`` seconds.
    """
    deadline = Deadline(timeout_s)
    while True:
        last, began = deadline.passed, time.monotonic()
        value = condition()
        if value:
            return value
        if last:
            raise DeadlineExceeded(what, timeout_s, hint=hint)
        time.sleep(min(max(every_s, rest_s(time.monotonic() - began)), deadline.left_s or 0.0))
        every_s = max(every_s, min(every_s * 1.5, at_least_every_s))


PROGRAMS_FOR_ROOT = ("/usr/sbin", "/sbin")


def search_path() -> str:
    """Where programs of this machine are, also those for root: other users' PATH often lacks their folders."""
    return ":".join(filter(None, (os.environ.get("PATH"), *PROGRAMS_FOR_ROOT)))


def run_local(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout_s: float | None = 60,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Result:
    """Run a command on this machine, without a shell. Raises :class:`LabError` when it is absent or takes too long."""
    begin = time.monotonic()
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout_s, env=environment, cwd=directory, check=False)
    except FileNotFoundError as error:
        raise LabError(f"'{argv[0]}' is not on this machine", hint=f"run: {setup_command()}") from error
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded(f"'{' '.join(argv)}'", error.timeout) from error
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return Result(tuple(argv), code, done.stdout, done.stderr, time.monotonic() - begin)
