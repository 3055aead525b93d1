"""What an experiment says of itself, and what a run of it says: for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.experiment import KINDS, Experiment, Judgement, Parameter, Record

NAMES = {"native": "native", "emulated": "emulated", "vm": "vm (s390x, amd64)"}
MOST_ROWS = 12


def page(experiment: Experiment) -> str:
    """A page about a claim, in Markdown, made of the experiment alone."""
    one = experiment
    lines = [
        f"## {one.id} {one.name}",
        "",
        f"**The claim**: {one.claim.text} ({one.claim.source})",
        "",
        f"**Linux**: {one.linux}",
        "",
        f"**Predicted**: {one.prediction.rule}. From:",
        "",
        *(f"* {source}" for source in one.prediction.sources),
        "",
        "| kind of host | |",
        "|---|---|",
        *(f"| {NAMES[kind]} | {'runs' if kind in one.kinds else 'no: ' + one.refused[kind]} |" for kind in KINDS),
        "",
    ]
    others = f"; beside it, native: {', '.join(one.others)}" if one.others else ""
    lines += [f"On that kind: {', '.join(one.subjects)}{others}.", ""]
    if one.sysctls:
        lines += [f"Pinned: {', '.join(f'`{name}` = {value}' for name, value in one.sysctls.items())}.", ""]
    if one.parameters:
        lines += ["| parameter | default | |", "|---|---|---|"]
        lines += [f"| `{name}` | {_shown(given)} | {given.what} |" for name, given in one.parameters.items()]
        lines += [""]
    cells = one.cells(one.with_values({}))
    if len(cells) > 1:
        lines += [f"Cells: {'; '.join(cell.name for cell in cells)}.", ""]
    return "\n".join([*lines, "Run it:", "", f"    testbed experiment run {one.name}", ""])


def whose(record: Record) -> str:
    """On what a record was made, in a few words."""
    facts = record.facts
    return f"{facts.kind} {facts.arch} ({facts.byte_order}-endian), {facts.kernel_of} kernel {facts.kernel}"


def headline(experiment: Experiment, record: Record, judgement: Judgement) -> str:
    """One line: the verdict on the claim, and whether it was predicted."""
    numbers = len(judgement.comparisons)
    wrong = sum(not one.matches for one in judgement.comparisons)
    predicted = f"as predicted ({numbers} numbers)" if judgement.predicted else f"NOT as predicted ({wrong} of {numbers} numbers)"
    if not numbers:
        predicted = "nothing to compare with the prediction"
    return f"{experiment.id} {experiment.name} on {whose(record)}: {judgement.verdict.outcome}, {predicted}, {record.duration_s:.1f} s"


def details(judgement: Judgement) -> list[str]:
    """Why, and what was not as predicted."""
    lines = [f"  {judgement.verdict.reason}"] if judgement.verdict.reason else []
    wrong = [one for one in judgement.comparisons if not one.matches]
    lines += [f"  {one.cell}: {one.quantity} should be {one.expected}, and is {one.seen}" for one in wrong[:MOST_ROWS]]
    if len(wrong) > MOST_ROWS:
        lines.append(f"  and {len(wrong) - MOST_ROWS} more")
    return lines


def same_numbers(judgements: Sequence[Judgement]) -> int:
    """How many of the runs have the numbers of the first, where one number was predicted; those said to vary may vary."""
    return sum(_exact(one) == _exact(judgements[0]) for one in judgements)


def contents(experiments: Iterable[Experiment]) -> list[tuple[str, str, str, str]]:
    """Of each: id, name, where it runs, the claim."""
    return [(one.id, one.name, ", ".join(one.kinds), one.claim.text) for one in experiments]


def _exact(judgement: Judgement) -> list[object]:
    rows = [(one.cell, one.quantity, one.seen) for one in judgement.comparisons if len(one.expected.values) == 1]
    return [judgement.verdict.outcome, *rows]


def _shown(parameter: Parameter) -> str:
    if parameter.default is None:
        return f"several, such as {parameter.usual}"
    return {True: "yes", False: "no"}[parameter.default] if isinstance(parameter.default, bool) else str(parameter.default)
