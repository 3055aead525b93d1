"""Every key of a host and of a network holds on the real host: what the file says is what the kernel there says."""

from __future__ import annotations

import json
import re
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from testbed import observe
from testbed.engine import Engine
from testbed.host import Host
from testbed.lab import Lab
from tests.lab.support import Labs, run_testbed, status, topology

CAPABILITY_BITS = {"NET_BIND_SERVICE": 1 << 10, "NET_ADMIN": 1 << 12, "NET_RAW": 1 << 13}
FULL = """{{
    kind: {kind},
    networks: {{far: , lan: {{address: 10.95.1.{last}, address6: "fd95:1::{last}"}}}},
    sysctls: {{
      net.core.somaxconn: 7, net.ipv4.tcp_syncookies: false, net.ipv4.tcp_rmem: [4096, 8192, 16384],
      net.ipv4.ip_local_port_range: "40000 40010", net.ipv4.conf.eth1.rp_filter: 2, kernel.msgmax: 4096 }},
    environment: {{WORDS: two words, NUMBER: 5, EMPTY: ""}},
    files: {{
      /etc/app/deep/given.conf: {{content: "first\\nsecond\\n", mode: "0600"}},
      /usr/local/bin/from-here: {{source: ./program, mode: 0755}},
      /root/short: brief }},
    memory: 64M, cpus: 0.5, capabilities: [NET_RAW],
    command: [sh, -c, 'echo "$WORDS $NUMBER<$EMPTY>"; cat /root/short; grep Cap /proc/self/status; exec sleep 1000000'],
    ready: {{log: CapAmb}} }}"""
LAB = f"""
networks:
  lan: {{subnet: 10.95.1.0/24, gateway: 10.95.1.254, subnet6: "fd95:1::/64", mtu: 1400}}
  far: {{subnet: 10.95.2.0/24, subnet6: "fd95:2::/64"}}
hosts:
  full: {FULL.format(kind="native", last=77)}
  emulated: {FULL.format(kind="emulated", last=78)}
  router: {{networks: {{lan: 10.95.1.100, far: 10.95.2.100}}, forwarding: true}}
  by-name: {{networks: [lan], routes: [{{to: far, via: router}}]}}
  by-default: {{networks: [far], routes: [{{to: default, via: router}}]}}
  by-subnet: {{networks: [far], routes: [{{to: 10.95.1.0/24, via: 10.95.2.100}}]}}
  bare: {{networks: [lan], count: 3, capabilities: []}}
  quiet: {{networks: [lan]}}
  listening: {{networks: [lan], command: [sh, -c, 'sleep 1; exec echo-server 8001'], ready: {{listening: 8001}}}}
  big-listening: {{kind: emulated, networks: [lan], command: [sh, -c, 'sleep 1; exec echo-server 8001'], ready: {{listening: 8001}}}}
  working: {{networks: [lan], command: [sh, -c, 'sleep 1; touch /tmp/done'], ready: {{command: [test, -e, /tmp/done]}}}}
"""
BOTH = pytest.mark.parametrize("name", ["full", "emulated"])


pytestmark = topology(LAB)


def text_of(host: Host, *argv: str) -> str:
    return host.run(argv).check(where=host.name).text


def routes(host: Host, version: int = 4) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(text_of(host, "ip", "-json", f"-{version}", "route"))
    return found


# One host


@BOTH
def test_sysctls_have_their_values(lab: Lab, name: str) -> None:
    host = lab.host(name)
    wanted = {
        "net/core/somaxconn": "7",
        "net/ipv4/tcp_syncookies": "0",
        "net/ipv4/tcp_rmem": "4096\t8192\t16384",
        "net/ipv4/ip_local_port_range": "40000\t40010",
        "net/ipv4/conf/eth1/rp_filter": "2",
        "kernel/msgmax": "4096",
    }
    paths = [f"/proc/sys/{one}" for one in wanted]
    assert text_of(host, "cat", *paths).splitlines() == list(wanted.values())
    assert text_of(lab.host("quiet"), "cat", *paths[:2]).splitlines() != ["7", "0"], "another host has its own"


