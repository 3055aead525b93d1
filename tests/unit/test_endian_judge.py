"""What four pairs of hosts say about a program: whose fault a difference is, and what only follows from it."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from testbed.architecture import ByteOrder
from testbed.endian import plan
from testbed.endian_compare import Place
from testbed.endian_explain import parting, reversed_numbers
from testbed.endian_identity import as_little, mac_bytes
from testbed.endian_judge import judge
from testbed.endian_messages import Channel, Said, Turn
from testbed.endian_program import DIRECTORY, check_files, read
from testbed.endian_report import as_json, print_outcome, verdict
from testbed.endian_run import Outcome
from testbed.endian_runs import BIG, PAIRS, Ending, Judgement, Pair, Run
from testbed.errors import InputError

WELL = Ending(0)
CLIENT, SERVER = Channel("client", "tcp", 1), Channel("server", "tcp", 1)
PORT = Channel("client", "port to", 1)
Talk = Callable[[ByteOrder, ByteOrder], Run]


def run(sent: bytes, answer: bytes, *, client: Ending = WELL, server: Ending = WELL, port: bytes = b"\x1b\x58") -> Run:
    """A run with one connection."""
    messages = {channel: data for channel, data in ((PORT, port), (CLIENT, sent), (SERVER, answer)) if data}
    turns = [Turn("client", sent), Turn("server", answer)]
    return Run({"client": client, "server": server}, Said(messages, tuple(turn for turn in turns if turn.data)))


def pack(order: ByteOrder, form: str, *values: float) -> bytes:
    return struct.pack(("<" if order == "little" else ">") + form, *values)


def judged(talk: Talk) -> Judgement:
    return judge({pair: [talk(*pair)] * 3 for pair in PAIRS})


def number(data: bytes, order: ByteOrder) -> int:
    return int.from_bytes(data, order)


def test_a_right_program_has_no_finding() -> None:
    result = judged(lambda client, server: run(pack("big", "HI", 5, 4711), b"fine"))
    assert result.findings == ()
    assert (result.failed, result.consequences) == ("", ())
    assert result.sent == 12 * 10


def test_a_client_that_forgets_is_found_and_what_the_server_makes_of_it_is_a_consequence() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        sent = pack(client, "I", 4711)
        return run(sent, b"got " + str(number(sent, "big")).encode())

    result = judged(talk)
    assert [(one.role, one.channel, one.difference and one.difference.place) for one in result.findings] == [
        ("client", CLIENT, Place(0, 4))
    ]


def test_bytes_that_the_server_only_sends_back_are_no_fault_of_its_own() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        sent = pack(client, "I", 4711)
        return run(sent, sent)

    assert [one.role for one in judged(talk).findings] == ["client"]


def test_when_both_forget_both_are_found_though_mixed_pairs_do_not_get_so_far() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        sent = pack(client, "H", 5)
        if number(sent, server) != 5:
            return run(sent, b"", client=Ending(1), server=Ending(1))
        return run(sent, pack(server, "I", 99))

    result = judged(talk)
    assert [one.role for one in result.findings] == ["client", "server"]
    assert any("only where the byte orders of the two hosts differ" in one for one in result.consequences)


def test_a_server_alone_that_forgets_is_found() -> None:
    result = judged(lambda client, server: run(b"how many?", pack(server, "Q", 12345)))
    assert [(one.role, one.difference and one.difference.place) for one in result.findings] == [("server", Place(0, 8))]


def test_a_program_that_fails_only_in_mixed_pairs_is_a_finding_with_the_point_where_the_dialogues_part() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        return run(b"same bytes", b"answer") if client == server else run(b"same bytes", b"", client=Ending(1))

    (found,) = judged(talk).findings
    assert found.title == "it fails only where the byte orders of the two hosts differ"
    assert found.pairs == (("little", "big"), ("big", "little"))
    assert "after 10 bytes that are the same, nothing more comes, where the server sends" in found.details[1]


def test_a_program_that_fails_with_big_endian_hosts_only_is_a_finding() -> None:
    result = judged(lambda client, server: run(b"hi", b"ho", server=Ending(139) if server == "big" else WELL))
    (found,) = result.findings
    assert "and not between two little-endian hosts" in found.title
    assert "died of signal 11" in found.details[0]


def test_a_program_that_fails_with_little_endian_hosts_only_is_a_finding_too() -> None:
    result = judged(lambda client, server: run(b"hi", b"ho", client=WELL if (client, server) == ("big", "big") else Ending(3)))
    (found,) = result.findings
    assert found.title == "it fails on every pair with a little-endian host"
    assert result.failed == ""


def test_a_program_that_never_works_has_failed_and_is_no_finding() -> None:
    result = judged(lambda client, server: run(b"hi", b"", client=Ending(2)))
    assert result.findings == ()
    assert result.failed == "the client: exit code 2"


def test_a_port_in_host_order_is_found_although_no_byte_of_data_was_sent() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        return (
            run(b"hi", b"ho") if client == "big" else run(b"", b"", port=b"\x58\x1b", client=Ending(1), server=Ending(None, stopped=True))
        )

    (found,) = judged(talk).findings
    assert found.channel == PORT
    assert "port 22555 (0x581b) from the little-endian host, 7000 (0x1b58) from the big-endian one" in found.title


def test_a_server_that_reads_in_host_order_is_found_by_what_it_prints() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        sent = pack("big", "I", 5)
        return run(sent, b"ok", server=replace(WELL, stdout=f"got {number(sent, server)} bytes\n"))

    (found,) = judged(talk).findings
    assert found.title == "the server reads a number in its host's byte order"
    assert found.details[0] == "it prints 83886080 on a little-endian host and 5 on a big-endian one"


def test_other_output_of_each_byte_order_is_no_finding_unless_it_is_numbers_backwards() -> None:
    result = judged(lambda client, server: run(b"hi", b"ho", server=replace(WELL, stdout=f"{server} 17\n")))
    assert result.findings == ()


def test_output_that_is_another_in_mixed_pairs_only_is_a_finding() -> None:
    result = judged(lambda client, server: run(b"hi", b"ho", client=replace(WELL, stdout="ok\n" if client == server else "bad sum\n")))
    (found,) = result.findings
    assert "little to big: 'bad sum', and between hosts of one byte order 'ok'" in found.details


def test_bit_fields_are_a_finding_beside_words_and_other_differences_follow() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        checksum = b"\xaa\xbb\xcc" if client == "little" else b"\x01\x02\x03"
        return run(pack(client, "H", 5) + (b"\x54" if client == "little" else b"\x45") + b"hello" + checksum, b"ok")

    result = judged(talk)
    assert [one.difference and one.difference.kind for one in result.findings] == ["reversed", "bit fields"]
    assert len(result.consequences) == 1
    assert "offset 8, 3 bytes differ" in result.consequences[0]


def test_what_varies_by_chance_in_few_runs_is_known_better_from_all_pairs() -> None:
    # On each host the digit is the same in all runs of the first pairs, and another one in the mixed pairs.
    digits = {("little", "little"): b"3", ("big", "big"): b"7", ("little", "big"): b"8", ("big", "little"): b"1"}
    result = judged(lambda client, server: run(b"random " + digits[client, server] + b" end", b"ok"))
    assert result.findings == ()


def test_zeroes_say_nothing_and_another_input_is_proposed() -> None:
    result = judged(lambda client, server: run(bytes(4), b"ok"))
    assert result.findings == ()
    assert any("bytes at 0-3 are the same backwards" in one and "0x0102" in one for one in result.inconclusive)


def test_the_high_bytes_of_a_small_number_are_not_worth_a_word() -> None:
    result = judged(lambda client, server: run(pack("big", "I", 4711), pack("big", "Q", 5)))
    assert result.inconclusive == ()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (lambda order: pack(order, "H", 5) + b"hello", "5 is the length of what follows"),
        # A length that is little-endian on both hosts, and right so: the other one is to be likewise.
        (lambda order: b"\x0a\x00" + pack(order, "H", 600) + b"abcdef", "the little-endian side is right"),
        # bswap instead of htons: network order on the little-endian host alone.
        (lambda order: pack("big" if order == "little" else "little", "H", 5) + b"hello", "that side is right"),
        # The message is 8 bytes long, which is 0x0008 in little-endian order; but so is any small number.
        (lambda order: b"\x08\x00\x01\x02" + pack(order, "H", 600) + b"ab", "in network order the big-endian side is right"),
        # htons() of a number of 4 bytes, and htonl() of one of 8.
        (lambda order: pack(order, "I", number(pack("big", "H", 1), order)), "1 is a number of 4 bytes here, and htons() converts 2"),
        (
            lambda order: pack(order, "Q", number(pack("big", "I", 70000), order)),
            "network order the big-endian side is right, and htobe64()",
        ),
        (lambda order: pack(order, "f", 2.5), "2.5 if it is a floating-point number"),
        (lambda order: pack(order, "i", -2), "-2 if it is signed"),
    ],
)
def test_which_side_is_right_and_what_the_value_means_is_said(message: Callable[[ByteOrder], bytes], words: str) -> None:
    (found,) = judged(lambda client, server: run(message(client), b"ok")).findings
    assert words in "\n".join(found.details)


def test_numbers_in_outputs_are_compared_as_words() -> None:
    assert reversed_numbers("a 0x0100 b 7\n", "a 0x0001 b 7\n") == [("0x0100", "0x0001")]
    assert reversed_numbers("a -2\n", f"a {int.from_bytes((-2).to_bytes(4, 'little', signed=True), 'big', signed=True)}\n")
    assert reversed_numbers("a 5\n", "a 6\n") == []
    assert reversed_numbers("a 5\n", "b 83886080\n") == []


def test_dialogues_part_where_one_side_says_something_else_or_stops() -> None:
    good = [Turn("client", b"hello"), Turn("server", b"welcome"), Turn("client", b"", "closes")]
    assert parting([good], good) == ""
    assert "turn 2 is another from its byte 3 on: the server sends 6b" in parting([good], [good[0], Turn("server", b"welk...")])
    assert "after 8 bytes that are the same, the server stops, and does not send 4 more" in parting(
        [good], [good[0], Turn("server", b"wel")]
    )
    assert "the server resets, where the server sends" in parting([good], [good[0], Turn("server", b"", "resets")])


def test_names_and_addresses_of_hosts_are_those_of_the_little_endian_pair() -> None:
    addresses = {
        f"{role}-{order}": (ip_address(f"10.0.0.{number}"),)
        for number, (role, order) in enumerate([("client", "le"), ("client", "be"), ("server", "le"), ("server", "be")], 2)
    }
    of_big = run(b"I am client-be at 10.0.0.3 = \x0a\x00\x00\x03 or \x03\x00\x00\x0a", b"", client=replace(WELL, stdout="to server-be\n"))
    changed = as_little(of_big, ("big", "big"), addresses)
    assert changed.said.messages[CLIENT] == b"I am client-le at 10.0.0.2 = \x0a\x00\x00\x02 or \x02\x00\x00\x0a"
    assert changed.endings["client"].stdout == "to server-le\n"
    assert as_little(of_big, ("little", "little"), addresses) is of_big


# What is shown


def outcome(talk: Talk) -> Outcome:
    runs: dict[Pair, list[Run]] = {pair: [talk(*pair) for _ in range(3)] for pair in PAIRS}
    return Outcome(runs, judge(runs), {}, b"", {}, {})


NONCES = (hashlib.sha256(bytes([count])).digest() for count in itertools.count())


def shown(of: Outcome) -> str:
    console = Console(width=110, color_system=None)
    with console.capture() as captured:
        print_outcome(console, of)
    return captured.get()


def test_a_port_that_is_swapped_on_one_host_may_be_meant_either_way() -> None:
    """A forgotten htons(), or one that is written by hand and swaps on big-endian hosts too, as d-itg's."""
    (found,) = judged(lambda client, server: run(b"hello", b"ok", port=pack(client, "H", 10019))).findings
    assert "port 8999 (0x2327) from the little-endian host, 10019 (0x2723) from the big-endian one" in found.title
    meant = [(f"if it is to be {port},", f"the {side}-endian side is right") for port, side in ((10019, "big"), (8999, "little"))]
    assert all(begin in line and end in line for (begin, end), line in zip(meant, found.details, strict=True))


