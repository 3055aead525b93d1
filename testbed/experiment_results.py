"""Records put in order: of each experiment and each kernel the result that counts, and how it is run again. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

from testbed.experiment import Experiment, Judgement, Record, judge
from testbed.experiment_page import same_numbers

USUAL = (("native", "", "little"), ("vm", "s390x", "big"))  # what is shown as not run where there is no record of it


@dataclass(frozen=True)
class Saved:
    """A record, and the name of its file."""

    name: str
    record: Record


@dataclass(frozen=True)
class Column:
    """Whose kernel, or which user space, something was run on."""

    kind: str
    arch: str
    byte_order: str
    kernel: str = ""
    kernel_of: str = ""

    @property
    def short(self) -> str:
        return " ".join(part for part in (self.kind, self.arch) if part)

    @property
    def long(self) -> str:
        kernel = f", {self.kernel_of} kernel {self.kernel}" if self.kernel else ""
        return f"{self.short}, {self.byte_order}-endian{kernel}"


@dataclass(frozen=True)
class Result:
    """What a claim came to on one column: of the newest of ``runs`` records, of which ``alike`` have its numbers."""

    saved: Saved
    judgement: Judgement
    runs: int
    alike: int


Results = Mapping[tuple[str, Column], Result]


def column_of(record: Record) -> Column:
    facts = record.facts
    return Column(facts.kind, facts.arch, facts.byte_order, facts.kernel, facts.kernel_of)


def results_of(saved: Sequence[Saved], experiments: Mapping[str, Experiment]) -> dict[tuple[str, Column], Result]:
    """For each experiment and column the result that counts: the newest record as the experiment is by itself, or else the newest."""
    by_place: dict[tuple[str, Column], list[Saved]] = {}
    for one in saved:
        by_place.setdefault((one.record.experiment, column_of(one.record)), []).append(one)
    found = {}
    for (name, column), several in by_place.items():
        experiment = experiments[name]
        usual = [one for one in several if not changed(experiment, one.record)] or several
        newest = max(usual, key=lambda one: one.record.begun)
        alike = [one for one in usual if changed(experiment, one.record) == changed(experiment, newest.record)]
        judgement = judge(experiment, newest.record)
        same = same_numbers([judgement, *(judge(experiment, one.record) for one in alike if one is not newest)])
        found[name, column] = Result(newest, judgement, len(alike), same)
    return found


def changed(experiment: Experiment, record: Record) -> dict[str, Any]:
    """What a user has set differently from how the experiment is by itself."""
    usual = experiment.with_values({})
    return {name: value for name, value in record.facts.parameters.items() if usual.get(name) != value} | dict(record.set_by_user)


def columns_of(results: Results) -> list[Column]:
    """The columns of the matrix, little-endian ones first; the usual ones also where nothing was run on them."""
    found = {column for _, column in results}
    for kind, arch, order in USUAL:
        if not any(one.kind == kind and arch in ("", one.arch) for one in found):
            found.add(Column(kind, arch, order))
    ranks = {"native": 0, "emulated": 1, "vm": 2}
    return sorted(found, key=lambda one: (one.byte_order == "big", ranks[one.kind], one.arch, one.kernel))


def joined(records: Sequence[Record]) -> list[Record]:
    """The records of sweeps with all cells of one host in one record, for a picture."""
    by_place: dict[Column, list[Record]] = {}
    for one in records:
        by_place.setdefault(column_of(one), []).append(one)
    return [replace(several[0], cells=[cell for one in several for cell in one.cells]) for several in by_place.values()]


def summary(results: Results, experiments: Mapping[str, Experiment]) -> str:
    """The whole in two sentences."""
    outcomes = [one.judgement.verdict.outcome for one in results.values()]
    counts = ", ".join(f"{outcomes.count(word)} {word}" for word in ("HOLDS", "REFUTED", "INCONCLUSIVE") if word in outcomes)
    tried = len({name for name, _ in results})
    unlike = sum(not one.judgement.predicted for one in results.values())
    missing = len(experiments) - tried
    words = [f"{tried} of {len(experiments)} claims were tried, in {len(outcomes)} runs: {counts or 'nothing was run'}."]
    if outcomes:
        words.append("Every number is as predicted." if not unlike else f"Runs that are NOT as predicted: {unlike}.")
    words += [f"Claims that were not run at all: {missing}."] if missing else []
    return " ".join(words)


def commands(experiment: Experiment, mine: Mapping[Column, Result]) -> list[str]:
    """How each of these is run again: on that kind of host, with that kernel, and with what was set."""
    found = []
    for column, result in mine.items():
        kind = f"vm-{column.arch}" if column.kind == "vm" else column.kind
        suite = suite_of(result.saved.record) if column.kind == "vm" else ""
        setting = "".join(
            f" --set {quote(f'{name}={_as_given(value)}')}" for name, value in changed(experiment, result.saved.record).items()
        )
        found.append(f"testbed experiment run {experiment.name} --on {kind}" + (f" --kernel {suite}" if suite else "") + setting)
    return list(dict.fromkeys(found))


def _as_given(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def suite_of(record: Record) -> str:
    """The suite that a guest's kernel is from, of which its image has the name."""
    images = [str(host.get("image", "")) for host in record.hosts if host.get("subject")]
    found = [match[1] for image in images if (match := re.search(r"/vm-[^-/]+-([a-z-]+):", image))]
    return found[0] if found else ""
