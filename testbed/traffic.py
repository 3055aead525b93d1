"""What happened on a lab's network and in its hosts while something was done there: packets, sockets, and what firewalls dropped.

Pure: rows of a record (JSON) are made of what was captured, and read again. Times are in seconds since the beginning, sequence numbers
count from each side's SYN (RFC 9293, section 3.4), or from the first number seen of a connection whose SYN was not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from testbed.capture import Packet
from testbed.observe import Socket, State
from testbed.wire import Part, part_of

ICMP, TCP, UDP = 1, 6, 17
FLAGS = ((0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"))
SEQUENCES = 1 << 32
MOST_EVENTS = 100  # of a cell, kept in its record

# RFC 792
_ICMP = {(0, 0): "echo reply", (8, 0): "echo request", (11, 0): "time exceeded"}
_UNREACHABLE = {0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable", 4: "too large"}

Key = tuple[int, int, int, int]
"""By which a packet is known again that a firewall dropped: its identification and three words of what follows its IP header."""
# Of TCP: ports, sequence number, and flags with the window. Of UDP: ports, length and checksum, the first bytes of data (so one with
# less than four is not known again). nft 1.0.6 cannot show elements of more than four such parts.
WORDS: Mapping[str, tuple[int, int, int]] = {"tcp": (0, 4, 12), "udp": (0, 4, 8)}
PROTOCOLS = {TCP: "tcp", UDP: "udp"}


@dataclass(frozen=True)
class Event:
    """A packet on its way from one host to another, by their roles. ``flags`` as in "SYN ACK", ``what`` of others than TCP in words.

    ``lost``: "in" where the receiver's firewall dropped it; "out" where the sender's did, so that it never was on the network, and
    ``at_s`` is when that was noticed.
    """

    at_s: float
    sender: str
    receiver: str
    protocol: str
    source_port: int = 0
    destination_port: int = 0
    flags: str = ""
    sequence: int = 0
    acknowledged: int | None = None
    size: int = 0
    """Bytes of data that it carries, without any header."""
    what: str = ""
    lost: str = ""


@dataclass(frozen=True)
class Look:
    """The sockets of all hosts as they were ``at_s``, after so many ``steps``: role -> a row for each socket."""

    at_s: float
    steps: int
    sockets: Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Traffic:
    """All of it. ``left_out`` events came after those that were kept; ``notes`` say what is not known."""

    events: Sequence[Event] = ()
    looks: Sequence[Look] = ()
    left_out: int = 0
    notes: Sequence[str] = field(default=())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Traffic:
        """Raises TypeError and KeyError for what is none."""
        events = [Event(**one) for one in data["events"]]
        return cls(events, [Look(**one) for one in data["looks"]], data["left_out"], tuple(data["notes"]))


Row = Mapping[str, Any]
STATES = dict(enumerate(get_args(State), 1))  # as the kernel numbers them


def row_of(socket: Socket) -> dict[str, Any]:
    """A socket as it is kept: what changes, and what tells it from others."""
    return {
        "protocol": socket.protocol,
        "state": socket.state,
        "port": socket.local.port,
        "peer": socket.peer.port if socket.peer else None,
        "receive_queue": socket.receive_queue,
        # ss has the limit of the accept queue there, and the kernel's own tables have 0
        "send_queue": 0 if socket.state == "LISTEN" else socket.send_queue,
    }


def rows_of_tables(texts: Iterable[str]) -> list[Row]:
    """The same of /proc/net/tcp, tcp6, udp and udp6, each behind a line with its name. Ports and queues are written as numbers, so this
    holds for every byte order (tcp_seq_show, udp4_seq_show)."""
    rows: list[Row] = []
    for text in texts:
        name, _, *lines = text.splitlines()
        for line in lines:
            _, local, remote, state, queues = line.split()[:5]
            waiting, unsent = (int(one, 16) for one in reversed(queues.split(":")))
            rows.append(
                {
                    "protocol": name.removesuffix("6"),
                    "state": STATES[int(state, 16)],
                    "port": int(local.rpartition(":")[2], 16),
                    "peer": int(remote.rpartition(":")[2], 16) or None,
                    "receive_queue": waiting,
                    "send_queue": unsent,
                }
            )
    return rows


def set_of_dropped(name: str, protocol: str) -> tuple[str, str]:
    """For nft(8): a set that firewalls note in what they drop, and the statement that does."""
    parts = " . ".join(["ip id", *(f"@th,{8 * at},32" for at in WORDS[protocol])])
    return f"set {name} {{ typeof {parts}; size 65535; flags dynamic; }}", f"add @{name} {{ {parts} counter }}"


@dataclass(frozen=True)
class Drop:
    """What a role's firewall has dropped alike: ``number`` packets of a protocol on their way ``direction`` ("in", "out"), noticed
    ``at_s``."""

    at_s: float
    role: str
    direction: str
    protocol: str
    key: Key
    number: int


def events_of(packets: Iterable[Packet], roles: Mapping[str, str], drops: Sequence[Drop], *, begin_s: float) -> list[Event]:
    """The packets between hosts (``roles`` by address), with those that firewalls dropped, in order of time since ``begin_s``.

    Of packets that are alike to the byte in what they are known by, the first ones are those that were dropped: the others were sent
    because of that.
    """
    dropped = Counter[tuple[str, str, Key]]()
    for one in drops:
        if one.direction == "in":
            dropped[one.role, one.protocol, one.key] += one.number
    begins: dict[tuple[str, str, int, int], int] = {}
    found = []
    for packet in packets:
        part = part_of(packet)
        if part is None or str(part.source) not in roles or str(part.destination) not in roles:
            continue
        sender, receiver = roles[str(part.source)], roles[str(part.destination)]
        protocol = PROTOCOLS.get(part.protocol, "")
        key = (receiver, protocol, _key(part, protocol)) if protocol else None
        lost = "in" if key and dropped[key] > 0 else ""
        if key and lost:
            dropped[key] -= 1
        found.append(_event(part, round(packet.time_s - begin_s, 6), sender, receiver, lost, begins))
    everybody = list(dict.fromkeys(roles.values()))
    for drop in drops:
        if drop.direction == "out":
            other = next((role for role in everybody if role != drop.role), "")
            found += [_dropped_event(drop, other, begins)] * drop.number
    return sorted(found, key=lambda event: event.at_s)


def undecided(events: Sequence[Event], drops: Sequence[Drop], role: str) -> int:
    """How many packets a role's firewall dropped on their way in that are not among the events."""
    return sum(one.number for one in drops if one.role == role and one.direction == "in") - sum(
        one.receiver == role and one.lost == "in" for one in events
    )


