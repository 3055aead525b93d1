"""An experiment: a textbook's claim, how a kernel is brought to show what it does, what it should show, and what that says.

Provoking, observing, predicting and judging are functions of their own, so each can be tried, broken and replaced alone:
``dataclasses.replace(experiment, provoke=...)``. What was observed is a :class:`Record`, data only. :func:`judge` makes a
:class:`Judgement` of it, now or years later, without any host. Pure.

Two things are judged, and they are kept apart: the *textbook's claim* (HOLDS, REFUTED, INCONCLUSIVE) and *our prediction* for
this kernel, number by number. A claim that is refuted as predicted is a success; a claim that holds against the prediction is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from testbed.architecture import ByteOrder
from testbed.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from testbed.drawing import Drawing
    from testbed.experiment_stage import Stage

Outcome = Literal["HOLDS", "REFUTED", "INCONCLUSIVE"]
KindOfHost = Literal["native", "emulated", "vm"]
KINDS: tuple[KindOfHost, ...] = ("native", "emulated", "vm")
Scalar = bool | int | float | str
Value = Any
"""What an observation is made of: whatever JSON has. Bytes are written in hexadecimal digits."""
Seen = Mapping[str, Value]

FORMAT = 1  # of a record; one of another format is refused


@dataclass(frozen=True)
class Claim:
    """What a textbook says, in words, and where it is said or comes from."""

    text: str
    source: str


@dataclass(frozen=True)
class Parameter:
    """What of an experiment may be chosen. A value is of the type of ``default``.

    Where ``default`` is None the experiment has cells of several values, and only those of the one that is chosen. Then a value is of the
    type of ``usual``, which a sweep over something else takes. A number is from ``least`` to ``most``, a text one of ``choices``, if said.
    """

    default: Scalar | None
    what: str
    usual: Scalar | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def example(self) -> Scalar:
        """A value that can be chosen. Raises ValueError when there is none to take the type of the others from."""
        found = self.usual if self.default is None else self.default
        if found is None:
            raise ValueError(f"a parameter has a default or a usual value ({self.what})")
        return found


@dataclass(frozen=True)
class Expected:
    """What a quantity should be: one of ``values``, or between ``low`` and ``high``. ``reason`` says why it is not one number."""

    values: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def allows(self, seen: Value) -> bool:
        if self.low is None or self.high is None:
            # 1 == True in Python, and a flag is no number
            return any(type(one) is type(seen) and one == seen for one in self.values)
        return isinstance(seen, int | float) and not isinstance(seen, bool) and self.low <= seen <= self.high

    def __str__(self) -> str:
        if self.low is not None:
            return f"{self.low} to {self.high}"
        return " or ".join(str(one) for one in self.values)


def one_of(*values: Value, reason: str) -> Expected:
    """Any of these values; ``reason`` says what decides which."""
    return Expected(values, reason=reason)


def between(low: float, high: float, *, reason: str) -> Expected:
    """A number of that range, both ends included; ``reason`` says why it cannot be foretold exactly."""
    return Expected(low=low, high=high, reason=reason)


@dataclass(frozen=True)
class Cell:
    """One setting of an experiment that is provoked and observed by itself: on a fresh port, with nothing left of the one before.

    ``values`` are what the experiment's functions go by. ``sysctls`` are set on the subjects before it.
    """

    name: str = "all"
    values: Mapping[str, Value] = field(default_factory=dict)
    sysctls: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a prediction may depend on: the kind of host, its architecture and byte order, the release of the kernel whose TCP/IP
    stack answers and whose that is, and the experiment's parameters."""

    kind: str
    arch: str
    byte_order: ByteOrder
    kernel: str
    kernel_of: str
    parameters: Mapping[str, Scalar]

    @property
    def release(self) -> tuple[int, int]:
        """The kernel's release as two numbers; (0, 0) when it has none."""
        found = re.match(r"(\d+)\.(\d+)", self.kernel)
        return (int(found[1]), int(found[2])) if found else (0, 0)


@dataclass(frozen=True)
class CellRun:
    """A cell as it was observed. ``sysctls`` are those of the experiment and the cell, as read back from the first subject.

    ``problem`` is why nothing, or not all, was observed; nothing of such a cell is judged.
    """

    cell: str
    values: Mapping[str, Value]
    sysctls: Mapping[str, int | str]
    seen: Seen
    problem: str = ""
    steps: Sequence[Mapping[str, Value]] = ()
    """What was done on the hosts, in order, with what came of it."""
    traffic: Mapping[str, Value] = field(default_factory=dict)
    """The packets and the sockets (:class:`testbed.traffic.Traffic`) of the cell that was watched; nothing in the others."""

    def sysctl(self, name: str) -> int:
        """A sysctl that is a number."""
        return int(self.sysctls[name])


