"""A sweep: an experiment at every point of a grid, of its parameters and of its hosts' sysctls. What the points are; pure.

An axis is written as ``NAME=VALUES``: numbers and ranges (``0..8``, ``0..100..25``, ``8..0..-2``) with commas between, or words.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

from testbed import sysctls
from testbed.errors import InputError
from testbed.experiment import Cell, Experiment, Record, Scalar, Value
from testbed.experiment_run import On, why_not

FORMAT = 1  # of a sweep's folder
MOST_POINTS = 10_000
_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?:\.\.({_NUMBER}))?")


@dataclass(frozen=True)
class Axis:
    """What is varied: a parameter, or (with a dot in its name) a sysctl of the subjects, and its values in their order."""

    name: str
    values: tuple[Scalar, ...]

    @property
    def is_sysctl(self) -> bool:
        return "." in self.name


@dataclass(frozen=True)
class Point:
    """One point of a grid; ``number`` from 1. ``at`` has the axes' values, ``parameters`` and ``sysctls`` all that is chosen."""

    number: int
    at: Mapping[str, Scalar]
    parameters: Mapping[str, Scalar]
    sysctls: Mapping[str, str]

    def __str__(self) -> str:
        return " ".join(f"{name}={written(value)}" for name, value in self.at.items())

    def is_of(self, record: Record) -> bool:
        """Whether a record was made at this point."""
        return dict(record.facts.parameters) == dict(self.parameters) and dict(record.set_by_user) == dict(self.sysctls)


