"""Every error that testbed raises on purpose.

    TestbedError                exit code 3
    ├── InputError              2  what the user wrote is wrong
    │   ├── TopologyError       2  ... in a topology file: file, line, column
    │   └── UnknownName         2  no lab, host or network of that name
    ├── CheckFailed             1  everything worked, and the answer is no
    └── LabError                3  the lab or what it stands on broke
        ├── EngineError         3  the Docker engine is absent, refuses or fails
        │   └── SubnetTaken     3  ... a network, since its subnet is somebody's
        ├── ImageError          3  a host image could not be built
        │   └── GuestFailed     3  ... as its guest did not come up
        ├── CommandFailed       3  a command that had to succeed did not
        └── DeadlineExceeded    3  something did not come about in time

A message says what is wrong and where; ``hint`` says how to mend it. The command line prints both and
leaves with ``exit_code``; nobody sees a traceback for one of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import ClassVar


class TestbedError(Exception):
    """The root: ``message`` is what is wrong, ``hint`` (may be empty) how to mend it."""

    __test__ = False  # not a test class, whatever pytest thinks of the name
    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(TestbedError):
    """What the user wrote is wrong: a file, an argument, a name."""

    exit_code = 2


class TopologyError(InputError):
    """A topology file is wrong at ``line``, ``column`` (both from 1; 0 when the whole file is meant)."""

    def __init__(self, message: str, *, file: str = "", line: int = 0, column: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return f"{where}: {super().__str__()}" if where else super().__str__()


class UnknownName(InputError):
    """No ``what`` is called ``name``; the message offers the nearest of ``known``, the hint lists them all."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"no {what} is called '{name}'{did_you_mean(name, names)}", hint=listing(what, names))
        self.what = what
        self.name = name


class CheckFailed(TestbedError):
    """Everything worked, and the answer is no."""

    exit_code = 1


class LabError(TestbedError):
    """The lab, or what it stands on, broke."""


class EngineError(LabError):
    """The Docker engine is absent, refuses or fails; ``status`` is its HTTP answer, None when it gave none."""

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class SubnetTaken(EngineError):
    """The engine has a network on that subnet, or is making one."""


class ImageError(LabError):
    """A host image could not be built."""


class GuestFailed(ImageError):
    """A guest did not come to the point where it can be saved. ``accelerator`` is what ran it: tcg or kvm."""

    def __init__(self, message: str, *, accelerator: str, hint: str = "") -> None:
        self.accelerator = accelerator
        super().__init__(message, hint=hint)


class CommandFailed(LabError):
    """A command that had to succeed did not: what was run, its exit code, the end of its output."""

    def __init__(self, argv: Iterable[str], exit_code: int, output: str, *, where: str = "", hint: str = "") -> None:
        command = " ".join(argv)
        place = f" on {where}" if where else ""
        tail = "\n".join(f"  | {line}" for line in output.strip().splitlines()[-10:])
        super().__init__(f"'{command}'{place} ended with exit code {exit_code}" + (f":\n{tail}" if tail else ""), hint=hint)


class DeadlineExceeded(LabError):
    """``what`` did not come about within ``timeout_s`` seconds."""

    def __init__(self, what: str, timeout_s: float, *, hint: str = "") -> None:
        super().__init__(f"{what}: not within {timeout_s:g} s", hint=hint)
        self.timeout_s = timeout_s


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` for the nearest of the known words, or nothing."""
    nearest = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean '{nearest[0]}'?" if nearest else ""


def listing(what: str, names: Iterable[str], *, most: int = 12) -> str:
    """The known names in one line, cut after ``most``."""
    names = list(names)
    if not names:
        return f"there is no {what} at all"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"there is: {', '.join(names[:most])}{more}"


@contextmanager
def writing(what: object, *, hint: str = "") -> Iterator[None]:
    """For a block that writes a file or folder which the user named. Raises :class:`InputError` when it cannot."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what} cannot be written: {error.strerror or error}", hint=hint) from None
