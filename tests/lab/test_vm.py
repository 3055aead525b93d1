"""A vm host: what it is on the network, and what only a kernel of its own can do, beside what an emulated host makes of it."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address, ip_interface
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testbed import observe
from testbed.capture import ALL_PORTS, capture
from testbed.engine import Engine
from testbed.host import Host
from testbed.lab import Lab
from testbed.process import run_local, wait_until
from testbed.reset import reset
from tests.lab.support import Labs, qemu_of, run_testbed, status, topology

COMMAND = 'od -An -tx1 -v -w32 -N32 /dev/urandom; echo "$WORDS"; cat /etc/app/given.conf; exec echo-server 8001'
OF_BOTH = f"kind: vm, arch: s390x, command: [sh, -c, '{COMMAND}'], ready: {{listening: 8001}}"
LAB = f"""
networks:
  lan: {{subnet: 10.96.1.0/24, subnet6: "fd96:1::/64", mtu: 1400}}
  far: {{subnet: 10.96.2.0/24, subnet6: "fd96:2::/64"}}
  beyond: {{subnet: 10.96.3.0/24, subnet6: "fd96:3::/64"}}
hosts:
  native: {{networks: [lan]}}
  emulated: {{kind: emulated, networks: [lan]}}
  router: {{networks: [lan, beyond], forwarding: true}}
  distant: {{networks: [beyond], routes: [{{to: default, via: router}}]}}
  vm: {{
    {OF_BOTH},
    networks: {{far: , lan: {{address: 10.96.1.77, address6: "fd96:1::77"}}}}, routes: [{{to: beyond, via: router}}],
    environment: {{WORDS: two words}},
    files: {{
      /etc/app/given.conf: {{content: "first\\nsecond\\n", mode: "0600"}},
      /usr/local/bin/from-here: {{source: ./program, mode: 0755}}}},
    sysctls: {{
      net.ipv4.tcp_mem: [1000, 2000, 3000], net.core.netdev_max_backlog: 500, net.core.rmem_max: 400000,
      net.core.somaxconn: 7, net.ipv4.conf.eth1.rp_filter: 2, kernel.msgmax: 4096, vm.swappiness: 5 }}}}
  twin: {{{OF_BOTH}, networks: [far, lan]}}
