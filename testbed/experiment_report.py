"""Records of experiments as one page of HTML that needs nothing else: claims by kernels, then each claim with its numbers, its picture,
the packets, and how to run it again. Pure.

What was not run is said to be not run, and what cannot be shown on a kind of host why not: neither looks like something that passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from shlex import quote
from typing import Any

from testbed.drawing import Drawing
from testbed.experiment import CellRun, Comparison, Experiment, Judgement, Record, judge
from testbed.experiment_page import same_numbers
from testbed.ladder import ladder
from testbed.picture import usable
from testbed.report_style import STYLE
from testbed.traffic import Traffic

MOST_VALUE = 90  # characters of a value that are shown
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


def report(
    saved: Sequence[Saved],
    experiments: Mapping[str, Experiment],
    *,
    made: str,
    notes: Sequence[str] = (),
    sweeps: Sequence[Saved] = (),
) -> str:
    """The page. ``made`` says when and by what; ``notes`` what the reader must know of records that are not in it. Of ``sweeps`` it has
    the pictures."""
    results = results_of(saved, experiments)
    columns = columns_of(results)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Claims on real kernels</title><style>{STYLE}</style></head><body>",
        '<a class="skip" href="#matrix">To the results</a>',
        "<header><h1>What the textbook says, and what kernels do</h1>",
        f'<p class="summary">{escape(summary(results, experiments))}</p><p class="soft">{escape(made)}</p>',
        *(f"<p><strong>{escape(note)}</strong></p>" for note in notes),
        "</header><main>",
        _matrix(results, columns, experiments),
        *(_claim(one, results, columns, [s.record for s in sweeps if s.record.experiment == one.name]) for one in experiments.values()),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


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


# The matrix


def _matrix(results: Results, columns: Sequence[Column], experiments: Mapping[str, Experiment]) -> str:
    heads = "".join(
        f'<th scope="col">{escape(one.short)}<span class="predicted">{one.byte_order}-endian'
        f"{'<br>' + escape(one.kernel) if one.kernel else ''}</span></th>"
        for one in columns
    )
    rows = []
    for one in experiments.values():
        cells = "".join(_matrix_cell(one, column, results.get((one.name, column))) for column in columns)
        name = escape(one.name)
        link = f'<a href="#{name}"><span class="id">{escape(one.id)}</span>{name}</a>'
        rows.append(f'<tr><th scope="row">{link}</th>{cells}</tr>')
    return (
        '<section id="matrix" aria-labelledby="matrix-title"><h2 id="matrix-title">Claims and kernels</h2>'
        "<p>The word in the frame is about the textbook's claim. Below it stands whether this kernel did what was predicted of it: "
        "a claim that is refuted as predicted is what we expect to see.</p>"
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="matrix-title"><table>'
        "<caption>The verdict on each claim, by host and kernel</caption>"
        f'<thead><tr><th scope="col">claim</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


def _matrix_cell(experiment: Experiment, column: Column, result: Result | None) -> str:
    if result is None:
        refused = experiment.refused.get(column.kind) if column.kind not in experiment.kinds else None  # type: ignore[call-overload]
        return f'<td><span class="missing whole">{"cannot show it" if refused else "not run"}</span></td>'
    return f"<td>{_verdict(result.judgement)}{_predicted(result.judgement)}</td>"


def _verdict(judgement: Judgement) -> str:
    return f'<span class="verdict {judgement.verdict.outcome}">{judgement.verdict.outcome}</span>'


def _predicted(judgement: Judgement) -> str:
    total, wrong = len(judgement.comparisons), sum(not one.matches for one in judgement.comparisons)
    if not total:
        return '<span class="unlike">✗ nothing to compare</span>'
    if wrong:
        return f'<span class="unlike">✗ {wrong} of {total} numbers not as predicted</span>'
    return f'<span class="predicted">✓ as predicted ({total} {"number" if total == 1 else "numbers"})</span>'


# A claim


def _claim(experiment: Experiment, results: Results, columns: Sequence[Column], swept: Sequence[Record]) -> str:
    one = experiment
    mine = {column: results[one.name, column] for column in columns if (one.name, column) in results}
    parts = [
        f'<section class="claim" id="{escape(one.name)}"><h2><span class="id">{escape(one.id)}</span>{escape(one.name)}</h2>',
        f"<blockquote><p>{escape(one.claim.text)}</p><footer>{escape(one.claim.source)}</footer></blockquote>",
        f"<p><strong>Linux:</strong> {escape(one.linux)}</p>",
        _verdicts(one, mine, columns),
    ]
    records = [result.saved.record for result in mine.values()]
    if records and one.picture is not None:
        parts += ["<h3>Picture</h3>", _pictured(one, records)]
    if swept and one.picture is not None:
        parts += [f"<h3>Swept: {len(swept)} points</h3>", _pictured(one, joined(swept))]
    if mine:
        parts.append(_numbers(mine))
        parts += _ladders(one, mine)
    sources = "".join(f"<li>{escape(source)}</li>" for source in one.prediction.sources)
    parts += [
        f"<h3>The prediction, and where it is from</h3><p>{escape(one.prediction.rule)}.</p><ul>{sources}</ul>",
        "<h3>Run it again</h3>",
        f"<pre>{escape(chr(10).join(commands(one, mine) or [f'testbed experiment run {one.name}']))}</pre>",
        *(_record(column, result) for column, result in mine.items()),
        "</section>",
    ]
    return "\n".join(parts)


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


def _verdicts(experiment: Experiment, mine: Mapping[Column, Result], columns: Sequence[Column]) -> str:
    rows = []
    for column in columns:
        result = mine.get(column)
        if result is None:
            refused = experiment.refused.get(column.kind, "") if column.kind not in experiment.kinds else ""  # type: ignore[call-overload]
            words = f"cannot show it: {refused}" if refused else "not run"
            rows.append(f'<tr><th scope="row">{escape(column.long)}</th><td colspan="2" class="missing">{escape(words)}</td></tr>')
            continue
        reason = escape(result.judgement.verdict.reason)
        runs = f' <span class="predicted">the same numbers in {result.alike} of {result.runs} runs</span>' if result.runs > 1 else ""
        setting = changed(experiment, result.saved.record)
        words = ", ".join(f"{name}={value}" for name, value in setting.items())
        told = f'<span class="unlike">not as it is by itself: {escape(words)}</span>' if setting else ""
        rows.append(
            f'<tr><th scope="row">{escape(column.long)}</th><td>{_verdict(result.judgement)}{_predicted(result.judgement)}</td>'
            f"<td>{reason}{runs}{told}</td></tr>"
        )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Verdicts"><table><thead><tr><th scope="col">on</th>'
        f'<th scope="col">verdict</th><th scope="col">because</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _pictured(experiment: Experiment, records: Sequence[Record]) -> str:
    drawing, problem = picture_of(experiment, records)
    if drawing is None:
        return f'<p class="missing">{escape(problem)}</p>'
    return _figure(drawing, "")


def picture_of(experiment: Experiment, records: Sequence[Record]) -> tuple[Drawing | None, str]:
    """The experiment's picture of these records, or why there is none."""
    if experiment.picture is None:
        return None, "it has no picture"
    records = [record for record in records if usable(record)]
    if not records:
        return None, "There is no picture: nothing was observed."
    try:
        drawing = experiment.picture(records)
    except Exception as error:  # noqa: BLE001 # anybody's drawing, of anybody's record: it is not what the report is about
        return None, f"There is no picture: {type(error).__name__}: {error}"
    return (drawing, "") if drawing.texts else (None, "There is no picture: nothing that it shows was observed.")


