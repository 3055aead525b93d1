"""Whose a lab is: the process that brought it up, as a label on all of its parts, and whether that process is over.

A lab of a test run is nobody's once the run is over, also when it was killed with SIGKILL; the next run removes it. Never one of
a run that goes on: where it cannot be known (another machine, another PID namespace), a lab is left alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Run:
    """A process. ``boot`` tells its machine and since when that runs, ``pid_namespace`` where ``pid`` is counted, and ``start`` is when
    it began, in ticks since the boot: a process id is used again, but not with the same beginning."""

    boot: str
    pid_namespace: int
    pid: int
    start: int

    def __str__(self) -> str:
        return f"{self.boot}/{self.pid_namespace}/{self.pid}/{self.start}"

    @classmethod
    def parse(cls, text: str) -> Run | None:
        """The run that a label names; None when that is none of ours."""
        boot, *numbers = text.split("/")
        if not boot or len(numbers) != 3 or not all(one.isdecimal() for one in numbers):
            return None
        return cls(boot, *map(int, numbers))

    @property
    def over(self) -> bool | None:
        """Whether it has ended; None when that cannot be known here."""
        if (self.boot, self.pid_namespace) != _here():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # somebody else's, and there; what follows may be hidden from us (hidepid)
        began = _state_and_start(self.pid)
        return began is not None and (began[0] in "ZX" or began[1] != self.start)


def this_run() -> Run:
    """This very process."""
    began = _state_and_start(os.getpid())
    assert began is not None, "/proc shows every process itself"
    return Run(*_here(), os.getpid(), began[1])


@cache
def _here() -> tuple[str, int]:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip(), (_PROC / "self/ns/pid").stat().st_ino


def _state_and_start(pid: int) -> tuple[str, int] | None:
    """Fields 3 and 22 of proc_pid_stat(5); None when there is no such process, or it is not shown to us."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return fields[0], int(fields[19])