"""


pytestmark = topology(LAB)


@pytest.fixture
def vm(lab: Lab) -> Host:
    return lab.host("vm")


def text_of(host: Host, *argv: str) -> str:
    return host.run(argv).check(where=host.name).text


def pinged(host: Host, address: str, *options: str) -> str:
    return host.run(["ping", "-c", "1", "-W", "20", *options, address]).text


# The guest is the host


def test_the_guest_has_the_addresses_macs_and_mtu_of_the_host_on_every_network(lab: Lab, vm: Host) -> None:
    shown = {one["ifname"]: one for one in json.loads(text_of(vm, "ip", "-json", "address"))}
    assert set(shown) == {"lo", "eth0", "eth1"}
    for link in lab.settings["vm"]["links"]:
        device = shown[link["device"]]
        found = {f"{one['local']}/{one['prefixlen']}" for one in device["addr_info"] if one["scope"] == "global"}
        assert (device["address"], device["mtu"], found) == (link["mac"], link["mtu"], set(link["addresses"]))
    assert vm.addresses["lan"] == (ip_interface("10.96.1.77").ip, IPv6Address("fd96:1::77"))


def test_it_has_the_files_environment_command_and_name_of_the_file(lab: Lab, vm: Host) -> None:
    assert text_of(vm, "hostname") == text_of(vm, "cat", "/etc/hostname") == "vm\n"
    assert text_of(vm, "stat", "-c", "%a %u:%g", "/etc/app/given.conf", "/usr/local/bin/from-here").split("\n")[:2] == [
        "600 0:0",
        "755 0:0",
    ]
    assert vm.run(["from-here"]).exit_code == 11
    assert text_of(vm, "printenv", "WORDS") == "two words\n"
    assert run_testbed("logs", f"{lab.name}/vm").check().text.splitlines()[1:4] == ["two words", "first", "second"]
    assert text_of(vm, "pgrep", "-x", "echo-server").strip().isdigit()


@pytest.mark.parametrize("name", ["native", "emulated", "router", "twin"])
def test_it_reaches_the_others_by_name_and_they_reach_it(lab: Lab, vm: Host, name: str) -> None:
    for one, to in ((vm, name), (lab.host(name), "vm")):
        for version in ("-4", "-6"):
            done = one.run(["ping", "-c", "1", "-W", "20", version, to])
            assert done.exit_code == 0, done.text
    assert vm.run(["nc", "-N", "-w", "20", "twin", "8001"], stdin=b"to and fro").stdout == b"to and fro"
    assert lab.host(name).run(["nc", "-N", "-w", "20", "vm", "8001"], stdin=b"to and fro").stdout == b"to and fro"


def test_its_routes_lead_through_the_router(lab: Lab, vm: Host) -> None:
    for version in ("-4", "-6"):
        reply = pinged(vm, "distant", version)
        assert "ttl=63" in reply, reply
    assert "ttl=63" in pinged(lab.host("distant"), "10.96.1.77")


def test_its_clock_is_the_machines(lab: Lab) -> None:
    """It is told the time while it is restored, and is behind by no more than that takes, on a busy machine too."""
    for name in ("vm", "twin"):
        began = time.time()
        reset(lab, [name])
        there = float(text_of(lab.host(name), "date", "+%s.%N"))
        assert began < there < time.time() + 1


# Nobody else is


def test_only_the_guest_answers_on_the_network(engine: Engine, lab: Lab, vm: Host) -> None:
    """Its container stands between it and the network, without an address."""
    runner = engine.inspect(vm.container).pid
    there = json.loads(run_local(["nsenter", "--target", str(runner), "--net", "ip", "-json", "address"]).check().text)
    assert [one["addr_info"] for one in there if one["ifname"] != "lo" and one["addr_info"]] == []
    mac = bytes.fromhex(next(link["mac"] for link in lab.settings["vm"]["links"] if link["network"] == "lan").replace(":", ""))
    native, port = lab.host("native"), lab.port("vm", "lan")
    native_mac = bytes.fromhex(text_of(native, "cat", "/sys/class/net/eth0/address").strip().replace(":", ""))
    text_of(native, "ip", "neighbour", "flush", "all")
    with lab.switch as switch, capture(switch, port) as seen:
        assert "ttl=64" in pinged(native, "10.96.1.77")
        assert "ttl=64" in pinged(native, "fd96:1::77")
    assert {one.source_mac for one in seen.packets()} <= {mac, *_macs(lab)}
    # Opcode 2 is a reply (RFC 826); of who the guest is, only the guest tells.
    replies = [one for one in seen.packets() if one.ethertype == 0x0806 and one.payload[6:8] == b"\0\2" and one.source_mac != native_mac]
    assert replies
    assert {(one.source_mac, one.payload[8:14], one.payload[14:18]) for one in replies} == {(mac, mac, bytes([10, 96, 1, 77]))}


def _macs(lab: Lab) -> set[bytes]:
    return {bytes.fromhex(link["mac"].replace(":", "")) for one in lab.settings.values() for link in one["links"]}


def test_nobody_speaks_with_the_address_that_the_guest_s_snapshot_had(lab: Lab) -> None:
    """QEMU announces it after a restoration, unless it is told not to: five times, the first one after 50 ms."""
    native = lab.host("native")
    with lab.switch as switch, capture(switch, ALL_PORTS, filter="inbound") as seen:
        reset(lab, ["twin"])
        assert native.run(["ping", "-c", "4", "-i", "0.2", "-W", "20", "-4", "twin"]).exit_code == 0
    assert {one.source_mac for one in seen.packets()} <= _macs(lab)


def test_nobody_answers_for_a_guest_that_stands_still(engine: Engine, lab: Lab, vm: Host) -> None:
    native, qemu = lab.host("native"), qemu_of(engine, vm)
    mac = next(link["mac"] for link in lab.settings["vm"]["links"] if link["network"] == "lan")
    os.kill(qemu, signal.SIGSTOP)
    try:
        text_of(native, "ip", "neighbour", "flush", "all")
        with lab.switch as switch, capture(switch, lab.port("vm", "lan"), filter=f"not ether src {_mac_of(native)}") as seen:
            for address in ("10.96.1.77", "fd96:1::77"):
                assert native.run(["ping", "-c", "2", "-i", "0.2", "-W", "1", address]).exit_code != 0
            assert native.run(["nc", "-z", "-w", "1", "10.96.1.77", "8001"]).exit_code != 0
        assert {one.source_mac for one in seen.packets()} <= _macs(lab) - {bytes.fromhex(mac.replace(":", ""))}
    finally:
        os.kill(qemu, signal.SIGCONT)
    wait_until(lambda: "ttl=64" in pinged(native, "10.96.1.77"), timeout_s=60, what="the guest's answer")


def _mac_of(host: Host) -> str:
    return text_of(host, "cat", "/sys/class/net/eth0/address").strip()


def test_the_agent_is_in_no_counter_and_no_list_of_sockets(vm: Host) -> None:
    def transmitted() -> int:
        return sum(map(int, text_of(vm, "sh", "-c", "cat /sys/class/net/*/statistics/[rt]x_bytes").split()))

    before = transmitted()
    assert len(vm.run(["head", "-c", "2000000", "/dev/zero"]).stdout) == 2_000_000
    assert transmitted() - before < 100_000, "there is other traffic, neighbours asking for each other, but not this"
    listed = text_of(vm, "ss", "-H", "--listening", "--tcp", "--udp", "--raw", "--unix", "--packet", "--numeric", "--vsock").splitlines()
    assert [line for line in listed if ":8001 " not in line] == []
    assert text_of(vm, "nft", "list", "ruleset") == ""


# Clones of one snapshot

# The ephemeral ports of connections on the loopback device, and the first sequence numbers of others, from fixed ports. The
# addresses are the same on both hosts, so nothing but their secrets makes a difference, and, for the numbers, the time
# (RFC 6528; in Linux a step takes 64 ns).
FIRST_NUMBERS = """
import json, socket
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, SEND_QUEUE = 19, 20, 21, 2
ports, numbers, listeners = [], [], [socket.create_server(("127.0.0.1", 7000 + port)) for port in range(6)]
for listener in listeners:
    ports.append(socket.create_connection(listener.getsockname()).getsockname()[1])
