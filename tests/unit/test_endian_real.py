"""What real programs sent, as it was recorded from hosts of both byte orders: what is wrong is found, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

from testbed.endian_compare import Place
from testbed.endian_explain import parting
from testbed.endian_judge import judge
from testbed.endian_messages import Channel, Said, Turn
from testbed.endian_runs import PAIRS, Ending, Judgement, Pair, Run, name_of

RECORD = Path(__file__).parent / "endian/iperf3.json"
CHANNELS = {
    "client tcp": Channel("client", "tcp", 1),
    "server tcp": Channel("server", "tcp", 1),
    "client udp": Channel("client", "udp", 0, 1),
    "server udp": Channel("server", "udp", 0, 1),
}


def of_iperf3(over: str) -> Judgement:
    """Version 3.12, of Debian 12."""
    recorded = json.loads(RECORD.read_text())[over]

    def run(one: dict[str, object]) -> Run:
        messages = {channel: bytes.fromhex(str(one[name])) for name, channel in CHANNELS.items() if name in one}
        return Run({"client": Ending(0 if one["well"] else 1), "server": Ending(0)}, Said(messages, ()))

    return judge({pair: [run(one) for one in recorded[name_of(pair)]] for pair in PAIRS}, emulated=True)


def sent_by_the_client(little: bytes, big: bytes) -> dict[Pair, list[Run]]:
    """The runs of a program whose client sends one message over TCP."""

    def run(data: bytes) -> Run:
        return Run({"client": Ending(0), "server": Ending(0)}, Said({CHANNELS["client tcp"]: data}, ()))

    return {pair: [run(little if pair[0] == "little" else big)] * 3 for pair in PAIRS}


def test_iperf3_sends_its_hello_over_udp_in_host_order_and_the_report_of_a_good_run_is_not_held_against_that_of_a_bad_one() -> None:
    """https://github.com/esnet/iperf/issues/1467"""
    found = [(one.channel, one.difference and (one.difference.kind, one.difference.place)) for one in of_iperf3("udp").findings]
    assert found == [(CHANNELS[name], ("reversed", Place(0, 4))) for name in ("client udp", "server udp")]


def test_letters_that_are_backwards_by_chance_in_texts_of_different_length_are_no_words() -> None:
    """The reports over TCP: QEMU's user mode does not tell which congestion control a connection has, so three letters are missing."""
    findings = of_iperf3("tcp").findings
    assert [one.channel and one.channel.role for one in findings] == ["client", "server"]
    for found in findings:
        assert found.difference
        assert (found.difference.kind, found.difference.little, found.difference.big) == ("length", b"bbr", b"")
        assert "--vm" in found.details[-1]


def test_a_header_that_is_all_in_host_order_is_no_witness_that_its_protocol_is_little_endian() -> None:
    """The SDK client of openrgb-python 0.2.10: `struct.pack("ccccIII", ...)`, of which the last number is the length of what follows."""
    little = bytes.fromhex("4f524742 01000000 32000000 07000000") + b"python\0"
    big = bytes.fromhex("4f524742 00000001 00000032 00000007") + b"python\0"
    found = judge(sent_by_the_client(little, big)).findings
    assert [one.difference and one.difference.place for one in found] == [Place(4, 4), Place(8, 4), Place(12, 4)]
    assert not any("on both hosts" in line for one in found for line in one.details)
    assert "7 is the length of what follows" in found[2].details


def test_what_varies_in_the_good_runs_is_not_where_a_bad_one_parts_from_them() -> None:
    """dig, whose queries have random numbers, asks a server that does not answer on one host."""

    def asked(number: int) -> Turn:
        return Turn("client", number.to_bytes(2, "big") + b"\x01\x20\0\x01\0\0 what is x.test?")

    good = [[asked(number), Turn("server", b"10.9.8.7")] for number in (0x3DE8, 0x1234, 0x8F3A)]
    assert parting(good, [asked(0xDE46)]).startswith("after 24 bytes that are the same, nothing more comes, where the server sends 31 30")
    assert parting(good, [asked(0xDE46), Turn("server", b"10.9.8.7")]) == ""
    other = Turn("client", b"??\x01\x20\0\x01\0\0 what is y.test?")
    assert "turn 1 is another from its byte 17 on: the client sends 79" in parting(good, [other])


def test_what_ends_a_dialogue_that_broke_off_is_not_held_against_the_end_of_one_that_went_well() -> None:
    """Both end with a number, of another meaning: the code of an error, and how many texts there were."""
    numbers = iter(range(9, 10**6, 1234))

    def talk(pair: Pair) -> Run:
        well = pair[0] == pair[1]
        length = (5).to_bytes(4, pair[0])
        texts = b"text %d" % next(numbers) + (b" and all the others" if well else b"")
        sent = length + texts + (b"\0\7" if well else b"\7\0")
        return Run({"client": Ending(0 if well else 1), "server": Ending(0)}, Said({CHANNELS["client tcp"]: sent}, ()))

    found = judge({pair: [talk(pair) for _ in range(3)] for pair in PAIRS}).findings
    assert [one.difference and one.difference.place for one in found] == [Place(0, 4)]