@dataclass(frozen=True)
class Record:
    """All that was observed in one run of an experiment, not judged: it is saved as JSON before it is judged.

    ``hosts`` are the rows of `testbed status` with the reference of each host's image; ``versions`` those of testbed, Python,
    the engine and, where there is one, QEMU. ``begun`` is UTC, ISO 8601.
    """

    experiment: str
    facts: Facts
    cells: Sequence[CellRun]
    set_by_user: Mapping[str, int | str] = field(default_factory=dict)
    hosts: Sequence[Mapping[str, Value]] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    begun: str = ""
    duration_s: float = 0.0

    def as_json(self) -> dict[str, Value]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Value]) -> Record:
        """Raises :class:`InputError` for what is no record, or one of another format."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise InputError("this is not the record of an experiment", hint=f'records are JSON objects with "format": {FORMAT}')
        try:
            rest = {key: value for key, value in data.items() if key not in ("format", "facts", "cells")}
            return cls(facts=Facts(**data["facts"]), cells=[CellRun(**one) for one in data["cells"]], **rest)
        except (KeyError, TypeError) as error:
            raise InputError(f"this record of an experiment is damaged: {error}") from None


@dataclass(frozen=True)
class Verdict:
    """What was observed says about the textbook's claim; ``reason`` in words."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Prediction:
    """What this kernel should show. ``rule`` in words or as a formula, ``sources`` where it comes from: a function of the kernel,
    a sysctl's documentation, a section of an RFC. ``of`` gives for each quantity of a cell its value, or an :class:`Expected`."""

    rule: str
    sources: tuple[str, ...]
    of: Callable[[Facts, CellRun], Mapping[str, Value | Expected]]


@dataclass(frozen=True)
class Comparison:
    """One number of the prediction beside what was seen; ``seen`` is None where nothing was."""

    cell: str
    quantity: str
    expected: Expected
    seen: Value
    matches: bool


@dataclass(frozen=True)
class Judgement:
    """The verdict on the textbook's claim and, apart from it, the prediction cell by cell."""

    verdict: Verdict
    comparisons: Sequence[Comparison]

    @property
    def predicted(self) -> bool:
        """Every number is as predicted, and there is at least one."""
        return bool(self.comparisons) and all(one.matches for one in self.comparisons)

    @property
    def passed(self) -> bool:
        """Something could be said, and the kernel does what was predicted. An inconclusive run never passes."""
        return self.verdict.outcome != "INCONCLUSIVE" and self.predicted

    def as_json(self) -> dict[str, Value]:
        rows = [{**asdict(one), "expected": str(one.expected), "why_a_range": one.expected.reason} for one in self.comparisons]
        return {"verdict": asdict(self.verdict), "predicted": self.predicted, "passed": self.passed, "comparisons": rows}


def cell_of(runs: Sequence[CellRun], name: str) -> Seen:
    """What was seen of the cell of that name."""
    (run,) = [run for run in runs if run.cell == name]
    return run.seen