for listener in listeners:
    client = socket.create_connection(listener.getsockname(), source_address=("127.0.0.1", listener.getsockname()[1] - 1000))
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, SEND_QUEUE)
    numbers.append(client.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) % 2**32)
print(json.dumps([ports, numbers]))
"""
STEPS_A_SECOND = 10**9 // 64


def test_clones_are_individuals(lab: Lab) -> None:
    names = ("vm", "twin")
    links = [lab.settings[name]["links"] for name in names]
    for key in ("mac", "addresses"):
        assert not {str(one[key]) for one in links[0]} & {str(one[key]) for one in links[1]}
    for ask in (["hostname"], ["cat", "/proc/sys/kernel/random/boot_id"], ["cat", "/sys/class/net/eth0/address"]):
        assert len({text_of(lab.host(name), *ask) for name in names}) == 2, ask
    drawn = [run_testbed("logs", f"{lab.name}/{name}").check().text.splitlines()[0] for name in names]
    assert all(re.fullmatch("( [0-9a-f]{2}){32}", one) for one in drawn), drawn
    assert drawn[0] != drawn[1], "the first thing that the host's command did"


@pytest.mark.long
def test_clones_choose_other_ports_and_sequence_numbers(lab: Lab) -> None:
    first = [json.loads(text_of(lab.host(name), "python3", "-c", FIRST_NUMBERS)) for name in ("vm", "twin")]
    ports, numbers = zip(*first, strict=True)
    assert ports[0] != ports[1]
    # From one connection to the next the number grows by what the secret makes of the ports, and by the time between.
    steps = [[(after - before) % 2**32 for before, after in pairwise(one)] for one in numbers]
    apart = [min((a - b) % 2**32, (b - a) % 2**32) for a, b in zip(*steps, strict=True)]
    assert max(apart) > 5 * STEPS_A_SECOND


# What only a kernel of its own can do


@pytest.mark.long
def test_sysctls_of_a_whole_kernel_are_the_guests_own(lab: Lab, vm: Host) -> None:
    wanted = {
        "net/ipv4/tcp_mem": "1000\t2000\t3000",
        "net/core/netdev_max_backlog": "500",
        "net/core/rmem_max": "400000",
        "net/core/somaxconn": "7",
        "net/ipv4/conf/eth1/rp_filter": "2",
        "kernel/msgmax": "4096",
        "vm/swappiness": "5",
    }
    paths = [f"/proc/sys/{one}" for one in wanted]
    assert text_of(vm, "cat", *paths).splitlines() == list(wanted.values())
    assert not set(text_of(lab.host("twin"), "cat", *paths[:3]).splitlines()) & set(wanted.values()), "another guest has its own"
    here = [Path(one).read_text().strip() for one in paths[:2]]
    assert here != list(wanted.values())[:2]
    # What it does: SO_RCVBUF is cut to rmem_max, and doubled (socket(7)).
    script = "import socket; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 9000000)"
    script += "; print(s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))"
    assert text_of(vm, "python3", "-c", script) == "800000\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("sysctl", "words"),
    [("net.core.rmem_max: 1", "sysctl net.core.rmem_max = 1: "), ("net.core.no_such_thing: 1", "sysctl net.core.no_such_thing = 1: ")],
)
def test_a_value_that_the_guests_kernel_refuses_is_the_files_error(labs: Labs, sysctl: str, words: str) -> None:
    file = labs.file(f"networks: {{lan: }}\nhosts:\n  a:\n  v: {{kind: vm, arch: s390x, networks: [lan], sysctls: {{{sysctl}}}}}\n")
    refused = run_testbed("up", file)
    assert refused.exit_code == 2, refused.error_text
    assert f"host 'v': {words}" in refused.error_text
    assert "kind: vm" not in refused.error_text, "it is one already"
    assert labs.left(file) == []


@pytest.mark.long
def test_no_interrupt_is_lost_between_its_network_and_its_agent(lab: Lab, vm: Host) -> None:
    """Both set bits in the same words of its memory. See `processors` in testbed/guest.py: without it the network is dead within 8 s."""
    native = lab.host("native")
    flood = native.start(["ping", "-4", "-f", "-q", "-w", "10", "vm"])
    with flood, ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: [vm.run(["true"]) for _ in iter(lambda: flood.exit_code, 0)], range(3)))
    assert " 0% packet loss" in pinged(native, "vm", "-4")


@pytest.mark.long
def test_netem_delays_what_the_guest_sends(lab: Lab, vm: Host) -> None:
    def least_ms() -> float:
        shown = text_of(vm, "ping", "-c", "6", "-i", "0.2", "-W", "20", "native")
        return min(map(float, re.findall(r"time=([\d.]+) ms", shown)))

    without = least_ms()
    text_of(vm, *["tc", "qdisc", "add", "dev", "eth1", "root", "netem", "delay", "100ms"])
    try:
        assert 95 < least_ms() - without < 150
    finally:
        text_of(vm, *["tc", "qdisc", "delete", "dev", "eth1", "root"])
    assert least_ms() < without + 50


def test_nft_filters_in_the_guest(lab: Lab, vm: Host) -> None:
    def reached() -> bool:
        return lab.host("native").run(["nc", "-z", "-w", "2", "vm", "8001"]).exit_code == 0

    assert reached()
    rules = "table inet t { chain c { type filter hook input priority 0; tcp dport 8001 counter drop; }; }"
    vm.run(["nft", "-f", "-"], stdin=rules.encode()).check()
    try:
        assert not reached()
        assert int(re.findall(r"counter packets (\d+)", text_of(vm, "nft", "list", "ruleset"))[0]) > 0
    finally:
        text_of(vm, "nft", "delete", "table", "inet", "t")
    assert reached()


def test_ss_tells_of_a_connection_what_the_guests_kernel_knows(lab: Lab, vm: Host) -> None:
    with lab.host("native").start(["nc", "10.96.1.77", "8001"]) as client:
        client.stdin.write(b"x" * 5000)
        client.stdout.read(5000)
        shown = text_of(vm, "ss", "-tinH", "state", "established", "sport", "=", ":8001")
    assert "cubic" in shown
    assert float(re.findall(r" rtt:([\d.]+)/", shown)[0]) > 0
    assert int(re.findall(r" bytes_received:(\d+)", shown)[0]) == 5000
    assert int(re.findall(r" mss:(\d+)", shown)[0]) == 1400 - 40 - 12, "the MTU without the headers, and timestamps"


def test_the_guest_shows_addresses_in_its_own_byte_order(lab: Lab, vm: Host) -> None:
    """/proc/net/tcp has an address as the number that its four bytes are to the kernel (tcp4_seq_show)."""
    native = lab.host("native")
    with vm.start(["nc", "-4", "-l", "8002"]) as server:
        wait_until(lambda: 8002 in observe.listening_sockets(vm.run), timeout_s=30, what="a listening server")
        with native.start(["nc", "10.96.1.77", "8002"]) as client:
            client.stdin.write(b"x")
            assert server.stdout.read(1) == b"x"
            on_vm, on_native = (text_of(one, "cat", "/proc/net/tcp") for one in (vm, native))
    (of_native,) = native.addresses["lan"][:1]
    assert f" 0A60014D:1F42 {of_native.packed.hex().upper()}:" in on_vm
    assert f" {of_native.packed[::-1].hex().upper()}:" in on_native
    assert " 4D01600A:1F42 " in on_native


# Beside an emulated host: its programs are big-endian, the kernel that answers them is not, and who translates does not know it all

LOOKS = """
import json, socket, struct
SO_MARK, SO_TIMESTAMPING, IP_PKTINFO = 36, 37, 8
NETLINK_SOCK_DIAG, NETLINK_NETFILTER = 4, 12
found = {}
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
server, _ = listener.accept()
client.sendall(b"x" * 1000)
server.recv(1000, socket.MSG_WAITALL)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 0))
datagrams.settimeout(30)

