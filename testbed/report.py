"""What is shown on the screen: tables of hosts, the result of the main job. Data in, text on the console given; no other I/O.

Everything can be read without colour and in 80 columns: colour only repeats what words and marks say already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.exchange import Exchange, Exchanges, Missing
from testbed.lab import HostStatus

STYLES = {"HOLDS": "green", "REFUTED": "bold red", "INCONCLUSIVE": "yellow"}
WRONG = "bold red"
QUIET = "dim"
INDENT = 2
MOST_TEXT_BYTES = 64  # of a text that are shown on the wire; --json has them all
MOST_TEXT = 40  # characters of a text that are shown
SEPARATOR = "|"
HEADER_BYTES = 6
FIELDS_BEGIN = (4, HEADER_BYTES)  # the length, the text
GAP = 2  # columns between a label and what it labels


# Hosts


def print_hosts(console: Console, rows: Sequence[HostStatus]) -> None:
    """A table of hosts for each lab among ``rows``."""
    for lab, of_lab in groupby(rows, key=lambda row: row.lab):
        console.print(Text(f"Lab {lab}", style="bold"))
        hosts = list(of_lab)
        console.print(_hosts_table(hosts))
        for one in hosts:
            if one.console:
                console.print(Text(f"The end of the console of {one.name}:"), soft_wrap=True)
                for line in one.console:
                    console.print(Text(f"  | {printable(line)}"), soft_wrap=True)
        console.print()


def _hosts_table(rows: Sequence[HostStatus]) -> Table:
    several = len({network for row in rows for network in row.addresses}) > 1
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    # All fold rather than lose anything; the short ones last.
    for heading, cells in (
        ("host", [row.name for row in rows]),
        ("kind", [row.kind for row in rows]),
        ("arch", [row.arch for row in rows]),
        ("endian", [row.byte_order for row in rows]),
    ):
        table.add_column(heading, overflow="fold", min_width=min(16, max(map(len, cells))))
    for heading in ("kernel", "addresses", "state"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        found = [
            (f"{network} " if several else "") + (", ".join(one.partition("/")[0] for one in addresses) or "-")
            for network, addresses in row.addresses.items()
        ]
        kernel = f"{row.kernel_of.removeprefix('the ')} {row.kernel}"
        state = Text(printable(row.state), style="green" if row.state.startswith("running") else WRONG)
        table.add_row(*(Text(cell) for cell in (row.name, row.kind, row.arch, row.byte_order, kernel, "\n".join(found))), state)
    return table


# The main job


def print_exchanges(console: Console, results: Exchanges) -> None:
    """Every exchange from the client's memory over the wire to what the server read, and what it all says."""
    if results.exchanges:
        first = results.exchanges[0].observation
        what = f"the integer {first.integer:#010x} ({first.integer}) and the text {quoted(first.text)}"
        how = ", without htonl() and htons()" if results.host_order else ""
        _say(console, Text(f"From client to server: {what}{how}", style="bold"))
        _say(console, Text("On the wire: integer (4 bytes) | length of the text (2 bytes) | text", style=QUIET))
    label_width = max((len(label) for one in results.exchanges for label in _labels(one)), default=0)
    for one in results.exchanges:
        console.print()
        _print_exchange(console, one, label_width)
    console.print()
    for missing in results.missing:
        _say(console, Text(_missing_line(missing), style="yellow"))
    _say(console, Text(summary(results), style="bold"))
    if lesson := lesson_of(results):
        _say(console, Text(lesson))


def _missing_line(one: Missing) -> str:
    return f"{one.client_order} to {one.server_order}: not tried, {one.reason}"


def summary(results: Exchanges) -> str:
    """The verdicts in one sentence."""
    verdicts = [one.verdict.outcome for one in results.exchanges]
    total = len(verdicts)
    parts = [f"{verdicts.count('HOLDS')} of {total} {'exchange holds' if total == 1 else 'exchanges hold'}"]
    if refuted := verdicts.count("REFUTED"):
        parts.append(f"{refuted} refuted")
    if inconclusive := verdicts.count("INCONCLUSIVE"):
        parts.append(f"{inconclusive} inconclusive")
    return ", ".join(parts) + "."


