"""Which subnet a network gets, which address a host: pure choices, the same whenever they are made again."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.errors import InputError, LabError
from testbed.network import (
    DEVICE_NAME_SIZE,
    POOL,
    POOL6,
    Segment,
    Taken,
    assign,
    choose_subnets,
    device_name,
    mac_of,
    machine_routes,
    overlapping,
)
from testbed.topology import Topology


def topology(networks: dict[str, Any], hosts: dict[str, Any]) -> Topology:
    return Topology.build({"name": "lab", "networks": networks, "hosts": hosts})


def settled(built: Topology, *, taken: tuple[str, ...] = (), kept: dict[str, Segment] | None = None) -> dict[str, Segment]:
    sizes = {name: len(built.hosts_on(name)) for name in built.networks}
    return choose_subnets(built.networks, sizes, [Taken(ip_network(one), f"the owner of {one}") for one in taken], kept or {})


LAN: dict[str, Any] = {"lan": {}}
TWO: dict[str, Any] = {"client": {}, "server": {}}


def test_free_choices_are_made_first_to_last() -> None:
    built = topology({"one": {}, "two": {"ipv6": True}}, {"a": {"networks": ["one", "two"]}})
    segments = settled(built, taken=("10.77.0.0/24",))
    assert segments["one"].subnet == IPv4Network("10.77.1.0/24")
    assert segments["two"].subnet == IPv4Network("10.77.2.0/24")
    assert segments["two"].subnet6 == IPv6Network("fd77:7465:7374::/64")
    assert segments["one"].gateway == IPv4Address("10.77.1.1")
    assert segments["one"].subnet6 is None


def test_what_the_file_says_holds() -> None:
    built = topology({"lan": {"subnet": "10.5.0.0/16", "gateway": "10.5.9.9", "mtu": 9000, "external": True}}, TWO)
    assert settled(built)["lan"] == Segment("lan", IPv4Network("10.5.0.0/16"), IPv4Address("10.5.9.9"), None, None, 9000, True)


def test_a_free_choice_leaves_what_the_file_gives_to_a_later_network() -> None:
    built = topology({"free": {}, "fixed": {"subnet": "10.77.0.0/24"}}, {"a": {"networks": ["free", "fixed"]}})
    assert settled(built)["free"].subnet == IPv4Network("10.77.1.0/24")


def test_a_network_keeps_the_subnet_that_it_has() -> None:
    built = topology({"lan": {"ipv6": True}}, TWO)
    before = {
        "lan": Segment(
            "lan", IPv4Network("10.77.8.0/24"), IPv4Address("10.77.8.1"), IPv6Network("fd77:7465:7374:9::/64"), None, 1500, False
        )
    }
    again = settled(built, kept=before)["lan"]
    assert (again.subnet, again.subnet6) == (before["lan"].subnet, before["lan"].subnet6)
    assert settled(built, taken=("10.77.8.0/24",), kept=before)["lan"].subnet == IPv4Network("10.77.0.0/24"), "unless another has it"


@pytest.mark.parametrize(
    ("subnet", "other"), [("10.5.0.0/24", "10.5.0.128/25"), ("10.5.0.0/24", "10.0.0.0/8"), ("fd00:5::/64", "fd00::/16")]
)
def test_a_conflict_names_network_subnet_and_owner(subnet: str, other: str) -> None:
    key = "subnet6" if ":" in subnet else "subnet"
    with pytest.raises(InputError, match=f"network 'lan': its subnet {subnet} overlaps {other}, which the owner of {other} has") as caught:
        settled(topology({"lan": {key: subnet}}, TWO), taken=(other,))
    assert "a free one is chosen" in caught.value.hint


def test_subnets_of_the_two_versions_do_not_overlap() -> None:
    assert overlapping(IPv4Network("10.0.0.0/8"), [Taken(IPv6Network("::/0"), "x")]) is None
    assert overlapping(IPv6Network("fd00::/8"), [Taken(IPv4Network("0.0.0.0/0"), "x")]) is None


def test_a_network_of_many_hosts_gets_a_larger_subnet() -> None:
    built = topology(LAN, {f"h{number}": {} for number in range(300)})
    subnet = settled(built)["lan"].subnet
    assert subnet.num_addresses >= 2 * 300
    assert subnet.subnet_of(POOL)


@pytest.mark.parametrize(("taken", "ipv6"), [(str(POOL), False), (str(POOL6), True)])
def test_a_full_pool_says_what_to_do(taken: str, ipv6: bool) -> None:
    with pytest.raises(LabError, match="no free subnet is left in") as caught:
        settled(topology({"lan": {"ipv6": ipv6}}, TWO), taken=(taken,))
    assert "testbed down --all" in caught.value.hint


def addresses(built: Topology, kept: dict[tuple[str, str], list[str]] | None = None) -> dict[str, dict[str, list[str]]]:
    before = {place: [ip_address(one) for one in ones] for place, ones in (kept or {}).items()}
    given_ = assign(built, settled(built), before)
    return {host: {network: [str(one) for one in ones] for network, ones in places.items()} for host, places in given_.items()}


def test_hosts_get_the_lowest_free_addresses_in_the_files_order() -> None:
    built = topology(
        {"lan": {"subnet": "10.5.0.0/24", "gateway": "10.5.0.2", "subnet6": "fd00:5::/64"}},
        {"a": {}, "b": {"networks": {"lan": {"address": "10.5.0.3", "address6": "fd00:5::2"}}}, "c": {"networks": ["lan"]}},
    )
    assert addresses(built) == {
        "a": {"lan": ["10.5.0.1", "fd00:5::3"]},
        "b": {"lan": ["10.5.0.3", "fd00:5::2"]},
        "c": {"lan": ["10.5.0.4", "fd00:5::4"]},
    }


def test_a_host_keeps_its_address_when_others_come_and_go() -> None:
    built = topology({"lan": {"subnet": "10.5.0.0/24"}}, {"new": {}, "old": {}})
    assert addresses(built, {("old", "lan"): ["10.5.0.2"]}) == {"new": {"lan": ["10.5.0.3"]}, "old": {"lan": ["10.5.0.2"]}}


def test_an_address_of_another_subnet_is_not_kept() -> None:
    built = topology({"lan": {"subnet": "10.5.0.0/24"}}, {"old": {}})
    assert addresses(built, {("old", "lan"): ["10.6.0.2"]})["old"]["lan"] == ["10.5.0.2"]


def test_a_fixed_address_goes_before_one_that_another_host_had() -> None:
    built = topology({"lan": {"subnet": "10.5.0.0/24"}}, {"old": {}, "fixed": {"networks": {"lan": "10.5.0.9"}}})
    assert addresses(built, {("old", "lan"): ["10.5.0.9"]}) == {"old": {"lan": ["10.5.0.2"]}, "fixed": {"lan": ["10.5.0.9"]}}


@given(hosts=st.integers(1, 60), before=st.dictionaries(st.integers(0, 59), st.integers(0, 70), max_size=30))
def test_no_two_hosts_share_an_address_whatever_they_had(hosts: int, before: dict[int, int]) -> None:
    built = topology({"lan": {"subnet": "10.5.0.0/26"}}, {f"h{number}": {} for number in range(hosts)})
    kept = {(f"h{host}", "lan"): [str(IPv4Address("10.5.0.0") + offset)] for host, offset in before.items()}
    given_ = [places["lan"][0] for places in addresses(built, kept).values()]
    assert len(set(given_)) == hosts
    assert "10.5.0.1" not in given_
    assert all(IPv4Address("10.5.0.0") < IPv4Address(one) < IPv4Address("10.5.0.63") for one in given_)


def test_a_mac_is_local_and_tells_the_address() -> None:
    assert mac_of(IPv4Address("10.77.0.2")) == "02:42:0a:4d:00:02"
    assert mac_of(IPv4Address("10.77.0.2"), first=6) == "06:42:0a:4d:00:02"


@given(st.text(st.characters(codec="ascii", exclude_characters="/ \0"), min_size=1, max_size=70))
def test_a_device_name_is_one_that_the_kernel_takes(readable: str) -> None:
    name = device_name(readable)
    assert 0 < len(name) <= DEVICE_NAME_SIZE
    assert name == readable or (len(readable) > DEVICE_NAME_SIZE and name.startswith(readable[:8]))


def test_long_device_names_stay_apart() -> None:
    assert len({device_name(f"a-very-long-host-name-{number}.0") for number in range(200)}) == 200


def test_the_machines_routes_are_those_it_would_lose(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        "br-0123456789ab\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    (tmp_path / "ipv6_route").write_text(
        "fd000005000000000000000000000000 40 " + "0" * 32 + " 00 " + "0" * 32 + " 00000100 00000001 00000000 00000001     eth0\n"
        "fe800000000000000000000000000000 40 " + "0" * 32 + " 00 " + "0" * 32 + " 00000100 00000001 00000000 00000001     eth0\n"
        "00000000000000000000000000000000 00 " + "0" * 32 + " 00 " + "0" * 32 + " 00000400 00000001 00000000 00000003     eth0\n"
        "ff000000000000000000000000000000 08 " + "0" * 32 + " 00 " + "0" * 32 + " 00000100 00000001 00000000 00000001     eth0\n"
    )
    found = {str(one.subnet): one.by for one in machine_routes(tmp_path)}
    assert set(found) == {"192.168.0.0/24", "fd00:5::/64"}
    assert "through eth0" in found["192.168.0.0/24"]


def test_a_machine_without_proc_net_has_no_routes(tmp_path: Path) -> None:
    assert machine_routes(tmp_path) == []
