"""What is shown: complete at 80 columns, readable without colour, harmless to the terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from testbed.exchange import COMBINATIONS, Exchange, Exchanges, Missing
from testbed.exchange_verdict import Observation, Run, judge
from testbed.lab import HostStatus
from testbed.report import lesson_of, print_exchanges, print_hosts, print_next, quoted, summary, wire_rows
from tests.unit.test_exchange import changed, observation


def exchanges(*seen: Observation, missing: tuple[Missing, ...] = ()) -> Exchanges:
    return Exchanges("lab", seen[0].host_order, tuple(Exchange(one, judge(one)) for one in seen), missing)


def all_four(*, host_order: bool = False, text: bytes = b"hello") -> Exchanges:
    return exchanges(*(observation(client, server, host_order=host_order, text=text) for client, server in COMBINATIONS))


def shown(what: object, *arguments: object, width: int = 80, **keywords: object) -> str:
    """What a print function leaves where there is no terminal."""
    file = io.StringIO()
    what(Console(file=file, width=width, highlight=False), *arguments, **keywords)  # type: ignore[operator]
    return file.getvalue()


def status(name: str, **changes: object) -> HostStatus:
    row = HostStatus("cross", name, "emulated", "s390x", "big", "the machine's", "6.1.0-28-amd64", {"lan": ["10.77.0.4/24"]}, "running")
    return replace(row, **changes)  # type: ignore[arg-type]


def test_a_host_takes_one_line_of_80_columns() -> None:
    text = shown(print_hosts, [status("little-a"), status("big-a")])
    lines = [line for line in text.splitlines() if "big-a" in line]
    assert len(lines) == 1
    for word in ("big-a", "emulated", "s390x", "big", "machine's 6.1.0-28-amd64", "10.77.0.4", "running"):
        assert word in lines[0]


@pytest.mark.parametrize("width", [80, 100, 200])
def test_nothing_of_a_host_is_cut_at_any_width(width: int) -> None:
    long = {"left": ["10.77.100.104/24", "fd77:7465:7374:ffff:ffff:ffff:ffff:ffff/64"], "right": ["10.78.0.1/24"]}
    text = shown(
        print_hosts, [status("router", addresses=long, kernel="6.18.44-" + "x" * 30, state="not running (Exited (137))")], width=width
    )
    joined = "".join(text.split())
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert joined.count("x") >= 30
    for part in ("10.77.100.104", "10.78.0.1", "right"):
        assert part in joined


def test_only_what_does_not_run_looks_wrong() -> None:
    file = io.StringIO()
    states = ("running", "running (restored, tcg)", "not running (Exited (137))")
    print_hosts(Console(file=file, width=160, force_terminal=True), [status("a", state=one) for one in states])
    assert [line.count("\x1b[32mrunning") + 2 * line.count("\x1b[1;31mnot") for line in file.getvalue().splitlines()[2:5]] == [1, 1, 2]


def test_each_lab_has_a_table_of_its_own() -> None:
    text = shown(print_hosts, [status("a"), status("b", lab="other")])
    assert text.index("Lab cross") < text.index("Lab other")


def test_an_exchange_is_shown_from_memory_over_the_wire_to_memory() -> None:
    text = shown(print_exchanges, exchanges(observation("little", "big")))
    lines = [line.strip() for line in text.splitlines()]
    at = lines.index("little to big, native to emulated: HOLDS")
    assert lines[at + 1 : at + 5] == [
        "client little-a  04 03 02 01  in memory",
        "on the wire      01 02 03 04 | 00 05 | 68 65 6c 6c 6f",
        'server big-b     01 02 03 04  in memory, read as 0x01020304 and "hello"',
        "kernels          the machine's 6.1 at both ends",
    ]
    assert "1 of 1 exchange holds." in text


def test_an_exchange_says_whose_kernel_each_end_has() -> None:
    seen = observation("big", "little")
    guest = replace(seen.client, host="big-vm", kind="vm", kernel_of="its own", kernel="6.1.0-50-s390x")
    text = shown(print_exchanges, exchanges(replace(seen, client=guest), replace(seen, client=guest, server=guest)))
    assert "big to little, vm to native: HOLDS" in text
    assert "kernels          its own 6.1.0-50-s390x to the machine's 6.1\n" in text
    assert "kernels          its own 6.1.0-50-s390x to its own 6.1.0-50-s390x\n" in text


def test_wrong_bytes_are_marked_also_without_colour() -> None:
    text = shown(print_exchanges, exchanges(observation("little", "big", host_order=True)))
    lines = [line.strip() for line in text.splitlines()]
    at = lines.index("little to big, native to emulated: REFUTED")
    assert lines[at + 2 : at + 5] == [
        "on the wire      04 03 02 01 | 05 00 | 68 65 6c 6c 6f",
        "^^ ^^ ^^ ^^   ^^ ^^",
        "should be        01 02 03 04   00 05",
    ]
    assert "read as 0x04030201, not 0x01020304," in text
    rows = text.splitlines()
    marks = next(number for number, line in enumerate(rows) if "^^" in line)
    assert rows[marks].index("^^") == rows[marks - 1].index("04 03")
    assert rows[marks + 1].index("01 02") == rows[marks - 1].index("04 03")


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("text", [b"", b"hello", b"a text of some length " * 4, b"x" * 3000])
@pytest.mark.parametrize("host_order", [False, True])
def test_no_line_is_wider_than_the_screen_or_ends_in_spaces(width: int, text: bytes, host_order: bool) -> None:
    lines = shown(print_exchanges, all_four(host_order=host_order, text=text), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_long_text_is_shortened_and_the_rest_still_compared() -> None:
    seen = observation(text=b"x" * 100)
    assert "and 36 bytes more of the text, as they should be" in shown(print_exchanges, exchanges(seen))
    assert seen.wire is not None
    wrong = replace(seen, wire=seen.wire[:-1] + b"y")
    assert "and 36 bytes more of the text, which differ" in shown(print_exchanges, exchanges(wrong))


def test_missing_and_surplus_bytes_are_marked() -> None:
    ((line, marks, wanted),) = wire_rows(b"\x01\x02", b"\x01\x02\x03", 80)
    assert (line.plain, marks.plain, wanted.plain) == ("01 02 --", "      ^^", "      03")
    ((line, marks, wanted),) = wire_rows(b"\x01\x02\x03", b"\x01\x02", 80)
    assert (line.plain, marks.plain, wanted.plain) == ("01 02 03", "      ^^", "      --")


def test_an_inconclusive_exchange_says_why_and_makes_nothing_up() -> None:
    seen = replace(observation(), client_run=None, server_run=Run(1, b"", b"bind: Address already in use (EADDRINUSE)\n"), wire=None)
    text = shown(print_exchanges, exchanges(seen))
    assert "little to big, native to emulated: INCONCLUSIVE" in text
    assert "EADDRINUSE" in text
    assert text.count("nothing known") == 2
    assert "read nothing" in text
    assert "0 of 1 exchange holds, 1 inconclusive." in text


def test_a_combination_that_could_not_be_made_is_named() -> None:
    text = shown(print_exchanges, exchanges(observation(), missing=(Missing("big", "big", "the lab has one big-endian host only"),)))
    assert "big to big: not tried, the lab has one big-endian host only" in text


def test_the_summary_counts_and_the_lesson_is_drawn_only_where_it_holds() -> None:
    assert summary(all_four()) == "4 of 4 exchanges hold."
    assert "on the wire it does not" in lesson_of(all_four())
    assert summary(all_four(host_order=True)) == "2 of 4 exchanges hold, 2 refuted."
    assert "little-endian ones only" in lesson_of(all_four(host_order=True))
    assert lesson_of(exchanges(observation("little", "little"))) == ""
    assert lesson_of(exchanges(observation("little", "big", host_order=True))) == ""


def test_what_a_program_printed_cannot_drive_the_terminal() -> None:
    seen = changed(observation(), "server", b"text hello", b"text \x1b[2Jhello")
    failed = replace(observation(), client_run=Run(1, b"", b"connect: \x1b]0;title\x07\n"))
    for one in (seen, failed):
        text = shown(print_exchanges, exchanges(one))
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\\x1b" in text


def test_a_text_is_quoted_in_one_line() -> None:
    assert quoted("Grüße\n".encode()) == '"Grüße\\n"'
    assert quoted(b"\xff") == '"\\xff"'
    assert quoted(b"x" * 50) == '"' + "x" * 40 + '..." (50 bytes)'


def test_what_to_try_next_fits_80_columns_and_offers_the_other_way() -> None:
    text = shown(print_next, "cross-endian")
    assert max(map(len, text.splitlines())) <= 80
    assert "testbed exchange cross-endian --host-order" in text
    assert "--host-order" not in shown(print_next, "cross-endian", host_order=True)


def test_markup_in_a_text_is_not_obeyed() -> None:
    assert "[bold]x[/bold]" in shown(print_exchanges, exchanges(observation(text=b"[bold]x[/bold]")))