@BOTH
def test_the_environment_is_that_of_the_command_and_of_every_other_program(lab: Lab, name: str) -> None:
    assert run_testbed("logs", f"{lab.name}/{name}").check().text.startswith("two words 5<>\n")
    assert text_of(lab.host(name), "sh", "-c", 'echo "$WORDS $NUMBER<$EMPTY>"') == "two words 5<>\n"
    assert lab.host("quiet").run(["printenv", "WORDS"]).exit_code == 1


@BOTH
def test_files_have_their_content_and_modes_and_are_there_before_the_command(lab: Lab, name: str) -> None:
    host = lab.host(name)
    assert host.read("/etc/app/deep/given.conf") == b"first\nsecond\n"
    shown = text_of(host, "stat", "-c", "%a %u:%g", "/etc/app/deep/given.conf", "/usr/local/bin/from-here", "/root/short")
    assert shown.split("\n")[:3] == ["600 0:0", "755 0:0", "644 0:0"]
    assert host.run(["from-here"]).exit_code == 11
    assert run_testbed("logs", f"{lab.name}/{name}").check().text.splitlines()[1].startswith("brief")


@BOTH
def test_memory_and_processors_are_limited(lab: Lab, name: str) -> None:
    script = """
        if [ -e /sys/fs/cgroup/memory.max ]; then cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory.swap.max; else
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes; echo 0; fi
        if [ -e /sys/fs/cgroup/cpu.max ]; then cat /sys/fs/cgroup/cpu.max; else
        echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us); fi"""
    memory, swap, cpus = text_of(lab.host(name), "sh", "-c", script).splitlines()
    quota, period = map(int, cpus.split())
    assert (int(memory), int(swap), quota / period) == (64 << 20, 0, 0.5)


@BOTH
def test_a_host_that_wants_too_much_memory_loses_that_program_only(lab: Lab, name: str) -> None:
    taken = lab.host(name).run(["python3", "-c", "data = bytearray(b'x') * (200 << 20)"])
    assert taken.exit_code in (1, 137), "MemoryError, or killed by the kernel"
    assert lab.host(name).run(["true"]).exit_code == 0


@BOTH
def test_capabilities_are_exactly_those_of_the_file_and_net_admin(lab: Lab, name: str) -> None:
    wanted = CAPABILITY_BITS["NET_RAW"] | CAPABILITY_BITS["NET_ADMIN"]
    logged = run_testbed("logs", f"{lab.name}/{name}").check().text
    for said in (logged, text_of(lab.host(name), "grep", "Cap", "/proc/self/status")):
        sets = {key: int(value, 16) for key, value in re.findall(r"(Cap\w+):\s+(\w+)", said)}
        assert (sets["CapBnd"], sets["CapEff"]) == (wanted, wanted)
    assert lab.host(name).run(["chown", "nobody", "/root/short"]).exit_code != 0


def test_without_capabilities_only_net_admin_is_there(lab: Lab) -> None:
    said = text_of(lab.host("bare-1"), "grep", "CapBnd", "/proc/self/status")
    assert int(said.split()[1], 16) == CAPABILITY_BITS["NET_ADMIN"]


def test_a_count_makes_so_many_hosts_alike(lab: Lab) -> None:
    assert sorted(name for name in lab.hosts if name.startswith("bare")) == ["bare-1", "bare-2", "bare-3"]
    assert len({text_of(lab.host(f"bare-{number}"), "hostname") for number in (1, 2, 3)}) == 3


@pytest.mark.parametrize("name", ["listening", "big-listening"])
def test_up_waits_until_a_port_is_listened_on(lab: Lab, name: str) -> None:
    assert set(observe.listening_sockets(lab.host(name).run)) == {8001}
    echoed = lab.host("quiet").run(["nc", "-N", "-w", "10", name, "8001"], stdin=b"to and fro")
    assert echoed.stdout == b"to and fro"


def test_up_waits_until_a_command_succeeds(lab: Lab) -> None:
    assert lab.host("working").run(["test", "-e", "/tmp/done"]).exit_code == 0


# Links and addresses


