"""What a user types on a host is answered rightly on every kind: on an emulated host by the machine's own tools."""

from __future__ import annotations

import json
import re
from ipaddress import ip_interface

import pytest

from testbed import elf, images, rootfs
from testbed.architecture import EMULATED, of_machine
from testbed.host import Host
from testbed.lab import Lab
from testbed.process import wait_until
from tests.lab.support import run_testbed, topology

MACHINE = of_machine()
TOOLS = rootfs.Recipe.of(images.sources()).native.tools
LAB = """
networks:
  lan: {ipv6: true, mtu: 1400}
hosts:
  native: {networks: [lan], sysctls: {net.core.somaxconn: 7}}
  emulated: {kind: emulated, networks: [lan], sysctls: {net.core.somaxconn: 7}}
  vm: {kind: vm, arch: s390x, networks: [lan], sysctls: {net.core.somaxconn: 7}}
  peer: {networks: [lan], command: [echo-server, "8001"], ready: {listening: 8001}}
"""


pytestmark = topology(LAB)


# On a vm they are the guest's own, as they are with every other test of one.
@pytest.fixture(params=["native", "emulated", pytest.param("vm", marks=pytest.mark.long)])
def host(lab: Lab, request: pytest.FixtureRequest) -> Host:
    return lab.host(request.param)


@pytest.fixture
def emulated(lab: Lab) -> Host:
    return lab.host("emulated")


def text_of(host: Host, *argv: str) -> str:
    return host.run(argv).check(where=host.name).text


# Right on every kind


def test_ip_shows_the_links_and_addresses_that_the_lab_gave(lab: Lab, host: Host) -> None:
    shown = {one["ifname"]: one for one in json.loads(text_of(host, "ip", "-json", "address"))}
    (link,) = lab.settings[host.name]["links"]
    device = shown[link["device"]]
    found = {f"{one['local']}/{one['prefixlen']}" for one in device["addr_info"] if one["scope"] == "global"}
    assert (device["address"], device["mtu"], found) == (link["mac"], 1400, set(link["addresses"]))


def test_older_tools_show_them_too(lab: Lab, host: Host) -> None:
    (four, *_) = host.addresses["lan"]
    assert f"inet {four} " in text_of(host, "ifconfig", "eth0")
    network = ip_interface(lab.settings[host.name]["links"][0]["addresses"][0]).network
    assert re.search(rf"^{network[0]} +0\.0\.0\.0 +{network.netmask} +U .* eth0$", text_of(host, "route", "-n"), re.MULTILINE)
    text_of(host, "ping", "-c", "1", "-W", "20", "-4", "peer")
    (mac,) = [link["mac"] for link in lab.settings["peer"]["links"]]
    assert re.search(rf"^{lab.host('peer').addresses['lan'][0]} .* {mac} ", text_of(host, "arp", "-n"), re.MULTILINE)


@pytest.mark.parametrize("tool", ["ss", "netstat"])
def test_sockets_are_shown_with_their_addresses_and_programs(lab: Lab, host: Host, tool: str) -> None:
    with host.start(["nc", "-4", "-l", "-k", "127.0.0.1", "8002"]) as server:

        def shown() -> list[str]:
            listed = text_of(host, tool, "-l", "-t", "-n", "-p").splitlines()
            return [line for line in listed if " 127.0.0.1:8002 " in line]

        # netstat looks for whose a socket is before it looks for sockets.
        wanted = {"ss": f'users:(("nc",pid={server.pid},', "netstat": f" {server.pid}/nc "}[tool]
        wait_until(lambda: any(wanted in line for line in shown()), timeout_s=30, what=f"{wanted} among the listening servers")


def test_ss_tells_of_a_connection_what_the_kernel_knows(lab: Lab, host: Host) -> None:
    with host.start(["nc", "peer", "8001"]) as client:
        client.stdin.write(b"x" * 5000)
        client.stdout.read(5000)
        shown = text_of(host, "ss", "-tinH", "state", "established", "dport", "=", ":8001")
    assert int(re.findall(r" bytes_received:(\d+)", shown)[0]) == 5000
    assert int(re.findall(r" bytes_acked:(\d+)", shown)[0]) >= 5000


