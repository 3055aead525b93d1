"""Pictures of servers that are restarted: what is in the way, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.chart import Area, Series, table
from testbed.drawing import FIRST, SECOND, SOFT, Drawing
from testbed.experiment import CellRun, Record
from testbed.picture import WIDTH, headed, panels, usable

FIN_TIMEOUT = "net.ipv4.tcp_fin_timeout"
BLOCKED = {"EADDRINUSE": "the port is taken"}


def restarts(records: Sequence[Record]) -> Drawing:
    """D1: what the old server leaves in each situation, and what bind says."""
    drawing = Drawing(WIDTH, 0, "Can the server be started again?", "")
    y, words = 0.0, []
    for names, runs in panels(records, lambda run: dict(run.seen)):
        y = headed(drawing, y, "A server is ended by Ctrl-C: what it leaves, and whether the next one gets its port", names)
        situations = list(dict.fromkeys(run.values["situation"] for run in runs))
        rows = []
        for situation in situations:
            found = {bool(run.values["reuse"]): run for run in runs if run.values["situation"] == situation}
            left = " / ".join(dict.fromkeys(run.seen["the old server left"] for run in found.values()))
            binds = [str(found[reuse].seen["bind"]) if reuse in found else "-" for reuse in (False, True)]
            rows.append([situation, left, *binds])
            words.append(f"{situation}: {left} is left; bind without SO_REUSEADDR {binds[0]}, with {binds[1]}.")
        head = ["when the server is ended", "it leaves", "bind, no reuse", "bind, both with reuse"]
        y = table(drawing, (8, y + 10), [260, 150, 160, 174], head, rows, bad=BLOCKED) + 10
    drawing.height, drawing.description = y, " ".join(words)
    return drawing


def reuses(records: Sequence[Record]) -> Drawing:
    """D2: whether the old server and the new one set SO_REUSEADDR."""
    drawing = Drawing(WIDTH, 0, "Who must set SO_REUSEADDR?", "")
    y, words = 0.0, []
    for names, runs in panels(records, lambda run: dict(run.seen)):
        binds = {(run.values["old"], run.values["new"]): str(run.seen["bind"]) for run in runs if run.values["way"] == "restart"}
        if not binds:
            continue
        y = headed(drawing, y, "bind of the new server, while connections of the old one are still there", names)
        rows = []
        for old in (False, True):
            row = [binds.get((old, new), "-") for new in (False, True)]
            rows.append([f"the old server {'had set' if old else 'had not set'} SO_REUSEADDR", *row])
            words.append(f"{rows[-1][0]}: {row[0]} when the new one does not, {row[1]} when it does.")
        y = table(drawing, (8, y + 10), [350, 190, 204], ["", "the new one does not", "the new one sets it"], rows, bad=BLOCKED) + 10
    drawing.height, drawing.description = y, " ".join(words)
    return drawing


def waits(records: Sequence[Record]) -> Drawing:
    """D3: how long bind fails, by tcp_fin_timeout; of all records, as times are never quite the same."""
    drawing = Drawing(WIDTH, 0, "How long the port is taken, by tcp_fin_timeout", "")
    runs = [run for record in records for run in usable(record)]
    names = "; ".join(name for name, _ in panels(records, lambda run: run.cell))
    y = headed(drawing, 0, "How long the port of a server that has ended is taken", names)
    fin = _points(runs, "FIN_WAIT2", "bind succeeds after s")
    late = _points(runs, "TIME_WAIT", "lasts s")
    x_most = max([x for x, _ in [*fin, *late]], default=1)
    y_most = max([y for _, y in [*fin, *late]], default=1) * 1.1
    series = [
        Series("the textbook: tcp_fin_timeout seconds", [(0, 0), (min(x_most, y_most), min(x_most, y_most))], dash="7 4", colour=SOFT),
        Series("FIN_WAIT2: bind tried until it succeeds", fin, "dot", None, FIRST),
        Series("TIME_WAIT: what its timer has", late, "square", None, SECOND),
    ]
    shown = [one for one in series if one.points]
    area = Area(drawing, 48, y + 26, 660, 230, "tcp_fin_timeout, seconds", "seconds", x_most * 1.05, y_most)
    area.axes()
    area.draw(shown)
    drawing.height = area.legend(shown, (48, y + 26 + 230 + 62)) + 6
    drawing.description = (
        f"FIN_WAIT2: {', '.join(f'{y:.1f} s with {x:g}' for x, y in fin) or 'not seen'}; "
        f"TIME_WAIT: {', '.join(f'{y:.0f} s with {x:g}' for x, y in late) or 'not seen'}."
    )
    return drawing


def _points(runs: Sequence[CellRun], state: str, quantity: str) -> list[tuple[float, float]]:
    chosen = [run for run in runs if run.values["state"] == state and run.seen.get(quantity)]
    return sorted((float(run.sysctl(FIN_TIMEOUT)), float(run.seen[quantity])) for run in chosen)
