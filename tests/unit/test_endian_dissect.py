"""What tshark says of packets becomes places in messages."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from testbed.capture import Packet
from testbed.endian_dissect import Dissected, decodings, fields_of
from testbed.endian_fields import Named
from testbed.endian_messages import Channel
from testbed.endian_words import Place
from testbed.wire import SYN
from tests.unit.test_endian_messages import Wire

UDP = """<pdml><packet>
<proto name="geninfo" pos="0" size="60"><field name="num" pos="0" size="60"/></proto>
<proto name="ip" pos="20" size="20"><field name="ip.id" pos="24" size="2"/></proto>
<proto name="udp" pos="40" size="8"><field name="udp.srcport" pos="40" size="2"/>
<field name="udp.payload" pos="48" size="5" value="0102030405"/></proto>
<proto name="dns" pos="48" size="5">
  <field name="dns.id" pos="48" size="2"/>
  <field name="dns.flags" pos="50" size="2"><field name="dns.flags.response" pos="50" size="2"/></field>
  <field name="" show="Queries" pos="52" size="1"><field name="dns.qry" pos="52" size="1"/></field>
  <field name="dns.time" pos="0" size="0"/>
  <field name="dns.other" pos="900" size="2"/>
</proto></packet></pdml>"""

TCP = """<pdml>{}</pdml>"""
SEGMENT = """<packet><proto name="tcp" pos="40" size="20">
<field name="tcp.stream" show="0"/><field name="tcp.srcport" show="{source}"/><field name="tcp.dstport" show="7000"/>
<field name="tcp.seq" show="{sequence}"/><field name="tcp.payload" value="{data}"/></proto>
<proto name="x" pos="60" size="2"><field name="x.number" pos="60" size="2"/></proto></packet>"""


def test_a_datagrams_fields_are_counted_from_its_first_byte() -> None:
    assert fields_of(ET.fromstring(UDP)) == {
        b"\x01\x02\x03\x04\x05": [Named("dns.id", Place(0, 2)), Named("dns.flags", Place(2, 2)), Named("dns.qry", Place(4, 1))]
    }


def test_a_streams_fields_are_counted_from_the_streams_first_byte() -> None:
    packets = [
        SEGMENT.format(source=40000, sequence=3, data="cccc"),
        SEGMENT.format(source=40000, sequence=1, data="aabb"),
        SEGMENT.format(source=40000, sequence=1, data="aabb"),  # again
        SEGMENT.format(source=40001, sequence=1, data="dddd"),
        SEGMENT.format(source=40001, sequence=9, data="eeee"),  # after a gap
    ]
    assert fields_of(ET.fromstring(TCP.format("".join(packets)))) == {
        b"\xaa\xbb\xcc\xcc": [Named("x.number", Place(0, 2)), Named("x.number", Place(2, 2))],
        b"\xdd\xdd": [Named("x.number", Place(0, 2))],
    }


def test_the_ports_that_were_asked_for_speak_the_protocol() -> None:
    wire = Wire()
    wire.tcp(SYN, 99)
    wire.udp(b"question", ports=(40000, 53))
    wire.udp(b"answer", back=True, ports=(40000, 53))
    packets: list[Packet] = wire.packets
    assert decodings("dns", packets) == ["-d", "tcp.port==7000,dns", "-d", "udp.port==53,dns"]


def test_a_message_that_was_not_dissected_has_no_names() -> None:
    channel = Channel("client", "udp", 1, 1)
    names = Dissected({channel: [Named("dns.id", Place(0, 2))]})
    assert names.of(channel, b"", b"") == [Named("dns.id", Place(0, 2))]
    assert names.of(Channel("client", "udp", 1, 2), b"", b"") == ()