def lesson_of(results: Exchanges) -> str:
    """What the whole result teaches, where it does."""
    outcomes = {one.verdict.outcome for one in results.exchanges}
    memories = {one.observation.client_told.bytes_("memory") for one in results.exchanges}
    wires = {one.observation.wire for one in results.exchanges}
    if outcomes == {"HOLDS"} and len(memories) == 2 and len(wires) == 1:
        return "In memory the integer differs from host to host, on the wire it does not: htonl() and ntohl() see to that."
    little = {one.verdict.outcome for one in results.exchanges if one.observation.client.byte_order == "little"}
    big = {one.verdict.outcome for one in results.exchanges if one.observation.client.byte_order == "big"}
    if results.host_order and (little, big) == ({"REFUTED"}, {"HOLDS"}):
        return "The same mistake in every client, and it shows on little-endian ones only: in big-endian memory the order is the network's."
    return ""


def _print_exchange(console: Console, one: Exchange, label_width: int) -> None:
    client, server, verdict = one.observation.client, one.observation.server, one.verdict
    heading = Text(f"{client.byte_order} to {server.byte_order}, {client.kind} to {server.kind}: ", style="bold")
    _say(console, heading.append(verdict.outcome, style=STYLES[verdict.outcome]))
    for label, line in _lines(one, console.width - INDENT - label_width - GAP):
        _say(console, line, indent=INDENT, label=label, label_width=label_width)
    if verdict.reason:
        _say(console, Text(printable(verdict.reason)), indent=INDENT)


def _say(console: Console, text: Text, *, indent: int = 0, label: str = "", label_width: int = 0) -> None:
    """A text, folded beside its label; lines end where their words end, as rich's own would not."""
    margin = indent + (label_width + GAP if label_width else 0)
    for number, line in enumerate(text.wrap(console, max(console.width - margin, 20))):
        line.rstrip()
        lead = f"{'':{indent}}{label if number == 0 else ''}".ljust(margin)
        console.print(Text.assemble((lead, QUIET), line), soft_wrap=True)


def _labels(one: Exchange) -> tuple[str, str, str, str, str]:
    seen = one.observation
    return f"client {seen.client.host}", "on the wire", "should be", f"server {seen.server.host}", "kernels"


def _lines(one: Exchange, width: int) -> Iterator[tuple[str, Text]]:
    """What to show of one exchange, from the client to the server: (label, text) pairs."""
    seen = one.observation
    of_client, on_wire, should_be, of_server, kernels = _labels(one)
    memory = seen.client_told.bytes_("memory")
    yield (
        of_client,
        Text("nothing known" if memory is None else f"{memory.hex(' ')}  in memory", style="" if memory else STYLES["INCONCLUSIVE"]),
    )
    if seen.wire is None:
        yield on_wire, Text("nothing known", style=STYLES["INCONCLUSIVE"])
    else:
        for number, (line, marks, wanted) in enumerate(wire_rows(seen.wire, seen.expected, width)):
            yield on_wire if number == 0 else "", line
            if marks.plain.strip():
                yield "", marks
                yield should_be, wanted
        shown = HEADER_BYTES + MOST_TEXT_BYTES
        hidden = max(len(seen.wire), len(seen.expected)) - shown
        if hidden > 0:
            same = seen.wire[shown:] == seen.expected[shown:]
            yield (
                "",
                Text(
                    f"and {hidden} bytes more of the text, {'as they should be' if same else 'which differ'}", style="" if same else WRONG
                ),
            )
    yield of_server, _as_read(one)
    client, server = (f"{party.kernel_of} {printable(party.kernel)}" for party in (seen.client, seen.server))
    both = seen.client.kernel_of == seen.server.kernel_of == "the machine's"
    yield kernels, Text(f"{client} at both ends" if both else f"{client} to {server}", style=QUIET)