def test_a_finding_is_shown_with_both_hosts_bytes_marked() -> None:
    forgetful = outcome(lambda client, server: run(b"0123456789abcdefgh" + pack(client, "H", 5) + b"hello", b"ok"))
    text = shown(forgetful)
    assert verdict(forgetful) == "FINDINGS"
    lines = [line.split() for line in text.splitlines()]
    row = lines.index(["16", *["67", "68", "05", "00", "68", "65", "6c", "6c", "6f", "gh..hello"]])
    assert lines[row + 1] == ["^^", "^^"]
    assert text.splitlines()[row].index("05 00") == text.splitlines()[row + 1].index("^^ ^^")
    assert "16  67 68 00 05 68 65" in text
    assert "1 finding: the program is not the same on both byte orders." in text


def test_the_same_field_of_many_messages_is_shown_once_and_told_apart_in_json() -> None:
    """Three connections of which each brings two numbers: the second one counts."""

    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        sent = {Channel("client", "tcp", number): pack(client, "HH", 4711, number) for number in (1, 2, 3)}
        return Run({"client": WELL, "server": WELL}, Said(sent, ()))

    text = " ".join(shown(outcome(talk)).split())
    assert "1. client, TCP connection 1: offset 0, 2 bytes, sent in host order: 67 12" in text
    assert "the same in TCP connections 2, 3" in text
    assert "at the same place also in TCP connection 2 (02 00 against 00 02), TCP connection 3 (03 00 against 00 03)" in text
    assert "2 findings in 6 places" in text
    assert len(as_json(outcome(talk))["findings"]) == 6  # type: ignore[arg-type]


