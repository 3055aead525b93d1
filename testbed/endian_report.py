"""What `testbed endian` shows: the four pairs, and each finding with the bytes of both hosts. Data in, text on the console given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.endian_groups import grouped
from testbed.endian_messages import ROLES, Role
from testbed.endian_run import Outcome
from testbed.endian_runs import PAIRS, Finding, Pair, Run, name_of, where
from testbed.report import GAP, QUIET, WRONG, printable

BYTES_IN_ROW = 16
CONTEXT_ROWS = 1  # shown before and after the rows with a difference
MOST_ROWS = 24
MOST_OUTPUT_LINES = 6
GOOD, UNSURE = "green", "yellow"


# What it comes to


def verdict(outcome: Outcome) -> str:
    """FINDINGS, NO FINDING, NOTHING SENT, NOTHING COMPARED: all that was sent differs from run to run, or FAILED: it does not even work
    between hosts of one byte order."""
    judged = outcome.judgement
    if judged.findings:
        return "FINDINGS"
    if judged.failed:
        return "FAILED"
    if not judged.sent:
        return "NOTHING SENT"
    return "NO FINDING" if judged.compared else "NOTHING COMPARED"


def print_outcome(console: Console, outcome: Outcome) -> None:
    """All of it."""
    console.print(_table(outcome))
    judged = outcome.judgement
    for number, finding in enumerate(grouped(judged.findings), 1):
        console.print()
        _print_finding(console, number, finding, alone=outcome.alone)
    for heading, lines in (
        ("May follow from that", judged.consequences),
        ("Nothing can be said", judged.inconclusive),
    ):
        if lines:
            console.print()
            console.print(Text(heading, style=f"bold {UNSURE}"))
            for line in lines:
                _say(console, Text(printable(line)), 2)
    console.print()
    for heading, output in written(outcome):
        console.print(Text(printable(heading), style=WRONG))
        for line in output:
            console.print(Text(f"  | {printable(line)}"), soft_wrap=True)
    _say(console, Text(summary(outcome), style=f"bold {GOOD}" if verdict(outcome) == "NO FINDING" else "bold"))


def summary(outcome: Outcome) -> str:
    """The result in one line or two."""
    judged = outcome.judgement
    what = verdict(outcome)
    if what == "FINDINGS":
        count, places = len(grouped(judged.findings)), len(judged.findings)
        spread = f" in {places} places" if places > count else ""
        return f"{count} {'finding' if count == 1 else 'findings'}{spread}: the program is not the same on both byte orders."
    if what == "FAILED":
        if not outcome.alone:
            return "The program fails also between hosts of one byte order, so nothing is known about its byte order."
        hint = "; if it should end like that, as nobody answers it: --script \"sh -c '...; true'\"" if judged.sent else ""
        return f"The program fails on both byte orders, so nothing is known about its byte order{hint}."
    if what == "NOTHING SENT":
        loopback = "; what a host sends to itself (127.0.0.1) is not seen: send to `server`" if outcome.alone else ""
        return f"Nothing was sent: not one byte of data, so nothing is known about its byte order{loopback}."
    if what == "NOTHING COMPARED":
        hint = "let it send the same in every run, with a fixed seed, key or time"
        return f"Nothing could be compared: no byte is the same in all runs, so nothing is known about its byte order; {hint}."
    aside = f"; {judged.set_aside} differ from run to run and were set aside" if judged.set_aside else ""
    return f"No finding: {judged.compared} bytes are the same from hosts of both byte orders{aside}."


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    headings, rows = cells(outcome)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell.text, style="" if cell.well is None else GOOD if cell.well else WRONG) for cell in row))
    return table


@dataclass(frozen=True)
class Cell:
    """Of the table of pairs; ``well`` is None where that is no question."""

    text: str
    well: bool | None = None


def cells(outcome: Outcome) -> tuple[tuple[str, ...], list[list[Cell]]]:
    """The headings and rows of the table of pairs."""
    if outcome.alone:
        rows = [(pair, [Cell(pair[0])], ROLES[:1]) for pair in outcome.pairs]
        return ("host", "runs", "ended", "sent"), [_row(outcome, *row) for row in rows]
    headings = ("client", "server", "runs", "client ended", "server ended", "client sent", "server sent")
    return headings, [_row(outcome, pair, [Cell(pair[0]), Cell(pair[1])], ROLES) for pair in outcome.pairs]


def _row(outcome: Outcome, pair: Pair, names: list[Cell], roles: Sequence[Role]) -> list[Cell]:
    runs = outcome.runs[pair]
    return [*names, Cell(str(len(runs))), *(_ended(runs, role) for role in roles), *(Cell(_sent(runs, role)) for role in roles)]


def _sent(runs: Sequence[Run], role: Role) -> str:
    sizes = {sum(len(data) for channel, data in run.said.messages.items() if channel.role == role and not channel.is_port) for run in runs}
    return f"{min(sizes)} bytes" if len(sizes) == 1 else f"{min(sizes)}-{max(sizes)} bytes"


def _ended(runs: Sequence[Run], role: Role) -> Cell:
    words = dict.fromkeys(run.endings[role].words for run in runs)
    return Cell("; ".join(words), all(run.endings[role].well for run in runs))


def who(finding: Finding) -> str:
    """Whose finding it is, and in which message, as the beginning of its title; nothing where nobody's alone."""
    if finding.channel is None:
        return ""
    return f"{finding.role}: " if finding.channel.is_port else f"{finding.role}, {finding.channel}: "


