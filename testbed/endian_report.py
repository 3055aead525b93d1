"""What `testbed endian` shows: the four pairs, and each finding with the bytes of both hosts. Data in, text on the console given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.endian_compare import Difference
from testbed.endian_judge import PAIRS, Finding, Pair, Run, name_of
from testbed.endian_messages import ROLES
from testbed.endian_run import Outcome
from testbed.report import GAP, QUIET, WRONG, printable

BYTES_IN_ROW = 16
CONTEXT_ROWS = 1  # shown before and after the rows with a difference
MOST_ROWS = 24
MOST_OUTPUT_LINES = 6
GOOD, UNSURE = "green", "yellow"


# What it comes to


def verdict(outcome: Outcome) -> str:
    """FINDINGS, NO FINDING, NOTHING SENT, or FAILED: it does not even work between hosts of one byte order."""
    judged = outcome.judgement
    if judged.findings:
        return "FINDINGS"
    if judged.failed:
        return "FAILED"
    return "NO FINDING" if judged.sent else "NOTHING SENT"


def print_outcome(console: Console, outcome: Outcome) -> None:
    """All of it."""
    console.print(_table(outcome))
    judged = outcome.judgement
    for number, finding in enumerate(judged.findings, 1):
        console.print()
        _print_finding(console, number, finding)
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
    if judged.failed and not judged.findings:
        _print_failure(console, outcome)
    _say(console, Text(summary(outcome), style=f"bold {GOOD}" if verdict(outcome) == "NO FINDING" else "bold"))


def summary(outcome: Outcome) -> str:
    """The result in one line or two."""
    judged = outcome.judgement
    what = verdict(outcome)
    if what == "FINDINGS":
        count = len(judged.findings)
        return f"{count} {'finding' if count == 1 else 'findings'}: the program is not the same on both byte orders."
    if what == "FAILED":
        return "The program fails also between hosts of one byte order, so nothing is known about its byte order."
    if what == "NOTHING SENT":
        return "Nothing was sent: not one byte of data over TCP or UDP, so nothing is known about its byte order."
    aside = f"; {judged.set_aside} differ from run to run and were set aside" if judged.set_aside else ""
    return f"No finding: {judged.compared} bytes are the same from hosts of both byte orders{aside}."


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("client", "server", "runs", "client ended", "server ended", "client sent", "server sent"):
        table.add_column(heading, overflow="fold")
    for pair in PAIRS:
        runs = outcome.runs[pair]
        sent = [_sent(runs, role) for role in ROLES]
        ended = [_ended(runs, role) for role in ROLES]
        table.add_row(Text(pair[0]), Text(pair[1]), Text(str(len(runs))), *ended, *sent)
    return table


def _sent(runs: Sequence[Run], role: str) -> Text:
    sizes = {sum(len(data) for channel, data in run.said.messages.items() if channel.role == role and not channel.is_port) for run in runs}
    return Text(f"{min(sizes)} bytes" if len(sizes) == 1 else f"{min(sizes)}-{max(sizes)} bytes")


def _ended(runs: Sequence[Run], role: str) -> Text:
    words = list(dict.fromkeys(run.endings["client" if role == "client" else "server"].words for run in runs))
    well = all(run.endings["client" if role == "client" else "server"].well for run in runs)
    return Text("; ".join(words), style=GOOD if well else WRONG)


def _print_finding(console: Console, number: int, finding: Finding) -> None:
    who = "" if finding.channel is None else f"{finding.role}: " if finding.channel.is_port else f"{finding.role}, {finding.channel}: "
    _say(console, Text.assemble((f"{number}. ", "bold"), (who, "bold"), (printable(finding.title), WRONG)), 0)
    for line in finding.details:
        _say(console, Text(printable(line)), 3)
    if finding.difference and finding.channel and not finding.channel.is_port:
        for row in hex_dump(finding):
            console.print(Text("   ").append_text(row), soft_wrap=True)
    _say(console, Text("seen in: " + ", ".join(name_of(pair) for pair in PAIRS if pair in finding.pairs), style=QUIET), 3)


def _print_failure(console: Console, outcome: Outcome) -> None:
    """What the programs of the first pair that fails wrote."""
    pair = next(pair for pair in PAIRS if not all(run.well for run in outcome.runs[pair]))
    run = next(run for run in outcome.runs[pair] if not run.well)
    for role in ROLES:
        ending = run.endings[role]
        _say(console, Text(f"{name_of(pair)}, the {role}: {printable(ending.words)}", style=WRONG))
        for line in [*ending.stdout.splitlines(), *ending.stderr.splitlines()][-MOST_OUTPUT_LINES:]:
            console.print(Text(f"  | {printable(line)}"), soft_wrap=True)


def _say(console: Console, text: Text, indent: int = 0) -> None:
    """A text, folded with its indent."""
    for number, line in enumerate(text.wrap(console, max(console.width - indent - 2, 20))):
        line.rstrip()
        console.print(Text(" " * (indent if indent or number == 0 else 3)).append_text(line), soft_wrap=True)


# Bytes


def hex_dump(finding: Finding) -> Iterator[Text]:
    """Both hosts' bytes around a difference, row by row, with marks under the bytes that are meant."""
    one = finding.difference
    assert one is not None
    sides = (
        ("little-endian", finding.little, range(one.place.offset, one.place.offset + len(one.little))),
        ("big-endian", finding.big, range(one.big_offset, one.big_offset + len(one.big))),
    )
    for name, data, marked in sides:
        yield Text(f"{name} host, {len(data)} bytes", style=QUIET)
        yield from _rows(data, marked, _first_row(one))


def _first_row(one: Difference) -> int:
    return max(0, one.place.offset // BYTES_IN_ROW - CONTEXT_ROWS)


def _rows(data: bytes, marked: range, first: int) -> Iterator[Text]:
    last = min((max(marked.stop - 1, marked.start) // BYTES_IN_ROW) + CONTEXT_ROWS, first + MOST_ROWS)
    for row in range(first, last + 1):
        begin = row * BYTES_IN_ROW
        piece = data[begin : begin + BYTES_IN_ROW]
        if not piece:
            break
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
        "pairs": [_pair_json(pair, outcome.runs[pair]) for pair in PAIRS],
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