def test_the_same_field_of_the_records_of_a_stream_is_shown_once() -> None:
    """Three records with a counter from 0, a constant, and two numbers of the same value; after a header with a number of its own."""

    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        records = b"".join(pack(client, "I", count) + b"abcd" + pack(client, "HxxH", 4711, 4711) + b"efghij" for count in range(3))
        return run(pack(client, "I", 99) + records, b"ok")

    text = " ".join(shown(outcome(talk)).split())
    assert "4 findings in 9 places" in text
    assert "offset 12, 2 bytes, sent in host order: 67 12 from" in text
    assert "the same again at offsets 32, 52" in text
    assert "the same field again at offset 44 (02 00 00 00 against 00 00 00 02)" in text


def test_the_same_number_at_several_places_of_a_stream_is_shown_once() -> None:
    """Messages of different lengths, each with a magic number."""

    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        return run(b"".join(pack(client, "H", 0xCAFE) + text for text in (b"one", b"twenty", b"three", b"fourteen")), b"ok")

    text = " ".join(shown(outcome(talk)).split())
    assert "the same again at offsets 5, 13, 20" in text
    assert "1 finding in 4 places" in text


def test_numbers_of_a_struct_that_are_equal_by_chance_are_shown_one_by_one() -> None:
    assert "3 findings:" in shown(outcome(lambda client, server: run(pack(client, "HxxHxxH", 300, 300, 301), b"ok")))


