"""A ladder diagram of what happened in a cell: hosts as lines that run down, packets as arrows between them, what was done on the hosts
beside their lines, and the states of their sockets on them. Pure.

Time runs down, each event a row of its own: the order is true, the distances are not. Where nothing happened for long the lines are
broken, and it says for how long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.drawing import FAINT, FIRST, INK, LINE, PAPER, SECOND, SOFT, Drawing, width_of, wrapped
from testbed.traffic import Event, Look, Traffic

WIDTH = 760.0
TIME, NOTE = 58.0, 172.0  # columns: when, and what was done
SMALL, TINY = 10.5, 9.5
PAUSE_S = 0.8  # without anything, and the lines are broken
MOST_PACKETS = 24
ALIKE = 4  # packets that differ in nothing but their numbers are drawn as the first, the last, and how many are between them
NOTE_LINES = 3
ARROW_FALLS = 9.0
# What a socket is made with says little beside what is done with it.
PREPARES = re.compile(r"\.(setblocking|settimeout|append)\(|^\w+ = (socket\.socket\(\)|\[\]|\d+)$|^import ")
CLOSED_BY_PEER = ("CLOSE_WAIT", "LAST_ACK", "CLOSING")


@dataclass(frozen=True)
class Step:
    """Something done on a host, in words."""

    at_s: float
    role: str
    text: str


@dataclass(frozen=True)
class Run:
    """``number`` packets alike, that are not drawn."""

    at_s: float
    number: int


Row = Step | Event | Look | Run


def ladder(traffic: Traffic, steps: Sequence[Mapping[str, Any]], roles: Sequence[str], title: str) -> Drawing:
    """The diagram, with a line for each role from left to right; ``steps`` are those of the cell's record."""
    events, more = _shortened(traffic.events)
    rows: list[Row] = [*_steps(steps), *_changes(traffic.looks), *events]
    if more and events:  # what came after that is as good as one line: how it was at the end
        last, end = events[-1].at_s, [row for row in rows if isinstance(row, Look)][-1:]
        rows = [row for row in rows if row.at_s <= last or row in end]
    # What is done comes before what follows from it, and how it then is comes after that.
    rank = {Step: 0, Event: 1, Run: 1, Look: 2}
    rows.sort(key=lambda row: (row.at_s, rank[type(row)]))
    drawing = Drawing(WIDTH, 0, title, description_of(traffic, roles))
    _Ladder(drawing, roles, traffic).draw(rows, more + traffic.left_out)
    return drawing


def description_of(traffic: Traffic, roles: Sequence[str]) -> str:
    """The packets and the states at the end in words, for those who do not see the picture."""
    lost = sum(bool(one.lost) for one in traffic.events)
    words = [
        f"{len(traffic.events) + traffic.left_out} packets between {' and '.join(roles)}" + (f", {lost} of them lost." if lost else ".")
    ]
    words += [f"{one.sender} to {one.receiver}: {label(one)}{', lost' if one.lost else ''}." for one in traffic.events[:12]]
    if traffic.looks:
        for role, sockets in traffic.looks[-1].sockets.items():
            words.append(f"At the end the {role} has {', '.join(states(sockets))}.")
    return " ".join(words)


def label(event: Event) -> str:
    """What stands at a packet's arrow."""
    if event.protocol == "TCP":
        words = [event.flags, f"seq={event.sequence}"]
        words += [f"ack={event.acknowledged}"] if event.acknowledged is not None else []
        words += [f"len={event.size}"] if event.size else []
        return " ".join(words)
    if event.protocol == "UDP":
        return f"UDP, {event.size} bytes"
    return f"{event.protocol} {event.what}"


def states(sockets: Sequence[Mapping[str, Any]]) -> list[str]:
    """A host's sockets in words, those alike together."""
    counted: dict[str, int] = {}
    for one in sockets:
        # A FIN that has come counts as a byte that nobody has read.
        waits = one["receive_queue"] - (one["state"] in CLOSED_BY_PEER and one["receive_queue"] > 0)
        if one["state"] == "LISTEN":
            words = "LISTEN" + (f", {waits} wait{'s' if waits == 1 else ''}" if waits else "")
        elif one["protocol"] == "udp":
            words = "UDP" + (f", {waits} B queued" if waits else "")
        else:
            words = one["state"] + (f", {waits} B unread" if waits and one["state"] != "SYN_RECV" else "")
        counted[words] = counted.get(words, 0) + 1
    return [words if number == 1 else f"{number} × {words}" for words, number in counted.items()] or ["no socket"]


def time_text(at_s: float) -> str:
    """A moment, or a span, as short as it is still true."""
    if at_s < 0.9995:
        return f"{at_s * 1000:.1f} ms" if at_s < 0.09995 else f"{at_s * 1000:.0f} ms"
    return f"{at_s:.2f} s"