def seen_in(finding: Finding) -> str:
    return "seen in: " + ", ".join(name_of(pair) for pair in PAIRS if pair in finding.pairs)


def _print_finding(console: Console, number: int, finding: Finding, *, alone: bool) -> None:
    _say(console, Text.assemble((f"{number}. ", "bold"), (who(finding), "bold"), (printable(finding.title), WRONG)), 0)
    for line in finding.details:
        _say(console, Text(printable(line)), 3)
    if finding.difference and finding.channel and not finding.channel.is_port:
        for row in hex_dump(finding):
            console.print(Text("   ").append_text(row), soft_wrap=True)
    if not alone:
        _say(console, Text(seen_in(finding), style=QUIET), 3)


def written(outcome: Outcome) -> Iterator[tuple[str, list[str]]]:
    """How the programs ended, and the first and last lines that they wrote, where that is all there is to go by: nothing was sent, or it
    fails also between hosts of one byte order."""
    if verdict(outcome) not in ("FAILED", "NOTHING SENT"):
        return
    pair, run = next(((pair, run) for pair in PAIRS for run in outcome.runs[pair] if not run.well), (PAIRS[0], outcome.runs[PAIRS[0]][0]))
    for role in ROLES[:1] if outcome.alone else ROLES:
        ending = run.endings[role]
        lines = [*ending.stdout.splitlines(), *ending.stderr.splitlines()]
        if len(lines) > MOST_OUTPUT_LINES:  # what is wrong stands before a page of usage, and behind a log
            lines = [*lines[: MOST_OUTPUT_LINES // 2], "...", *lines[-MOST_OUTPUT_LINES // 2 :]]
        yield f"{where(pair, alone=outcome.alone)}, the {role}: {ending.words}", lines


def _say(console: Console, text: Text, indent: int = 0) -> None:
    """A text, folded with its indent."""
    for number, line in enumerate(text.wrap(console, max(console.width - indent - 2, 20))):
        line.rstrip()
        console.print(Text(" " * (indent if indent or number == 0 else 3)).append_text(line), soft_wrap=True)


# Bytes


def hex_dump(finding: Finding) -> Iterator[Text]:
    """Both hosts' bytes around a difference, row by row, with marks under the bytes that are meant."""
    for name, data, marked in sides(finding):
        yield Text(f"{name} host, {len(data)} bytes", style=QUIET)
        yield from _rows(data, marked)


def sides(finding: Finding) -> tuple[tuple[str, bytes, range], tuple[str, bytes, range]]:
    """Each host's byte order, its message, and which bytes of that are meant."""
    one = finding.difference
    assert one is not None
    return (
        ("little-endian", finding.little, range(one.place.offset, one.place.offset + len(one.little))),
        ("big-endian", finding.big, range(one.big_offset, one.big_offset + len(one.big))),
    )


def rows_of(data: bytes, marked: range) -> range:
    """Where the rows begin that are shown of a message, with ``marked`` bytes in it."""
    first = max(0, marked.start // BYTES_IN_ROW - CONTEXT_ROWS)
    last = min((max(marked.stop - 1, marked.start) // BYTES_IN_ROW) + CONTEXT_ROWS, first + MOST_ROWS)
    return range(first * BYTES_IN_ROW, min((last + 1) * BYTES_IN_ROW, len(data)), BYTES_IN_ROW)


def _rows(data: bytes, marked: range) -> Iterator[Text]:
    for begin in rows_of(data, marked):
        piece = data[begin : begin + BYTES_IN_ROW]
        line = Text(f"{begin:6}  ", style=QUIET)
        for at, byte in enumerate(piece, begin):
            line.append(f"{byte:02x}", style=WRONG if at in marked else "not dim").append(" ")
        line.append("   " * (BYTES_IN_ROW - len(piece)) + " ")
        for at, byte in enumerate(piece, begin):
            line.append(chr(byte) if 0x20 <= byte < 0x7F else ".", style=WRONG if at in marked else "")
        yield line
        if any(begin <= at < begin + BYTES_IN_ROW for at in marked):
            marks = " ".join("^^" if at in marked else "  " for at in range(begin, begin + BYTES_IN_ROW))
            yield Text(" " * 8 + marks.rstrip(), style=WRONG)


# For programs


def as_json(outcome: Outcome) -> dict[str, object]:
    """Everything, with bytes as hexadecimal digits."""
    judged = outcome.judgement
    return {
        "verdict": verdict(outcome),
        "summary": summary(outcome),
        "alone": outcome.alone,
        "pairs": [_pair_json(pair, outcome.runs[pair]) for pair in outcome.pairs],
        "findings": [_finding_json(one) for one in judged.findings],
        "consequences": list(judged.consequences),
        "inconclusive": list(judged.inconclusive),
        "failed": judged.failed,
        "sent": judged.sent,
        "compared": judged.compared,
        "set_aside": judged.set_aside,
        "hosts": dict(outcome.hosts),
    }


def _pair_json(pair: Pair, runs: Sequence[Run]) -> dict[str, object]:
    return {"client": pair[0], "server": pair[1], "well": all(run.well for run in runs), "runs": [_run_json(run) for run in runs]}


def _run_json(run: Run) -> Mapping[str, object]:
    return {
        **{
            role: {
                "ended": run.endings[role].words,
                "exit_code": run.endings[role].exit_code,
                "stdout": run.endings[role].stdout,
                "stderr": run.endings[role].stderr,
            }
            for role in ROLES
        },
        "messages": [
            {"role": channel.role, "message": str(channel), "data": data.hex()} for channel, data in sorted(run.said.messages.items())
        ],
    }


def _finding_json(one: Finding) -> dict[str, object]:
    found: dict[str, object] = {
        "title": one.title,
        "details": list(one.details),
        "role": one.role,
        "pairs": [name_of(pair) for pair in one.pairs],
    }
    if one.difference is None:
        return found
    difference = one.difference
    return {
        **found,
        "message": str(one.channel),
        "kind": difference.kind,
        "offset": difference.place.offset,
        "width": difference.place.width,
        "big_offset": difference.big_offset,
        "little": difference.little.hex(),
        "big": difference.big.hex(),
        "others": [[place.offset, place.width] for place in difference.others],
        "little_message": one.little.hex(),
        "big_message": one.big.hex(),
    }