def test_the_elements_of_an_array_are_shown_as_one_finding() -> None:
    numbers = (300, 301, 302, 303, 304, 305, 306)
    text = " ".join(shown(outcome(lambda client, server: run(b"data" + pack(client, "7H", *numbers), b"ok"))).split())
    assert "1. client, TCP connection 1: offset 4, 7 words of 2 bytes, each sent in host order: 2c 01 2d 01" in text
    assert "as the hosts have them in memory, they are 300, 301, 302, 303, 304, 305, ... on both" in text
    assert "1 finding in 7 places" in text


@pytest.mark.parametrize("number", [b"", b"HH"], ids=["alone", "after a number"])
def test_of_a_message_that_differs_everywhere_the_first_places_are_shown(number: bytes) -> None:
    """Two texts, say, of which the one is shifted against the other."""

    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        begin = pack(client, "H", 4711) if number else b""
        return run(begin + b"".join(b"same" + bytes(3) + (b"l%d" if client == "little" else b"b%d") % at for at in range(10, 30)), b"ok")

    of = outcome(talk)
    text = " ".join(shown(of).split())
    assert ("12 more places differ" in text) == bool(number)
    assert ("so it goes on: 12 more places that differ, the last one at offset 197" in text) == (not number)
    assert ("1 finding:" if number else "8 findings in 20 places") in text


