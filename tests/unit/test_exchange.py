"""Judging an exchange, and choosing who talks to whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.architecture import ByteOrder
from testbed.errors import InputError
from testbed.exchange import COMBINATIONS, Candidate, Exchange, Exchanges, all_hold, check_message, choose, server_address
from testbed.exchange_verdict import Observation, Party, Run, Told, judge, message

INTEGER, TEXT = 0x01020304, b"hello"
ARCH = {"little": "amd64", "big": "s390x"}
KIND = {"little": "native", "big": "emulated"}


def escaped(text: bytes) -> bytes:
    """As print_text() of images/programs/net.c writes it."""
    return b"".join(b"\\x%02x" % one if one < 32 or one in (0x5C, 0x7F) else bytes([one]) for one in text)


def observation(
    client: ByteOrder = "little", server: ByteOrder = "big", *, integer: int = INTEGER, text: bytes = TEXT, host_order: bool = False
) -> Observation:
    """What two correct hosts of these byte orders leave, with a client that forgets htonl() if told."""
    sent = message(integer, text)
    if host_order and client == "little":
        sent = sent[3::-1] + sent[5:3:-1] + text
    number, length = int.from_bytes(sent[:4], "big"), int.from_bytes(sent[4:6], "big")
    complete = length == len(text)
    answer, code = ("yes", 0) if complete else ("no", 1)
    memory = integer.to_bytes(4, client).hex(" ")
    client_says = f"byte-order {client}\ninteger {integer}\nmemory {memory}\ntext ".encode() + escaped(text)
    client_says += f"\nsent {sent.hex(' ')}\nacknowledged {answer}\n".encode()
    server_says = f"listening 28080\nclient 10.1.0.2 40000\nbyte-order {server}\nreceived {sent.hex(' ')}\ninteger {number}\n".encode()
    server_says += f"memory {number.to_bytes(4, server).hex(' ')}\nlength {length}\ntext ".encode() + escaped(text[:length])
    server_says += f"\ncomplete {answer}\n".encode()
    parties = [
        Party(f"{order}-{which}", KIND[order], ARCH[order], order, "the machine's", "6.1")
        for order, which in ((client, "a"), (server, "b"))
    ]
    runs = [Run(code, says, b"") for says in (client_says, server_says)]
    return Observation(parties[0], parties[1], 28080, integer, text, host_order, runs[0], runs[1], sent)


def result_of(*seen: Observation) -> Exchanges:
    return Exchanges("lab", seen[0].host_order, tuple(Exchange(one, judge(one)) for one in seen), ())


def changed(seen: Observation, program: Literal["client", "server"], old: bytes, new: bytes) -> Observation:
    """The same observation, with one program saying something else."""
    run = seen.client_run if program == "client" else seen.server_run
    assert run is not None
    assert old in run.stdout
    run = replace(run, stdout=run.stdout.replace(old, new))
    return replace(seen, client_run=run) if program == "client" else replace(seen, server_run=run)


@pytest.mark.parametrize(("client", "server"), COMBINATIONS)
def test_a_correct_exchange_holds_in_every_combination(client: ByteOrder, server: ByteOrder) -> None:
    assert judge(observation(client, server)).outcome == "HOLDS"


@pytest.mark.parametrize(("client", "server"), COMBINATIONS)
def test_a_forgotten_htonl_is_refuted_where_the_client_is_little_endian(client: ByteOrder, server: ByteOrder) -> None:
    verdict = judge(observation(client, server, host_order=True))
    assert verdict.outcome == ("REFUTED" if client == "little" else "HOLDS")
    if client == "little":
        assert "the integer on the wire is 04 03 02 01 and should be 01 02 03 04" in verdict.reason
        assert "the length on the wire is 05 00 and should be 00 05" in verdict.reason
        assert "the server read 0x04030201 for 0x01020304" in verdict.reason
        assert "the rest of 1280 bytes" in verdict.reason


@given(integer=st.integers(0, 2**32 - 1), text=st.binary(max_size=40).filter(lambda text: b"\0" not in text))
def test_every_message_is_read_back_from_what_the_programs_print(integer: int, text: bytes) -> None:
    assert judge(observation(integer=integer, text=text)).outcome == "HOLDS"


@pytest.mark.parametrize(
    ("program", "old", "new", "reason"),
    [
        ("server", b"integer 16909060", b"integer 16909061", "the server read 0x01020305 for 0x01020304"),
        ("server", b"text hello", b"text hellO", "the server read another text"),
        ("server", b"complete yes", b"complete no", "waited in vain for the rest of 5 bytes"),
        ("client", b"acknowledged yes", b"acknowledged no", "the client got no acknowledgement"),
        ("client", b"sent 01", b"sent 02", "the wire does not have the bytes that the client says it sent"),
        ("server", b"received 01", b"received 02", "the server did not receive the bytes that were on the wire"),
    ],
)
def test_any_one_contradiction_refutes(program: Literal["client", "server"], old: bytes, new: bytes, reason: str) -> None:
    verdict = judge(changed(observation(), program, old, new))
    assert verdict.outcome == "REFUTED"
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("at", "field"), [(0, "integer"), (3, "integer"), (4, "length"), (5, "length"), (6, "text"), (10, "text"), (11, "text")]
)
def test_one_wrong_byte_on_the_wire_refutes_whatever_the_programs_say(at: int, field: str) -> None:
    wire = bytearray(message(INTEGER, TEXT) + b"!")
    wire[at] ^= 1
    if at < 11:
        del wire[11]
    verdict = judge(replace(observation(), wire=bytes(wire)))
    assert verdict.outcome == "REFUTED"
    assert f"the {field} on the wire" in verdict.reason


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (replace(observation(), wire=None, wire_problem="no data was captured at the client's port"), "no data was captured"),
        (replace(observation(), server_run=Run(139, b"listening 28080\n", b"")), "the server ended with exit code 139"),
        (replace(observation(), server_run=Run(1, b"", b"exchange-server: bind: Address already in use (EADDRINUSE)\n")), "EADDRINUSE"),
        (replace(observation(), client_run=Run(1, b"byte-order little\n", b"connect: Connection refused\n")), "Connection refused"),
        (replace(observation(), client_run=Run(None, b"", b"", "not within 15 s")), "the client did not end: not within 15 s"),
        (replace(observation(), client_run=None, server_run=Run(None, b"", b"", "no such host")), "the server did not end: no such host"),
        (replace(observation(), client_run=Run(139, observation().client_run.stdout, b"")), "the client ended with exit code 139"),  # type: ignore[union-attr]
        (replace(observation(), server_run=Run(139, observation().server_run.stdout, b"")), "the server ended with exit code 139"),
        (changed(observation(), "server", b"byte-order big", b"byte-order little"), "host big-b is little-endian, and the lab says big"),
        (changed(observation(), "client", b"memory 04", b"memory 05"), "05 03 02 01 in memory"),
        (changed(observation(), "client", b"acknowledged yes\n", b""), "the client ended with exit code 0"),
        (changed(observation(), "server", b"complete yes\n", b""), "the server ended with exit code 0"),
    ],
)
def test_what_did_not_run_to_its_end_is_inconclusive_and_never_holds(seen: Observation, reason: str) -> None:
    verdict = judge(seen)
    assert verdict.outcome == "INCONCLUSIVE"
    assert reason in verdict.reason
    assert not all_hold(result_of(seen))


@given(st.binary(max_size=200))
def test_any_output_of_a_program_is_judged_without_an_error(output: bytes) -> None:
    Told.of(output)
    for word in (b"integer ", b"memory ", b"received ", b"text ", b""):
        assert judge(replace(observation(), server_run=Run(0, word + output, b""))).outcome == "INCONCLUSIVE"


def test_a_result_becomes_json() -> None:
    data = json.loads(json.dumps(result_of(observation(), replace(observation(), client_run=None, wire=None)).as_json()))
    first, second = data["exchanges"]
    assert first["verdict"] == "HOLDS"
    assert first["memory"] == "04 03 02 01"
    assert first["wire"] == "01 02 03 04 00 05 68 65 6c 6c 6f"
    assert first["server_integer"] == INTEGER
    assert (second["verdict"], second["wire"], second["runs"]["client"]) == ("INCONCLUSIVE", None, None)


# Choosing


def candidate(name: str, byte_order: ByteOrder, *networks: str, kind: str = "") -> Candidate:
    return Candidate(name, kind or KIND[byte_order], byte_order, {network: (ip_address("10.0.0.1"),) for network in networks})


def names(pairs: Sequence[tuple[Candidate, Candidate]]) -> list[tuple[str, str]]:
    return [(client.name, server.name) for client, server in pairs]


def test_two_hosts_of_each_byte_order_make_four_pairs() -> None:
    hosts = [candidate("big-a", "big", "lan"), candidate("big-b", "big", "lan"), candidate("little-a", "little", "lan")]
    pairs, missing = choose([*hosts, candidate("little-b", "little", "lan")])
    assert names(pairs) == [("little-a", "little-b"), ("little-a", "big-a"), ("big-a", "little-a"), ("big-a", "big-b")]
    assert missing == []


def test_every_two_kinds_of_host_meet_each_way_and_the_table_goes_by_byte_order() -> None:
    hosts = [candidate("vm", "big", "lan", kind="vm"), candidate("big", "big", "lan")]
    pairs, missing = choose([*hosts, candidate("a", "little", "lan"), candidate("b", "little", "lan")])
    assert names(pairs) == [("a", "b"), ("a", "big"), ("a", "vm"), ("big", "a"), ("vm", "a"), ("big", "vm"), ("vm", "big")]
    assert missing == []


def test_guests_of_both_byte_orders_are_two_kinds_of_host() -> None:
    hosts = [candidate("a", "little", "lan"), candidate("big", "big", "lan", kind="vm"), candidate("little", "little", "lan", kind="vm")]
    pairs, missing = choose(hosts)
    assert names(pairs) == [("a", "little"), ("little", "a"), ("a", "big"), ("little", "big"), ("big", "a"), ("big", "little")]
    assert [one.reason for one in missing] == ["the lab has one big-endian host only"]


@given(st.lists(st.sampled_from([("little", "native"), ("big", "emulated"), ("little", "vm"), ("big", "vm")]), max_size=8))
def test_each_pair_of_kinds_is_chosen_once_or_its_byte_orders_are_missing(kinds: list[tuple[ByteOrder, str]]) -> None:
    pairs, missing = choose([candidate(f"h{number}", order, "lan", kind=kind) for number, (order, kind) in enumerate(kinds)])
    chosen = [((client.byte_order, client.kind), (server.byte_order, server.kind)) for client, server in pairs]
    possible = {(one, other) for one, other in product(kinds, repeat=2) if one != other or kinds.count(one) > 1}
    assert sorted(chosen) == sorted(possible)
    orders = {(client[0], server[0]) for client, server in possible}
    assert orders.isdisjoint((one.client_order, one.server_order) for one in missing)
    assert len(orders) + len(missing) == len(COMBINATIONS)


def test_what_cannot_be_combined_is_said_with_the_reason() -> None:
    pairs, missing = choose([candidate("a", "little", "lan"), candidate("b", "big", "lan")])
    assert names(pairs) == [("a", "b"), ("b", "a")]
    assert [one.reason for one in missing] == ["the lab has one little-endian host only", "the lab has one big-endian host only"]
    _, missing = choose([candidate("a", "little", "lan"), candidate("c", "little", "lan"), candidate("b", "big")])
    assert {one.reason for one in missing} == {"the lab has no big-endian host on a network"}


def test_a_pair_on_one_network_comes_before_one_with_a_router_between() -> None:
    hosts = [candidate("a", "little", "left"), candidate("b", "little", "right"), candidate("c", "little", "left")]
    ((client, server),), _ = choose(hosts)
    assert (client.name, server.name) == ("a", "c")
    ((client, server),), _ = choose(hosts[:2])
    assert (client.name, server.name) == ("a", "b")


def test_a_server_is_found_on_the_clients_network_over_ipv4() -> None:
    four, six, other = ip_address("10.1.0.3"), ip_address("fd00::3"), ip_address("10.2.0.3")
    server = {"far": (other,), "near": (six, four)}
    assert server_address({"near": ()}, server) == four
    assert server_address({"near": ()}, {"far": (other,), "near": (six,)}) == six
    assert server_address({"elsewhere": ()}, server) == other


@pytest.mark.parametrize(
    ("integer", "text", "words"),
    [
        (-1, "x", "does not fit into 4 bytes"),
        (2**32, "x", "does not fit into 4 bytes"),
        (0, "x", "same bytes in both byte orders"),
        (0x01020201, "x", "same bytes in both byte orders"),
        (1, "a\0b", "NUL"),
        (1, "x" * 65536, "65536 bytes"),
        (1, "\udcff", "UTF-8"),
    ],
)
def test_a_message_that_cannot_be_sent_or_shows_nothing_is_refused(integer: int, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_message(integer, text)


def test_any_other_message_goes_in_utf8() -> None:
    assert check_message(1, "Grüße") == "Grüße".encode()
    assert check_message(2**32 - 2, "") == b""
