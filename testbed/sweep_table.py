"""The results of a sweep as a tidy table: a row for each quantity of each cell of each point. Pure."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from testbed.experiment import CellRun, Comparison, Expected, Record, Value, compare
from testbed.sweep import Point, Sweep

Row = dict[str, Value]
BEFORE = ("point", "experiment", "kind", "arch", "byte_order", "kernel")
AFTER = ("cell", "quantity", "seen", "predicted", "predicted_low", "predicted_high", "matches", "note")


def columns(sweep: Sweep) -> list[str]:
    """The table's columns: which point on which host, the axes, and what was seen there beside what was predicted.

    An axis that has the name of another column gets a ``_``.
    """
    return [*BEFORE, *(_column(axis.name) for axis in sweep.axes), *AFTER]


def rows(sweep: Sweep, records: Mapping[int, Record]) -> list[Row]:
    """The rows of the points that there are records of, by the points' numbers."""
    return [row for point in sweep.points if point.number in records for row in _rows_of(sweep, point, records[point.number])]


def failures(table: Sequence[Row]) -> list[Row]:
    """The rows that are not as predicted, or of which nothing can be said."""
    return [row for row in table if row["note"] or row["matches"] is False]


def as_csv(sweep: Sweep, table: Sequence[Row]) -> str:
    """As text: commas, TRUE and FALSE, nothing where there is no value, and JSON for what is no single value (a list)."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(sweep), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _text(value) for name, value in row.items()} for row in table)
    return out.getvalue()


def _rows_of(sweep: Sweep, point: Point, record: Record) -> list[Row]:
    facts = record.facts
    begin: Row = {
        "point": point.number,
        "experiment": record.experiment,
        **{name: getattr(facts, name) for name in BEFORE[2:]},
        **{_column(name): value for name, value in point.at.items()},
    }
    found = []
    for run in record.cells:
        comparisons, failed = compare(sweep.experiment, replace(record, cells=[run]))
        by_name = {one.quantity: one for one in comparisons}
        note = run.problem or failed or sweep.experiment.took_effect(run)
        found += [
            begin | {"cell": run.cell, "quantity": quantity, "note": note} | _numbers(run, quantity, by_name.get(quantity))
            for quantity in [*run.seen, *(name for name in by_name if name not in run.seen)] or [""]
        ]
    return [{name: row[name] for name in columns(sweep)} for row in found]


def _numbers(run: CellRun, quantity: str, one: Comparison | None) -> Row:
    seen = run.seen.get(quantity)
    if one is None:
        return {"seen": seen, "predicted": None, "predicted_low": None, "predicted_high": None, "matches": None}
    low, high = _bounds(one.expected)
    only = one.expected.values[0] if len(one.expected.values) == 1 else str(one.expected)
    return {"seen": seen, "predicted": only, "predicted_low": low, "predicted_high": high, "matches": one.matches}


def _bounds(expected: Expected) -> tuple[float | None, float | None]:
    if expected.low is not None:
        return expected.low, expected.high
    numbers = [one for one in expected.values if isinstance(one, int | float) and not isinstance(one, bool)]
    return (min(numbers), max(numbers)) if numbers else (None, None)


def _column(name: str) -> str:
    return f"{name}_" if name in (*BEFORE, *AFTER) else name


def _text(value: Value) -> Value:
    if isinstance(value, bool):
        return str(value).upper()
    return json.dumps(value) if isinstance(value, list | tuple | dict) else value
