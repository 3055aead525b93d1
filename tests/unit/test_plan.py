"""What a lab is to be, and how that differs from what there is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from testbed.architecture import ARCHITECTURES
from testbed.errors import InputError
from testbed.network import Taken
from testbed.plan import (
    Difference,
    Existing,
    Plan,
    architecture_of,
    compare,
    guest_from,
    guest_of,
    init_arguments,
    make_plan,
    names_for,
    segment_from_label,
    to_label,
)
from testbed.topology import Topology

AMD64, S390X = ARCHITECTURES["amd64"], ARCHITECTURES["s390x"]
IMAGES = {"amd64": "host-amd64:1", "s390x": "host-s390x:1"}
NOTHING = Existing({}, {}, {}, switch=False)


def plan(networks: dict[str, Any], hosts: dict[str, Any], existing: Existing = NOTHING, **changed: Any) -> Plan:
    topology = Topology.build({"name": "lab", "networks": networks, "hosts": hosts})
    files = {name: {path: (file.content or "").encode() for path, file in host.files.items()} for name, host in topology.hosts.items()}
    taken: list[Taken] = []
    machine = changed.get("machine", AMD64)
    guests = {name: guest_of(host, machine, kvm=False) for name, host in topology.hosts.items() if host.kind == "vm"}
    references = {name: IMAGES[architecture_of(host, machine).name] for name, host in topology.hosts.items() if name not in guests}
    references |= {name: f"vm-{guest.arch}-{guest.kernel}:1" for name, guest in guests.items()}
    arguments: dict[str, Any] = {"machine": machine, "taken": taken, "existing": existing, "files": files, **changed}
    return make_plan(topology, images=references, guests=guests, **arguments)


def as_existing(planned: Plan, **broken: str) -> Existing:
    """The lab as its labels will tell it."""
    segments = {name: segment_from_label(to_label(one)) for name, one in planned.segments.items()}
    return Existing(segments, {name: json.loads(to_label(one)) for name, one in planned.hosts.items()}, broken, switch=True)


def difference(before: Plan, after: Plan, **broken: str) -> Difference:
    return compare(as_existing(before, **broken), after)


LAN: dict[str, Any] = {"lan": {"subnet": "10.5.0.0/24"}}
ROUTED: dict[str, Any] = {
    "left": {"subnet": "10.5.0.0/24", "subnet6": "fd00:5::/64"},
    "right": {"subnet": "10.6.0.0/24", "subnet6": "fd00:6::/64"},
}


def test_what_was_brought_up_needs_nothing() -> None:
    hosts = {
        "a": {"sysctls": {"net.core.somaxconn": 8}, "files": {"/x": "y"}, "memory": "64M", "command": "sleep 1", "ready": {"log": "x"}},
        "big": {"kind": "emulated"},
    }
    first = plan(LAN, hosts)
    again = plan(LAN, hosts, as_existing(first))
    found = difference(first, again)
    assert found.nothing
    assert not found.renamed
    assert found.kept_hosts == ("a", "big")
    assert found.lines() == []


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ({}, {"sysctls": {"net.core.somaxconn": 8}}, "host a: changed: sysctls: net.core.somaxconn none -> 8"),
        ({"sysctls": {"net.core.somaxconn": 8}}, {}, "host a: changed: sysctls: net.core.somaxconn 8 -> none"),
        ({"memory": "64M"}, {"memory": "128M"}, "host a: changed: memory 67108864 -> 134217728"),
        ({"environment": {"A": 1}}, {"environment": {"A": 2, "B": 3}}, "host a: changed: environment: A 1 -> 2, B none -> 3"),
        ({"files": {"/x": "old"}}, {"files": {"/x": "new"}}, "host a: changed: files: /x"),
        ({"files": {"/x": "same"}}, {"files": {"/x": {"content": "same", "mode": "0755"}}}, "host a: changed: files: /x"),
        ({}, {"networks": {"lan": "10.5.0.9"}}, "host a: changed: its place on the networks"),
        ({}, {"command": "sleep 5"}, "host a: changed: command none -> ['sleep', '5']"),
        ({}, {"forwarding": True}, "host a: changed: sysctls: net.ipv4.ip_forward 0 -> 1"),
        ({}, {"cpus": 0.5}, "host a: changed: cpus none -> 0.5"),
        ({}, {"kind": "emulated"}, "host a: changed: arch amd64 -> s390x; image host-amd64:1 -> host-s390x:1; kind native -> emulated"),
    ],
)
def test_a_changed_host_says_what_changed(before: dict[str, Any], after: dict[str, Any], line: str) -> None:
    found = difference(plan(LAN, {"a": before}), plan(LAN, {"a": after}))
    assert found.lines() == [line]
    assert not found.nothing


def test_new_and_gone_hosts_and_networks_are_named() -> None:
    before = plan({"lan": {}, "old": {}}, {"a": {"networks": ["lan"]}, "gone": {"networks": ["old"]}})
    after = plan({"lan": {}, "new": {}}, {"a": {"networks": ["lan"]}, "come": {"networks": ["new"]}}, as_existing(before))
    found = difference(before, after)
    assert set(found.lines()) == {
        "network new: new",
        "network old: no longer in the file",
        "host come: new",
        "host gone: no longer in the file",
    }
    assert found.kept_hosts == ("a",)
    assert found.renamed, "a has to learn of come"


def test_a_changed_network_takes_its_hosts_along() -> None:
    before = plan({"a": {}, "b": {}}, {"on-a": {"networks": ["a"]}, "on-b": {"networks": ["b"]}})
    after = plan({"a": {}, "b": {"external": True}}, {"on-a": {"networks": ["a"]}, "on-b": {"networks": ["b"]}}, as_existing(before))
    found = difference(before, after)
    assert found.changed_networks == {"b": "changed: external False -> True"}
    assert set(found.changed_hosts) == {"on-b"}
    assert found.kept_hosts == ("on-a",)


def test_a_broken_host_is_changed_and_says_why() -> None:
    planned = plan(LAN, {"a": {}, "b": {}})
    found = difference(planned, planned, a="not running (Exited)")
    assert found.lines() == ["host a: not running (Exited)"]
    assert found.kept_hosts == ("b",)


def test_links_come_in_the_files_order() -> None:
    planned = plan(ROUTED, {"router": {"networks": {"right": "10.6.0.9", "left": None}}})
    first, second = planned.hosts["router"]["links"]
    assert (first["network"], first["device"], first["addresses"]) == ("right", "eth0", ["10.6.0.9/24", "fd00:6::2/64"])
    assert (second["network"], second["device"], second["mac"]) == ("left", "eth1", "02:42:0a:05:00:02")


def routes(settings: dict[str, Any], networks: dict[str, Any] = ROUTED) -> list[list[str]]:
    hosts = {"a": {"networks": ["left"], **settings}, "router": {"networks": ["left", "right"], "forwarding": True}}
    found: list[list[str]] = plan(networks, hosts).hosts["a"]["routes"]
    return found


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        ({"to": "right", "via": "router"}, [["10.6.0.0/24", "10.5.0.3"], ["fd00:6::/64", "fd00:5::3"]]),
        ({"to": "default", "via": "router"}, [["default", "10.5.0.3"], ["default", "fd00:5::3"]]),
        ({"to": "10.9.0.0/16", "via": "router"}, [["10.9.0.0/16", "10.5.0.3"]]),
        ({"to": "fd00:9::/64", "via": "router"}, [["fd00:9::/64", "fd00:5::3"]]),
        ({"to": "right", "via": "10.5.0.200"}, [["10.6.0.0/24", "10.5.0.200"]]),
    ],
)
def test_names_in_routes_become_addresses_of_both_versions(route: dict[str, str], wanted: list[list[str]]) -> None:
    assert routes({"routes": [route]}) == wanted


def test_an_external_network_leads_out_unless_the_file_leads_elsewhere() -> None:
    networks = {"left": {"subnet": "10.5.0.0/24", "external": True}, "right": {}}
    assert routes({}, networks) == [["default", "10.5.0.1"]]
    assert routes({"routes": [{"to": "default", "via": "router"}]}, networks) == [["default", "10.5.0.3"]]
    assert routes({}) == []


def test_a_host_forwards_only_when_it_is_told_to() -> None:
    hosts: dict[str, Any] = {
        "plain": {"networks": ["left", "right"]},
        "router": {"networks": ["left", "right"], "forwarding": True},
        "by-sysctl": {"networks": ["left"], "sysctls": {"net.ipv4.ip_forward": 1}},
    }
    planned = plan(ROUTED, hosts).hosts
    assert planned["plain"]["sysctls"] == {"net.ipv4.ip_forward": "0"}
    assert planned["router"]["sysctls"] == {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
    assert planned["by-sysctl"]["sysctls"] == {"net.ipv4.ip_forward": "1"}


def test_net_admin_is_always_there() -> None:
    assert plan(LAN, {"a": {"capabilities": []}}).hosts["a"]["capabilities"] == ["NET_ADMIN"]


@pytest.mark.parametrize(
    ("machine", "host", "words"),
    [
        (AMD64, {"arch": "s390x"}, "cannot be s390x on this machine"),
        (AMD64, {"arch": "arm64"}, "cannot be arm64 on this machine"),
        (S390X, {"kind": "emulated"}, "is a s390x itself"),
    ],
)
def test_a_machine_is_only_what_it_is(machine: Any, host: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        plan(LAN, {"a": host}, machine=machine)
    assert caught.value.hint


def test_a_taken_subnet_is_refused() -> None:
    with pytest.raises(InputError, match="which somebody has"):
        plan(LAN, {"a": {}}, taken=[Taken(plan(LAN, {"a": {}}).segments["lan"].subnet, "somebody")])


def test_names_are_those_of_the_network_that_both_are_on() -> None:
    hosts = plan(
        {"left": {"subnet": "10.5.0.0/24"}, "right": {"subnet": "10.6.0.0/24"}},
        {"a": {"networks": ["left"]}, "router": {"networks": ["left", "right"]}, "far": {"networks": ["right"]}},
    ).hosts
    assert names_for(hosts["a"], hosts) == [("a", "10.5.0.2"), ("router", "10.5.0.3"), ("far", "10.6.0.3")]
    assert names_for(hosts["far"], hosts) == [("a", "10.5.0.2"), ("router", "10.6.0.2"), ("far", "10.6.0.3")]
    assert names_for(hosts["router"], hosts)[1:3] == [("router", "10.5.0.3"), ("router", "10.6.0.2")]


def test_the_first_process_is_told_everything_and_the_command_last() -> None:
    host = plan(ROUTED, {"a": {"networks": ["left"], "sysctls": {"net.core.somaxconn": 8, "kernel.msgmax": 9}, "command": "echo hi"}})
    assert init_arguments(host.hosts["a"]) == [
        *("--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "net.core.somaxconn=8"),
        *("--address", "eth0", "10.5.0.2/24", "--address", "eth0", "fd00:5::2/64"),
        *("--", "echo", "hi"),
    ]


def test_a_segment_comes_back_from_its_label() -> None:
    for segment in plan({**ROUTED, "plain": {}}, {"a": {"networks": ["left", "right", "plain"]}}).segments.values():
        assert segment_from_label(to_label(segment)) == segment
        assert segment_from_label(to_label(replace(segment, mtu=1400))) != segment


# --- hosts with a kernel of their own


def vm(**changed: Any) -> Plan:
    return plan(ROUTED, {"a": {"kind": "vm", "networks": ["left", "right"], **changed}})


@pytest.mark.parametrize(
    ("host", "machine", "kvm", "wanted"),
    [
        ({}, AMD64, True, ("s390x", "bookworm", 128 << 20, 1, "tcg")),
        ({}, AMD64, False, ("s390x", "bookworm", 128 << 20, 1, "tcg")),
        ({"arch": "amd64"}, AMD64, True, ("amd64", "bookworm", 128 << 20, 1, "kvm")),
        ({"arch": "amd64"}, AMD64, False, ("amd64", "bookworm", 128 << 20, 1, "tcg")),
        ({"arch": "amd64"}, S390X, True, ("amd64", "bookworm", 128 << 20, 1, "tcg")),
        ({"kernel": "trixie", "memory": "256M"}, S390X, True, ("s390x", "trixie", 256 << 20, 1, "kvm")),
    ],
)
def test_a_guest_is_of_the_hosts_architecture_and_has_kvm_only_for_the_machines_own(
    host: dict[str, Any], machine: Any, kvm: bool, wanted: tuple[object, ...]
) -> None:
    (one,) = Topology.build({"name": "lab", "networks": LAN, "hosts": {"a": {"kind": "vm", **host}}}).hosts.values()
    guest = guest_of(one, machine, kvm=kvm)
    assert (guest.arch, guest.kernel, guest.memory, guest.networks, guest.accelerator) == wanted


def test_the_settings_of_a_vm_host_hold_its_guest_and_come_back_from_the_label() -> None:
    planned = vm(kernel="trixie", memory="256M").hosts["a"]
    assert planned["guest"] == {"arch": "s390x", "kernel": "trixie", "memory": 256 << 20, "networks": 2, "accelerator": "tcg"}
    assert (planned["arch"], planned["image"]) == ("s390x", "vm-s390x-trixie:1")
    guest = guest_from(json.loads(to_label(planned)))
    assert guest is not None
    assert guest == guest_from(planned)
    assert (guest.networks, guest.memory_mb) == (2, 256)
    assert guest_from(plan(LAN, {"a": {}}).hosts["a"]) is None


def test_the_capabilities_of_a_guest_are_its_own_and_its_container_needs_one() -> None:
    assert vm().hosts["a"]["capabilities"] == ["NET_ADMIN"]


def test_init_on_a_guest_makes_its_links_and_sets_every_sysctl_itself() -> None:
    planned = vm(sysctls={"kernel.msgmax": 9, "net.core.somaxconn": 8}, command="echo hi").hosts["a"]
    assert init_arguments(planned) == [
        *("--link", "eth0", "02:42:0a:05:00:02", "1500", "--link", "eth1", "02:42:0a:06:00:02", "1500"),
        *("--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.msgmax=9", "--sysctl", "net.core.somaxconn=8"),
        *("--address", "eth0", "10.5.0.2/24", "--address", "eth0", "fd00:5::2/64"),
        *("--address", "eth1", "10.6.0.2/24", "--address", "eth1", "fd00:6::2/64"),
        *("--", "echo", "hi"),
    ]


@pytest.mark.parametrize(
    ("after", "words"),
    [({"kernel": "trixie"}, "guest: kernel bookworm -> trixie"), ({"memory": "256M"}, f"guest: memory {128 << 20} -> {256 << 20}")],
)
def test_another_guest_is_a_changed_host(after: dict[str, Any], words: str) -> None:
    assert difference(vm(), vm()).nothing
    (line,) = difference(vm(), vm(**after)).lines()
    assert words in line


def test_a_host_that_gets_a_kernel_of_its_own_is_changed() -> None:
    (line,) = difference(plan(LAN, {"a": {}}), plan(LAN, {"a": {"kind": "vm"}})).lines()
    assert line.startswith("host a: changed: arch amd64 -> s390x; capabilities ")
    assert "; guest none -> " in line
    assert line.endswith("kind native -> vm")


@pytest.mark.parametrize("kind", ["native", "vm"])
def test_whether_a_host_has_a_way_out_is_among_its_settings(kind: str) -> None:
    networks = {"lan": {"subnet": "10.5.0.0/24"}, "out": {"external": True}}
    hosts = plan(networks, {"in": {"networks": ["lan"], "kind": kind}, "both": {"networks": ["lan", "out"], "kind": kind}}).hosts
    assert (hosts["in"]["external"], hosts["both"]["external"]) == (False, True)


def test_a_host_whose_packages_change_says_which() -> None:
    before, after = (plan(LAN, {"a": {"packages": [name], "pip": "scapy"}}) for name in ("iperf3", "socat"))
    assert after.hosts["a"]["packages"] == ["socat", "scapy"]
    (line,) = difference(before, after).lines()
    assert line == "host a: changed: packages ['iperf3', 'scapy'] -> ['socat', 'scapy']"
