"""What the pictures of claims share: which records can be drawn, those that show the same together, headings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from testbed.drawing import SOFT, Drawing, wrapped
from testbed.experiment import CellRun, Facts, Record

WIDTH = 760.0


def usable(record: Record) -> list[CellRun]:
    """The cells of a record of which something is known."""
    return [run for run in record.cells if not run.problem]


def named(facts: Facts) -> str:
    """On whose kernel something was seen, in a few words."""
    kernel = f"Linux {facts.kernel}" if facts.kernel else "no kernel of its own"
    return f"{facts.kind} {facts.arch} ({facts.byte_order}-endian), {kernel}"


def panels(records: Sequence[Record], what: Callable[[CellRun], Any]) -> Iterator[tuple[str, list[CellRun]]]:
    """The records with what was seen, those together that show the same: whose they are, and the cells of one of them."""
    groups: list[tuple[list[str], Any, list[CellRun]]] = []
    for record in records:
        runs = usable(record)
        shown = [(run.cell, what(run)) for run in runs]
        same = next((group for group in groups if group[1] == shown), None)
        if same is None:
            groups.append(([named(record.facts)], shown, runs))
        elif named(record.facts) not in same[0]:
            same[0].append(named(record.facts))
    for names, _, runs in groups:
        if runs:
            yield "; ".join(names), runs


def headed(drawing: Drawing, y: float, title: str, names: str) -> float:
    """A panel's title, and whose it is; gives the height below."""
    y = drawing.lines((8, y + 22), wrapped(title, drawing.width - 16, 13, bold=True), size=13, bold=True)
    return drawing.lines((8, y + 1), wrapped(names, drawing.width - 16, 10.5), size=10.5, fill=SOFT) - 4