def step_text(step: Mapping[str, Any]) -> str:
    """What was done, in words; nothing for what only prepares."""
    if "drops" in step:
        rules = re.findall(r"hook (\w+) priority -150; (.*?) counter drop", step["drops"])
        words = {"prerouting": "comes in", "postrouting": "goes out"}
        return "; ".join(f"firewall drops what {words[hook]}: {rule}" for hook, rule in rules) or "firewall taken away"
    code = str(step.get("step", ""))
    if re.match(r"\s*(def |import |\n)", code) or "\ndef " in code:
        return ""
    code = code.partition("\n")[0].partition("  #")[0].replace("socket.SOL_SOCKET", "SOL_SOCKET")
    code = re.sub(r"\bsocket\.((?:AF|SO|SOCK|TCP|IPPROTO|MSG|SHUT)_\w+)", r"\1", code)
    said = [one.strip() for one in code.split(";")]
    telling = [one for one in said if not PREPARES.search(one)]
    if not telling and re.fullmatch(r"\w+ = (\[\]|\d+)", code):
        return ""
    code = "; ".join(telling or said)
    if "errno" in step:
        return f"{code} → {step['errno']}"
    value = step.get("value")
    return code if value is None or isinstance(value, dict) else f"{code} → {value}"


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[Step]:
    found: list[Step] = []
    for one in steps:
        text = step_text(one)
        again = bool(found) and (found[-1].role, found[-1].text.partition(" → ")[0]) == (one["on"], text.partition(" → ")[0])
        if text and not again:
            found.append(Step(max(0.0, one["at_s"] - one.get("took_s", 0)), one["on"], text))
    return found


def _changes(looks: Sequence[Look]) -> list[Look]:
    """Of each look the hosts whose states have changed since the one before."""
    found: list[Look] = []
    known: dict[str, list[str]] = {}
    for look in looks:
        fresh = {role: sockets for role, sockets in look.sockets.items() if known.get(role, ["no socket"]) != states(sockets)}
        known |= {role: states(sockets) for role, sockets in look.sockets.items()}
        if fresh:
            found.append(Look(look.at_s, look.steps, fresh))
    return found


def _alike(one: Event, other: Event) -> bool:
    return (one.sender, one.protocol, one.flags, one.size, one.lost) == (other.sender, other.protocol, other.flags, other.size, other.lost)


def _shortened(events: Sequence[Event]) -> tuple[list[Event | Run], int]:
    """The packets with runs of those alike taken together; and how many at the end are left out."""
    found: list[Event | Run] = []
    at = 0
    while at < len(events) and len(found) < MOST_PACKETS:
        end = at + 1
        while end < len(events) and _alike(events[at], events[end]):
            end += 1
        if end - at >= ALIKE:
            found += [events[at], Run(events[at + 1].at_s, end - at - 2), events[end - 1]]
        else:
            found += events[at:end]
        at = end
    return found, len(events) - at