@BOTH
def test_devices_come_in_the_files_order_with_the_addresses_and_mtu_of_their_networks(lab: Lab, name: str) -> None:
    last = {"full": 77, "emulated": 78}[name]
    host = lab.host(name)
    assert host.addresses["lan"] == (ip_address(f"10.95.1.{last}"), ip_address(f"fd95:1::{last}"))
    assert text_of(host, "cat", "/sys/class/net/eth0/mtu", "/sys/class/net/eth1/mtu") == "1500\n1400\n"
    # An emulator garbles what ip(8) asks; a ping from the other side tells as well whether the address is on the right network.
    for network, device in (("far", "eth0"), ("lan", "eth1")):
        for address in host.addresses[network]:
            assert lab.host("router").run(["ping", "-c", "1", "-W", "10", str(address)]).exit_code == 0
            if name == "full":
                assert f" {address}/" in text_of(host, "ip", "address", "show", "dev", device)


@BOTH
def test_programs_are_told_where_to_send_what_is_for_everybody(lab: Lab, name: str) -> None:
    """By SIOCGIFBRDADDR, as netdevice(7) has it."""
    asked = "fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8919, b'eth1'.ljust(40, bytes(1)))[20:24]"
    found = lab.host(name).run(["python3", "-c", f"import fcntl, socket; print(socket.inet_ntoa({asked}))"]).check().text
    assert found == "10.95.1.255\n"


def test_no_packet_is_larger_than_the_mtu(lab: Lab) -> None:
    fits, too_large = (
        lab.host("quiet").run(["ping", "-4", "-c", "1", "-W", "10", "-M", "do", "-s", str(size), "router"]) for size in (1372, 1373)
    )
    assert fits.exit_code == 0, fits.text
    assert too_large.exit_code != 0


def test_macs_are_locally_administered_and_stay_the_same(engine: Engine, tmp_path: Path) -> None:
    labs = Labs(engine, tmp_path)
    file = labs.file("networks:\n  lan: {subnet: 10.95.9.0/24}\nhosts:\n  h: {count: 3}\n")

    def macs() -> list[str]:
        run_testbed("up", "-q", file).check()
        with labs.lab(file) as lab:
            return [text_of(host, "cat", "/sys/class/net/eth0/address").strip() for host in lab.hosts.values()]

    try:
        first = macs()
        assert len(set(first)) == 3
        assert all(int(mac[:2], 16) & 0b11 == 0b10 for mac in first), "locally administered, not a group's"
        run_testbed("down", file).check()
        assert macs() == first
    finally:
        labs.remove()


def test_ipv6_is_usable_at_once(engine: Engine, tmp_path: Path) -> None:
    labs = Labs(engine, tmp_path)
    try:
        with labs.up("networks:\n  lan: {ipv6: true}\nhosts:\n  a:\n  b:\n") as lab:
            (target,) = [one for one in lab.host("b").addresses["lan"] if one.version == 6]
            # bind() refuses an address that is still being looked for elsewhere (duplicate address detection).
            own = next(str(one) for one in lab.host("a").addresses["lan"] if one.version == 6)
            bound = lab.host("a").run(["python3", "-c", f"import socket; socket.socket(socket.AF_INET6).bind(('{own}', 8001))"])
            assert bound.exit_code == 0, bound.error_text
            assert lab.host("a").run(["ping", "-6", "-c", "1", "-W", "1", str(target)]).exit_code == 0
            assert "tentative" not in text_of(lab.host("a"), "ip", "-6", "address", "show", "scope", "global")
    finally:
        labs.remove()


# Routes and names


@pytest.mark.parametrize(("name", "other"), [("by-name", "by-default"), ("by-default", "by-name"), ("by-subnet", "by-name")])
def test_routes_lead_through_the_router_which_takes_one_from_the_ttl(lab: Lab, name: str, other: str) -> None:
    host = lab.host(name)
    if name == "by-subnet":  # which the way back does not need
        other = "by-name"
    reply = host.run(["ping", "-c", "1", "-W", "10", other])
    assert "ttl=63" in reply.text, reply.text
    assert "ttl=64" in text_of(host, "ping", "-c", "1", "-W", "10", "router")


def test_routes_are_as_the_file_says(lab: Lab) -> None:
    assert [one["gateway"] for one in routes(lab.host("by-name")) if one["dst"] == "10.95.2.0/24"] == ["10.95.1.100"]
    assert [one["gateway"] for one in routes(lab.host("by-default")) if one["dst"] == "default"] == ["10.95.2.100"]
    assert [one["gateway"] for one in routes(lab.host("by-subnet")) if one["dst"] == "10.95.1.0/24"] == ["10.95.2.100"]
    (gateway6,) = [str(one) for one in lab.host("router").addresses["lan"] if one.version == 6]
    assert [one["gateway"] for one in routes(lab.host("by-name"), 6) if one["dst"] == "fd95:2::/64"] == [gateway6]