def test_three_numbers_in_a_row_are_shown_one_by_one() -> None:
    assert "3 findings:" in shown(outcome(lambda client, server: run(pack(client, "3H", 300, 301, 302), b"ok")))


def test_the_bytes_of_the_big_endian_host_are_shown_where_they_stand_there() -> None:
    text = shown(outcome(lambda client, server: run(b"x" * (100 if client == "little" else 3) + pack(client, "I", 4711) + b"end", b"ok")))
    assert "100  67 12 00 00" not in text
    assert "big-endian host, 10 bytes\n        0  78 78 78 00 00 12 67 65 6e 64" in text


def test_what_is_said_of_many_messages_alike_is_said_once() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        sent = {Channel("client", "udp", 0, number): bytes(8) + b"end" for number in range(1, 21)}
        return Run({"client": WELL, "server": WELL}, Said(sent, ()))

    (line,) = judged(talk).inconclusive
    assert line.startswith("client, UDP datagrams 1 to 20: the bytes at 0-7 are the same backwards")


SLOW = Ending(None, problem="did not end within 10 s")


@pytest.mark.parametrize("alike", [True, False], ids=["right", "wrong"])
def test_a_run_that_fails_where_most_do_not_is_no_finding_and_hides_none(alike: bool) -> None:
    runs = {pair: [run(pack("big" if alike else pair[0], "H", 5), b"ok")] * 3 for pair in PAIRS}
    runs[BIG] = [runs[BIG][0], run(b"", b"", client=SLOW), runs[BIG][0]]
    result = judge(runs)
    assert [one.title.split(",")[0] for one in result.findings] == ([] if alike else ["offset 0"])
    assert result.inconclusive[0].startswith("big to big: 1 of 3 runs failed")
    assert "the client: did not end within 10 s" in result.inconclusive[0]
    assert result.compared == 4


def test_a_pair_of_which_most_runs_fail_is_a_finding() -> None:
    runs = {pair: [run(b"hello", b"ok")] * 3 for pair in PAIRS}
    runs[BIG] = [runs[BIG][0], run(b"", b"", client=SLOW), run(b"", b"", client=SLOW)]
    (finding,) = judge(runs).findings
    assert finding.title == "it fails big to big, and not between two little-endian hosts"


def test_what_only_some_runs_send_is_said_not_to_be_compared() -> None:
    runs = {pair: [run(b"hello", b"ok"), run(b"hello", b""), run(b"hello", b"ok")] for pair in PAIRS}
    assert judge(runs).inconclusive == ("server, TCP connection 1: not every run sends it, so it was not compared",)


def test_where_all_differs_only_the_port_is_the_same_and_that_is_no_pass() -> None:
    result = outcome(lambda client, server: run(next(NONCES), b""))
    assert (result.judgement.compared, result.judgement.sent, result.judgement.set_aside) == (0, 4 * 3 * 32, 32)
    assert "client, TCP connection 1: all of it differs from run to run" in shown(result)


