"""A page a claim, as Markdown, with its picture and the packets; and one that lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from testbed.errors import writing
from testbed.experiment import Experiment
from testbed.experiment_page import page
from testbed.experiment_report import ladder_of, picture_of
from testbed.experiment_results import Result, Saved, results_of

INDEX = "README.md"


def pages(saved: Sequence[Saved], experiments: Mapping[str, Experiment]) -> Iterator[tuple[str, str]]:
    """File name and text of everything."""
    results = results_of(saved, experiments)
    rows = []
    for one in experiments.values():
        mine = {column: result for (name, column), result in results.items() if name == one.name}
        text, files = _page(one, list(mine.values()))
        yield f"{one.name}.md", text
        yield from files
        seen = "; ".join(f"{result.judgement.verdict.outcome} on {column.short}" for column, result in mine.items()) or "not run"
        rows.append(f"| [{one.id} {one.name}]({one.name}.md) | {one.claim.text} | {seen} |")
    lead = "# Claims\n\nMade of the experiments themselves and of records of them; `testbed experiment run NAME` runs one.\n\n"
    yield INDEX, lead + "| | the claim | seen |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def write_pages(directory: Path, saved: Sequence[Saved], experiments: Mapping[str, Experiment]) -> int:
    """Write them; gives how many pages there are. Raises :class:`InputError`."""
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        written = list(pages(saved, experiments))
        for name, text in written:
            (directory / name).write_text(text)
    return sum(name.endswith(".md") for name, _ in written)


def _page(experiment: Experiment, results: Sequence[Result]) -> tuple[str, list[tuple[str, str]]]:
    files: list[tuple[str, str]] = []
    parts = [page(experiment).replace("## ", "# ", 1)]
    if results:
        parts += ["## Seen", "", "| on | verdict | |", "|---|---|---|"]
        for result in results:
            facts, judgement = result.saved.record.facts, result.judgement
            on = f"{facts.kind} {facts.arch}, {facts.byte_order}-endian, {facts.kernel}"
            predicted = "as predicted" if judgement.predicted else "NOT as predicted"
            parts.append(f"| {on} | {judgement.verdict.outcome}, {predicted} | {judgement.verdict.reason} |")
        parts.append("")
    drawing, _ = picture_of(experiment, [result.saved.record for result in results]) if results else (None, "")
    if drawing is not None:
        files.append((f"{experiment.name}.svg", drawing.svg(alone=True)))
        parts += [f"![{drawing.title}]({experiment.name}.svg)", ""]
    for result in results:
        if found := ladder_of(experiment, result.saved.record):
            run, ladder = found
            name = f"{experiment.name}.ladder.svg"
            files.append((name, ladder.svg(alone=True)))
            facts = result.saved.record.facts
            cell = "" if run.cell == "all" else f', cell "{run.cell}"'
            parts += ["## What happened", "", f"On {facts.kind} {facts.arch}{cell}; time runs down, not to scale.", ""]
            parts += [f"![The packets, and the states of both ends]({name})", ""]
            break
    return "\n".join(parts), files
