"""Pictures of the two queues of a listening socket: how long they are, who is in them, in what order they are left. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from testbed.chart import MARKS, SMALL, Area, Series, mark
from testbed.drawing import FAINT, FIRST, INK, PAPER, SECOND, SOFT, Drawing, wrapped
from testbed.experiment import CellRun, Record
from testbed.picture import WIDTH, headed, panels
from testbed.traffic import Traffic

MOST_BACKLOG = 64  # beyond that a backlog is not a place on the axis: -1 is the largest number there is
SOMAXCONN, MAX_SYN, COOKIES = "net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_syncookies"


# C2: the accept queue, the half-open requests and their sum, by backlog


def queues_by_backlog(records: Sequence[Record]) -> Drawing:
    """Beside the textbook's line; and the accept queue by backlog and somaxconn."""
    drawing = Drawing(WIDTH, 0, "How long both queues of a listening socket get", "")
    y, words = 0.0, []
    for names, runs in panels(records, _queue_facts):
        y = headed(drawing, y, "How many connections wait, by the backlog of listen()", names)
        y, said = _queues_panel(drawing, y, runs)
        words.append(f"{names}: {said}")
    drawing.height, drawing.description = y, " ".join(words)
    return drawing


def _queue_facts(run: CellRun) -> Any:
    return dict(run.values), dict(run.seen), run.sysctls.get(SOMAXCONN)


def _queues_panel(drawing: Drawing, y: float, runs: Sequence[CellRun]) -> tuple[float, str]:
    def points(quantity: str, fills: set[str]) -> list[tuple[float, float]]:
        # Only where the backlog is what limits, not somaxconn.
        chosen = [run for run in runs if run.values["fill"] in fills and 0 <= run.values["b"] <= min(run.sysctl(SOMAXCONN), MOST_BACKLOG)]
        return sorted({(float(run.values["b"]), float(run.seen[quantity])) for run in chosen})

    waiting, half_open = points("accept queue", {"accept queue", "both"}), points("half open", {"half open"})
    both = [run for run in runs if run.values["fill"] == "both" and 0 <= run.values["b"] <= MOST_BACKLOG]
    most_of: dict[float, float] = {}
    for run in both:
        most_of[float(run.values["b"])] = max(most_of.get(float(run.values["b"]), 0), float(run.seen["sum"]))
    total = sorted(most_of.items())
    x_most = max([x for x, _ in [*waiting, *half_open, *total]], default=1) or 1
    y_most = max([y for _, y in [*waiting, *half_open, *total]], default=1) + 1
    area = Area(drawing, 48, y + 26, 320, 220, "backlog b", "connections", x_most, max(y_most, x_most + 1), whole=True)
    series = [
        Series("the textbook: at most b, together", [(0, 0), (x_most, x_most)], dash="7 4", colour=SOFT),
        Series("both queues together, at most", total, "square", "", SECOND),
        Series("accept queue", waiting, "dot", "", FIRST),
        Series("half-open requests", half_open, "ring", "2 3", INK),
    ]
    shown = [one for one in series if one.points]
    area.axes()
    area.draw(shown)
    area.legend(shown, (48, y + 26 + 220 + 62))
    _heat_map(drawing, 430, y + 26, [run for run in runs if run.values["fill"] == "accept queue"])
    said = f"accept queue {_listed(waiting)}; half open {_listed(half_open)}; together {_listed(total)} for these backlogs."
    return y + 26 + 220 + 62 + 19 * len(shown) + 6, said