def look(what, ask):
    try:
        found[what] = ask()
    except OSError as error:
        found[what] = error.strerror

def option(number, value):
    client.setsockopt(socket.SOL_SOCKET, number, value)
    return client.getsockopt(socket.SOL_SOCKET, number)

def interface():
    datagrams.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    datagrams.sendto(b"", datagrams.getsockname())
    return [struct.unpack("=i", data[:4])[0] for _, _, data in datagrams.recvmsg(1, 100)[1]]

def rtt():
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return "it is there" if len(info) == 104 and struct.unpack_from("=I", info, 68)[0] > 0 else f"{len(info)} bytes"

def local_address():
    port = f":{listener.getsockname()[1]:04X}"
    (entry,) = [line.split()[1] for line in open("/proc/net/tcp") if f"{port} 00000000" in line]
    return socket.inet_ntoa(struct.pack("=I", int(entry.partition(":")[0], 16)))

def netlink(protocol):
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
    return "it opens"

look("TCP_INFO: the round-trip time", rtt)
look("TCP_CONGESTION", lambda: client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).decode().strip(chr(0)))
look("SO_MARK", lambda: option(SO_MARK, 5))
look("SO_TIMESTAMPING", lambda: option(SO_TIMESTAMPING, 24))
look("IP_PKTINFO: the interface", interface)
look("/proc/net/tcp: an address", local_address)
look("NETLINK_SOCK_DIAG", lambda: netlink(NETLINK_SOCK_DIAG))
look("NETLINK_NETFILTER", lambda: netlink(NETLINK_NETFILTER))
print(json.dumps(found))
"""


Seen = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def seen(lab: Lab) -> Seen:
    """host -> what was looked at -> what a program of that host is told; by path, as the machine's own tools come first in PATH."""
    found = {}
    for name in ("emulated", "vm"):
        host = lab.host(name)
        found[name] = json.loads(text_of(host, "python3", "-c", LOOKS))
        found[name]["TCP_CONGESTION"] = (
            found[name]["TCP_CONGESTION"],
            text_of(host, "sysctl", "-n", "net.ipv4.tcp_congestion_control").strip(),
        )
        found[name]["netlink attributes"] = "Deficit" if "!!!Deficit" in host.run(["/usr/bin/ip", "-4", "route"]).error_text else "whole"
        found[name]["ping: the TTL"] = re.findall(r"ttl=(\d+)", host.run(["/usr/bin/ping", "-c", "1", "-W", "20", "-4", "native"]).text)
        found[name]["ss"] = host.run(["/usr/bin/ss", "-tin"]).error_text.strip()
        found[name]["nft"] = host.run(["/usr/sbin/nft", "list", "ruleset"]).error_text.strip()
    return found


