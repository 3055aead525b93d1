"""Names of fields from Wireshark's dissectors: tshark reads the packets on a host of its own, and says which bytes are what.

What it writes is PDML (XML): each field with its name, and where in the frame it is.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.capture import Packet
from testbed.endian_fields import Named
from testbed.endian_messages import MULTICAST_DNS, Channel
from testbed.endian_words import Place
from testbed.errors import InputError, LabError
from testbed.host import Host
from testbed.wire import conversations, datagrams

PACKAGE = "tshark"
PCAP = "/tmp/packets.pcap"
PATIENCE_S = 60.0
UDP_HEADER = 8
BELOW = ("geninfo", "frame", "sll", "eth", "ip", "ipv6", "tcp", "udp")  # not of the message


@dataclass(frozen=True)
class Dissected:
    """The fields of messages, as tshark knows them from one run."""

    fields: Mapping[Channel, Sequence[Named]]

    def of(self, channel: Channel, little: bytes, big: bytes) -> Sequence[Named]:  # noqa: ARG002  # the places are those of one run
        return self.fields.get(channel, ())


def dissect(host: Host, protocol: str, pcap: bytes, packets: Sequence[Packet], messages: Mapping[Channel, bytes]) -> Dissected:
    """The fields of ``messages`` of one run, whose packets are these, when their ports speak ``protocol``, a name as tshark has it.

    Raises :class:`InputError` when tshark knows no such protocol.
    """
    host.write(PCAP, pcap)
    argv = ["tshark", "-n", "-r", PCAP, "-T", "pdml", *decodings(protocol, packets)]
    result = host.run(argv, timeout_s=PATIENCE_S)
    if result.exit_code != 0 and not result.stdout.strip():
        words = " ".join(line for line in result.error_text.splitlines() if not line.startswith("Running as user"))
        raise InputError(f"--dissect {protocol}: {words}", hint="a protocol's name in Wireshark's display filters, such as coap")
    try:
        of_data = fields_of(ET.fromstring(result.stdout))
    except ET.ParseError as error:
        raise LabError(f"tshark's output cannot be read: {error}") from error
    return Dissected({channel: of_data[data] for channel, data in messages.items() if data in of_data})


def decodings(protocol: str, packets: Sequence[Packet]) -> list[str]:
    """tshark's options by which the ports that were sent to speak the protocol."""
    ports = {("tcp", one.server.port) for one in conversations(packets)}
    asked: set[object] = set()
    for one in datagrams(packets):
        if one.destination not in asked and one.destination.port != MULTICAST_DNS:
            ports.add(("udp", one.destination.port))
        asked |= {one.source, one.destination}
    return [word for transport, port in sorted(ports) for word in ("-d", f"{transport}.port=={port},{protocol}")]


def fields_of(pdml: ET.Element) -> dict[bytes, list[Named]]:
    """The fields of each datagram and each direction of a TCP connection, by its bytes."""
    found: dict[bytes, list[Named]] = {}
    streams: dict[tuple[str, ...], dict[int, tuple[bytes, list[Named]]]] = {}
    for packet in pdml.iter("packet"):
        protocols = {one.get("name", ""): one for one in packet.iter("proto")}
        if (udp := protocols.get("udp")) is not None:
            payload = _hex(udp, "udp.payload")
            found.setdefault(payload, _named(packet, int(udp.get("pos", 0)) + UDP_HEADER, len(payload), 0))
        elif (tcp := protocols.get("tcp")) is not None and (payload := _hex(tcp, "tcp.payload")):
            ends = tuple(_show(tcp, name) for name in ("tcp.stream", "tcp.srcport", "tcp.dstport"))
            at = int(_show(tcp, "tcp.seq") or 1) - 1
            begin = int(tcp.get("pos", 0)) + int(tcp.get("size", 0))
            streams.setdefault(ends, {}).setdefault(at, (payload, _named(packet, begin, len(payload), at)))
    for pieces in streams.values():
        data, names = b"", []
        for at, (payload, of_piece) in sorted(pieces.items()):
            if at != len(data):
                break
            data += payload
            names += of_piece
        found.setdefault(data, names)
    return found


def _named(packet: ET.Element, begin: int, size: int, at: int) -> list[Named]:
    """The fields of the protocols above the transport in a packet whose payload is at ``begin``, as places of a message from ``at`` on."""
    places: dict[Place, str] = {}
    for protocol in packet.findall("proto"):
        if protocol.get("name") in BELOW:
            continue
        for one in _leaves(protocol):
            offset, width = int(one.get("pos", 0)) - begin, int(one.get("size", 0))
            name = one.get("name", "")
            if name and width > 0 and offset >= 0 and offset + width <= size:  # else it is of bytes that tshark put together itself
                places.setdefault(Place(offset + at, width), name)
    return [Named(name, place) for place, name in sorted(places.items(), key=lambda item: (item[0].offset, item[0].width))]


def _leaves(element: ET.Element) -> Iterator[ET.Element]:
    fields: Iterable[ET.Element] = element.findall("field")
    for one in fields:
        inner = list(_leaves(one))
        whole = (one.get("pos"), one.get("size"))
        # A field of flags has them inside it, in the same bytes.
        if not inner or (one.get("name") and all((leaf.get("pos"), leaf.get("size")) == whole for leaf in inner)):
            yield one
        else:
            yield from inner


def _hex(protocol: ET.Element, name: str) -> bytes:
    field = protocol.find(f".//field[@name='{name}']")
    return bytes.fromhex(field.get("value", "")) if field is not None else b""


def _show(protocol: ET.Element, name: str) -> str:
    field = protocol.find(f".//field[@name='{name}']")
    return field.get("show", "") if field is not None else ""