def test_why_a_program_failed_is_quoted_from_what_it_wrote() -> None:
    """The last line of a traceback of Python; and, as it may be the emulation that lacks something, the way to know."""
    failed = Ending(1, stderr="Traceback (most recent call last):\n  ...\nOSError: [Errno 92] Protocol not available\n")
    runs = {pair: [run(b"hello", b"ok", client=failed if pair[0] == "big" else WELL)] * 3 for pair in PAIRS}
    (finding,) = judge(runs, emulated=True).findings
    assert "the client wrote: OSError: [Errno 92] Protocol not available" in finding.details
    assert "--vm" in finding.details[-1]
    assert not any("--vm" in line for line in judge(runs).findings[0].details)


def test_json_has_the_offset_the_width_and_both_messages() -> None:
    forgetful = as_json(outcome(lambda client, server: run(pack(client, "H", 5) + b"hello", b"ok")))
    data = json.loads(json.dumps(forgetful))
    (found,) = data["findings"]
    assert (found["offset"], found["width"], found["little"], found["big"]) == (0, 2, "0500", "0005")
    assert found["big_message"] == "000568656c6c6f"
    assert [(one["client"], one["server"], one["well"]) for one in data["pairs"]] == [(*pair, True) for pair in PAIRS]


@pytest.mark.parametrize(
    ("talk", "wanted", "words"),
    [
        (lambda client, server: run(b"same", b"ok"), "NO FINDING", "No finding: 6 bytes are the same"),
        (lambda client, server: run(b"", b""), "NOTHING SENT", "Nothing was sent"),
        (lambda client, server: run(next(NONCES), b""), "NOTHING COMPARED", "Nothing could be compared"),
        (
            lambda client, server: run(b"hi", b"", client=Ending(2, stderr="no such thing\x1b[31m\n")),
            "FAILED",
            "  | no such thing\\x1b[31m",
        ),
    ],
)
def test_every_verdict_is_said_in_words(talk: Talk, wanted: str, words: str) -> None:
    result = outcome(talk)
    assert verdict(result) == wanted
    assert words in shown(result)


# Programs


def test_c_files_come_first_and_the_rest_are_arguments(tmp_path: Path) -> None:
    for name in ("a.c", "b.c"):
        (tmp_path / name).write_text("")
    program = read("client", f"{tmp_path}/a.c {tmp_path}/b.c hello 'two words'")
    assert [one.name for one in program.sources] == ["a.c", "b.c"]
    assert program.argv == (f"{DIRECTORY}/client", "hello", "two words")
    assert read("server", "python3 server.py").sources == ()


@pytest.mark.parametrize(
    ("text", "words"), [("", "--client is empty"), ("nowhere.c", "there is no file 'nowhere.c'"), ("'open", "No closing quotation")]
)
def test_a_program_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read("client", text)


def test_files_are_checked_before_a_lab_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("server.py", "client"):
        (tmp_path / name).write_text("")
    command = read("server", "python3 server.py")
    with pytest.raises(InputError, match=r"names server\.py, which the hosts do not have"):
        check_files([], [command])
    check_files([Path("server.py")], [command])
    with pytest.raises(InputError, match="there is no file 'y'"):
        check_files([Path("y")], [])
    (tmp_path / "a.c").write_text("")
    with pytest.raises(InputError, match="the name of the compiled client"):
        check_files([Path("client")], [read("client", "a.c")])


@pytest.mark.parametrize(("options", "words"), [({"repeat": 1}, "too few"), ({"cflags": "'-I"}, "--cflags")])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(server="nc -l 1", client="nc server 1", **options)