def everywhere(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    """The cells of an experiment that has one."""
    return (Cell(),)


def nothing_amiss(_: CellRun) -> str:
    """For an experiment whose provocation cannot fail without an error."""
    return ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """A claim made into an experiment.

    ``subjects`` are the roles that run on the kind of host in question, ``others`` run native. ``kinds`` are the kinds
    that can show it; ``refused`` has the reason for each other one. ``sysctls`` are pinned on all of its hosts, so that nothing
    of the machine gets in. Before each cell the hosts are made new when ``reset_each_cell``, else once before the experiment.
    ``watched`` names the cell whose packets and sockets are kept in the record, as it tells most; without, or where there is no such
    cell, it is the first. What has one host only has no packets.

    ``provoke`` makes the situation and ``observe`` looks at it; what the players hold (sockets) stays in between.
    ``took_effect`` looks at what was observed of a cell for signs that it was provoked, and says what is missing: then the run is
    inconclusive. ``judge`` is only asked about runs without such a problem. Raises ValueError when a kind is neither shown nor refused.
    """

    id: str
    name: str
    claim: Claim
    linux: str
    """What Linux does instead, or that it does so; a sentence for people."""
    prediction: Prediction
    provoke: Callable[[Stage, Cell], None]
    observe: Callable[[Stage, Cell], Seen]
    judge: Callable[[Facts, Sequence[CellRun]], Verdict]
    took_effect: Callable[[CellRun], str] = nothing_amiss
    cells: Callable[[Mapping[str, Scalar]], Sequence[Cell]] = everywhere
    subjects: tuple[str, ...] = ("server",)
    others: tuple[str, ...] = ()
    kinds: tuple[KindOfHost, ...] = ("native", "vm")
    refused: Mapping[KindOfHost, str] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    sysctls: Mapping[str, int | str] = field(default_factory=dict)
    reset_each_cell: bool = False
    watched: str = ""
    picture: Callable[[Sequence[Record]], Drawing] | None = None
    """What its records show, of one or several kernels, as one picture; where numbers beside each other say it, there is none."""

    def __post_init__(self) -> None:
        silent = set(KINDS) - set(self.kinds) - set(self.refused)
        if silent:
            raise ValueError(f"experiment {self.name} neither runs on {', '.join(sorted(silent))} nor says why not")

    @property
    def hosts(self) -> tuple[str, ...]:
        return (*self.subjects, *self.others)

    @property
    def own_kernel(self) -> bool:
        """It is about a kernel, so that an emulated host, which has none, cannot show it."""
        return "emulated" not in self.kinds

    def with_values(self, given: Mapping[str, str]) -> dict[str, Scalar]:
        """The parameters with these, given as texts; without those that have no default and were not given.

        Raises :class:`InputError` for an unknown name and an unfit text.
        """
        chosen: dict[str, Scalar] = {name: one.default for name, one in self.parameters.items() if one.default is not None}
        return chosen | {name: _read(name, text, self.parameter(name)) for name, text in given.items()}

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name. Raises :class:`InputError` when there is none."""
        if name not in self.parameters:
            known = ", ".join(self.parameters) or "it has none"
            message = f"experiment {self.name} has no parameter '{name}'{did_you_mean(name, self.parameters)}"
            raise InputError(message, hint=f"its parameters: {known}; a sysctl has a dot in its name")
        return self.parameters[name]


def _read(name: str, text: str, parameter: Parameter) -> Scalar:
    example = parameter.example
    if isinstance(example, bool):
        if text not in ("yes", "no"):
            raise InputError(f"{name}={text}: yes or no belongs here")
        return text == "yes"
    if isinstance(example, str):
        if parameter.choices and text not in parameter.choices:
            raise InputError(f"{name}={text}: one of these belongs here: {', '.join(parameter.choices)}")
        return text
    try:
        value = type(example)(text)
    except ValueError:
        raise InputError(f"{name}={text}: a number belongs here, like {example}") from None
    low, high = parameter.least, parameter.most
    # `not`, as nothing is true of a float that is no number
    if not ((low is None or value >= low) and (high is None or value <= high)):
        bounds = [f"{word} {bound}" for word, bound in (("at least", low), ("at most", high)) if bound is not None]
        raise InputError(f"{name}={text}: {' and '.join(bounds)} belongs here")
    return value


# Judging


def judge(experiment: Experiment, record: Record) -> Judgement:
    """What a record says: about the claim, and about the prediction. Never raises: what goes wrong in it makes it inconclusive."""
    comparisons, failed = compare(experiment, record)
    reasons = [f"{one.cell}: {one.problem}" for one in record.cells if one.problem]
    if not record.cells:
        reasons.append("nothing was observed")
    try:
        reasons += [f"{one.cell}: {missing}" for one in record.cells if not one.problem and (missing := experiment.took_effect(one))]
        verdict = Verdict("INCONCLUSIVE", "; ".join(reasons)) if reasons else experiment.judge(record.facts, record.cells)
    except Exception as error:  # noqa: BLE001 # a mistake in an experiment, anybody's: no verdict
        verdict = Verdict("INCONCLUSIVE", f"it cannot be judged: {_words(error)}")
    if failed and verdict.outcome != "INCONCLUSIVE":
        verdict = Verdict("INCONCLUSIVE", failed)
    return Judgement(verdict, comparisons)


def compare(experiment: Experiment, record: Record) -> tuple[list[Comparison], str]:
    """The prediction beside what was seen; and why there is none, if it cannot be made."""
    rows: list[Comparison] = []
    for one in record.cells:
        if one.problem:
            continue
        try:
            predicted = experiment.prediction.of(record.facts, one)
        except Exception as error:  # noqa: BLE001 # as above
            return rows, f"nothing can be predicted: {_words(error)}"
        for quantity, value in predicted.items():
            expected = value if isinstance(value, Expected) else Expected((value,))
            seen = one.seen.get(quantity)
            rows.append(Comparison(one.cell, quantity, expected, seen, quantity in one.seen and expected.allows(seen)))
    return rows, ""


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