def test_nft_filters_on_the_host(lab: Lab, host: Host) -> None:
    def reached() -> bool:
        return host.run(["nc", "-z", "-w", "2", "peer", "8001"]).exit_code == 0

    assert reached()
    rules = "table inet t { chain c { type filter hook output priority 0; tcp dport 8001 counter drop; }; }"
    host.run(["nft", "-f", "-"], stdin=rules.encode()).check()
    try:
        assert not reached()
        listed = json.loads(text_of(host, "nft", "-j", "list", "ruleset"))["nftables"]
        (rule,) = [one["rule"] for one in listed if "rule" in one]
        assert next(one["counter"]["packets"] for one in rule["expr"] if "counter" in one) > 0
    finally:
        text_of(host, "nft", "delete", "table", "inet", "t")
    assert reached()


def test_tc_sets_and_shows_a_queue(host: Host) -> None:
    text_of(host, *["tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "17"])
    try:
        assert "qdisc pfifo" in text_of(host, *["tc", "qdisc", "show", "dev", "eth0"])
        assert "limit 17p" in text_of(host, *["tc", "qdisc", "show", "dev", "eth0"])
    finally:
        text_of(host, *["tc", "qdisc", "delete", "dev", "eth0", "root"])


def test_ping_knows_the_ttl_and_sysctl_the_value(host: Host) -> None:
    assert "ttl=64" in text_of(host, "ping", "-c", "1", "-W", "20", "-4", "peer")
    assert text_of(host, "sysctl", "net.core.somaxconn") == "net.core.somaxconn = 7\n"


def test_tcpdump_shows_what_passes(host: Host) -> None:
    with host.start(["tcpdump", "-i", "eth0", "-n", "-c", "1", "-l", "icmp"]) as seen:
        said = b""

        def listening() -> bool:
            nonlocal said
            said += seen.stderr.rest()
            return b"listening on eth0" in said

        wait_until(listening, timeout_s=30, what="tcpdump")
        text_of(host, "ping", "-c", "1", "-W", "20", "-4", "peer")
        line = seen.stdout.read().decode()
        assert seen.wait() == 0
    assert f"IP {host.addresses['lan'][0]} > " in line
    assert "ICMP echo request" in line


def test_processes_are_shown_with_their_own_words(host: Host) -> None:
    with host.start(["sleep", "4711"]) as sleeping, host.start(["sh", "-c", "sleep 4712; true"], user="user") as shell:
        assert text_of(host, "ps", "-o", "comm=,args=", "-p", str(sleeping.pid)).split() == ["sleep", "sleep", "4711"]
        assert text_of(host, "ps", "-ww", "-o", "user=,args=", "-p", str(shell.pid)).split() == [
            "user",
            "sh",
            "-c",
            "sleep",
            "4712;",
            "true",
        ]
        assert text_of(host, "pgrep", "-f", "-x", "sleep 4711") == f"{sleeping.pid}\n"
        # The oldest: its child has its words too, until it has become sleep.
        assert text_of(host, "pgrep", "-o", "-u", "user", "-f", "^sh -c sleep") == f"{shell.pid}\n"
        assert "sleep 4711" in text_of(host, "env", "TERM=linux", "top", "-b", "-n", "1", "-c", "-w", "200", "-p", str(sleeping.pid))
        text_of(host, "pkill", "-f", "^sleep 4711$")
        assert sleeping.wait(20) == 143


def test_an_ordinary_user_finds_the_same_tools(host: Host) -> None:
    shown = host.run(["ss", "-l", "-t", "-n"], user="user")
    assert (shown.exit_code, shown.error_text) == (0, "")
    assert host.run(["ip", "-json", "link"], user="user").check().text.startswith("[{")


# On an emulated host


def architecture_of(content: bytes) -> int:
    """e_machine of an ELF header (System V ABI)."""
    return int.from_bytes(content[18:20], "little" if content[5] == 1 else "big")


@pytest.mark.skipif(MACHINE == EMULATED, reason="nothing is emulated on this machine")
def test_each_is_the_machine_s_own_program_and_the_emulated_one_is_where_it_was(lab: Lab, emulated: Host) -> None:
    for tool in TOOLS:
        typed = text_of(emulated, "sh", "-c", f"command -v {tool}").strip()
        assert typed == f"/usr/local/bin/{tool}"
        native = emulated.read(f"/usr/lib/testbed/native/bin/{tool}")
        own = lab.host("native").read(text_of(lab.host("native"), "which", tool).strip())
        assert native == own, tool
        # the same program for the emulated architecture
        path = text_of(emulated, "sh", "-c", f"PATH=/usr/sbin:/usr/bin; command -v {tool}").strip()
        assert architecture_of(emulated.read(path)) == 22, f"{path} is for s390x"
        assert architecture_of(native) != 22


@pytest.mark.skipif(MACHINE == EMULATED, reason="nothing is emulated on this machine")
def test_nothing_of_the_machine_s_is_there_that_no_tool_needs(emulated: Host) -> None:
    folder = f"/usr/lib/{MACHINE.triplet}"
    present = set(text_of(emulated, "find", folder, "-name", "*.so*", "-printf", "%f\n").split())
    needed: set[str] = set()
    for path in text_of(emulated, "find", folder, "/usr/lib/testbed/native/bin", "-type", "f").split():
        needs = elf.needs(emulated.read(path))
        needed |= {*needs.libraries, *([needs.loader.rpartition("/")[2]] if needs.loader else [])}
    real = set(text_of(emulated, "find", folder, "-type", "l", "-printf", "%l\n").split())
    assert present == needed | real


@pytest.mark.skipif(MACHINE == EMULATED, reason="nothing is emulated on this machine")
def test_what_runs_there_otherwise_is_emulated(emulated: Host) -> None:
    assert text_of(emulated, "uname", "-m") == "s390x\n"
    assert text_of(emulated, "python3", "-c", "import sys; print(sys.byteorder)") == "big\n"
    with emulated.start(["sleep", "4713"]) as sleeping:
        words = emulated.read(f"/proc/{sleeping.pid}/cmdline").split(b"\0")
        assert words[1:] == [b"/usr/bin/sleep", b"sleep", b"4713", b""], (
            "what the kernel says: the emulator, the path, then the program's own"
        )
        emulated_ps = text_of(emulated, "/usr/bin/ps", "-ww", "-o", "args=", "-p", str(sleeping.pid))
    assert emulated_ps.split()[1:] == ["/usr/bin/sleep", "sleep", "4713"]


# Which packages there are


def test_dpkg_query_tells_the_packages_of_the_host(host: Host) -> None:
    shown = text_of(host, "dpkg-query", "-W", "-f", "${db:Status-Status} ${Architecture} ${Package} ${Version}\n")
    packages = {name: (status, arch, version) for status, arch, name, version in (line.split() for line in shown.splitlines())}
    assert {one[0] for one in packages.values()} == {"installed"}
    assert {one[1] for one in packages.values()} == {host.arch, "all"}
    assert set(rootfs.Recipe.of(images.sources()).packages) <= set(packages)
    # each told by the program itself
    assert packages["iproute2"][2].partition("-")[0] in text_of(host, "ip", "-V")
    assert packages["procps"][2].partition(":")[2].partition("-")[0] in text_of(host, "/usr/bin/ps", "--version")
    assert text_of(host, "python3", "-c", "import platform; print(platform.python_version())").strip() in packages["python3.11"][2]
    assert host.run(["dpkg-query", "-W", "nginx"]).exit_code == 1


def test_the_command_line_gets_the_same_answers(lab: Lab) -> None:
    """`testbed exec` is how most people come to a host."""
    shown = run_testbed("exec", f"{lab.name}/emulated", "ss", "-ltn").check()
    assert shown.error_text == ""
    assert "Recv-Q" in shown.text