class _Ladder:
    """Draws row by row; ``y`` is where the next one begins."""

    def __init__(self, drawing: Drawing, roles: Sequence[str], traffic: Traffic) -> None:
        self.drawing = drawing
        self.roles = list(roles)
        self.notes = traffic.notes
        left, right = TIME + NOTE + 34, WIDTH - NOTE - 34
        gaps = max(len(self.roles) - 1, 1)
        self.x = {role: left + (right - left) * at / gaps for at, role in enumerate(self.roles)}
        ports = {max(one.source_port, one.destination_port) for one in traffic.events if one.protocol == "TCP"}
        connections = {frozenset((one.source_port, one.destination_port)) for one in traffic.events if one.protocol == "TCP"}
        self.with_ports = len(connections) > 1 and bool(ports)
        seen = [one for look in traffic.looks for sockets in look.sockets.values() for one in sockets]
        self.server_ports = {one["port"] for one in seen if one["state"] == "LISTEN"}
        self.y = 0.0

    def draw(self, rows: Sequence[Row], left_out: int) -> None:
        drawing = self.drawing
        for role, x in self.x.items():
            drawing.text((x, 22), role, size=13, anchor="middle", bold=True)
        drawing.text((TIME - 8, 22), "time", size=TINY, anchor="end", fill=SOFT)
        drawing.line((0, 32), (WIDTH, 32), stroke=FAINT)
        self.y = 40
        before = rows[0].at_s if rows else 0.0
        for number, row in enumerate(rows, 1):
            if left_out and number == len(rows) and isinstance(row, Look):  # how it was at the end
                self.between(f"and {left_out} packets more")
                left_out = 0
            elif row.at_s - before > PAUSE_S:
                self.pause(row.at_s - before)
            before = row.at_s
            if isinstance(row, Step):
                self.step(row)
            elif isinstance(row, Event):
                self.packet(row)
            elif isinstance(row, Run):
                self.between(f"⋮  {row.number} more like it  ⋮")
            else:
                self.look(row)
        if left_out:
            self.between(f"and {left_out} packets more")
        self.lifelines(8)
        self.y += 6 if self.notes else 0
        for note in self.notes:
            self.y = drawing.lines((8, self.y + 8), wrapped(f"Note: {note}.", WIDTH - 16, SMALL), size=SMALL, fill=SOFT)
        if not rows:
            drawing.text((WIDTH / 2, self.y + 4), "nothing was seen", anchor="middle", fill=SOFT)
            self.y += 20
        drawing.height = self.y + 4

    def lifelines(self, height: float) -> None:
        """The hosts' lines go on for so long."""
        for x in self.x.values():
            self.drawing.line((x, self.y), (x, self.y + height), stroke=SOFT, width=1.2)
        self.y += height

    def time(self, at_s: float, y: float) -> None:
        self.drawing.text((TIME - 8, y), time_text(at_s), size=TINY, anchor="end", fill=SOFT)

    def step(self, row: Step) -> None:
        first, last = self.roles[0], self.roles[-1]
        text = row.text if row.role in (first, last) else f"{row.role}: {row.text}"
        lines = wrapped(text, NOTE - 8, SMALL, most=NOTE_LINES)
        top = self.y
        self.lifelines(len(lines) * SMALL * LINE + 9)
        x = self.x[row.role]
        self.time(row.at_s, top + SMALL)
        if row.role == last and row.role != first:
            self.drawing.lines((WIDTH - NOTE, top + SMALL), lines, size=SMALL)
            self.drawing.line((x + 4, top + SMALL * 0.6), (WIDTH - NOTE - 5, top + SMALL * 0.6), stroke=FAINT)
        else:
            self.drawing.lines((TIME + NOTE - 4, top + SMALL), lines, size=SMALL, anchor="end")
            self.drawing.line((TIME + NOTE + 1, top + SMALL * 0.6), (x - 4, top + SMALL * 0.6), stroke=FAINT)
        self.drawing.dot((x, top + SMALL * 0.6), radius=2.5, fill=SOFT, stroke=SOFT)

    def packet(self, row: Event) -> None:
        top, stroke = self.y, SECOND if row.lost else INK
        port = self.port_of(row)
        text = (f"{port}: " if port else "") + label(row)
        a, b = self.x[row.sender], self.x[row.receiver]
        lines = wrapped(text, abs(b - a) - 24, SMALL, most=2)
        if row.lost:
            by = row.receiver if row.lost == "in" else row.sender
            lines += [f"dropped by the {by}'s firewall"]
        self.lifelines(len(lines) * SMALL * LINE + ARROW_FALLS + 7)
        self.time(row.at_s, top + SMALL)
        middle = (a + b) / 2
        self.drawing.lines((middle, top + SMALL), lines, size=SMALL, anchor="middle", fill=stroke)
        y = top + len(lines) * SMALL * LINE + 1
        toward = 1 if b > a else -1
        if row.lost == "in":
            end = (b - 14 * toward, y + ARROW_FALLS - 1)
            self.drawing.arrow((a, y), end, stroke=stroke, dash="5 3", head=False)
            self.drawing.cross(end)
        elif row.lost == "out":
            end = (a + 34 * toward, y + 2)
            self.drawing.arrow((a, y), end, stroke=stroke, dash="5 3", head=False)
            self.drawing.cross(end)
        else:
            self.drawing.arrow((a, y), (b - toward, y + ARROW_FALLS), stroke=FIRST if row.size else INK)

    def port_of(self, row: Event) -> str:
        """The client's port, where there are several connections."""
        if not (self.with_ports and row.protocol == "TCP"):
            return ""
        to_client = row.source_port in self.server_ports
        return str(row.destination_port if to_client else row.source_port)

    def look(self, row: Look) -> None:
        shown = {role: states(sockets) for role, sockets in row.sockets.items() if role in self.x}
        most = max(len(lines) for lines in shown.values())
        top = self.y
        self.lifelines(most * SMALL * LINE + 9)
        for role, lines in shown.items():
            x, wide = self.x[role], max(width_of(line, SMALL, bold=True) for line in lines) + 14
            height = len(lines) * SMALL * LINE + 4
            self.drawing.box(x - wide / 2, top + 1, wide, height, round_=4, fill=PAPER, stroke=FIRST)
            self.drawing.lines((x, top + 1 + SMALL * 1.15), lines, size=SMALL, anchor="middle", bold=True, fill=FIRST)

    def between(self, text: str) -> None:
        top = self.y
        self.lifelines(20)
        xs = list(self.x.values())
        self.drawing.text(((xs[0] + xs[-1]) / 2, top + 13), text, size=SMALL, anchor="middle", fill=SOFT)

    def pause(self, long_s: float) -> None:
        """The lines are broken: nothing for so long."""
        self.lifelines(4)
        top = self.y
        for x in self.x.values():
            self.drawing.path([(x, top), (x - 5, top + 4), (x + 5, top + 10), (x - 5, top + 16), (x, top + 20)], stroke=SOFT, width=1.2)
        xs = list(self.x.values())
        self.drawing.text(((xs[0] + xs[-1]) / 2, top + 14), f"nothing for {time_text(long_s)}", size=SMALL, anchor="middle", fill=SOFT)
        self.y = top + 20
        self.lifelines(4)
