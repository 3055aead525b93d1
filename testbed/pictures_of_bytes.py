"""Pictures of byte order, and of what fits into a receive buffer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.chart import SMALL, Area, Series, mark
from testbed.drawing import FAINT, FIRST, INK, SECOND, SOFT, Drawing, wrapped
from testbed.experiment import Record
from testbed.picture import WIDTH, headed, named, panels, usable


def forgotten_htons(records: Sequence[Record]) -> Drawing:
    """A5: the port as it lies in memory on each host, and the port that is then listened on."""
    drawing = Drawing(WIDTH, 0, "htons() forgotten: the bug that exists on one host only", "")
    y = headed(
        drawing, 0, "sin_port = 8001, without htons()".replace("8001", _port(records)), "what each host has in memory, and listens on"
    )
    words, done = [], set()
    y += 8
    for record in records:
        runs = usable(record)
        if not runs or (record.facts.kind, record.facts.arch) in done:
            continue
        done.add((record.facts.kind, record.facts.arch))
        port, listens = int(record.facts.parameters["port"]), runs[0].seen["listens without htons on"]
        memory = port.to_bytes(2, record.facts.byte_order)
        right = listens == [port]
        drawing.box(8, y, WIDTH - 16, 64, stroke=FAINT, round_=4)
        drawing.text((20, y + 20), named(record.facts), size=SMALL, bold=True)
        x = 20.0
        drawing.text((x, y + 46), f"{port} = {port:#06x} in memory:", size=SMALL)
        for at, one in enumerate(memory):
            drawing.box(232 + at * 40, y + 29, 40, 26, stroke=INK)
            drawing.text((252 + at * 40, y + 47), f"{one:02x}", size=13, anchor="middle", bold=True)
        drawing.arrow((324, y + 42), (372, y + 42), stroke=SOFT)
        read = int.from_bytes(memory, "big")
        drawing.text((382, y + 38), f"read as big-endian: {read:#06x} = {read}", size=SMALL)
        words_here = "listens on " + ", ".join(map(str, listens)) + (", as meant" if right else f", not on {port}")
        drawing.text((382, y + 55), words_here, size=SMALL, bold=True, fill=FIRST if right else SECOND)
        mark(drawing, (WIDTH - 36, y + 42), "dot" if right else "square")
        words.append(f"{named(record.facts)}: {memory.hex(' ')} in memory, {words_here}.")
        y += 74
    orders = {record.facts.byte_order for record in records}
    lesson = (
        "The same mistake, and only the little-endian host shows it. (dot: right, square: wrong)"
        if len(orders) == 2
        else f"Only {' and '.join(sorted(orders))}-endian hosts were tried; on the others it is different."
    )
    y = drawing.lines((8, y + 14), wrapped(lesson, WIDTH - 16, 11.5), size=11.5)
    drawing.height, drawing.description = y, " ".join(words)
    return drawing


def _port(records: Sequence[Record]) -> str:
    return ", ".join(dict.fromkeys(str(record.facts.parameters["port"]) for record in records))


def held_datagrams(records: Sequence[Record]) -> Drawing:
    """E3: how many datagrams a receive buffer holds, by its size R, or by theirs where R is always the same."""
    drawing = Drawing(WIDTH, 0, "How many datagrams a receive buffer holds", "")
    y, words = 0.0, []
    for names, runs in panels(records, lambda run: dict(run.seen)):
        y = headed(drawing, y, "Datagrams that a UDP socket holds until its receive buffer is full", names)
        sizes = sorted({run.values["size"] for run in runs})
        buffers = sorted({run.seen["R"] for run in runs})
        words += [f"R={run.seen['R']}, {run.values['size']} bytes each: {run.seen['held']} held." for run in runs]
        if len(buffers) > 1:
            y = _by_buffer(drawing, y, [(run.values["size"], run.seen["R"], run.seen["truesize"], run.seen["held"]) for run in runs], sizes)
            continue
        most = max(10, *(run.seen["held"] for run in runs))
        drawing.text((8, y + 22), f"R = {buffers[0]} bytes (what getsockopt gives)", size=SMALL)
        y += 34
        for run in runs:
            size, held, by_bytes = run.values["size"], run.seen["held"], buffers[0] // 2 // max(run.values["size"], 1)
            scale, beyond = 300 / most, by_bytes > 1.3 * most
            drawing.text((8, y + 16), f"{size} bytes each", size=SMALL)
            drawing.hatched(150, y + 3, held * scale, 18, stroke=FIRST)
            drawing.text(
                (158 + held * scale, y + 16), f"{held} held; each takes {run.seen['truesize']} bytes of memory", size=SMALL, bold=True
            )
            end = 150 + (390 if beyond else by_bytes * scale)
            drawing.line((150, y + 30), (end, y + 30), stroke=SECOND, dash="4 3", width=2)
            if beyond:
                drawing.arrow((end - 2, y + 30), (end + 8, y + 30), stroke=SECOND)
            else:
                drawing.line((end, y + 25), (end, y + 35), stroke=SECOND, width=2)
            drawing.text((end + 14, y + 34), f"{by_bytes} by their bytes", size=SMALL, fill=SECOND)
            y += 50
    drawing.height, drawing.description = y + 4, " ".join(words)
    return drawing


def _by_buffer(drawing: Drawing, y: float, rows: Sequence[tuple[int, int, int, int]], sizes: Sequence[int]) -> float:
    series = []
    for size, sign in zip(sizes, ("dot", "square", "ring", "diamond"), strict=False):
        mine = [row for row in rows if row[0] == size]
        points = [(float(buffer), float(held)) for _, buffer, _, held in mine]
        truesize = mine[0][2]
        series.append(Series(f"{size} bytes each; the line: R / {truesize}, what each takes of memory", points, sign))
        ends = [0.0, max(x for x, _ in points)]
        series.append(Series("", [(x, x / truesize) for x in ends], dash="3 3", colour=SOFT))
    x_most = max(x for one in series for x, _ in one.points)
    y_most = max(y for one in series for _, y in one.points) * 1.1
    area = Area(drawing, 48, y + 26, 660, 230, "R, bytes (what getsockopt gives)", "datagrams", x_most * 1.02, y_most)
    area.axes()
    area.draw(series)
    return area.legend([one for one in series if one.name], (48, y + 26 + 230 + 62)) + 6