def _listed(points: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{y:g} at {x:g}" for x, y in points) or "not seen"


def _heat_map(drawing: Drawing, left: float, top: float, runs: Sequence[CellRun]) -> None:
    """The accept queue by backlog and somaxconn: a number in each cell, and a bar as long as it is large."""
    backlogs, limits = sorted({run.values["b"] for run in runs}), sorted({run.sysctl(SOMAXCONN) for run in runs})
    if not backlogs:
        return
    seen = {(run.values["b"], run.sysctl(SOMAXCONN)): run.seen["accept queue"] for run in runs}
    most = max(seen.values()) or 1
    wide, high = min(56.0, 250 / len(limits)), min(30.0, 220 / len(backlogs))
    drawing.text((left, top - 12), "the accept queue, by backlog and somaxconn", size=SMALL)
    for column, limit in enumerate(limits):
        drawing.text((left + 40 + (column + 0.5) * wide, top + 12), f"{limit}", size=SMALL, anchor="middle", fill=SOFT)
    for row, backlog in enumerate(backlogs):
        y = top + 20 + row * high
        drawing.text((left + 32, y + high / 2 + 4), f"{backlog}", size=SMALL, anchor="end", fill=SOFT)
        for column, limit in enumerate(limits):
            x = left + 40 + column * wide
            value = seen.get((backlog, limit))
            drawing.box(x, y, wide, high, stroke=PAPER, fill=PAPER if value is None else _shade(value / most))
            words, dark = ("-", False) if value is None else (f"{value}", value / most > 0.55)
            drawing.text((x + wide / 2, y + high / 2 + 4), words, anchor="middle", bold=True, fill=PAPER if dark else INK)
    bottom = top + 20 + len(backlogs) * high
    drawing.text((left + 40, bottom + 18), "across: somaxconn; down: backlog", size=SMALL, fill=SOFT)
    if all(value == min(backlog % 2**32, limit) + 1 for (backlog, limit), value in seen.items()):
        drawing.text((left + 40, bottom + 34), "min(backlog, somaxconn) + 1 in every cell", size=SMALL, fill=SOFT)


def _shade(part: float) -> str:
    """From nearly white to dark blue, which is from light to dark in grey as well."""
    light, dark = (0xE6, 0xEE, 0xF5), (0x0B, 0x53, 0x94)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(light, dark, strict=True))


# C3: half-open requests by tcp_max_syn_backlog


def half_open_by_limit(records: Sequence[Record]) -> Drawing:
    """For each value of tcp_syncookies."""
    drawing = Drawing(WIDTH, 0, "Half-open requests at most, by tcp_max_syn_backlog and tcp_syncookies", "")
    y, words = 0.0, []
    for names, runs in panels(records, lambda run: (dict(run.values), run.sysctl(MAX_SYN), run.sysctl(COOKIES), run.seen["half open"])):
        y = headed(drawing, y, "How many requests are half open at most", names)
        limits = sorted({run.sysctl(MAX_SYN) for run in runs})
        place = {limit: float(at) for at, limit in enumerate(limits)}
        series = [Series("the textbook: as many as tcp_max_syn_backlog says", [], dash="7 4", colour=SOFT)]
        settings = sorted({(run.sysctl(COOKIES), run.values["b"]) for run in runs})
        for (cookies, backlog), sign in zip(settings, cycle(MARKS), strict=False):
            found = [run for run in runs if (run.sysctl(COOKIES), run.values["b"]) == (cookies, backlog)]
            points = sorted((place[run.sysctl(MAX_SYN)], float(run.seen["half open"])) for run in found)
            series.append(Series(f"tcp_syncookies={cookies}, backlog {backlog}", points, sign, ""))
            words.append(f"{names}, {series[-1].name}: " + ", ".join(f"{y:g} at {limits[int(x)]}" for x, y in points) + ".")
        most = max([y for one in series for _, y in one.points], default=1) + 1
        series[0] = Series(series[0].name, [(place[limit], float(limit)) for limit in limits if limit <= most], dash="7 4", colour=SOFT)
        area = Area(
            drawing, 48, y + 26, 660, 200, "tcp_max_syn_backlog (not to scale)", "requests", len(limits) - 0.7, most, -0.3, whole=True
        )
        area.names = [f"{limit}" for limit in limits]
        area.axes()
        area.draw(series)
        y = area.legend(series, (48, y + 26 + 200 + 62)) + 6
    drawing.height, drawing.description = y, " ".join(words)
    return drawing


# C5: what the clients think, and what the server has


def views(records: Sequence[Record]) -> Drawing:
    """Of each cell in which handshakes end while the queue is full, the clients' view beside the server's."""
    drawing = Drawing(WIDTH, 0, "What the clients think, and what the server has", "")
    y, words = 0.0, []
    for names, runs in panels(records, lambda run: dict(run.seen)):
        y = headed(drawing, y, "Connections, as the clients and as the server see them", names)
        for run in runs:
            sides = _sides(run.seen)
            if sides is None:
                continue
            y = _view(drawing, y + 6, run.cell, *sides)
            words.append(f"{run.cell}: clients: {_said(sides[0])}; server: {_said(sides[1])}.")
    drawing.height, drawing.description = y + 4, " ".join(words)
    return drawing


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items())


