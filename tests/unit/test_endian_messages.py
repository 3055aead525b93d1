"""Out of packets: what each role sent, on which connection, as which datagram, and to which port."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from testbed.capture import Packet
from testbed.endian_messages import Channel, Said, Turn, said
from testbed.network import Address
from testbed.wire import ACK, FIN, RST, SYN

ADDRESSES = {4: ("10.1.0.2", "10.1.0.3"), 6: ("fd00::2", "fd00::3")}


class Wire:
    """Packets between a client and a server, one each hundredth of a second."""

    def __init__(self, version: int = 4) -> None:
        self.version = version
        self.client, self.server = (ip_address(one) for one in ADDRESSES[version])
        self.packets: list[Packet] = []

    def tcp(self, flags: int, sequence: int = 0, data: bytes = b"", *, back: bool = False, port: int = 7000) -> None:
        ports = (port, 40000) if back else (40000, port)
        header = (
            b"".join(one.to_bytes(2, "big") for one in ports) + sequence.to_bytes(4, "big") + bytes(4) + bytes([0x50, flags]) + bytes(6)
        )
        self._add(6, header + data, back=back)

    def udp(self, data: bytes, *, back: bool = False, ports: tuple[int, int] = (40000, 7000), to: str = "") -> None:
        source, destination = ports[::-1] if back else ports
        header = b"".join(one.to_bytes(2, "big") for one in (source, destination, 8 + len(data), 0))
        self._add(17, header + data, back=back, to=to)

    def _add(self, protocol: int, payload: bytes, *, back: bool, to: str = "") -> None:
        source, destination = (self.server, self.client) if back else (self.client, self.server)
        destination = ip_address(to) if to else destination
        if self.version == 4:
            packet = bytes([0x45, 0]) + (20 + len(payload)).to_bytes(2, "big") + bytes(4) + bytes([64, protocol]) + bytes(2)
        else:
            packet = bytes([0x60, 0, 0, 0]) + len(payload).to_bytes(2, "big") + bytes([protocol, 64])
        whole = packet + source.packed + destination.packed + payload
        time_s = len(self.packets) / 100
        self.packets.append(Packet(time_s, "cooked", 1, b"", 0x0800 if self.version == 4 else 0x86DD, whole))

    def said(self, listening: tuple[int, ...] = ()) -> Said:
        hosts: dict[str, tuple[Address, ...]] = {"client": (self.client,), "server": (self.server,)}
        return said(self.packets, hosts, listening)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [4, 6])
def test_a_stream_is_put_together_for_each_direction_and_the_port_is_a_message_too(version: int) -> None:
    wire = Wire(version)
    wire.tcp(SYN, 99)
    wire.tcp(SYN | ACK, 499, back=True)
    wire.tcp(ACK, 100, b"he")
    wire.tcp(ACK, 100, b"hello")  # again, and more
    wire.tcp(ACK, 500, b"welcome", back=True)
    wire.tcp(ACK, 105, b"bye")
    wire.tcp(FIN | ACK, 108)
    result = wire.said(listening=(7000,))
    assert result.messages == {
        Channel("client", "port to", 1): b"\x1b\x58",
        Channel("client", "tcp", 1): b"hellobye",
        Channel("server", "tcp", 1): b"welcome",
        Channel("server", "port of", 1): b"\x1b\x58",
    }
    assert result.payload == 15
    assert result.turns == (Turn("client", b"hello"), Turn("server", b"welcome"), Turn("client", b"bye"), Turn("client", b"", "closes"))
    assert result.partial == ()


def test_a_connection_that_is_refused_has_a_port_and_says_so() -> None:
    wire = Wire()
    wire.tcp(SYN, 99, port=22555)
    wire.tcp(RST | ACK, 0, back=True, port=22555)
    result = wire.said()
    assert result.messages == {Channel("client", "port to", 1): b"\x58\x1b"}
    assert result.payload == 0
    assert result.turns == (Turn("server", b"", "refuses port 22555"),)


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams_are_messages_one_by_one_also_from_another_port_than_was_asked(version: int) -> None:
    wire = Wire(version)
    wire.udp(b"get")
    wire.udp(b"part 1", back=True, ports=(40000, 50001))
    wire.udp(b"ack", ports=(40000, 50001))
    wire.udp(b"part 2", back=True, ports=(40000, 50001))
    result = wire.said()
    assert {str(channel): data for channel, data in result.messages.items() if channel.role == "server"} == {
        "UDP datagram 1": b"part 1",
        "UDP datagram 2": b"part 2",
    }
    assert [data for channel, data in sorted(result.messages.items()) if channel.what == "udp"] == [b"get", b"ack", b"part 1", b"part 2"]


def test_what_a_role_sends_to_everybody_counts_and_what_others_send_does_not() -> None:
    wire = Wire()
    wire.udp(b"hello all", to="239.1.2.3")
    wire.client = ip_address("10.1.0.77")
    wire.udp(b"not of this pair")
    wire.client = ip_address("10.1.0.2")
    assert [data for channel, data in wire.said().messages.items() if not channel.is_port] == [b"hello all"]


def test_a_gap_in_the_capture_is_said() -> None:
    wire = Wire()
    wire.tcp(SYN, 99)
    wire.tcp(ACK, 100, b"he")
    wire.tcp(ACK, 104, b"o")
    assert wire.said().partial == ("client, TCP connection 1",)