def _figure(drawing: Drawing, words: str) -> str:
    caption = f"<figcaption>{escape(words)}</figcaption>" if words else ""
    name = escape(drawing.title, quote=True)
    return f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{name}">{drawing.svg()}</div>{caption}</figure>'


def _numbers(mine: Mapping[Column, Result]) -> str:
    rows: dict[tuple[str, str], dict[Column, Comparison]] = {}
    for column, result in mine.items():
        for one in result.judgement.comparisons:
            rows.setdefault((one.cell, one.quantity), {})[column] = one
    heads = "".join(f'<th scope="col">seen on {escape(column.short)}</th>' for column in mine)
    body, before = [], ""
    spans = {cell: sum(one == cell for one, _ in rows) for cell, _ in rows}
    for (cell, quantity), found in rows.items():
        lead = f'<th scope="rowgroup" rowspan="{spans[cell]}">{escape(cell)}</th>' if cell != before else ""
        before = cell
        expected = list(dict.fromkeys(shown_value(one.expected) for one in found.values()))
        seen = "".join(_seen(found.get(column)) for column in mine)
        body.append(f'<tr>{lead}<th scope="row">{escape(quantity)}</th><td class="number">{escape(" / ".join(expected))}</td>{seen}</tr>')
    if not rows:
        return "<h3>Numbers</h3><p>There is none that could be compared with the prediction.</p>"
    return (
        '<h3>Numbers</h3><div class="scroll" tabindex="0" role="region" aria-label="Numbers"><table>'
        '<thead><tr><th scope="col">cell</th><th scope="col">quantity</th><th scope="col">predicted</th>'
        f"{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _seen(one: Comparison | None) -> str:
    if one is None:
        return '<td class="missing">not observed</td>'
    if one.matches:
        return f'<td class="number">{escape(shown_value(one.seen))}</td>'
    return f'<td class="number unlike">✗ {escape(shown_value(one.seen))}, not {escape(shown_value(one.expected))}</td>'


def shown_value(value: Any) -> str:
    """A value, or what is expected of one, as it is shown in a table."""
    text = value if isinstance(value, str) else json.dumps(value) if isinstance(value, list | dict | bool) else str(value)
    return text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]}…"


