"""What the two roles of a program sent in one run, out of a capture: streams put together, datagrams, ports asked for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.capture import Packet
from testbed.network import Address, Endpoint
from testbed.wire import ACK, FIN, RST, SYN, Conversation, Segment, bare, conversations, datagrams, part_of

Role = Literal["client", "server"]
ROLES: tuple[Role, Role] = ("client", "server")
NAMED_MOST = 4
MULTICAST_DNS = 5353  # what a host's own resolver may send
NOT_A_PROGRAMS = (0x0800, 0x86DD, 0x0806)  # frames that are IP packets, or a kernel's question for an address


@dataclass(frozen=True, order=True)
class Channel:
    """One message of a role, the same in every run. ``number`` counts connections from 1, ``index`` the datagrams that the role sent; of
    another protocol over IP, or of frames that are no IP packets, ``number`` is the protocol or the ethertype. A "port to" is the port that
    the role connected to, or sent a first datagram to, a "port of" one that it listens on."""

    role: Role
    what: Literal["tcp", "udp", "ip", "frame", "port to", "port of"]
    number: int
    index: int = 0

    @property
    def is_port(self) -> bool:
        return self.what in ("port to", "port of")

    def __str__(self) -> str:
        return {
            "tcp": f"TCP connection {self.number}",
            "udp": f"UDP datagram {self.index}",
            "ip": f"IP packet {self.index} of protocol {self.number}",
            "frame": f"frame {self.index} of ethertype 0x{self.number:04x}",
            "port to": "the port that it connects to" + (f", the {self.number}. time" if self.number > 1 else ""),
            "port of": "the port that it listens on" + (f", socket {self.number}" if self.number > 1 else ""),
        }[self.what]


def in_words(channels: Sequence[Channel]) -> str:
    """Messages together, such as `UDP datagrams 2 to 51`."""
    names = list(dict.fromkeys(str(one) for one in channels))
    last = [one.rsplit(" ", 1) for one in names]
    if len(names) == 1 or len({kind for kind, _ in last}) > 1 or not all(number.isdecimal() for _, number in last):
        return ", ".join(names[:NAMED_MOST]) + (f" and {len(names) - NAMED_MOST} more" if len(names) > NAMED_MOST else "")
    ranges: list[list[int]] = []
    for number in sorted(int(number) for _, number in last):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    shown = [f"{one[0]} to {one[-1]}" if len(one) > 2 else ", ".join(map(str, one)) for one in ranges]
    return f"{last[0][0]}s {', '.join(shown)}"


@dataclass(frozen=True)
class Turn:
    """What a role sent until the other one said something; empty with an ``end`` (closed, reset)."""

    role: Role
    data: bytes
    end: str = ""


@dataclass(frozen=True)
class Said:
    """All that was said in one run. ``partial``: what the capture has only a part of, in words."""

    messages: Mapping[Channel, bytes]
    turns: tuple[Turn, ...]
    partial: tuple[str, ...] = ()

    @property
    def payload(self) -> int:
        """Bytes that were sent as data, by both."""
        return sum(len(data) for channel, data in self.messages.items() if not channel.is_port)


class _Roles(dict[Address, Role]):
    """Whose an address is; ``others``: of whom it is not said, if of anybody's."""

    def __init__(self, hosts: Mapping[Role, Collection[Address]], others: Role | None) -> None:
        super().__init__({address: role for role, addresses in hosts.items() for address in addresses})
        self._others = others

    def __missing__(self, address: Address) -> Role:
        if self._others is None:
            raise KeyError(address)
        return self._others

    def between(self, source: Address, destination: Address) -> bool:
        """Whether it is said by one of them, to the other if it is somebody of whom it is not said."""
        return source in self if self._others is None else source in self or destination in self

    def both(self, one: Address, other: Address) -> bool:
        """Whether they are the two ends of a connection of theirs."""
        return (one in self and other in self) if self._others is None else self.between(one, other)


