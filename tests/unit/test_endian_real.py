"""What real programs sent, as it was recorded from hosts of both byte orders: what is wrong is found, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

from testbed.endian_compare import Place
from testbed.endian_judge import judge
from testbed.endian_messages import Channel, Said
from testbed.endian_runs import PAIRS, Ending, Judgement, Run, name_of

RECORD = Path(__file__).parent / "records/endian-iperf3.json"
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


def test_iperf3_sends_its_hello_over_udp_in_host_order_and_the_report_of_a_good_run_is_not_held_against_that_of_a_bad_one() -> None:
    """https://github.com/esnet/iperf/issues/1467"""
    found = [(one.channel, one.difference and (one.difference.kind, one.difference.place)) for one in of_iperf3("udp").findings]
    assert found == [(CHANNELS[name], ("reversed", Place(0, 4))) for name in ("client udp", "server udp")]


def test_letters_that_are_backwards_by_chance_in_texts_of_different_length_are_no_words() -> None:
    """The reports over TCP: QEMU's user mode does not tell which congestion control a connection has, so three letters are missing."""
    (found,) = of_iperf3("tcp").findings
    assert found.difference
    assert (found.difference.kind, found.difference.little, found.difference.big) == ("length", b"bbr", b"")
    assert "--vm" in found.details[-1]