# What happened


def watched(record: Record) -> tuple[CellRun, Traffic] | None:
    """The cell of a record that was watched, and what was seen; None where there is none, or nothing of it can be read."""
    for run in record.cells:
        if run.traffic:
            try:
                return run, Traffic.from_json(run.traffic)
            except (KeyError, TypeError):
                return None
    return None


def ladder_of(experiment: Experiment, record: Record) -> tuple[CellRun, Drawing] | None:
    """The ladder diagram of a record's watched cell."""
    found = watched(record)
    if found is None or not (found[1].events or found[1].looks):
        return None
    run, traffic = found
    roles = [*experiment.others, *experiment.subjects]
    return run, ladder(traffic, run.steps, roles, f"{experiment.id} {experiment.name}: {run.cell}")


def _ladders(experiment: Experiment, mine: Mapping[Column, Result]) -> list[str]:
    if not experiment.others and len(experiment.subjects) < 2:
        return []
    drawn = {column: found for column, result in mine.items() if (found := ladder_of(experiment, result.saved.record))}
    parts = ["<h3>What happened</h3>"]
    if not drawn:
        return [*parts, '<p class="missing">The records have no packets: they were made before records had any.</p>']
    for number, (column, (run, drawing)) in enumerate(drawn.items()):
        cell = "" if run.cell == "all" else f"Cell “{run.cell}”, "
        words = f"{cell}on {column.long}. Time runs down, not to scale; sequence numbers count from each side's SYN."
        figure = _figure(drawing, words)
        parts.append(figure if not number else f"<details><summary>The same on {escape(column.long)}</summary>{figure}</details>")
    return parts


def _record(column: Column, result: Result) -> str:
    record = result.saved.record
    rows = [
        ("record", result.saved.name),
        ("begun", f"{record.begun}, took {record.duration_s:.1f} s"),
        *((name, value) for name, value in record.versions.items()),
        *((f"image of {host.get('host', '?')}", str(host.get("image", "?"))) for host in record.hosts),
    ]
    pinned = record.cells[0].sysctls if record.cells else {}
    rows += [("sysctls", ", ".join(f"{name}={value}" for name, value in pinned.items()))] if pinned else []
    inner = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f"<details><summary>The run on {escape(column.short)} {escape(column.kernel)}</summary><dl>{inner}</dl></details>"
