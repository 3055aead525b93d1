"""Bytes of a stream come back whatever was done to its segments on the way."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.capture import Packet
from testbed.network import Endpoint
from testbed.wire import ACK, FIN, RST, SEQUENCES, SYN, Datagram, Segment, conversations, datagrams, group, reassemble

CLIENT = Endpoint(ip_address("10.1.0.2"), 40000)
SERVER = Endpoint(ip_address("10.1.0.3"), 8001)


def segment(sequence: int, data: bytes = b"", flags: int = ACK, *, back: bool = False) -> Segment:
    source, destination = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    return Segment(source, destination, sequence % SEQUENCES, flags, data)


def cut(data: bytes, cuts: list[int], first: int) -> list[Segment]:
    """A whole stream as segments: SYN, the data cut at these places, FIN with the last of it."""
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    pieces = [segment(first + 1 + begin, data[begin:end]) for begin, end in pairwise(places)]
    return [segment(first, flags=SYN), *pieces, segment(first + 1 + len(data), flags=FIN | ACK)]


@given(
    data=st.binary(max_size=300),
    cuts=st.lists(st.integers(0, 1000), max_size=12),
    first=st.integers(0, SEQUENCES - 1) | st.integers(SEQUENCES - 200, SEQUENCES - 1),
    again=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_any_segmentation_duplication_and_order_gives_the_same_bytes(
    data: bytes, cuts: list[int], first: int, again: list[tuple[int, int]], order: object
) -> None:
    segments = cut(data, cuts, first)
    segments += [segment(first + 1 + begin, data[begin : begin + size]) for begin, size in again if begin < len(data)]
    order.shuffle(segments)  # type: ignore[attr-defined]
    stream = reassemble(segments)
    assert stream.data == data
    assert stream.whole
    assert stream.gaps == ()


@given(data=st.binary(min_size=3, max_size=300), begin=st.integers(0, 298), size=st.integers(1, 50), first=st.integers(0, SEQUENCES - 1))
def test_what_is_missing_is_a_gap_and_never_made_up(data: bytes, begin: int, size: int, first: int) -> None:
    begin %= len(data)
    end = min(begin + size, len(data))
    segments = [
        segment(first, flags=SYN),
        segment(first + 1, data[:begin]),
        segment(first + 1 + end, data[end:]),
        segment(first + 1 + len(data), flags=FIN),
    ]
    stream = reassemble(segments)
    assert stream.data == data[:begin]
    assert stream.gaps == ((begin, end),)
    assert not stream.whole


@pytest.mark.parametrize("first", [7, SEQUENCES - 3])
def test_a_retransmission_with_other_bytes_is_noticed(first: int) -> None:
    segments = [*cut(b"the same", [], first), segment(first + 1 + 4, b"lame")]
    assert not reassemble(segments).consistent
    assert not reassemble(segments).whole


def test_bytes_behind_the_fin_are_a_contradiction() -> None:
    assert not reassemble([*cut(b"abc", [], 5), segment(5 + 1 + 3, b"d")]).consistent
    assert not reassemble([*cut(b"abc", [], 5), segment(5 + 1 + 2, flags=FIN)]).consistent


def test_a_stream_without_its_syn_begins_at_the_first_byte_seen() -> None:
    stream = reassemble([segment(103, b"def"), segment(100, b"abc"), segment(106, flags=FIN)])
    assert (stream.data, stream.opened, stream.finished, stream.whole) == (b"abcdef", False, True, False)


def test_a_stream_without_a_fin_is_not_finished() -> None:
    stream = reassemble([segment(0, flags=SYN), segment(1, b"abc")])
    assert (stream.data, stream.finished, stream.gaps) == (b"abc", False, ())


def test_pure_acknowledgements_and_resets_take_no_place_in_the_stream() -> None:
    stream = reassemble([*cut(b"abc", [1], 2**31), segment(5), segment(0, flags=RST | ACK), segment(2**31 + 2, b"bc")])
    assert stream.data == b"abc"
    assert stream.whole


def test_a_stream_may_be_longer_than_the_sequence_numbers_reach() -> None:
    step = 1 << 30  # only the numbers go that far, bytes are few
    far = [segment(0, flags=SYN), *(segment(1 + number * step, b"x") for number in range(6))]
    gaps = reassemble(far).gaps
    assert gaps[-1][1] == 5 * step
    assert 5 * step > SEQUENCES


def test_both_directions_of_a_connection_make_a_conversation() -> None:
    there = cut(b"question", [3], 100)
    back = [segment(900, flags=SYN | ACK, back=True), segment(901, b"answer", back=True), segment(907, flags=FIN, back=True)]
    (talk,) = group([there[0], back[0], *there[1:], *back[1:]])
    assert (talk.client, talk.server) == (CLIENT, SERVER)
    assert (talk.sent.data, talk.received.data) == (b"question", b"answer")
    assert talk.sent.whole
    assert talk.received.whole
    assert not talk.reset


def test_the_client_is_who_sent_the_syn_also_when_only_its_answer_was_seen() -> None:
    (talk,) = group([segment(900, flags=SYN | ACK, back=True), segment(101, b"x")])
    assert talk.client == CLIENT


def test_the_same_ports_again_are_another_connection_and_a_repeated_syn_is_none() -> None:
    first, second = cut(b"one", [], 100), cut(b"two", [], 5000)
    talks = group([first[0], first[0], *first[1:], *second])
    assert [talk.sent.data for talk in talks] == [b"one", b"two"]


def test_a_reset_is_seen() -> None:
    (talk,) = group([segment(100, flags=SYN), segment(0, flags=RST | ACK, back=True)])
    assert talk.reset
    assert not talk.sent.whole


# Packets: headers written here by hand, so that the reading is not checked against itself.


def ipv4(payload: bytes, protocol: int, *, number: int = 0, offset: int = 0, more: bool = False, length: int | None = None) -> Packet:
    total = 20 + len(payload) if length is None else length
    fragment = (0x2000 if more else 0) | offset // 8
    header = struct.pack(">BBHHHBBH", 0x45, 0, total, number, fragment, 64, protocol, 0) + CLIENT.address.packed + SERVER.address.packed
    return Packet(1.5, "ethernet", None, b"", 0x0800, header + payload)


def ipv6(payload: bytes, first_header: int) -> Packet:
    addresses = ip_address("fd00::2").packed + ip_address("fd00::3").packed
    return Packet(1.5, "ethernet", None, b"", 0x86DD, struct.pack(">IHBB", 6 << 28, len(payload), first_header, 64) + addresses + payload)


def tcp(sequence: int, flags: int, data: bytes = b"") -> bytes:
    return struct.pack(">HHIIBBHHH", 40000, 8001, sequence, 0, 5 << 4, flags, 1000, 0, 0) + data


def udp(data: bytes) -> bytes:
    return struct.pack(">HHHH", 40000, 8001, 8 + len(data), 0) + data


@pytest.mark.parametrize("build", [ipv4, ipv6])
def test_segments_are_read_from_packets_of_both_versions_of_ip(build: object) -> None:
    packets = [build(tcp(9, SYN), 6), build(tcp(10, ACK, b"hello"), 6), build(tcp(15, FIN | ACK), 6)]  # type: ignore[operator]
    (talk,) = conversations(packets)
    assert talk.sent.data == b"hello"
    assert talk.sent.whole
    assert talk.server.port == 8001


def test_padding_of_a_short_frame_is_not_data() -> None:
    packet = ipv4(tcp(10, SYN) + b"\0" * 6, 6, length=40)
    (talk,) = conversations([packet])
    assert talk.sent.data == b""


def test_a_segment_that_the_capture_cut_short_leaves_a_gap() -> None:
    packets = [ipv4(tcp(9, SYN), 6), ipv4(tcp(10, FIN, b"hel"), 6, length=20 + 20 + 5), ipv4(tcp(15, ACK, b"!"), 6)]
    (talk,) = conversations(packets)
    assert talk.sent.data == b"hel"
    assert talk.sent.gaps == ((3, 5),)
    assert not talk.sent.finished


def test_udp_is_read_datagram_by_datagram_also_an_empty_one() -> None:
    found = datagrams([ipv4(udp(b"one"), 17), ipv4(udp(b""), 17), ipv6(udp(b"two"), 17), ipv4(tcp(1, SYN), 6)])
    assert [one.data for one in found] == [b"one", b"", b"two"]
    assert found[0] == Datagram(CLIENT, SERVER, b"one", time_s=1.5)
    assert all(one.whole for one in found)


def test_a_datagram_that_the_capture_cut_short_says_so() -> None:
    whole = udp(b"0123456789")
    (found,) = datagrams([ipv4(whole[:12], 17, length=20 + len(whole))])
    assert (found.data, found.whole) == (b"0123", False)


@given(size=st.integers(20, 400), step=st.integers(1, 12), order=st.randoms(use_true_random=False))
def test_ip_fragments_are_put_together_in_any_order(size: int, step: int, order: object) -> None:
    data = bytes(number % 251 for number in range(size))
    whole = udp(data)
    places = range(0, len(whole), 8 * step)
    four = [ipv4(whole[at : at + 8 * step], 17, number=7, offset=at, more=at + 8 * step < len(whole)) for at in places]
    six = [
        ipv6(struct.pack(">BBHI", 17, 0, at | (at + 8 * step < len(whole)), 7) + whole[at : at + 8 * step], 44) for at in places
    ]  # fmt: skip
    packets = [*four, *six]
    order.shuffle(packets)  # type: ignore[attr-defined]
    assert [one.data for one in datagrams(packets)] == [data, data]


def test_a_datagram_with_a_fragment_missing_is_not_there() -> None:
    whole = udp(bytes(40))
    packets = [ipv4(whole[:16], 17, number=1, more=True), ipv4(whole[24:], 17, number=1, offset=24)]
    assert datagrams(packets) == []


@given(st.binary(max_size=80), st.sampled_from([0x0800, 0x86DD, 0x0806]))
def test_any_bytes_are_read_without_an_error(payload: bytes, ethertype: int) -> None:
    packets = [Packet(0.0, "ethernet", None, b"", ethertype, payload)]
    conversations(packets)
    datagrams(packets)