@dataclass(frozen=True)
class Sweep:
    """A grid: an experiment on a kind of host, its axes, and what is the same at all points."""

    experiment: Experiment
    on: On
    axes: tuple[Axis, ...]
    parameters: Mapping[str, Scalar]
    sysctls: Mapping[str, str]

    @cached_property
    def points(self) -> Sequence[Point]:
        """All points; the last axis changes fastest."""
        found = []
        for number, values in enumerate(itertools.product(*(axis.values for axis in self.axes)), start=1):
            at = {axis.name: value for axis, value in zip(self.axes, values, strict=True)}
            by_name = {axis.name: str(at[axis.name]) for axis in self.axes if axis.is_sysctl}
            chosen = {name: value for name, value in at.items() if name not in by_name}
            found.append(Point(number, at, {**self.parameters, **chosen}, {**self.sysctls, **by_name}))
        return found

    @property
    def identity(self) -> dict[str, Value]:
        """What makes it this sweep and no other: what a folder of results is known by."""
        return {
            "format": FORMAT,
            "experiment": self.experiment.name,
            "on": self.on.slug,
            "axes": {axis.name: list(axis.values) for axis in self.axes},
            "parameters": dict(self.parameters),
            "sysctls": dict(self.sysctls),
        }

    @property
    def name(self) -> str:
        """A name for its folder, the same for the same sweep."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()
        return f"{self.experiment.name}.{self.on.slug}.{digest[:8]}"

    def at(self, point: Point) -> Experiment:
        """The experiment with the cells that it has at a point: those that do not choose for themselves what the point chooses."""
        cells = cells_at(self.experiment, point)
        return replace(self.experiment, cells=lambda _: cells)


def plan(experiment: Experiment, on: On, over: Sequence[str], settings: Mapping[str, str]) -> Sweep:
    """The sweep that is asked for: ``over`` are axes as they are written, ``settings`` what is the same at all points.

    A parameter that has no default and is not given has its usual value. Raises :class:`InputError` for all that is wrong with it.
    """
    if reason := why_not(experiment, on):
        raise InputError(f"{experiment.name} does not run on {on}: {reason}")
    if not over:
        raise InputError("over what?", hint=f"for example --over {_suggestion(experiment)}")
    axes = tuple(axis(text, experiment) for text in over)
    names = [one.name for one in axes]
    for name in names:
        if names.count(name) > 1 or name in settings:
            raise InputError(f"'{name}' is given twice", hint="one --over with all of its values, such as 0..8,16")
    number = math.prod(len(one.values) for one in axes)
    if number > MOST_POINTS:
        raise InputError(f"this grid has {number:,} points, and {MOST_POINTS:,} are the most", hint="a step makes it coarser: 0..1000..100")
    usual = {name: one.usual for name, one in experiment.parameters.items() if one.default is None and one.usual is not None}
    by_user = {name: value for name, value in settings.items() if "." in name}
    chosen = usual | experiment.with_values({name: value for name, value in settings.items() if name not in by_user})
    parameters = {name: value for name, value in chosen.items() if name not in names}
    for name, value in [*by_user.items(), *((one.name, str(value)) for one in axes if one.is_sysctl for value in one.values)]:
        sysctls.check(name, value, own_kernel=on.kind == "vm")
    sweep = Sweep(experiment, on, axes, parameters, by_user)
    for point in sweep.points:
        cells_at(experiment, point)
    return sweep


def axis(text: str, experiment: Experiment) -> Axis:
    """An axis as it is written. Raises :class:`InputError`."""
    name, is_there, words = text.partition("=")
    if not is_there or not name or not words:
        raise InputError(f"'{text}' is not NAME=VALUES", hint=f"for example --over {_suggestion(experiment)}")
    if "." in name:
        values: Iterator[Scalar] = (_plain(word) for word in _expanded(name, words))
    else:
        example = experiment.parameter(name).example
        texts = words.split(",") if isinstance(example, bool | str) else _expanded(name, words)
        values = (experiment.with_values({name: word})[name] for word in texts)
    return Axis(name, tuple(dict.fromkeys(values)))


def cells_at(experiment: Experiment, point: Point) -> Sequence[Cell]:
    """The cells of an experiment at a point, but those that set a sysctl which the point sets.

    Raises :class:`InputError` when none is left.
    """
    there = experiment.cells(point.parameters)
    left = [cell for cell in there if not cell.sysctls.keys() & point.sysctls.keys()]
    if not left:
        names = ", ".join(sorted({name for cell in there for name in cell.sysctls} & point.sysctls.keys()))
        raise InputError(
            f"every cell of {experiment.name} has its own {names}", hint="a parameter chooses among its cells: testbed experiment show"
        )
    return left


def written(value: Scalar) -> str:
    """A value as it is written in the command."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _expanded(name: str, words: str) -> Iterator[str]:
    """The values of a list of numbers and ranges; what is no range stays as it is."""
    for word in words.split(","):
        found = _RANGE.fullmatch(word)
        if found:
            first, last, step = found.groups()
            yield from _numbers(name, word, Decimal(first), Decimal(last), Decimal(step or 1))
        elif ".." in word or not word:
            raise InputError(f"{name}: '{word}' is no range", hint="0..8, with a step 0..100..25, down 8..0..-1; commas between several")
        else:
            yield word


def _numbers(name: str, word: str, first: Decimal, last: Decimal, by: Decimal) -> Iterator[str]:
    number = 0 if by == 0 else int((last - first) // by) + 1
    if number < 1 or (last - first) * by < 0:
        hint = f"downwards, it has a step: {first}..{last}..-1" if first > last else "a step leads from the first to the last"
        raise InputError(f"{name}: the range {word} is empty", hint=hint)
    if number > MOST_POINTS:
        raise InputError(
            f"{name}: the range {word} has {number:,} values, and {MOST_POINTS:,} are the most", hint="a step makes it coarser"
        )
    return (f"{first + by * index:f}" for index in range(number))


def _plain(word: str) -> Scalar:
    return int(word) if re.fullmatch("-?[1-9][0-9]*|0", word) else word


def _suggestion(experiment: Experiment) -> str:
    for name, one in experiment.parameters.items():
        if isinstance(one.example, int) and not isinstance(one.example, bool):
            return f"{name}=1..{max(2, one.example)}"
    return "net.core.somaxconn=1,2,4,8"