def internet_checksum(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    return 0xFFFF - total % 0xFFFF


def test_a_checksum_that_follows_from_other_bytes_is_called_so() -> None:
    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        body = pack(client, "HI", 5, 4711)
        return run(body + pack("big", "I", zlib.crc32(body)), b"ok")

    (line,) = (one for one in judged(talk).consequences if one.startswith("client"))
    assert "the CRC-32 of the message, right on both hosts: it follows from other bytes that differ" in line


def test_a_checksum_that_is_right_on_one_side_only_is_a_finding_that_says_which() -> None:
    body = b"hello world!"

    def talk(client: ByteOrder, server: ByteOrder) -> Run:
        checksum = internet_checksum(body) if client == "little" else internet_checksum(body) ^ 0x1234
        return run(body + pack("big", "H", checksum), b"ok")

    (found,) = judged(talk).findings
    assert found.details == (
        "the Internet checksum of the message, right from the little-endian host only: the other one computes it in its own byte order",
    )


@pytest.mark.parametrize(
    ("little", "big", "offset", "words"),
    [
        # What two parts of scapy 2.5.0 send: an option delta of CoAP (RFC 7252, section 3.1), and a length of PCOM, which is little-endian.
        ("be 1f 00", "be 00 1f", 1, "the big-endian side is right"),
        ("05 00 41 42 43 44 45", "00 05 41 42 43 44 45", 0, "5 is the length of what follows"),
    ],
)
def test_two_faults_of_a_real_program_are_found_where_they_are(little: str, big: str, offset: int, words: str) -> None:
    (found,) = judged(lambda client, server: run(bytes.fromhex(little if client == "little" else big), b"ok")).findings
    assert found.difference is not None
    assert (found.difference.kind, found.difference.place) == ("reversed", Place(offset, 2))
    assert words in "\n".join(found.details)


def test_a_word_that_stands_elsewhere_in_every_run_is_one_finding() -> None:
    numbers = iter([5, 77, 123, 4, 9999, 31, 640, 8, 52, 7000, 1, 11])

    def message(order: ByteOrder) -> bytes:
        return b"number %d, length " % next(numbers) + pack(order, "H", 600) + b", again " + pack(order, "H", 600) + b" and the end"

    result = judge({pair: [run(message(pair[0]), b"ok") for _ in range(3)] for pair in PAIRS})
    assert [one.difference and one.difference.little.hex() for one in result.findings] == ["5802", "5802"]
    assert all(set(one.pairs) == set(PAIRS) for one in result.findings)


@pytest.mark.parametrize(
    "form", ["{0}:{1}:{2}:{3}:{4}:{5}", "{0}-{1}-{2}-{3}-{4}-{5}", "0001-{0}{1}{2}{3}{4}{5}"], ids=["colons", "dashes", "uuid"]
)
def test_an_ethernet_address_in_a_text_is_the_host_s_own(form: str) -> None:
    addresses = {
        f"{role}-{order}": (ip_address(f"10.0.0.{number}"),)
        for number, (role, order) in enumerate([("client", "le"), ("client", "be"), ("server", "le"), ("server", "be")], 170)
    }

    def sent(order: str) -> bytes:
        return form.format(*mac_bytes(addresses[f"client-{order}"]).hex(" ").split()).encode()

    for of_big, wanted in ((sent("be"), sent("le")), (sent("be").upper(), sent("le").upper())):
        assert of_big != wanted
        assert as_little(run(of_big, b""), ("big", "big"), addresses).said.messages[CLIENT] == wanted


def test_numbers_that_are_converted_in_too_few_bytes_are_no_array() -> None:
    text = shown(
        outcome(lambda client, server: run(pack(client, "5I", *(number(pack("big", "H", 300 + one), client) for one in range(5))), b"ok"))
    )
    assert text.count("sent in host order after htons()") == 5


def test_a_time_of_which_only_some_comparisons_see_that_it_varies_is_one_finding() -> None:
    """Between some pairs all runs are in one second, and then only its upper bytes are the other's backwards."""

    def sent(order: ByteOrder, second: int) -> Run:
        return run(pack(order, "Q", 0x6B08F500 + second), b"ok")

    seconds: dict[Pair, tuple[int, int, int]] = {
        ("little", "little"): (1, 1, 1),
        ("little", "big"): (2, 3, 4),
        ("big", "little"): (9, 9, 9),
        ("big", "big"): (6, 7, 8),
    }
    result = judge({pair: [sent(pair[0], second) for second in of] for pair, of in seconds.items()})
    (found,) = result.findings
    assert found.difference
    assert (found.difference.place, found.difference.varies) == (Place(0, 8), True)
    assert found.pairs == PAIRS
