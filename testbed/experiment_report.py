"""Records of experiments as one page of HTML that needs nothing else: claims by kernels, then each claim with its numbers, its picture,
the packets, and how to run it again. Pure.

What was not run is said to be not run, and what cannot be shown on a kind of host why not: neither looks like something that passed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from testbed.drawing import Drawing
from testbed.experiment import CellRun, Comparison, Expected, Experiment, Judgement, Record
from testbed.experiment_results import Column, Result, Results, Saved, changed, columns_of, commands, joined, results_of, summary
from testbed.ladder import ladder
from testbed.picture import usable
from testbed.report_style import STYLE
from testbed.traffic import Traffic

MOST_VALUE = 90  # characters of a value that are shown


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
    return f"<td>{_verdict(result.judgement)}{_predicted(result.judgement, count=False)}</td>"


def _verdict(judgement: Judgement) -> str:
    return f'<span class="verdict {judgement.verdict.outcome}">{judgement.verdict.outcome}</span>'


def _predicted(judgement: Judgement, *, count: bool = True) -> str:
    total, wrong = len(judgement.comparisons), sum(not one.matches for one in judgement.comparisons)
    if not total:
        return '<span class="unlike">✗ nothing to compare</span>'
    if wrong:
        return f'<span class="unlike">✗ {wrong} of {total} numbers not as predicted</span>'
    numbers = f" ({total} {'number' if total == 1 else 'numbers'})" if count else ""
    return f'<span class="predicted">✓ as predicted{numbers}</span>'


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
    if isinstance(value, Expected):
        return " or ".join(map(shown_value, value.values)) if value.low is None else str(value)
    if isinstance(value, list) and not any(isinstance(one, list | dict) for one in value):
        text = ", ".join(map(shown_value, value)) or "none"
    else:
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