def _key(part: Part, protocol: str) -> Key:
    first, second, third = (int.from_bytes(part.data[at : at + 4], "big") for at in WORDS[protocol])
    return (part.number, first, second, third)


def _event(part: Part, at_s: float, sender: str, receiver: str, lost: str, begins: dict[tuple[str, str, int, int], int]) -> Event:
    data, whole = part.data, part.size if part.size is not None else len(part.data)
    if part.offset:
        return Event(at_s, sender, receiver, "IP", size=whole, what=f"fragment from byte {part.offset}", lost=lost)
    if part.protocol == TCP and len(data) >= 20:
        ports = int.from_bytes(data[0:2], "big"), int.from_bytes(data[2:4], "big")
        sequence, acknowledged = int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big")
        return _segment(at_s, sender, receiver, ports, sequence, acknowledged, data[13], whole - (data[12] >> 4) * 4, lost, begins)
    if part.protocol == UDP and len(data) >= 8:
        ports = int.from_bytes(data[0:2], "big"), int.from_bytes(data[2:4], "big")
        return Event(at_s, sender, receiver, "UDP", *ports, size=int.from_bytes(data[4:6], "big") - 8, lost=lost)
    if part.protocol == ICMP and len(data) >= 8:
        kind, code = data[0], data[1]
        what = _UNREACHABLE.get(code, f"unreachable, code {code}") if kind == 3 else _ICMP.get((kind, code), f"type {kind}, code {code}")
        return Event(at_s, sender, receiver, "ICMP", size=max(whole - 8, 0), what=what, lost=lost)
    return Event(at_s, sender, receiver, "IP", size=whole, what=f"protocol {part.protocol}", lost=lost)


def _segment(
    at_s: float,
    sender: str,
    receiver: str,
    ports: tuple[int, int],
    sequence: int,
    acknowledged: int,
    bits: int,
    size: int,
    lost: str,
    begins: dict[tuple[str, str, int, int], int],
) -> Event:
    here, there = (sender, receiver, *ports), (receiver, sender, *ports[::-1])
    if bits & 0x02 or here not in begins:
        begins[here] = sequence
    flags = " ".join(name for bit, name in FLAGS if bits & bit)
    ack = None
    if bits & 0x10:
        # Where the other side's numbers are not known, it has said everything but the SYN before what was seen.
        ack = (acknowledged - begins.setdefault(there, acknowledged - 1)) % SEQUENCES
    return Event(at_s, sender, receiver, "TCP", *ports, flags, (sequence - begins[here]) % SEQUENCES, ack, size, lost=lost)


def _dropped_event(drop: Drop, receiver: str, begins: dict[tuple[str, str, int, int], int]) -> Event:
    """Of what was dropped before it left is known what it is known by; it carried nothing, or how much is not known."""
    _, ports, second, third = drop.key
    source, destination = ports >> 16, ports & 0xFFFF
    if drop.protocol == "udp":
        return Event(drop.at_s, drop.role, receiver, "UDP", source, destination, size=(second >> 16) - 8, lost="out")
    flags = " ".join(name for bit, name in FLAGS if third >> 16 & bit)
    sequence = (second - begins.get((drop.role, receiver, source, destination), second)) % SEQUENCES
    return Event(drop.at_s, drop.role, receiver, "TCP", source, destination, flags, sequence, lost="out")
