"""Counters from what /proc/net holds, and their differences."""

from __future__ import annotations

import pytest

from testbed.counters import Counters, counters, parse_counters
from testbed.errors import CommandFailed, UnknownName
from testbed.process import Result

BEFORE = """\
Ip: Forwarding DefaultTTL InReceives
Ip: 2 64 100
Icmp: InMsgs InErrors
Icmp: 3 0
Tcp: RtoMin MaxConn CurrEstab ActiveOpens
Tcp: 200 -1 5 18446744073709551610
TcpExt: ListenOverflows ListenDrops
TcpExt: 0 4
IpExt: InOctets
IpExt: 15179355764
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:  795899    8525    0    0    0     0          0         0   795899    8525    0    0    0     0       0          0
eth0.7:       1       2    3    4    5     6          7         8        9      10   11   12   13    14      15         16
Ip6InReceives                   \t1550
Icmp6InType134                  \t2
UdpLite6InDatagrams             \t0
"""
AFTER = (
    BEFORE.replace("TcpExt: 0 4", "TcpExt: 3 7")
    .replace("Tcp: 200 -1 5", "Tcp: 200 -1 2")
    .replace("Icmp: 3 0\n", "Icmp: 3 0\nIcmpMsg: OutType3\nIcmpMsg: 9\n")
)


def test_every_counter_has_its_group() -> None:
    found = parse_counters(BEFORE)
    assert {name: found[name] for name in ("Ip.InReceives", "Tcp.MaxConn", "Tcp.ActiveOpens", "TcpExt.ListenDrops", "IpExt.InOctets")} == {
        "Ip.InReceives": 100,
        "Tcp.MaxConn": -1,
        "Tcp.ActiveOpens": 18446744073709551610,
        "TcpExt.ListenDrops": 4,
        "IpExt.InOctets": 15179355764,
    }
    assert (found["Ip6.InReceives"], found["Icmp6.InType134"], found["UdpLite6.InDatagrams"]) == (1550, 2, 0)
    assert (found["lo.rx_bytes"], found["lo.tx_packets"]) == (795899, 8525)
    assert [found[f"eth0.7.{name}"] for name in ("rx_bytes", "rx_multicast", "tx_bytes", "tx_compressed")] == [1, 8, 9, 16]
    assert len(found) == 3 + 2 + 4 + 2 + 1 + 2 * 16 + 3


def test_a_difference_shows_what_changed() -> None:
    happened = parse_counters(AFTER) - parse_counters(BEFORE)
    assert happened.changed == {"IcmpMsg.OutType3": 9, "Tcp.CurrEstab": -3, "TcpExt.ListenOverflows": 3, "TcpExt.ListenDrops": 3}
    assert repr(happened) == "Counters(IcmpMsg.OutType3=9, Tcp.CurrEstab=-3, TcpExt.ListenOverflows=3, TcpExt.ListenDrops=3)"
    assert happened["Ip.InReceives"] == 0
    assert repr(happened - happened) == "Counters()"


def test_counters_are_a_mapping() -> None:
    found = parse_counters(BEFORE)
    assert "Ip.InReceives" in found
    assert "Ip.Nonsense" not in found
    assert (found.get("Ip.Nonsense"), found.get("Ip.Nonsense", 5), found.get("Icmp.InMsgs")) == (0, 5, 3)
    assert dict(found) == found == parse_counters(BEFORE)
    assert list(found)[:2] == ["Ip.Forwarding", "Ip.DefaultTTL"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TcpExt.ListenOverflow", "TcpExt.ListenOverflows"),
        ("Tcp.ListenDrops", "TcpExt.ListenDrops"),
        ("ListenDrops", "TcpExt.ListenDrops"),
        ("lo.rx_byte", "lo.rx_bytes"),
    ],
)
def test_an_unknown_counter_offers_those_near_it(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"no counter is called '{name}'") as caught:
        parse_counters(BEFORE)[name]
    assert near in caught.value.hint
    assert "Ip.Forwarding" not in caught.value.hint


def test_a_counter_that_is_like_none_offers_all() -> None:
    with pytest.raises(UnknownName) as caught:
        Counters({"Tcp.InSegs": 1})["zzz"]
    assert "Tcp.InSegs" in caught.value.hint


@pytest.mark.parametrize(("missing", "fine"), [("snmp6", True), ("snmp", False)])
def test_only_a_kernel_without_ipv6_may_lack_a_file(missing: str, fine: bool) -> None:
    complaint = f"cat: /proc/net/{missing}: No such file or directory\n"
    lacking = Result(("cat",), 1, BEFORE.encode(), complaint.encode(), 0.0)
    if fine:
        assert counters(lambda _: lacking, "server") == parse_counters(BEFORE)
    else:
        with pytest.raises(CommandFailed, match="on host server ended with exit code 1"):
            counters(lambda _: lacking, "server")