def _sides(seen: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]] | None:
    thinking = seen.get("clients that think they are connected")
    if thinking is None:
        return None
    clients = {"think they are connected": int(thinking)}
    if reset := int(seen.get("clients that got ECONNRESET", 0)):
        clients["were told otherwise (ECONNRESET)"] = reset
    server = {"connected, wait for accept": int(seen["accept queue"]), "half open": int(seen["half open"])}
    if phantoms := max(0, int(thinking) - server["connected, wait for accept"] - server["half open"]):
        server["nothing known of them"] = phantoms
    return clients, server


def _view(drawing: Drawing, top: float, title: str, clients: Mapping[str, int], server: Mapping[str, int]) -> float:
    drawing.text((8, top + 14), title, bold=True, size=11.5)
    y = top + 24
    rows = max(len(clients), len(server))
    for column, (side, counts) in enumerate((("clients", clients), ("server", server))):
        x = 8 + column * 376
        drawing.box(x, y, 368, 26 + 30 * rows, stroke=FAINT, round_=4)
        drawing.text((x + 10, y + 17), side, size=SMALL, fill=SOFT)
        for row, ((what, number), sign) in enumerate(zip(counts.items(), ("dot", "ring", "diamond"), strict=False)):
            line = y + 38 + 30 * row
            for at in range(min(number, 8)):
                mark(drawing, (x + 16 + at * 14, line - 4), sign)
            drawing.text((x + 134, line), f"{number} {what}", size=SMALL)
    return y + 26 + 30 * rows + 8


# C6: the order of accept


def accept_order(records: Sequence[Record]) -> Drawing:
    """Two clients from their SYNs to accept: who comes first where."""
    drawing = Drawing(WIDTH, 0, "The order in which accept takes connections", "")
    y, words = 0.0, []
    for names, runs in panels(records, lambda run: run.seen.get("order of accept")):
        found = [run.seen["order of accept"] for run in runs if "order of accept" in run.seen]
        if not found:
            continue
        order = found[0]
        y = headed(drawing, y, "Two clients; the first one's last ACK was held up", names)
        stages = [("connect", sorted(order)), *_completed(runs), ("accept", order)]
        rows = [y + 60, y + 120]
        xs = [130.0 + 500 * at / (len(stages) - 1) for at in range(len(stages))]
        for x, (title, _) in zip(xs, stages, strict=True):
            drawing.text((x, y + 24), title, size=SMALL, anchor="middle", fill=SOFT)
        for place, row in enumerate(rows):
            drawing.text((40, row + 4), f"{('first', 'second')[place]}", size=SMALL, fill=SOFT)
        for client, colour, dash in ((1, FIRST, ""), (2, SECOND, "7 4")):
            points = [(x, rows[who.index(client)]) for x, (_, who) in zip(xs, stages, strict=True)]
            drawing.path(points, stroke=colour, width=2.2, dash=dash)
            for x, row in points:
                drawing.dot((x, row), radius=15, fill=PAPER, stroke=colour)
                drawing.text((x, row + 5), f"{client}", size=13, anchor="middle", bold=True, fill=colour)
        y = rows[-1] + 30
        lesson = "The queue is in the order of completed handshakes." if order != sorted(order) else "That is the order of the SYNs."
        lines = wrapped(f"Accepted: client {order[0]}, then client {order[1]}. {lesson}", WIDTH - 16, 11.5)
        y = drawing.lines((8, y + 10), lines, size=11.5)
        words.append(f"{names}: SYNs from client 1, then 2; accept gives {order[0]}, then {order[1]}.")
    drawing.height, drawing.description = y + 4, " ".join(words)
    return drawing


def _completed(runs: Sequence[CellRun]) -> list[tuple[str, list[int]]]:
    """The order in which the clients' ACKs reached the server, from the packets; nothing where those are not known."""
    events = [event for run in runs if run.traffic and "order of accept" in run.seen for event in Traffic.from_json(run.traffic).events]
    opened = [event.source_port for event in events if event.flags == "SYN"]
    clients = {port: number for number, port in enumerate(dict.fromkeys(opened), 1)}
    done = [clients[one.source_port] for one in events if one.flags == "ACK" and one.source_port in clients and not one.lost]
    order = list(dict.fromkeys(done))
    return [("the handshake's last ACK arrives", order)] if sorted(order) == [1, 2] else []