def _as_read(one: Exchange) -> Text:
    """What the server made of it; what is wrong says so in words."""
    seen, read = one.observation, one.observation.server_told
    number, text, memory = read.number("integer"), read.text(), read.bytes_("memory")
    if number is None or text is None or memory is None:
        return Text("read nothing", style=WRONG)
    line = Text(f"{memory.hex(' ')}  in memory, read as ")
    line.append(
        f"{number:#010x}" if number == seen.integer else f"{number:#010x}, not {seen.integer:#010x},",
        style="" if number == seen.integer else WRONG,
    )
    line.append(" and ")
    return line.append(
        quoted(text) if text == seen.text else f"{quoted(text)}, not {quoted(seen.text)}", style="" if text == seen.text else WRONG
    )


def wire_rows(wire: bytes, expected: bytes, width: int) -> list[tuple[Text, Text, Text]]:
    """Bytes as hex in rows of at most ``width`` columns, with marks under the wrong ones, and what those should be.

    A byte that is missing is shown as ``--``; fields are parted by ``|``.
    """
    size = min(max(len(wire), len(expected)), HEADER_BYTES + MOST_TEXT_BYTES)
    cells = []
    for at in range(size):
        if at in FIELDS_BEGIN:
            cells.append((SEPARATOR, " ", " ", False))
        got, wanted = (f"{data[at]:02x}" if at < len(data) else "--" for data in (wire, expected))
        wrong = got != wanted
        cells.append((got, "^^" if wrong else "  ", wanted if wrong else "  ", wrong))
    rows: list[list[tuple[str, str, str, bool]]] = []
    row: list[tuple[str, str, str, bool]] = []
    used = 0
    for cell in cells:
        if used + len(cell[0]) > width and row:
            rows.append(row)
            row, used = [], 0
        if row or cell[0] != SEPARATOR:
            row.append(cell)
            used += len(cell[0]) + 1
    rows.append(row)
    return [
        (
            Text(" ").join(Text(got, style=WRONG if wrong else "") for got, _, _, wrong in row),
            Text(" ".join(mark for _, mark, _, _ in row).rstrip(), style=WRONG),
            Text(" ".join(wanted for _, _, wanted, _ in row).rstrip()),
        )
        for row in rows
    ]


def quoted(text: bytes) -> str:
    """A text for one line of a terminal: in quotes, shortened, nothing in it that a terminal obeys."""
    words = printable(text.decode(errors="backslashreplace"))
    return f'"{words}"' if len(words) <= MOST_TEXT else f'"{words[:MOST_TEXT]}..." ({len(text)} bytes)'


def printable(text: str) -> str:
    """The text with what is not printable as an escape, so that a program on a host cannot drive the user's terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


# What to try next


def print_next(console: Console, lab: str, *, host_order: bool = False, host: str = "HOST", command: str = "testbed") -> None:
    """A few commands that lead on from the main job; ``host`` is one of the lab's, ``command`` how testbed is called here."""
    commands = (
        (f"exchange {lab}", "with htonl() again") if host_order else (f"exchange {lab} --host-order", "the client forgets htonl()"),
        (f"exchange {lab} --text hi", "a text of your own"),
        (f"status {lab}", "the hosts and their kernels"),
        (f"shell {lab}/{host}", "a shell on a host"),
        (f"capture {lab}/{host} tcp", "watch a host's packets"),
        (f"down {lab}", "remove the lab"),
    )
    console.print()
    console.print(Text("What to try next", style="bold"))
    width = max(len(words) for words, _ in commands)
    for words, what in commands:
        console.print(Text(f"{'':{INDENT}}{command} {words:{width}}  ").append(what, style=QUIET), soft_wrap=True)