@pytest.mark.parametrize(
    ("what", "on_emulated", "on_vm"),
    [
        ("netlink attributes", "Deficit", "whole"),
        ("NETLINK_SOCK_DIAG", "Protocol not supported", "it opens"),
        ("NETLINK_NETFILTER", "Protocol not supported", "it opens"),
        ("ss", "Cannot open netlink socket: Protocol not supported", ""),
        ("nft", "mnl.c:60: Unable to initialize Netlink socket: Protocol not supported", ""),
        ("/proc/net/tcp: an address", "1.0.0.127", "127.0.0.1"),
        ("TCP_INFO: the round-trip time", "4 bytes", "it is there"),
        ("IP_PKTINFO: the interface", [1 << 24], [1]),
        ("ping: the TTL", ["0"], ["64"]),
        ("SO_MARK", "Protocol not available", 5),
        ("SO_TIMESTAMPING", "Protocol not available", 24),
    ],
)
def test_what_an_emulated_host_gets_wrong_a_vm_gets_right(seen: Seen, what: str, on_emulated: object, on_vm: object) -> None:
    assert (seen["emulated"][what], seen["vm"][what]) == (on_emulated, on_vm)


def test_the_congestion_control_is_garbled_on_an_emulated_host_and_right_on_a_vm(seen: Seen) -> None:
    for name, right in (("emulated", False), ("vm", True)):
        told, chosen = seen[name]["TCP_CONGESTION"]
        assert (told == chosen) is right, seen[name]


def test_status_says_whose_kernel_answers(lab: Lab, vm: Host) -> None:
    row = status(lab.name)["vm"]
    assert (row["kernel_of"], row["kernel"]) == ("its own", text_of(vm, "uname", "-r").strip())
    assert row["state"] == "running (restored, tcg)"