def said(
    packets: Sequence[Packet],
    hosts: Mapping[Role, Collection[Address]],
    listening: Iterable[int] = (),
    *,
    macs: Mapping[bytes, Role] | None = None,
    others: Role | None = None,
) -> Said:
    """What the hosts of the two roles, known by their addresses, said to each other in ``packets``, or to everybody.

    ``listening`` are the server's ports, for those that it is never asked on. ``macs`` are the hosts', whose frames that are no IP
    packets count too; and what they send from an address that is no host's, as a DHCP client does that has none yet, is theirs.
    Where ``others`` is a role, whatever address is nobody's is that one's, in what is said with a host of ``hosts``.
    """
    role_of = _Roles({role: {*hosts.get(role, ()), *more} for role, more in _more_addresses(packets, hosts, macs or {}).items()}, others)
    messages: dict[Channel, bytes] = {}
    turns: list[tuple[float, Turn]] = []
    partial: list[str] = []
    talks = [one for one in conversations(packets) if role_of.both(one.client.address, one.server.address)]
    for number, talk in enumerate(talks, 1):
        caller, called = role_of[talk.client.address], role_of[talk.server.address]
        messages[Channel(caller, "port to", number)] = talk.server.port.to_bytes(2, "big")
        for role, stream in ((caller, talk.sent), (called, talk.received)):
            if stream.data:
                messages[Channel(role, "tcp", number)] = stream.data
            if stream.gaps or not stream.consistent:
                partial.append(f"{role}, TCP connection {number}")
        turns += _turns_of(talk, role_of)
    counts = dict.fromkeys(ROLES, 0)
    asked = len(talks)
    known: set[Endpoint] = set()
    for one in datagrams(packets):
        if not role_of.between(one.source.address, one.destination.address) or MULTICAST_DNS in (one.source.port, one.destination.port):
            continue
        role = role_of[one.source.address]
        if one.destination not in known:  # the first one to there, and no answer
            asked += 1
            messages[Channel(role, "port to", asked)] = one.destination.port.to_bytes(2, "big")
        known |= {one.source, one.destination}
        counts[role] += 1
        messages[Channel(role, "udp", 1, counts[role])] = one.data
        if not one.whole:
            partial.append(f"{role}, UDP datagram {counts[role]}")
        turns.append((one.time_s, Turn(role, one.data)))
    for role, channel, data, time_s, whole in _others(packets, role_of, macs or {}):
        messages[channel] = data
        if not whole:
            partial.append(f"{role}, {channel}")
        turns.append((time_s, Turn(role, data)))
    for number, port in enumerate(sorted(listening), 1):
        messages[Channel("server", "port of", number)] = port.to_bytes(2, "big")
    turns.sort(key=lambda turn: turn[0])
    return Said(messages, tuple(_joined(turn for _, turn in turns)), tuple(partial))


def _more_addresses(
    packets: Iterable[Packet], hosts: Mapping[Role, Collection[Address]], macs: Mapping[bytes, Role]
) -> dict[Role, set[Address]]:
    """The addresses, other than the hosts' own, that only one of them sends from."""
    known = {address for addresses in hosts.values() for address in addresses}
    senders: dict[Address, set[Role]] = {}
    for packet in packets:
        if packet.source_mac in macs and (part := part_of(packet)) and part.source not in known:
            senders.setdefault(part.source, set()).add(macs[packet.source_mac])
    return {role: {address for address, roles in senders.items() if roles == {role}} for role in ROLES}


def _others(packets: Sequence[Packet], role_of: _Roles, macs: Mapping[bytes, Role]) -> Iterator[tuple[Role, Channel, bytes, float, bool]]:
    """What is neither TCP nor UDP: who sent it, as which message, its bytes, when, and whether all of it is there."""
    counts: Counter[tuple[Role, str, int]] = Counter()

    def channel(role: Role, what: Literal["ip", "frame"], number: int) -> Channel:
        counts[role, what, number] += 1
        return Channel(role, what, number, counts[role, what, number])

    for one in bare(packets):
        if role_of.between(one.source, one.destination):
            role = role_of[one.source]
            yield role, channel(role, "ip", one.protocol), one.data, one.time_s, one.whole
    for frame in packets:
        if frame.source_mac in macs and frame.ethertype not in NOT_A_PROGRAMS and frame.payload:
            role = macs[frame.source_mac]
            yield role, channel(role, "frame", frame.ethertype), frame.payload, frame.time_s, True


def _turns_of(talk: Conversation, role_of: _Roles) -> list[tuple[float, Turn]]:
    """The data of a connection as it was first seen, and its ends."""
    found: list[tuple[float, Turn]] = []
    after: dict[Endpoint, int] = {}
    for one in talk.segments:
        role = role_of[one.source.address]
        data = _news(one, after)
        if data:
            found.append((one.time_s, Turn(role, data)))
        if one.flags & RST:
            opened = talk.segments[0]
            refused = one.flags & ACK and not any(other.flags & (SYN | ACK) == SYN | ACK for other in talk.segments)
            found.append((one.time_s, Turn(role, b"", f"refuses port {opened.destination.port}" if refused else "resets")))
        elif one.flags & FIN:
            found.append((one.time_s, Turn(role, b"", "closes")))
    return found


def _news(one: Segment, after: dict[Endpoint, int]) -> bytes:
    """The bytes of a segment that did not come before; ``after`` has what each side's next number is."""
    begin = one.sequence + (1 if one.flags & SYN else 0)
    known = after.get(one.source, begin)
    skip = (known - begin) % (1 << 32)
    data = one.data[skip:] if skip < len(one.data) else b"" if 0 < skip < 1 << 31 else one.data
    if data or one.source not in after:
        after[one.source] = (begin + len(one.data)) % (1 << 32)
    return data


def _joined(turns: Iterable[Turn]) -> list[Turn]:
    joined: list[Turn] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role and not turn.end and not joined[-1].end:
            joined[-1] = Turn(turn.role, joined[-1].data + turn.data)
        elif turn not in joined[-1:]:
            joined.append(turn)
    return joined
