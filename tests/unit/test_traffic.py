"""Packets of a capture as rows of a record: who sent what to whom, relative numbers, which were dropped."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from testbed.capture import Packet
from testbed.network import Endpoint
from testbed.observe import Socket
from testbed.traffic import Drop, Event, Look, Traffic, events_of, row_of, set_of_dropped, undecided

CLIENT, SERVER = "10.77.1.2", "10.77.1.3"
ROLES = {CLIENT: "client", SERVER: "server"}
SYN, ACK, PSH, FIN = 0x02, 0x10, 0x08, 0x01


def packet(time_s: float, source: str, destination: str, protocol: int, rest: bytes, *, number: int = 0, fragment: int = 0) -> Packet:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(rest), number, fragment, 64, protocol, 0)
    return Packet(time_s, "ethernet", None, b"", 0x0800, head + ip_address(source).packed + ip_address(destination).packed + rest)


def tcp(
    time_s: float,
    flags: int,
    sequence: int,
    acknowledged: int,
    *,
    back: bool = False,
    data: bytes = b"",
    number: int = 0,
    port: int = 15001,
) -> Packet:
    ports = (20000, port) if back else (port, 20000)
    rest = struct.pack("!HHIIBBHHH", *ports, sequence % 2**32, acknowledged % 2**32, 5 << 4, flags, 1024, 0, 0) + data
    ends = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    return packet(time_s, *ends, 6, rest)


def udp(time_s: float, data: bytes, *, number: int = 0) -> Packet:
    return packet(time_s, CLIENT, SERVER, 17, struct.pack("!HHHH", 40000, 20000, 8 + len(data), 7) + data, number=number)


def key_of(packet_: Packet, *, words: tuple[int, int, int] = (0, 4, 12)) -> tuple[int, int, int, int]:
    data = packet_.payload[20:]
    first, second, third = (int.from_bytes(data[at : at + 4], "big") for at in words)
    return int.from_bytes(packet_.payload[4:6], "big"), first, second, third


def test_a_handshake_has_numbers_that_count_from_each_syn() -> None:
    packets = [
        tcp(100.5, SYN, 4_294_967_295, 0),
        tcp(100.6, SYN | ACK, 1000, 0, back=True),
        tcp(100.7, ACK | PSH, 0, 1001, data=b"hello"),
        tcp(100.8, ACK, 1001, 5, back=True),
    ]
    found = events_of(packets, ROLES, [], begin_s=100)
    assert found[0] == Event(0.5, "client", "server", "TCP", 15001, 20000, "SYN", 0)
    assert [(one.sender, one.flags, one.sequence, one.acknowledged, one.size) for one in found] == [
        ("client", "SYN", 0, None, 0),
        ("server", "SYN ACK", 0, 1, 0),
        ("client", "PSH ACK", 1, 1, 5),
        ("server", "ACK", 1, 6, 0),
    ]


def test_a_connection_whose_syn_was_not_seen_counts_from_what_was() -> None:
    found = events_of([tcp(1, ACK, 500, 900), tcp(2, FIN | ACK, 900, 500, back=True)], ROLES, [], begin_s=0)
    assert [(one.sequence, one.acknowledged) for one in found] == [(0, 1), (1, 0)]


def test_the_first_of_packets_that_are_alike_are_the_dropped_ones() -> None:
    again = [tcp(at, SYN | ACK, 1000, 1, back=True) for at in (1.0, 2.0, 3.0)]
    drops = [Drop(1.1, "client", "in", "tcp", key_of(again[0]), 1), Drop(2.1, "client", "in", "tcp", key_of(again[0]), 1)]
    found = events_of(again, ROLES, drops, begin_s=0)
    assert [one.lost for one in found] == ["in", "in", ""]
    assert undecided(found, drops, "client") == 0


def test_what_the_other_hosts_firewall_dropped_is_another_packet() -> None:
    one = tcp(1.0, SYN, 1000, 1)
    drops = [Drop(1.1, "client", "in", "tcp", key_of(one), 1)]
    found = events_of([one], ROLES, drops, begin_s=0)
    assert [event.lost for event in found] == [""]
    assert undecided(found, drops, "client") == 1


def test_what_was_dropped_on_its_way_out_is_there_though_nobody_captured_it() -> None:
    held = tcp(1.5, ACK, 5001, 9001)
    packets = [tcp(1.0, SYN, 5000, 0), tcp(1.1, SYN | ACK, 9000, 5001, back=True)]
    found = events_of(packets, ROLES, [Drop(1.2, "client", "out", "tcp", key_of(held), 1)], begin_s=0)
    assert found[-1] == Event(1.2, "client", "server", "TCP", 15001, 20000, "ACK", 1, lost="out")


def test_datagrams_are_told_apart_by_what_is_in_them() -> None:
    sent = [udp(index / 10, index.to_bytes(4, "big")) for index in range(4)]
    drops = [Drop(1, "server", "in", "udp", key_of(sent[2], words=(0, 4, 8)), 1)]
    found = events_of(sent, ROLES, drops, begin_s=0)
    assert [(one.protocol, one.size, one.lost) for one in found] == [("UDP", 4, ""), ("UDP", 4, ""), ("UDP", 4, "in"), ("UDP", 4, "")]


def test_an_empty_datagram_a_fragment_a_refusal_and_a_stranger() -> None:
    refusal = packet(3, SERVER, CLIENT, 1, bytes([3, 3]) + bytes(6) + bytes(28))
    found = events_of(
        [udp(1, b""), packet(2, CLIENT, SERVER, 17, bytes(100), fragment=185), refusal, packet(4, "10.9.9.9", SERVER, 17, bytes(20))],
        ROLES,
        [],
        begin_s=0,
    )
    assert [(one.protocol, one.size, one.what) for one in found] == [
        ("UDP", 0, ""),
        ("IP", 100, "fragment from byte 1480"),
        ("ICMP", 28, "port unreachable"),
    ]


def test_a_packet_that_is_cut_short_breaks_nothing() -> None:
    whole = tcp(1, SYN, 1, 0)
    for size in range(len(whole.payload)):
        cut = Packet(1, "ethernet", None, b"", 0x0800, whole.payload[:size])
        assert len(events_of([cut], ROLES, [], begin_s=0)) == (1 if size >= 20 else 0)


def test_traffic_is_read_as_it_was_written() -> None:
    socket = Socket("tcp", "IPv4", "LISTEN", Endpoint(ip_address(SERVER), 20000), None, 1, 8)
    traffic = Traffic([Event(1.0, "client", "server", "UDP")], [Look(1.0, 2, {"server": [row_of(socket)]})], 3, ("note",))
    assert Traffic.from_json(traffic.as_json()) == traffic
    assert row_of(socket)["state"] == "LISTEN"


def test_firewalls_note_by_four_parts_at_most() -> None:
    for protocol in ("tcp", "udp"):
        made, noted = set_of_dropped("dropped", protocol)
        assert made.count(" . ") == 3
        assert noted.startswith("add @dropped { ip id . @th,0,32 . @th,32,32 . ")