def test_routes_by_name_are_of_both_versions(lab: Lab) -> None:
    (target,) = [str(one) for one in lab.host("by-default").addresses["far"] if one.version == 6]
    reply = lab.host("by-name").run(["ping", "-6", "-c", "1", "-W", "10", target])
    assert "ttl=63" in reply.text, reply.text


def test_only_the_router_forwards(lab: Lab) -> None:
    for name, wanted in (("router", "1"), ("full", "0"), ("emulated", "0")):  # which are on both networks too
        shown = text_of(lab.host(name), "cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
        assert shown.split() == [wanted, wanted], name


@pytest.mark.parametrize("name", ["by-name", "by-default", "emulated"])
def test_names_lead_to_the_nearest_address(lab: Lab, name: str) -> None:
    lines = [line.split() for line in text_of(lab.host(name), "cat", "/etc/hosts").splitlines()]
    own = set(lab.host(name).addresses)
    for other, host in lab.hosts.items():
        listed = [ip_address(address) for address, *names in lines if other in names]
        near = [address for network, of_network in host.addresses.items() if network in own for address in of_network]
        everywhere = [address for of_network in host.addresses.values() for address in of_network]
        assert sorted(map(str, listed)) == sorted(map(str, near or everywhere)), other


# Apart from everything else


def test_nothing_but_the_hosts_own_is_in_its_namespace(lab: Lab) -> None:
    host = lab.host("by-subnet")  # to which nobody makes a connection
    assert text_of(host, "ping", "-c", "1", "-W", "10", "router")
    assert text_of(host, "ss", "-H", "--all", "--tcp", "--udp", "--raw", "--unix", "--packet") == ""
    assert text_of(host, "nft", "list", "ruleset") == ""
    assert [line for line in text_of(host, "ip", "-oneline", "link").splitlines() if not re.match(r"\d+: (lo|eth0@)", line)] == []
    count = host.run(["cat", "/proc/sys/net/netfilter/nf_conntrack_count"])
    assert count.text.strip() in ("0", ""), "no connection is tracked"
    for table in ("filter", "nat", "mangle", "raw"):
        assert table not in host.run(["cat", "/proc/net/ip_tables_names"]).text


def answers(address: str) -> bool:
    """Whether a host of that address answers this machine, be it that nobody listens there."""
    try:
        socket.create_connection((address, 9), timeout=2).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def test_an_external_network_leads_out_and_an_internal_one_nowhere(engine: Engine, tmp_path: Path) -> None:
    labs = Labs(engine, tmp_path)
    try:
        with labs.up("networks:\n  out: {external: true}\n  in:\nhosts:\n  a: {networks: [out]}\n  b: {networks: [in]}\n") as lab:
            a, b = lab.host("a"), lab.host("b")
            gateway, inner_gateway = str(lab.segments["out"].gateway), str(lab.segments["in"].gateway)
            assert [one["gateway"] for one in routes(a) if one["dst"] == "default"] == [gateway]
            assert a.run(["ping", "-c", "1", "-W", "10", gateway]).exit_code == 0
            assert answers(str(a.addresses["out"][0])), "the machine reaches a host of an external network"
            assert [one["dst"] for one in routes(b)] == [str(lab.segments["in"].subnet)]
            assert b.run(["ping", "-c", "1", "-W", "1", inner_gateway]).exit_code != 0
            assert "unreachable" in b.run(["ping", "-c", "1", "-W", "1", "192.0.2.1"]).error_text
            assert b.run(["ping", "-c", "1", "-W", "1", str(a.addresses["out"][0])]).exit_code != 0
            assert not answers(str(b.addresses["in"][0])), "the machine reaches no host of an internal network"
    finally:
        labs.remove()


def test_status_tells_the_addresses_of_the_file(lab: Lab) -> None:
    assert status(lab.name)["full"]["addresses"]["lan"] == ["10.95.1.77/24", "fd95:1::77/64"]
