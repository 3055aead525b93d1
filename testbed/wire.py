"""Conversations from packets: the bytes of each direction of a TCP connection in order, and UDP datagram by datagram.

Pure. What was retransmitted, overlaps, came out of order or in IP fragments is put together; what is not there is said,
never made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any

from testbed.capture import Packet
from testbed.network import Address, Endpoint

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
SEQUENCES = 1 << 32
_IPV4, _IPV6 = 0x0800, 0x86DD
_FRAGMENT_HEADER = 44
_EXTENSIONS = (0, 43, _FRAGMENT_HEADER, 60)  # hop-by-hop, routing, fragment, destination options
_TCP, _UDP, _ICMP, _IGMP, _ICMPV6 = 6, 17, 1, 2, 58
# Types of ICMP that no program asks for: errors (RFC 792, RFC 4443), echo replies, multicast listeners and neighbours (RFC 4861).
_KERNELS_OWN: dict[int, tuple[int, ...]] = {_ICMP: (0, 3, 4, 5, 11, 12), _ICMPV6: (*range(5), 129, *range(130, 138), 143)}


@dataclass(frozen=True)
class Segment:
    """A TCP segment. ``interface``: see :class:`testbed.capture.Packet`."""

    source: Endpoint
    destination: Endpoint
    sequence: int
    flags: int
    data: bytes
    time_s: float = 0.0
    interface: int | None = None


@dataclass(frozen=True)
class Datagram:
    """A UDP datagram, put together if it came in fragments; not ``whole`` when the capture has less of it than was sent."""

    source: Endpoint
    destination: Endpoint
    data: bytes
    whole: bool = True
    time_s: float = 0.0
    interface: int | None = None


@dataclass(frozen=True)
class Stream:
    """What one side of a TCP connection sent. ``data`` are its bytes from the first one to the first gap."""

    data: bytes
    opened: bool
    """Its SYN was seen, so ``data`` begins with the first byte of the stream."""
    finished: bool
    """Its FIN follows directly on ``data``."""
    gaps: tuple[tuple[int, int], ...] = ()
    """Missing ranges (begin, end) by position in the stream, while later bytes or the FIN are there."""
    consistent: bool = True
    """Bytes that came more than once were the same each time (else ``data`` has one of the versions)."""

    @property
    def whole(self) -> bool:
        """From SYN to FIN, all of it, without a contradiction."""
        return self.opened and self.finished and self.consistent


@dataclass(frozen=True)
class Conversation:
    """One TCP connection. The client is who sent the SYN; where no SYN was seen, who was seen first."""

    client: Endpoint
    server: Endpoint
    sent: Stream
    """From client to server."""
    received: Stream
    """From server to client."""
    reset: bool
    segments: tuple[Segment, ...] = field(repr=False)


def reassemble(segments: Iterable[Segment]) -> Stream:
    """The stream that the segments of one direction of one connection carry, whatever their order and overlaps.

    Positions are counted modulo 2^32 relative to the segment before (RFC 9293, section 3.4), so the order may be off by
    up to 2 GiB of stream. A SYN and a FIN take one place each.
    """
    begin: int | None = None
    finishes: set[int] = set()
    pieces: list[tuple[int, bytes]] = []
    near: int | None = None
    for one in segments:
        if one.flags & RST or not (one.data or one.flags & (SYN | FIN)):
            continue  # takes no place in the stream; a reset's number may be any
        near = one.sequence if near is None else near + _distance(near, one.sequence)
        at = near
        if one.flags & SYN:
            at += 1
            begin = at
        if one.data:
            pieces.append((at, one.data))
        if one.flags & FIN:
            finishes.add(at + len(one.data))
    pieces.sort(key=lambda piece: piece[0])
    opened = begin is not None
    if begin is None:
        begin = pieces[0][0] if pieces else min(finishes, default=0)
    data, gaps, consistent = _joined(pieces, begin)
    end = begin + len(data)
    last = max([at + len(piece) for at, piece in pieces], default=begin)
    finish = max(finishes, default=None)
    if finish is not None and finish > max(last, begin):
        gaps.append((max(last, begin) - begin, finish - begin))
    return Stream(
        data=data,
        opened=opened,
        finished=finish == end,
        gaps=tuple(gaps),
        consistent=consistent and len(finishes) < 2 and (finish is None or finish >= last),
    )


def _distance(here: int, sequence: int) -> int:
    """The way from a position to the nearest one with this sequence number."""
    return (sequence - here + SEQUENCES // 2) % SEQUENCES - SEQUENCES // 2


def _joined(pieces: Sequence[tuple[int, bytes]], begin: int) -> tuple[bytes, list[tuple[int, int]], bool]:
    """Pieces in order of position: the bytes from ``begin`` to the first gap, the gaps, whether all overlaps agree."""
    runs: list[tuple[int, bytearray]] = [(begin, bytearray())]
    consistent = True
    for at, piece in pieces:
        if at < begin:  # a keep-alive's byte before the window, or bytes before the SYN
            piece, at = piece[begin - at :], begin  # noqa: PLW2901
            if not piece:
                continue
        start, run = runs[-1]
        end = start + len(run)
        if at > end:
            runs.append((at, bytearray(piece)))
            continue
        known = piece[: end - at]
        consistent &= run[at - start : at - start + len(known)] == known
        run += piece[len(known) :]
    gaps = [(start + len(run) - begin, after - begin) for (start, run), (after, _) in pairwise(runs)]
    return bytes(runs[0][1]), gaps, consistent


def conversations(packets: Iterable[Packet]) -> list[Conversation]:
    """Every TCP connection in a capture, in the order of their first segments. The same ports again, with a new SYN, are a new one."""
    return group(segments_of(packets))


def group(segments: Iterable[Segment]) -> list[Conversation]:
    """Segments to connections."""
    all_of_them: list[list[Segment]] = []
    current: dict[frozenset[Endpoint], tuple[list[Segment], dict[Endpoint, int]]] = {}
    for one in segments:
        key = frozenset((one.source, one.destination))
        if key not in current or (one.flags & (SYN | ACK) == SYN and current[key][1].get(one.source, one.sequence) != one.sequence):
            current[key] = ([], {})
            all_of_them.append(current[key][0])
        members, openings = current[key]
        members.append(one)
        if one.flags & SYN:
            openings[one.source] = one.sequence
    return [_conversation(members) for members in all_of_them]


def _conversation(segments: Sequence[Segment]) -> Conversation:
    client, server = segments[0].source, segments[0].destination
    for one in segments:
        if one.flags & SYN:
            client, server = (one.destination, one.source) if one.flags & ACK else (one.source, one.destination)
            break
    return Conversation(
        client=client,
        server=server,
        sent=reassemble(one for one in segments if one.source == client),
        received=reassemble(one for one in segments if one.source != client),
        reset=any(one.flags & RST for one in segments),
        segments=tuple(segments),
    )


def segments_of(packets: Iterable[Packet]) -> Iterator[Segment]:
    """The TCP segments among packets. One that the capture cut short leaves a gap where its bytes are missing."""
    import dpkt  # type: ignore[import-untyped]

    for one in _payloads(packets, _TCP):
        try:
            tcp = dpkt.tcp.TCP(one.data)
        except dpkt.dpkt.Error:
            continue  # not even a header of it was captured
        flags = tcp.flags & (FIN | SYN | RST | ACK)
        if one.whole:
            yield Segment(Endpoint(one.source, tcp.sport), Endpoint(one.destination, tcp.dport), tcp.seq, flags, tcp.data, *one.seen)
        else:  # where its end, and so a FIN, belongs is not known from what is there
            ends = Endpoint(one.source, tcp.sport), Endpoint(one.destination, tcp.dport)
            yield Segment(*ends, tcp.seq, flags & ~FIN, tcp.data, *one.seen)


def as_json(packets: Sequence[Packet]) -> dict[str, object]:
    """TCP segments and UDP datagrams as they were seen, data as hexadecimal digits, for programs."""

    def row(one: Segment | Datagram) -> dict[str, object]:
        return {"time_s": one.time_s, "source": str(one.source), "destination": str(one.destination), "data": one.data.hex()}

    names = {SYN: "SYN", FIN: "FIN", RST: "RST", ACK: "ACK"}
    return {
        "packets": len(packets),
        "tcp": [
            {**row(one), "sequence": one.sequence, "flags": [name for bit, name in names.items() if one.flags & bit]}
            for one in segments_of(packets)
        ],
        "udp": [{**row(one), "whole": one.whole} for one in datagrams(packets)],
    }


def datagrams(packets: Iterable[Packet]) -> list[Datagram]:
    """The UDP datagrams in a capture, each where its last fragment was seen."""
    found = []
    for one in _payloads(packets, _UDP):
        if len(one.data) < 8:
            continue
        source, destination, size = (int.from_bytes(one.data[at : at + 2], "big") for at in (0, 2, 4))
        data = one.data[8:size] if size >= 8 else one.data[8:]
        ends = Endpoint(one.source, source), Endpoint(one.destination, destination)
        found.append(Datagram(*ends, data, one.whole and len(data) == max(size, 8) - 8, *one.seen))
    return found


@dataclass(frozen=True)
class _Payload:
    """What IP carries, fragments joined. ``whole``: all of it is there. ``seen``: (time_s, interface)."""

    source: Address
    destination: Address
    data: bytes
    whole: bool
    seen: tuple[float, int | None]
    protocol: int


@dataclass
class _Fragments:
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int | None = None  # known from the last fragment

    def joined(self) -> bytes | None:
        """The datagram, once every byte of it is there."""
        data, gaps, _ = _joined(sorted(self.pieces.items()), 0)
        return data if self.size is not None and not gaps and len(data) >= self.size else None


@dataclass(frozen=True)
class Bare:
    """What an IP packet carries that is neither TCP nor UDP, for the ``protocol`` of that number; see :class:`Datagram`."""

    source: Address
    destination: Address
    protocol: int
    data: bytes
    whole: bool
    time_s: float


def bare(packets: Iterable[Packet]) -> list[Bare]:
    """What IP packets carry beside TCP and UDP, without what kernels send by themselves: errors, neighbours and multicast groups."""
    found = _payloads(packets, None)
    return [
        Bare(one.source, one.destination, one.protocol, one.data, one.whole, one.seen[0])
        for one in found
        if one.data and one.data[0] not in _KERNELS_OWN.get(one.protocol, ()) and one.protocol != _IGMP
    ]


def _payloads(packets: Iterable[Packet], protocol: int | None) -> Iterator[_Payload]:
    """What the IPv4 and IPv6 packets among ``packets`` carry for one protocol; None means all but TCP and UDP."""
    waiting: dict[tuple[Any, ...], _Fragments] = {}
    for packet in packets:
        part = part_of(packet)
        if part is None or (part.protocol in (_TCP, _UDP) if protocol is None else part.protocol != protocol):
            continue
        seen = (packet.time_s, packet.interface)
        if not part.offset and not part.more:
            yield _Payload(part.source, part.destination, part.data, part.size is None or len(part.data) == part.size, seen, part.protocol)
            continue
        # The same packet may be seen at several devices: there it is several packets.
        key = (part.source, part.destination, part.number, packet.interface)
        fragments = waiting.setdefault(key, _Fragments())
        fragments.pieces.setdefault(part.offset, part.data)
        if not part.more:
            fragments.size = part.offset + (len(part.data) if part.size is None else part.size)
        if (joined := fragments.joined()) is not None:
            del waiting[key]
            yield _Payload(part.source, part.destination, joined, True, seen, part.protocol)


@dataclass(frozen=True)
class Part:
    """What one IP packet carries: all of a datagram, or the fragment at ``offset``. ``size`` is what its header says, if it does;
    ``number`` its identification."""

    source: Address
    destination: Address
    protocol: int
    data: bytes
    size: int | None
    number: int = 0
    offset: int = 0
    more: bool = False


def part_of(packet: Packet) -> Part | None:
    """What an IPv4 or IPv6 packet carries; None of any other, and of one whose header is not whole."""
    read = {_IPV4: _ipv4, _IPV6: _ipv6}.get(packet.ethertype)
    return read(packet.payload) if read else None


def _ipv4(packet: bytes) -> Part | None:
    """RFC 791, section 3.1. A length of 0 is what segmentation offload may leave."""
    if len(packet) < 20:
        return None
    header = (packet[0] & 0x0F) * 4
    length, number, fragment = (int.from_bytes(packet[at : at + 2], "big") for at in (2, 4, 6))
    if packet[0] >> 4 != 4 or header < 20 or 0 < length < header:
        return None
    data = packet[header : length or None]
    size = length - header if length else None
    source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    return Part(source, destination, packet[9], data, size, number, (fragment & 0x1FFF) * 8, bool(fragment & 0x2000))


def _ipv6(packet: bytes) -> Part | None:
    """RFC 8200, sections 3 and 4; the header walk ends at the first one that is no extension header, or in a later fragment."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    length, header, at = int.from_bytes(packet[4:6], "big"), packet[6], 40
    end = 40 + length if length else None
    number, offset, more = 0, 0, False
    while header in _EXTENSIONS and not offset:
        if len(packet) < at + 8:
            return None
        if header == _FRAGMENT_HEADER:
            place = int.from_bytes(packet[at + 2 : at + 4], "big")
            number, offset, more = int.from_bytes(packet[at + 4 : at + 8], "big"), place & 0xFFF8, bool(place & 1)
            size = 8
        else:
            size = 8 + 8 * packet[at + 1]
        header, at = packet[at], at + size
    if end is not None and at > end:
        return None
    source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    return Part(source, destination, header, packet[at:end], None if end is None else end - at, number, offset, more)
