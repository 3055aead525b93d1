"""A program that runs alone: what it puts on the wire counts, whatever the protocol, and nobody's answer is missed."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from testbed.capture import Packet
from testbed.endian import plan
from testbed.endian_identity import host_name, mac_bytes
from testbed.endian_judge import OF_THE_EMULATION, judge
from testbed.endian_messages import ROLES, Channel, Role, Said, said
from testbed.endian_page import page
from testbed.endian_program import DIRECTORY, read_script
from testbed.endian_report import as_json, summary, verdict, written
from testbed.endian_run import ORDERS, Outcome, _of_pair
from testbed.endian_runs import BIG, LITTLE, Ending, Run, alone
from testbed.errors import InputError
from testbed.network import Address

OWN, OTHER, THIRD = (ip_address(f"10.1.0.{number}") for number in (2, 3, 4))
MACS: dict[bytes, Role] = {b"own mac": "client"}
DATAGRAM = Channel("client", "udp", 1, 1)
WELL = Ending(0)


def ip(protocol: int, payload: bytes, source: Address = OWN, destination: Address = OTHER) -> Packet:
    header = bytes([0x45, 0]) + (20 + len(payload)).to_bytes(2, "big") + bytes(4) + bytes([64, protocol]) + bytes(2)
    return Packet(0.0, "cooked", 1, b"", 0x0800, header + source.packed + destination.packed + payload)


def udp(data: bytes, **ends: Address) -> Packet:
    return ip(17, (40000).to_bytes(2, "big") + (5683).to_bytes(2, "big") + (8 + len(data)).to_bytes(2, "big") + bytes(2) + data, **ends)


def heard(*packets: Packet) -> Said:
    return said(packets, {"client": [OWN]}, macs=MACS, others="server")


def test_whatever_address_it_sends_to_is_taken_for_the_other_role() -> None:
    found = heard(udp(b"one", destination=THIRD), udp(b"answer", source=THIRD, destination=OWN))
    assert found.messages[DATAGRAM] == b"one"
    assert found.messages[Channel("server", "udp", 1, 1)] == b"answer"
    assert found.messages[Channel("client", "port to", 1)] == (5683).to_bytes(2, "big")


def test_what_it_sends_from_an_address_that_is_nobodys_is_its_own_by_its_mac() -> None:
    nowhere, everybody = ip_address("0.0.0.0"), ip_address("255.255.255.255")
    discover, offer = udp(b"discover", source=nowhere, destination=everybody), udp(b"offer", destination=nowhere)
    own, foreign = (replace(discover, source_mac=mac) for mac in (b"own mac", b"another"))
    assert heard(foreign).messages == {}
    assert heard(own).messages[DATAGRAM] == b"discover"
    hosts: dict[Role, list[Address]] = {"client": [OWN], "server": [OTHER]}
    macs: dict[bytes, Role] = {**MACS, b"server's": "server"}
    found = said([own, replace(offer, source_mac=b"server's")], hosts, macs=macs)
    assert found.messages[DATAGRAM] == b"discover"
    # An address that both send from is nobody's.
    assert DATAGRAM not in said([own, replace(discover, source_mac=b"server's")], hosts, macs=macs).messages


def test_the_pair_that_runs_at_the_same_time_is_not_heard_though_it_sends_from_the_same_address() -> None:
    addresses = {host_name(role, order): [ip_address(f"10.1.0.{n}")] for n, (role, order) in enumerate(product(ROLES, ORDERS), 2)}
    sent = [replace(udp(b"discover"), source_mac=mac_bytes(of_host), time_s=5.0) for of_host in addresses.values()]
    kept = _of_pair(sent, BIG, (4.0, 6.0), addresses)
    assert [one.source_mac for one in kept] == [mac_bytes(addresses[host_name(role, "big")]) for role in ROLES]
    assert _of_pair(sent, BIG, (5.5, 6.0), addresses) == []


def test_what_others_say_to_each_other_is_not_its_own() -> None:
    assert heard(udp(b"one", source=OTHER, destination=THIRD)).messages == {}


def test_other_protocols_and_frames_count_and_what_kernels_send_does_not() -> None:
    frame = Packet(0.0, "cooked", 1, b"own mac", 0x88B5, b"hello")
    arp = Packet(0.0, "cooked", 1, b"own mac", 0x0806, b"who has")
    foreign = Packet(0.0, "cooked", 1, b"another", 0x88B5, b"hello")
    found = heard(ip(132, b"sctp"), frame, arp, foreign, ip(1, b"\x03unreachable"), ip(1, b"\x08ping"), ip(2, b"igmp"))
    assert found.messages == {
        Channel("client", "ip", 132, 1): b"sctp",
        Channel("client", "ip", 1, 1): b"\x08ping",
        Channel("client", "frame", 0x88B5, 1): b"hello",
    }
    assert str(Channel("client", "frame", 0x88B5, 1)) == "frame 1 of ethertype 0x88b5"
    assert found.payload == 14


def outcome(little: bytes, big: bytes, *, little_ends: Ending = WELL, big_ends: Ending = WELL) -> Outcome:
    runs = alone(*([_run(data, ending)] * 3 for data, ending in ((little, little_ends), (big, big_ends))))
    return Outcome(runs, judge(runs), {}, b"", {}, {}, alone=True)


def _run(data: bytes, ending: Ending) -> Run:
    return Run({"client": ending, "server": Ending(0)}, Said({DATAGRAM: data} if data else {}, ()))


def test_bytes_in_host_order_are_a_finding_and_counted_once() -> None:
    result = outcome(b"\xbe\x1f\x00", b"\xbe\x00\x1f")
    (found,) = result.judgement.findings
    assert "offset 1, 2 bytes, sent in host order" in found.title
    assert result.judgement.sent == 2 * 3 * 3
    assert verdict(result) == "FINDINGS"
    assert len(json.loads(json.dumps(as_json(result)))["pairs"]) == 2


def test_nothing_sent_is_no_pass_and_says_where_it_may_have_gone() -> None:
    result = outcome(b"", b"")
    assert verdict(result) == "NOTHING SENT"
    assert "127.0.0.1" in summary(result)


def test_what_a_program_wrote_that_sent_nothing_is_shown() -> None:
    usage = Ending(0, stdout="Usage:\n" * 9, stderr="no such <host>\n")
    result = outcome(b"", b"", little_ends=usage, big_ends=usage)
    ((heading, lines),) = written(result)
    assert heading == "on the little-endian host, the client: exit code 0"
    assert lines == [*["Usage:"] * 3, "...", *["Usage:"] * 2, "no such <host>"]
    assert "Usage:\nno such &lt;host&gt;</pre>" in page(result)
    assert not list(written(outcome(b"abcd", b"abcd", little_ends=usage, big_ends=usage)))


def test_who_waits_for_an_answer_in_vain_has_done_well() -> None:
    ending = Ending(None, stopped=True, waited=True)
    result = outcome(b"abcd", b"abcd", little_ends=ending, big_ends=ending)
    assert verdict(result) == "NO FINDING"
    assert ending.words == "waited for an answer"


def test_failing_on_one_byte_order_only_is_a_finding() -> None:
    (found,) = outcome(b"abcd", b"", big_ends=Ending(139)).judgement.findings
    assert found.title == "it fails on the big-endian host only"
    (found,) = outcome(b"", b"abcd", little_ends=Ending(1)).judgement.findings
    assert found.title == "it fails on the little-endian host only"


def test_failing_on_both_is_no_finding_but_a_failure() -> None:
    result = outcome(b"", b"", little_ends=Ending(1), big_ends=Ending(1))
    assert verdict(result) == "FAILED"
    assert "on both byte orders" in summary(result)
    assert "true" not in summary(result)
    assert list(written(result)) == [("on the little-endian host, the client: exit code 1", [])]
    assert "; true" in summary(outcome(b"abcd", b"abcd", little_ends=Ending(1), big_ends=Ending(1)))


def test_sending_on_one_byte_order_only_is_no_pass() -> None:
    result = outcome(b"abcd", b"")
    (found,) = result.judgement.findings
    assert found.title == "the client sends nothing on a big-endian host"
    assert found.details == ("UDP datagram 1: 61 62 63 64",)


def test_who_sends_on_one_byte_order_only_and_fails_on_both_is_quoted() -> None:
    late, failed = Ending(None, problem="did not end within 10 s"), Ending(1, stderr="no interface\n")
    runs = outcome(b"abcd", b"", little_ends=late, big_ends=failed).runs
    (found,) = judge(runs, emulated=True).findings
    assert found.details == (
        "UDP datagram 1: 61 62 63 64",
        "the big-endian host: the client: exit code 1",
        "the client wrote: no interface",
        OF_THE_EMULATION,
    )


def test_one_message_more_on_one_byte_order_is_said_and_no_finding() -> None:
    more = {DATAGRAM: b"abcd", Channel("client", "udp", 1, 2): b"more"}
    runs = alone([_run(b"abcd", WELL)] * 3, [Run({"client": WELL, "server": WELL}, Said(more, ()))] * 3)
    result = judge(runs)
    assert result.findings == ()
    assert "client, UDP datagram 2: only the big-endian host sends it: 6d 6f 72 65" in result.inconclusive


# The page


def test_the_page_has_both_sides_and_nothing_that_a_program_wrote_is_markup() -> None:
    result = outcome(b"<script>\x1f\x00", b"<script>\x00\x1f", big_ends=Ending(0, stdout="<b>"))
    text = page(result)
    assert text.count("<figure>") == 2
    assert "<mark>1f</mark>" in text
    assert text.count("<script") == 0
    assert 'src="' not in text
    assert "http" not in text


def test_the_page_of_a_right_program_says_so() -> None:
    text = page(outcome(b"abcd", b"abcd"))
    assert "No finding: 4 bytes are the same" in text
    assert "<figure>" not in text


# The program


def test_a_script_is_run_by_what_its_name_says(tmp_path: Path) -> None:
    for name in ("send.py", "send.sh", "send", "notes.txt", "send.c"):
        (tmp_path / name).touch(mode=0o755 if name == "send" else 0o644)
    there = f"{DIRECTORY}/send"
    assert read_script(f"{tmp_path}/send.py 1")[0].argv == ("python3", f"{there}.py", "1")
    assert read_script(f"{tmp_path}/send.sh")[0].argv == ("sh", f"{there}.sh")
    assert read_script(f"{tmp_path}/send a") == (read_script(f"{tmp_path}/send a")[0], (tmp_path / "send",))
    assert read_script(f"{tmp_path}/send a")[0].argv == (there, "a")
    assert read_script(f"{tmp_path}/send.c")[0].sources == (tmp_path / "send.c",)
    assert read_script("python3 -c 1") == (read_script("python3 -c 1")[0], ())
    with pytest.raises(InputError, match="neither"):
        read_script(f"{tmp_path}/notes.txt")
    with pytest.raises(InputError, match="there is no file"):
        read_script(f"{tmp_path}/none.py")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"script": "true", "server": "true"}, "runs alone"),
        ({"server": "true"}, "there is no client"),
        ({}, "there is no client and no server"),
        ({"script": "true", "pip": ["x y"]}, "not a requirement of pip"),
        ({"script": "true", "packages": ["-x"]}, "not a Debian package's name"),
    ],
)
def test_what_makes_no_sense_is_the_users_mistake(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        plan(**options)  # type: ignore[arg-type]


def test_both_pairs_of_a_program_alone_are_its_own() -> None:
    assert outcome(b"a", b"a").pairs == (LITTLE, BIG)


def test_a_client_that_was_ended_and_had_sent_nothing_is_said_to_need_longer_perhaps() -> None:
    late, answered = Ending(None, late=True, problem="did not end within 10 s"), Ending(None, stopped=True, waited=True)
    for ending in (late, answered):
        silent = ending.of_silence(10)
        assert silent.words == "did not end within 10 s, and had sent nothing; --timeout gives it longer"
        assert silent.late
        assert not silent.well
    for ending in (WELL, Ending(3), Ending(None, problem="was not run, as the server had ended"), Ending(None, stopped=True)):
        assert ending.of_silence(10) is ending


def test_the_time_limit_is_longer_for_translated_kernels_unless_it_is_given() -> None:
    def limit(**options: Any) -> float:
        return plan(script="true", **options).timeout_s

    assert limit() < limit(vm=True)
    assert limit(timeout_s=5, vm=True) == limit(timeout_s=5) == 5
