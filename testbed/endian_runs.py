"""What is known of a program that ran on the four pairs of hosts, and what is said of it: runs and findings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from testbed.architecture import ByteOrder
from testbed.endian_compare import Difference
from testbed.endian_messages import Channel, Role, Said

Pair = tuple[ByteOrder, ByteOrder]
"""The byte orders of the client's and the server's host."""
LITTLE: Pair = ("little", "little")
BIG: Pair = ("big", "big")
PAIRS: tuple[Pair, ...] = (LITTLE, ("little", "big"), ("big", "little"), BIG)

LATE = "did not end within"
LINE_MOST = 200  # characters of what a program wrote that are quoted


@dataclass(frozen=True)
class Ending:
    """How a program ended. ``exit_code`` is None when it did not by itself; ``stopped``: it was no longer needed, as a server that serves
    on and on, or ``waited`` in vain for an answer, which nobody was to give; ``late``: it did not end in time, though somebody was there
    to answer. ``problem`` is empty when it could be run and ended in time."""

    exit_code: int | None
    stopped: bool = False
    waited: bool = False
    late: bool = False
    problem: str = ""
    stdout: str = ""
    stderr: str = ""

    @property
    def well(self) -> bool:
        return not self.problem and (self.stopped or self.exit_code == 0)

    def of_silence(self, timeout_s: float) -> Ending:
        """The same of a client in whose run nothing was sent: if it was ended, it waited for nothing, and may only have been slow."""
        if not self.waited and not self.late:
            return self
        problem = f"{LATE} {timeout_s:g} s, and had sent nothing; --timeout gives it longer"
        return replace(self, stopped=False, waited=False, late=True, problem=problem)

    @property
    def last_line(self) -> str:
        """Of what it wrote, to standard error if anything: there programs say last why they fail."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1].strip()[:LINE_MOST] if lines else ""

    @property
    def words(self) -> str:
        if self.problem:
            return self.problem
        if self.stopped:
            return "waited for an answer" if self.waited else "serves on"
        if self.exit_code is not None and self.exit_code > 128:
            return f"died of signal {self.exit_code - 128}"
        return f"exit code {self.exit_code}"


@dataclass(frozen=True)
class Run:
    """One run of a pair: how its programs ended, and what was said."""

    endings: Mapping[Role, Ending]
    said: Said

    @property
    def well(self) -> bool:
        return all(one.well for one in self.endings.values())


Runs = Mapping[Pair, Sequence[Run]]


@dataclass(frozen=True)
class Finding:
    """Something that is not the same on both byte orders. ``title`` says it in a line, ``details`` explain, ``pairs`` show it.

    One about bytes has the ``channel``, the ``difference``, and the whole message from both hosts, of their first runs.
    """

    title: str
    details: tuple[str, ...]
    pairs: tuple[Pair, ...]
    role: Role | None = None
    channel: Channel | None = None
    difference: Difference | None = None
    little: bytes = b""
    big: bytes = b""
    field: str = ""
    """Which field it is, in words, where that is known."""


@dataclass(frozen=True)
class Judgement:
    """``consequences`` are differences that may follow from the findings. ``inconclusive``: about what nothing can be said, and how to
    learn more. ``failed`` is why the program does not work at all, not even between hosts of one byte order. ``sent`` counts bytes of data
    of all runs, ``compared`` those of one run that were compared with the other byte order's, ``set_aside`` those that vary."""

    findings: tuple[Finding, ...]
    consequences: tuple[str, ...]
    inconclusive: tuple[str, ...]
    sent: int
    compared: int
    set_aside: int
    failed: str = ""


def name_of(pair: Pair, *, alone: bool = False) -> str:
    """As it is shown; of a client ``alone``, whose pairs have one host that counts."""
    return f"the {pair[0]}-endian host" if alone else f"{pair[0]} to {pair[1]}"


def where(pair: Pair, *, alone: bool) -> str:
    """A pair as the place where something is."""
    return f"on {name_of(pair, alone=True)}" if alone else name_of(pair)


def alone(little: Sequence[Run], big: Sequence[Run]) -> dict[Pair, Sequence[Run]]:
    """The runs of a client that nobody answers, as pairs: the server's byte order makes no difference."""
    return {pair: little if pair[0] == "little" else big for pair in PAIRS}
