"""The model without a file: built in Python, frozen, and asked by the lab."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from pydantic import ValidationError

from testbed.errors import TopologyError, UnknownName
from testbed.topology import DEFAULT_CAPABILITIES, MOST_HOSTS, MOST_NETWORKS, Attachment, File, Host, Network, Ready, Route, Topology
from testbed.topology_values import CAPABILITIES, slug


def build(**data: Any) -> Topology:
    return Topology.build({"name": "x", "networks": {"lan": {}}, "hosts": {"a": {}}, **data})


def test_a_topology_is_built_from_plain_data() -> None:
    topology = build(hosts={"client": {}, "server": {"memory": "64M"}})
    assert list(topology.hosts) == ["client", "server"]
    assert topology.hosts["server"].memory == 64 * 2**20
    assert topology.hosts["client"] == Host(name="client", networks={"lan": Attachment()})


def test_a_topology_is_built_from_its_parts() -> None:
    topology = Topology(
        name="routed",
        networks={"l": Network(name="l", subnet=IPv4Network("10.1.0.0/24")), "r": Network(name="r")},
        hosts={
            "c": Host(
                name="c",
                networks={"l": Attachment(address=IPv4Address("10.1.0.9"))},
                routes=(Route(to="r", via="g"),),
                files={"/etc/motd": File(content="hello")},
                command=("serve", "7"),
                ready=Ready(listening=7),
            ),
            "g": Host(name="g", networks={"l": Attachment(), "r": Attachment()}, forwarding=True),
        },
    )
    assert topology.networks["l"].gateway_address == IPv4Address("10.1.0.1")
    assert topology.hosts["c"].ready == Ready(listening=7, timeout_s=10)


def test_what_is_not_said_has_its_default() -> None:
    host = build().hosts["a"]
    assert (host.kind, host.arch, host.forwarding, host.command, host.ready, host.memory, host.cpus) == (
        "native", None, False, None, None, None, None,
    )  # fmt: skip
    assert host.capabilities == DEFAULT_CAPABILITIES
    network = build().networks["lan"]
    assert (network.subnet, network.gateway_address, network.ipv6, network.mtu, network.external) == (None, None, False, 1500, False)


def test_a_vm_has_a_kernel_of_its_own() -> None:
    host = build(hosts={"a": {"kind": "vm", "sysctls": {"net.ipv4.tcp_mem": [1, 2, 3], "net.ipv4.conf.eth0.rp_filter": 0}}}).hosts["a"]
    assert (host.kind, host.arch, host.kernel, host.own_kernel, host.memory) == ("vm", None, None, "bookworm", None)
    assert host.sysctls == {"net.ipv4.tcp_mem": "1 2 3", "net.ipv4.conf.eth0.rp_filter": "0"}
    assert host.capabilities == DEFAULT_CAPABILITIES
    host = build(hosts={"a": {"kind": "vm", "arch": "amd64", "kernel": "trixie", "memory": "4G", "cpus": 0.5}}).hosts["a"]
    assert (host.arch, host.kernel, host.own_kernel, host.memory, host.cpus) == ("amd64", "trixie", "trixie", 4 * 2**30, 0.5)
    assert build(hosts={"a": {"kind": "vm", "memory": "64M"}}).hosts["a"].memory == 64 * 2**20


@pytest.mark.parametrize("kind", ["native", "emulated"])
def test_other_hosts_have_no_kernel_of_their_own(kind: str) -> None:
    assert build(hosts={"a": {"kind": kind}}).hosts["a"].own_kernel is None


def test_nothing_can_be_changed_afterwards() -> None:
    topology = build()
    for part, key in [(topology, "name"), (topology.hosts["a"], "memory"), (topology.networks["lan"], "mtu")]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, key, 1)


def test_what_was_given_is_not_changed() -> None:
    data: dict[str, Any] = {"name": "x", "networks": {"lan": {}}, "hosts": {"a": {"networks": ["lan"]}, "b": None}}
    Topology.build(data)
    assert data == {"name": "x", "networks": {"lan": {}}, "hosts": {"a": {"networks": ["lan"]}, "b": None}}


def test_an_error_without_a_file_says_the_path() -> None:
    with pytest.raises(TopologyError) as caught:
        build(hosts={"a": {"memory": "lots"}})
    assert str(caught.value).startswith("hosts.a.memory: 'lots' is not a size\n")
    assert (caught.value.file, caught.value.line, caught.value.column) == ("", 0, 0)


def test_parts_are_called_like_their_keys() -> None:
    spec = Host(kind="emulated")
    topology = Topology(name="x", networks={"lan": Network()}, hosts={"a": spec, "b": spec, "c": None})
    assert topology == Topology.build(
        {"name": "x", "networks": {"lan": {}}, "hosts": {"a": {"kind": "emulated"}, "b": {"kind": "emulated"}, "c": {}}}
    )
    assert [host.name for host in topology.hosts.values()] == ["a", "b", "c"]
    assert spec.name == ""


def test_a_constructor_takes_what_a_file_takes() -> None:
    host = Host(
        networks=["lan", "wan"],
        sysctls={"net.core.somaxconn": 4, "net.ipv4.tcp_rmem": [1, 2, 3]},
        environment={"LEVEL": 1},
        files={"/etc/motd": "hello"},
        memory="64M",
        command="serve 7",
        ready=Ready(listening=7),
    )
    read = build(networks={"lan": {}, "wan": {}}, hosts={"a": host.model_dump(exclude_unset=True, exclude={"name"})}).hosts["a"]
    assert (read.memory, read.command) == (64 * 2**20, ("serve", "7"))
    assert read.sysctls == {"net.core.somaxconn": "4", "net.ipv4.tcp_rmem": "1 2 3"}
    assert read == host.model_copy(update={"name": "a"})
    assert Network(subnet="10.1.0.0/24").subnet == IPv4Network("10.1.0.0/24")
    assert Attachment(address="10.1.0.7").address == IPv4Address("10.1.0.7")


def wrong_kind() -> object:
    return Host(kind="nativ")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message", "hint"),
    [
        (wrong_kind, "kind: there is no kind 'nativ', did you mean 'native'?", "one of: native, emulated, vm"),
        (lambda: Host(knd="vm"), "knd: there is no key 'knd', did you mean 'kind'?", "keys here: arch, "),  # type: ignore[call-arg]
        (lambda: Host(memory="lots"), "memory: 'lots' is not a size", "64M"),
        (lambda: Host(sysctls={"net.core.somaxcon": 1}), "sysctls.net.core.somaxcon: there is no sysctl", "sysctl -a"),
        (lambda: Host(networks={"lan": "10.1.0.300"}), "networks.lan.address: '10.1.0.300' is not an IPv4 address", "10.1.0.5"),
        (lambda: Host(kind="vm", ready=Ready(listening=1)), "ready.listening: the host has no command", "command:"),
        (lambda: Ready(listening=0), "listening: 0 is out of range", "at least 1"),
        (File, "there is neither content nor source", "one of them"),
        (lambda: Network(subnet="10.1.0.0/33"), "subnet: '10.1.0.0/33' ", ""),
    ],
)
def test_a_constructor_says_what_is_wrong_and_where(make: Callable[[], object], message: str, hint: str) -> None:
    with pytest.raises(TopologyError) as caught:
        make()
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "nobody sees pydantic's own words"


def test_a_topology_of_parts_says_what_is_wrong_between_them() -> None:
    with pytest.raises(TopologyError) as caught:
        Topology(name="x", networks={"lan": Network()}, hosts={"a": Host(networks=["lon"]), "b": Host(routes=[Route(to="r", via="c")])})
    assert "hosts.a.networks.lon: there is no network 'lon', did you mean 'lan'?" in str(caught.value)
    assert "hosts.b.routes.0.via: 'c' is no address, and there is no host of that name" in str(caught.value)


@pytest.mark.parametrize(
    ("networks", "hosts", "message"),
    [
        ({"My Net": Network()}, {"a": Host()}, "networks.My Net: 'My Net' is not a network name, did you mean 'my-net'?"),
        ({"lan": Network()}, {"7": Host()}, "hosts.7: '7' as a host name would be read as an address"),
        ({"lan": Network()}, {"a": Host(name="b")}, "hosts.a: 'b' stands under the key 'a'"),
        (
            {"lan": Host()},
            {"a": Attachment()},
            "a Network belongs here\nhosts.a: an Attachment stands here",
        ),
        ({}, {"a": Host()}, "networks: there is no network"),
    ],
)
def test_a_key_is_a_name(networks: Any, hosts: Any, message: str) -> None:
    with pytest.raises(TopologyError) as caught:
        Topology(name="x", networks=networks, hosts=hosts)
    assert message in str(caught.value)


def test_what_only_a_file_has_is_not_offered_in_python() -> None:
    with pytest.raises(TopologyError, match="there is no key 'count'") as caught:
        build(hosts={"a": {"count": 3}})
    assert "count" not in caught.value.hint
    with pytest.raises(TopologyError, match="there is no key 'defaults'") as caught:
        build(defaults={})
    assert "defaults" not in caught.value.hint


def test_a_part_under_another_name_is_refused() -> None:
    with pytest.raises(TopologyError, match=r"hosts.a: 'b' stands under the key 'a'"):
        build(hosts={"a": Host(name="b")})


def test_an_unknown_name_offers_the_nearest() -> None:
    topology = build(hosts={"client": {}})
    assert topology.host("client").name == "client"
    assert topology.network("lan").name == "lan"
    with pytest.raises(UnknownName, match="no host is called 'cleint', did you mean 'client'"):
        topology.host("cleint")
    with pytest.raises(UnknownName, match="no network is called 'lam', did you mean 'lan'"):
        topology.network("lam")


def test_hosts_of_a_network_keep_the_order_of_the_file() -> None:
    topology = build(networks={"l": {}, "r": {}}, hosts={"b": {"networks": ["l"]}, "a": {"networks": ["r", "l"]}, "c": {"networks": ["r"]}})
    assert [host.name for host in topology.hosts_on("l")] == ["b", "a"]


def test_numbers_and_python_values_are_taken_too() -> None:
    host = build(
        networks={"lan": {"subnet": IPv4Network("10.1.0.0/24"), "gateway": IPv4Address("10.1.0.2")}},
        hosts={
            "a": {
                "networks": {"lan": IPv4Address("10.1.0.7")},
                "memory": 64 * 2**20,
                "cpus": 2,
                "files": {"/x": {"content": "", "mode": 0o755}},
                "sysctls": {"net.core.somaxconn": 5, "net.ipv4.tcp_syncookies": False},
                "environment": {"A": 1, "B": True, "C": 1.5},
            }
        },
    ).hosts["a"]
    assert host.networks["lan"].address == IPv4Address("10.1.0.7")
    assert (host.memory, host.cpus, host.files["/x"].mode) == (64 * 2**20, 2.0, 0o755)
    assert host.sysctls == {"net.core.somaxconn": "5", "net.ipv4.tcp_syncookies": "0"}
    assert host.environment == {"A": "1", "B": "true", "C": "1.5"}


@pytest.mark.parametrize("value", [True, 5, 10.5, b"10.1.0.0/24", ("10.1.0.0", 24)])
def test_a_number_is_no_address_and_no_subnet(value: object) -> None:
    with pytest.raises(TopologyError, match="is not text"):
        build(networks={"lan": {"subnet": value}})
    with pytest.raises(TopologyError, match=r"hosts\.a\.networks\.lan"):
        build(networks={"lan": {"subnet": "10.1.0.0/24"}}, hosts={"a": {"networks": {"lan": value}}})


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("6M", 6 * 2**20),
        ("6291456", 6 * 2**20),
        ("1G", 2**30),
        ("1g", 2**30),
        ("1.5 GiB", 3 * 2**29),
        ("65536KB", 2**26),
        ("9000000b", 9000000),
    ],
)
def test_sizes_are_read_as_docker_reads_them(written: str, size: int) -> None:
    assert build(hosts={"a": {"memory": written}}).hosts["a"].memory == size


@pytest.mark.parametrize(("written", "mode"), [("644", 0o644), ("0755", 0o755), ("0o4755", 0o4755), (0o600, 0o600)])
def test_modes_are_octal_when_they_are_text(written: object, mode: int) -> None:
    assert build(hosts={"a": {"files": {"/x": {"content": "", "mode": written}}}}).hosts["a"].files["/x"].mode == mode


@pytest.mark.parametrize("written", [-1, 0o10000, True, "8", "0888", "rwx", 1.5])
def test_what_is_no_mode_is_refused(written: object) -> None:
    with pytest.raises(TopologyError, match=r"is not a file mode|is not text"):
        build(hosts={"a": {"files": {"/x": {"content": "", "mode": written}}}})


def test_capabilities_lose_their_prefix_and_their_doubles() -> None:
    capabilities = build(hosts={"a": {"capabilities": ["net_raw", "CAP_SYS_ADMIN", "NET_RAW", "ALL"]}}).hosts["a"].capabilities
    assert capabilities == ("NET_RAW", "SYS_ADMIN", "ALL")
    assert build(hosts={"a": {"capabilities": []}}).hosts["a"].capabilities == ()
    assert set(DEFAULT_CAPABILITIES) < set(CAPABILITIES)


def test_forwarding_agrees_with_the_same_word_in_sysctls() -> None:
    for name in ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"):
        assert build(hosts={"a": {"forwarding": True, "sysctls": {name: 1}}})
        assert build(hosts={"a": {"sysctls": {name: 1}}}), "not a contradiction as long as forwarding is not written"
        for forwarding in (True, False):
            with pytest.raises(TopologyError, match="contradicts forwarding"):
                build(hosts={"a": {"forwarding": forwarding, "sysctls": {name: int(not forwarding)}}})


@pytest.mark.parametrize("subnet", ["10.0.0.0/8", "172.31.255.252/30", "192.168.1.0/24", "100.64.0.0/10", "192.0.2.0/24", "198.18.0.0/15"])
def test_subnets_that_hide_nothing_public_are_fine(subnet: str) -> None:
    assert str(build(networks={"lan": {"subnet": subnet}}).networks["lan"].subnet) == subnet


@pytest.mark.parametrize("subnet", ["172.32.0.0/16", "100.128.0.0/16", "192.169.0.0/16", "11.0.0.0/8", "1.1.1.0/24", "10.0.0.0/7"])
def test_subnets_beside_the_private_ones_are_refused(subnet: str) -> None:
    with pytest.raises(TopologyError, match=r"lose its way|did you mean"):
        build(networks={"lan": {"subnet": subnet}})


def test_a_subnet_has_room_for_its_gateway_and_hosts_and_no_more() -> None:
    hosts: dict[str, Any] = {f"h{number}": {} for number in range(5)}
    assert build(networks={"lan": {"subnet": "10.1.0.0/29"}}, hosts=hosts)
    with pytest.raises(TopologyError, match="room for 5 hosts beside the gateway, and 6 are on it"):
        build(networks={"lan": {"subnet": "10.1.0.0/29"}}, hosts={**hosts, "one-more": {}})


def test_ipv6_subnets_overlap_too_and_have_no_broadcast_address() -> None:
    with pytest.raises(TopologyError, match=r"networks.b.subnet6: fd00::/64 overlaps fd00::/48 of network 'a'"):
        build(networks={"a": {"subnet6": "fd00::/48"}, "b": {"subnet6": "fd00::/64"}}, hosts={"h": {"networks": ["a"]}})
    topology = build(networks={"lan": {"subnet6": "fd00::/64"}}, hosts={"a": {"networks": {"lan": "fd00::ffff:ffff:ffff:ffff"}}})
    assert topology.networks["lan"].ipv6
    assert str(topology.networks["lan"].gateway6_address) == "fd00::1"


@pytest.mark.parametrize("route", [
    {"to": "default", "via": "b"}, {"to": "10.9.0.0/16", "via": "10.1.0.9"}, {"to": "far", "via": "b"},
    {"to": "fd09::/64", "via": "fe80::1"}, {"to": "default", "via": "fd00::2"},
])  # fmt: skip
def test_routes_that_can_be(route: dict[str, str]) -> None:
    networks = {"lan": {"subnet": "10.1.0.0/24", "subnet6": "fd00::/64"}, "far": {}}
    build(networks=networks, hosts={"a": {"networks": ["lan"], "routes": [route]}, "b": {"networks": ["lan", "far"]}})


def test_too_many_hosts_or_networks_are_refused() -> None:
    with pytest.raises(TopologyError, match=f"there are {MOST_HOSTS + 1} hosts"):
        build(hosts={f"h{number}": {} for number in range(MOST_HOSTS + 1)})
    with pytest.raises(TopologyError, match=f"there are {MOST_NETWORKS + 1} networks"):
        build(networks={f"n{number}": {} for number in range(MOST_NETWORKS + 1)})


@pytest.mark.parametrize(
    "data", [{}, {"hosts": {}}, {"hosts": None, "networks": None, "name": None}, {1: 2}, {"name": 3}, {"hosts": {1: {}}}]
)
def test_data_that_is_no_topology_at_all(data: dict[Any, Any]) -> None:
    with pytest.raises(TopologyError):
        Topology.build(data)


@pytest.mark.parametrize(("stem", "name"), [("My_Lab", "my-lab"), ("a.b.c", "a-b-c"), ("__", ""), ("x" * 80, "x" * 63), ("ä", "")])
def test_a_name_is_made_from_a_files_name(stem: str, name: str) -> None:
    assert slug(stem) == name
