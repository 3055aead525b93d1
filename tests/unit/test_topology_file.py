"""Topology files: what is accepted, and that each error says where, what and how to mend it."""

import os
import stat
from pathlib import Path

import pytest

from testbed.errors import TopologyError
from testbed.topology import MOST_HOSTS, Topology
from testbed.topology_file import load, parse
from testbed.topology_yaml import MOST_CHARACTERS

TOPOLOGIES = Path(__file__).parents[2] / "topologies"
PAIR = "networks: {lan: }\nhosts: {client: , server: }\n"
FIXED = "networks:\n  lan: {subnet: 10.1.0.0/24}\nhosts:\n"


def refused(text: str, *, directory: Path | None = None) -> TopologyError:
    with pytest.raises(TopologyError) as caught:
        parse(text, file="lab.yaml", name="lab", directory=directory)
    return caught.value


def host(lines: str) -> str:
    """A topology with one host that has these lines; they begin in line 4, column 5."""
    return "networks: {lan: }\nhosts:\n  a:\n" + "".join(f"    {line}\n" for line in lines.splitlines())


def test_the_shipped_topologies_are_right() -> None:
    shipped = {path.stem: load(path) for path in TOPOLOGIES.glob("*.yaml")}
    assert {name: list(topology.hosts) for name, topology in shipped.items()} == {
        "cross-endian": ["little-a", "little-b", "big-a", "big-vm"],
        "pair": ["client", "server"],
        "star": ["server", *(f"client-{number}" for number in range(1, 9))],
        "routed": ["client", "router", "server"],
        "dual-stack": ["server", "client"],
    }
    assert all(topology.name == name and topology.description for name, topology in shipped.items())
    assert [host.kind for host in shipped["cross-endian"].hosts.values()] == ["native", "native", "emulated", "vm"]
    assert shipped["routed"].hosts["router"].forwarding
    assert shipped["dual-stack"].networks["lan"].ipv6


def test_every_shipped_topology_begins_with_a_comment_that_says_its_idea() -> None:
    for path in TOPOLOGIES.glob("*.yaml"):
        assert path.read_text().startswith("# "), path.name


def test_the_name_comes_from_the_file_unless_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "My_Lab v2.yaml"
    file.write_text(PAIR)
    assert load(file).name == "my-lab-v2"
    file.write_text(f"name: other\n{PAIR}")
    assert load(file).name == "other"


def test_a_file_whose_name_has_no_letters_needs_a_name(tmp_path: Path) -> None:
    file = tmp_path / "___.yaml"
    file.write_text(PAIR)
    with pytest.raises(TopologyError, match="'name' is missing"):
        load(file)


def test_everything_that_can_be_written_arrives_in_the_model(tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text("x")
    topology = parse(
        """
name: all
description: everything
networks:
  lan: {subnet: 10.1.0.0/24, gateway: 10.1.0.254, subnet6: "fd00:1::/64", gateway6: "fd00:1::fe", mtu: 9000, external: true}
  wan:
hosts:
  a:
    kind: emulated
    arch: s390x
    networks:
      lan: {address: 10.1.0.5, address6: fd00:1::5}
      wan:
    sysctls:
      net.ipv4.tcp_rmem: [4096, 131072, 6291456]
      net.ipv4.tcp_syncookies: true
      net.core.somaxconn: 4
    environment: {VERSION: 1.10, DEBUG: on, EMPTY: ""}
    files:
      /etc/motd: |
        hello
      /etc/server.conf: {source: server.conf, mode: 0755}
      /bin/x: {content: "#!/bin/sh", mode: "700"}
    memory: 64M
    cpus: 0.5
    capabilities: [net_admin, CAP_NET_RAW]
    routes: [{to: default, via: b}, {to: 10.9.0.0/16, via: 10.1.0.7}]
    forwarding: true
    command: server --text 'two words' 7
    ready: {listening: 7, timeout_s: 2.5}
  b: {networks: [wan], command: [sleep, 10], ready: {log: "up|ready"}}
""",
        directory=tmp_path,
    )
    one, network = topology.hosts["a"], topology.networks["lan"]
    assert (str(network.gateway), str(network.gateway6), network.ipv6, network.mtu, network.external) == (
        "10.1.0.254",
        "fd00:1::fe",
        True,
        9000,
        True,
    )
    assert (str(one.networks["lan"].address), str(one.networks["lan"].address6)) == ("10.1.0.5", "fd00:1::5")
    assert (one.networks["wan"].address, topology.networks["wan"].gateway_address) == (None, None)
    assert one.sysctls == {"net.ipv4.tcp_rmem": "4096 131072 6291456", "net.ipv4.tcp_syncookies": "1", "net.core.somaxconn": "4"}
    assert one.environment == {"VERSION": "1.10", "DEBUG": "on", "EMPTY": ""}
    assert one.files["/etc/motd"].content == "hello\n"
    assert (one.files["/etc/server.conf"].source, one.files["/etc/server.conf"].mode) == (tmp_path / "server.conf", 0o755)
    assert (one.files["/bin/x"].mode, one.files["/etc/motd"].mode) == (0o700, 0o644)
    assert (one.memory, one.cpus, one.capabilities) == (64 * 2**20, 0.5, ("NET_ADMIN", "NET_RAW"))
    assert [(route.to, route.via) for route in one.routes] == [("default", "b"), ("10.9.0.0/16", "10.1.0.7")]
    assert one.command == ("server", "--text", "two words", "7")
    assert one.ready
    assert (one.ready.listening, one.ready.timeout_s) == (7, 2.5)
    assert topology.hosts["b"].command == ("sleep", "10")


def test_the_only_network_is_everybodys() -> None:
    assert list(parse(PAIR, name="x").hosts["client"].networks) == ["lan"]


def test_with_two_networks_a_host_must_say_which() -> None:
    error = refused("networks: {lan: , wan: }\nhosts:\n  a:\n")
    assert (error.line, error.column) == (3, 3)
    assert "on no network" in error.message


def test_a_count_makes_hosts_alike() -> None:
    topology = parse("networks: {lan: }\nhosts:\n  c: {count: 3, memory: 8M}\n  d: {count: 1}\n", name="x")
    assert list(topology.hosts) == ["c-1", "c-2", "c-3", "d-1"]
    assert {host.memory for name, host in topology.hosts.items() if name.startswith("c")} == {8 * 2**20}


@pytest.mark.parametrize("count", ["0", "501", "1000000", "-1", "1.5", "many", "[1]", "{}", "9" * 5000])
def test_a_count_out_of_bounds_is_refused(count: str) -> None:
    error = refused(f"networks: {{lan: }}\nhosts:\n  a:\n    count: {count}\n")
    assert error.line == 4
    assert "is not a number of hosts" in error.message
    assert error.hint == "a whole number from 1 to 500"


def test_a_counted_host_beside_one_of_its_names_is_refused() -> None:
    error = refused("networks: {lan: }\nhosts:\n  client: {count: 2}\n  client-1:\n")
    assert (error.line, error.column) == (3, 3)
    assert "'client' with count: 2 makes a host 'client-1', which is there already" in error.message
    assert refused("networks: {lan: }\nhosts:\n  client-1:\n  client: {count: 2}\n").line == 4


def test_counted_hosts_may_be_called_like_what_another_count_makes() -> None:
    assert list(parse("networks: {lan: }\nhosts: {a: {count: 1}, a-1: {count: 1}}\n", name="x").hosts) == ["a-1", "a-1-1"]
    error = refused("networks: {lan: }\nhosts:\n  a: {count: 1}\n  a-1: {count: 0}\n")
    assert (error.line, error.column) == (4, 16)


def test_a_terminal_obeys_no_key_of_a_file() -> None:
    error = refused('networks: {lan: }\nhosts: {a: }\n"\\e[31m": 1\n')
    assert error.line == 3
    assert "\x1b" not in str(error)
    assert "'\\x1b[31m'" in str(error)


def test_a_fixed_address_for_many_is_refused() -> None:
    error = refused(FIXED + "  a: {count: 2, networks: {lan: 10.1.0.5}}\n")
    assert (error.line, error.column) == (4, 33)
    assert "2 hosts cannot all have one address" in error.message
    assert parse(FIXED + "  a: {count: 1, networks: {lan: 10.1.0.5}}\n", name="x").hosts["a-1"]


def test_counts_cannot_add_up_to_more_hosts_than_a_bridge_has_ports() -> None:
    error = refused("networks: {lan: }\nhosts:\n  a: {count: 500}\n  b: {count: 500}\n  c:\n")
    assert error.line == 5
    assert f"more than {MOST_HOSTS} hosts" in error.message


def test_what_is_wrong_with_one_of_many_alike_is_said_once() -> None:
    error = refused("networks: {lan: }\nhosts:\n  a: {count: 9, networks: [lan, lon], memory: 64M}\n")
    assert str(error).count("no network 'lon'") == 1
    assert (error.line, error.column) == (3, 33)
    # also when each host's own name is in the message
    error = refused("networks: {lan: }\nhosts:\n  a: {count: 9, routes: [{to: lan, via: 10.1.0.2}]}\n")
    assert str(error).count("needs no route to it") == 1


def test_defaults_are_merged_key_by_key_and_lists_are_replaced() -> None:
    topology = parse(
        """
networks: {lan: , wan: }
defaults:
  networks: [lan]
  memory: 64M
  sysctls: {net.core.somaxconn: 4, net.ipv4.tcp_syncookies: 0}
  environment: {A: 1, B: 2}
hosts:
  a:
  b: {networks: [wan], sysctls: {net.core.somaxconn: 8}, environment: {A: null}, memory: null}
""",
        name="x",
    )
    a, b = topology.hosts["a"], topology.hosts["b"]
    assert (list(a.networks), a.memory, a.environment) == (["lan"], 64 * 2**20, {"A": "1", "B": "2"})
    assert (list(b.networks), b.memory, b.environment) == (["wan"], None, {"B": "2"})
    assert b.sysctls == {"net.core.somaxconn": "8", "net.ipv4.tcp_syncookies": "0"}


def test_defaults_for_networks_keep_what_a_host_only_names() -> None:
    topology = parse("networks: {lan: , wan: }\ndefaults: {networks: {lan: }}\nhosts: {a: {networks: {wan: }}}\n", name="x")
    assert list(topology.hosts["a"].networks) == ["lan", "wan"]


def test_an_error_in_the_defaults_is_told_there_and_once() -> None:
    error = refused("networks: {lan: }\ndefaults:\n  memory: lots\nhosts: {a: , b: , c: {count: 4}}\n")
    assert (error.line, error.column) == (3, 11)
    assert str(error).count("lots") == 1


def test_an_error_in_the_defaults_is_told_even_when_every_host_says_otherwise() -> None:
    assert refused("networks: {lan: }\ndefaults:\n  memory: lots\nhosts: {a: {memory: 8M}}\n").line == 3


def test_a_default_condition_may_wait_for_the_command_of_each_host() -> None:
    text = "networks: {lan: }\ndefaults: {ready: {listening: 7}}\nhosts: {a: {command: [x]}}\n"
    assert parse(text, name="x").hosts["a"].ready


@pytest.mark.parametrize("key", ["name", "count"])
def test_what_differs_by_host_is_no_default(key: str) -> None:
    error = refused(f"defaults:\n  {key}: 2\n{PAIR}")
    assert (error.line, error.column) == (2, 3)
    assert "cannot be the same for all" in error.message


def test_a_problem_that_defaults_cause_together_with_a_host_is_told_at_the_defaults() -> None:
    error = refused("networks: {lan: }\ndefaults:\n  networks: [lon]\nhosts: {a: }\n")
    assert (error.line, error.column) == (3, 14)
    assert "did you mean 'lan'?" in error.message


VM_AND_NATIVE = "networks: {lan: }\ndefaults:\n  DEFAULT\nhosts:\n  own: {kind: vm}\n  other: OTHER\n"


@pytest.mark.parametrize(
    ("default", "other", "column", "message"),
    [
        ("sysctls: {net.core.rmem_max: 8388608}", "{sysctls: {net.core.rmem_max: }}", 32, "read-only in a network namespace"),
        ("sysctls: {vm.swappiness: 1}", "{sysctls: {vm.swappiness: }}", 28, "setting it would change the whole machine"),
        ("kernel: trixie", "{kernel: }", 11, "a native host runs on this machine's kernel"),
    ],
)
def test_what_only_a_vm_takes_may_be_a_default_that_other_hosts_take_away(default: str, other: str, column: int, message: str) -> None:
    text = VM_AND_NATIVE.replace("DEFAULT", default)
    assert parse(text.replace("OTHER", other), name="x").hosts["own"].kind == "vm"
    assert parse(text.replace("OTHER", "{kind: vm}"), name="x").hosts["other"].kind == "vm"
    error = refused(text.replace("OTHER", "{kind: native, count: 3}"))
    assert (error.line, error.column) == (3, column)
    assert message in error.message
    assert "kind: vm" in error.hint
    assert "\n" not in error.message, "one problem only"


@pytest.mark.parametrize(
    ("default", "own", "column", "message"),
    [
        ("memory: 32M", "memory: 64M", 11, "32 MiB are too little for a vm"),
        ("memory: 32M", "memory: ", 11, "32 MiB are too little for a vm"),
        ("capabilities: [NET_RAW]", "capabilities: ", 17, "a vm has no capabilities to give or take"),
        ("arch: arm64", "arch: amd64", 9, "a vm cannot be arm64"),
    ],
)
def test_a_default_that_no_vm_takes_may_be_replaced_by_the_vm(default: str, own: str, column: int, message: str) -> None:
    text = VM_AND_NATIVE.replace("DEFAULT", default).replace("OTHER", "{kind: native}")
    assert parse(text.replace("{kind: vm}", f"{{kind: vm, {own}}}"), name="x").hosts["own"].kind == "vm"
    error = refused(text.replace("{kind: vm}", "{kind: vm, count: 3}"))
    assert (error.line, error.column) == (3, column)
    assert message in error.message


def test_a_default_that_no_kernel_takes_is_told_even_when_all_hosts_are_vms() -> None:
    error = refused("networks: {lan: }\ndefaults:\n  kind: vm\n  sysctls: {net.core.rmem_max: lots}\nhosts: {a: , b: }\n")
    assert (error.line, error.column) == (4, 32)
    assert str(error).count("lots") == 1


def test_a_counted_vm_has_its_own_sysctls_and_a_counted_container_is_told_its_line_once() -> None:
    text = (
        "networks: {lan: }\nhosts:\n  a:\n    kind: KIND\n    count: 3\n    sysctls:\n      net.core.somaxconn: 5\n      vm.swappiness: 1\n"
    )
    hosts = parse(text.replace("KIND", "vm"), name="x").hosts
    assert [host.sysctls["vm.swappiness"] for host in hosts.values()] == ["1", "1", "1"]
    error = refused(text.replace("KIND", "emulated"))
    assert (error.line, error.column) == (8, 22)
    assert str(error).count("vm.swappiness'") == 1


def test_a_vm_is_on_at_most_16_networks() -> None:
    def on(number: int) -> str:
        names = ", ".join(f"n{one}" for one in range(number))
        return f"networks: {{{names.replace(',', ': ,')}: }}\nhosts:\n  a:\n    kind: vm\n    networks: [{names}]\n"

    assert len(parse(on(16), name="x").hosts["a"].networks) == 16
    error = refused(on(17))
    assert (error.line, error.column) == (5, 15)
    assert "there are 17 networks" in error.message
    assert error.hint == "at most 16 on a vm"
    assert len(parse(on(17).replace("vm", "native"), name="x").hosts["a"].networks) == 17


def test_every_contradiction_of_a_vm_is_told_at_once() -> None:
    error = refused(host("kind: vm\narch: arm64\nmemory: 1M\n").replace("1M", "32M") + "  b: {kernel: trixie}\n")
    told = [line.split(" ")[0] for line in str(error).splitlines() if line.startswith("lab.yaml")]
    assert told == ["lab.yaml:5:11:", "lab.yaml:6:13:", "lab.yaml:7:15:"]


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    error = refused("networks: {lan: {mtu: 7}}\nhosts:\n  a: {memroy: 1}\n  b: {cpus: none}\n")
    lines = str(error).splitlines()
    assert [line.split(" ")[0] for line in lines if line.startswith("lab.yaml")] == ["lab.yaml:1:23:", "lab.yaml:3:7:", "lab.yaml:4:13:"]
    assert "  at least 576" in lines


def test_very_many_problems_are_counted() -> None:
    hosts = "".join(f"  a{number}: {{memory: x}}\n" for number in range(50))
    assert str(refused(f"networks: {{lan: }}\nhosts:\n{hosts}")).endswith("and 30 more problems")


@pytest.mark.parametrize(
    ("lines", "place", "message", "hint"),
    [
        ("memroy: 64M", "4:5", "there is no key 'memroy', did you mean 'memory'?", "keys here: arch, capabilities, command, count"),
        ("name: b", "4:5", "there is no key 'name': the host is called 'a' already", "keys here"),
        ("memory: 64X", "4:13", "'64X' is not a size", "64M"),
        ("memory: 5M", "4:13", "'5M' is less than the 6 MiB", "at least 6M"),
        ("memory: -1", "4:13", "is not a size", "64M"),
        ("memory: 99999999999G", "4:13", "more than any machine", "64M"),
        ("memory: [1]", "4:13", "a list is not text", ""),
        ("cpus: 0", "4:11", "'0' is out of range", "at least 0.01"),
        ("cpus: -1", "4:11", "'-1' is out of range", "at least 0.01"),
        ("cpus: .inf", "4:11", "is not a number", "0.5"),
        ("cpus: inf", "4:11", "is not a number", "0.5"),
        ("kind: emulatd", "4:11", "there is no kind 'emulatd', did you mean 'emulated'?", "one of: native, emulated, vm"),
        ("kind: vmm\nsysctls: {vm.swappiness: 1}", "4:11", "there is no kind 'vmm', did you mean 'vm'?", "one of: native, emulated, vm"),
        ("kind: vm\narch: arm64", "5:11", "a vm cannot be arm64", "arch: s390x or amd64"),
        ("kernel: trixie", "4:13", "a native host runs on this machine's kernel", "kind: vm"),
        ("kind: emulated\nkernel: trixie", "5:13", "an emulated host runs on this machine's kernel", "kind: vm"),
        (
            "kind: vm\nkernel: bookwrm",
            "5:13",
            "there is no kernel 'bookwrm', did you mean 'bookworm'?",
            "one of: bookworm, bookworm-backports, trixie",
        ),
        ("kind: vm\nkernel: 6.12", "5:13", "there is no kernel '6.12'", "one of: bookworm, bookworm-backports, trixie"),
        ("kind: vm\nmemory: 63M", "5:13", "63 MiB are too little for a vm", "from 64M to 4G; 128M without it"),
        ("kind: vm\nmemory: 4097M", "5:13", "4097 MiB are more than a vm can have", "from 64M to 4G"),
        ("kind: vm\nmemory: 100000K", "5:13", "102400000 bytes are not a whole number of MiB", "in whole MiB"),
        ("kind: vm\nmemory: 5M", "5:13", "'5M' is less than the 6 MiB", ""),
        ("kind: vm\ncapabilities: [NET_RAW]", "5:19", "a vm has no capabilities to give or take", "leave it out"),
        ("kind: vm\ncapabilities: []", "5:19", "a vm has no capabilities to give or take", "leave it out"),
        ("kind: vm\ncpus: 0", "5:11", "'0' is out of range", "at least 0.01"),
        ("kind: vm\nsysctls: {net.core.rmem_max: lots}", "5:34", "'lots' cannot be the value", "a whole number"),
        ("kind: vm\nsysctls: {net.ipv4.tcp_mem: 5}", "5:33", "'5' cannot be the value of 'net.ipv4.tcp_mem'", "3 whole numbers"),
        ("kind: vm\nsysctls: {vm.swappiness: }", "5:15", "'vm.swappiness' has no value", "one line"),
        ("kind: vm\nsysctls: {vm/swappiness: 1}", "5:30", "'vm/swappiness' is not the name of a sysctl", "with dots"),
        ("kind: vm\nsysctls: {net.core.rmem_mx: 1}", "5:33", "did you mean 'net.core.rmem_max'?", ""),
        ("kind: vm\nsysctls: {kernel.hostname: b}", "5:32", "a host is called what the topology calls it", "rename the host"),
        ("sysctls: {vm.swappiness: 1}", "4:30", "setting it would change the whole machine", "kind: vm"),
        ("kind: emulated\nsysctls: {net.ipv4.tcp_mem: [1, 2, 3]}", "5:33", "setting it would change the whole machine", "kind: vm"),
        ("arch: s390", "4:11", "there is no arch 's390', did you mean 's390x'?", "one of: amd64, arm64, s390x"),
        ("kind: emulated\narch: amd64", "5:11", "an emulated host cannot be amd64", "kind: native"),
        ("networks: lan", "4:15", "'lan' is neither a list nor a mapping", "[lan, wan]"),
        ("networks: [lan, lan]", "4:21", "'lan' is there already", ""),
        ("networks: [" + "lan, " * 251 + "]", "4:15", "there are 251 networks", "at most 250"),
        ("networks: [[lan]]", "4:16", "a network's name belongs here", ""),
        ("networks: [lam]", "4:16", "there is no network 'lam', did you mean 'lan'?", "lan"),
        ("networks:\n  lam:", "5:7", "there is no network 'lam', did you mean 'lan'?", "lan"),
        ("networks: {lan: 10.1.0.5}", "4:21", "network 'lan' has no fixed subnet", "give network 'lan' a subnet:"),
        ("networks: {lan: nowhere}", "4:21", "'nowhere' is not an IPv4 address", "10.1.0.5"),
        ("networks: {lan: {adress: 10.1.0.5}}", "4:22", "did you mean 'address'?", "address, address6"),
        ("sysctls: {net.core.rmem_max: 1}", "4:34", "read-only in a network namespace", "kind: vm"),
        ("sysctls: {net.core.somaxcon: 1}", "4:34", "did you mean 'net.core.somaxconn'?", ""),
        ("sysctls: {net.core.somaxconn: many}", "4:35", "'many' cannot be the value", "a whole number"),
        ("sysctls: {net.core.somaxconn: }", "4:15", "'net.core.somaxconn' has no value", "a whole number"),
        ("sysctls: 1", "4:14", "'1' is not a mapping", "net.core.somaxconn: 128"),
        ("forwarding: maybe", "4:17", "'maybe' is neither true nor false", "true or false"),
        ("forwarding: true\nsysctls: {net.ipv4.ip_forward: 0}", "5:36", "0 contradicts forwarding: true", "leave one"),
        ("environment: {1A: x}", "4:23", "'1A' is not the name of an environment variable", ""),
        ("environment: {A: [x]}", "4:22", "a list is neither text nor a number", ""),
        ("files: {etc/motd: x}", "4:13", "'etc/motd' is not an absolute path, did you mean '/etc/motd'?", ""),
        ("files: {/etc/: x}", "4:13", "not the plain path of a file", ""),
        ("files: {/a/../b: x}", "4:13", "not the plain path of a file", ""),
        ("files: {? /" + "a" * 4000 + " : x}", "4:15", "has 4001 characters", "at most 4000"),
        ("environment: {" + "".join(f"A{number}: 1, " for number in range(1001)) + "}", "4:5", "there are 1001 entries", "at most 1000"),
        ("files: {/: x}", "4:13", "not the plain path of a file", ""),
        ("files: {/etc/hosts: 1}", "4:13", "testbed writes this file", "every host"),
        ("files: {/proc/sys/net/x: 1}", "4:13", "the kernel makes the files of /proc", "sysctls:"),
        ("files: {/a: x, /a/b: y}", "4:20", "'/a' is a file", ""),
        ("files: {/a: {content: x, source: y}}", "4:13", "there is both content and source", "one of them"),
        ("files: {/a: {mode: 0644}}", "4:13", "there is neither content nor source", "one of them"),
        ("files: {/a: {content: x, mode: 999}}", "4:36", "'999' is not a file mode", "0644"),
        ("capabilities: [NET_ADMN]", "4:19", "did you mean 'NET_ADMIN'?", "CHOWN"),
        ("capabilities: NET_ADMIN", "4:19", "'NET_ADMIN' is not a list", "[NET_ADMIN, NET_RAW]"),
        ("routes: {to: x}", "4:5", "a mapping is not a list", "after '- '"),
        ("routes: [{to: lan, via: 10.1.0.9}]", "4:19", "is on network 'lan' itself", ""),
        ("routes: [{to: default, via: a}]", "4:33", "cannot be its own router", ""),
        ("routes: [{to: default, via: b}]", "4:33", "'b' is no address, and there is no host of that name", ""),
        ("routes: [{to: deflaut, via: fd00::1}]", "4:19", "did you mean 'default'?", "default"),
        ("routes: [{to: 10.2.0.0/16, via: 'fd00::1'}]", "4:37", "fd00::1 is IPv6, and 10.2.0.0/16 is IPv4", ""),
        ("routes: [{to: default}]", "4:14", "'via' is missing", ""),
        ("command: []", "4:14", "the command is empty", ""),
        ('command: ""', "4:14", "the command is empty", ""),
        ("command: a 'b", "4:14", "cannot be split into words: no closing quotation", ""),
        ("command: a && b", "4:14", "no shell reads a command, so '&&' would be an argument", "write: [sh, -c, 'a && b']"),
        ("command: [[a]]", "4:14", "neither text nor a number", ""),
        ("ready: {listening: 80}", "4:24", "the host has no command", "give the host a command"),
        ("ready: {log: x}", "4:18", "the host has no command", "give the host a command"),
        ("command: a\nready: {}", "5:5", "exactly one condition", "listening, command, log"),
        ("command: a\nready: {log: x, listening: 5}", "5:5", "exactly one condition", "listening, command, log"),
        ("command: a\nready: {log: '('}", "5:18", "is not a regular expression", ""),
        ("command: a\nready: {listening: 0}", "5:24", "'0' is out of range", "at least 1"),
        ("command: a\nready: {listening: 65536}", "5:24", "out of range", "at most 65535"),
        ("command: a\nready: {listening: 7, timeout_s: 0}", "5:38", "'0' is out of range", "more than 0"),
        ("command: a\nready: {listening: 7, timeout_s: .nan}", "5:38", "is not a number", ""),
    ],
)
def test_an_error_in_a_host_says_where_what_and_how_to_mend_it(lines: str, place: str, message: str, hint: str) -> None:
    error = refused(host(lines))
    assert str(error).splitlines()[0].startswith(f"lab.yaml:{place}: hosts.a"), str(error)
    assert message in error.message
    assert hint in error.hint
    assert "\n" not in error.message, "one problem only"


@pytest.mark.parametrize(
    ("network", "place", "message"),
    [
        ("subnet: 10.1.0.0", "2:16", "'10.1.0.0' is not an IPv4 subnet"),
        ("subnet: 10.1.0.7/24", "2:16", "did you mean '10.1.0.0/24'?"),
        ("subnet: 10.1.0.0/31", "2:16", "no room for a gateway and a host"),
        ("subnet: 8.8.8.0/24", "2:16", "would lose its way to the real ones"),
        ("subnet: 172.0.0.0/8", "2:16", "public addresses"),
        ("subnet: 224.1.0.0/24", "2:16", "multicast"),
        ("subnet: 127.0.0.0/8", "2:16", "loopback"),
        ("subnet: 169.254.0.0/16", "2:16", "link-local"),
        ("subnet: 0.0.0.0/0", "2:16", "0.0.0.0/8"),
        ("subnet: 255.255.255.0/24", "2:16", "reserved"),
        ("subnet: {a: b}", "2:8", "a mapping is not text"),
        ("subnet6: 10.1.0.0/24", "2:17", "is not an IPv6 subnet"),
        ("subnet6: 'fd00::1/64'", "2:17", "did you mean 'fd00::/64'?"),
        ("subnet6: 'fd00::/127'", "2:17", "no room"),
        ("subnet6: '2a00::/64'", "2:17", "public addresses"),
        ("subnet6: 'fe80::/64'", "2:17", "link-local"),
        ("subnet6: 'ff02::/64'", "2:17", "multicast"),
        ("subnet6: 'fd00::/64', ipv6: false", "2:17", "there is a subnet6, but ipv6 is false"),
        ("gateway: 10.1.0.1", "2:17", "there is a gateway, but no subnet"),
        ("gateway6: 'fd00::1'", "2:18", "there is a gateway6, but no subnet6"),
        ("subnet: 10.1.0.0/24, gateway: 10.2.0.1", "2:38", "10.2.0.1 is not in 10.1.0.0/24"),
        ("subnet: 10.1.0.0/24, gateway: 10.1.0.0", "2:38", "the address of 10.1.0.0/24 itself"),
        ("subnet: 10.1.0.0/24, gateway: 10.1.0.255", "2:38", "the broadcast address"),
        ("subnet: 10.1.0.0/24, gateway: 10.1.0.256", "2:38", "is not an IPv4 address"),
        ("mtu: 575", "2:13", "out of range"),
        ("mtu: 65536", "2:13", "out of range"),
        ("mtu: large", "2:13", "not a whole number"),
        ("mtu: 1279, ipv6: true", "2:13", "less than the 1280"),
        ("external: sure", "2:18", "neither true nor false"),
        ("name: lan", "2:8", "there is no key 'name'"),
        ("subent: 10.1.0.0/24", "2:8", "did you mean 'subnet'?"),
    ],
)
def test_an_error_in_a_network_says_where_and_what(network: str, place: str, message: str) -> None:
    error = refused(f"networks:\n lan: {{{network}}}\nhosts: {{a: }}\n")
    assert str(error).splitlines()[0].startswith(f"lab.yaml:{place}: networks.lan"), str(error)
    assert message in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("hosts", "place", "message"),
    [
        ("  a: {networks: {lan: 10.1.0.5}}\n  b: {networks: {lan: 10.1.0.5}}\n", "5:23", "host 'a' has 10.1.0.5 on network 'lan' already"),
        ("  a: {networks: {lan: 10.2.0.5}}\n", "4:23", "10.2.0.5 is not in 10.1.0.0/24, the subnet of network 'lan'"),
        ("  a: {networks: {lan: 10.1.0.1}}\n", "4:23", "10.1.0.1 is the gateway of network 'lan'"),
        ("  a: {networks: {lan: 10.1.0.0}}\n", "4:23", "10.1.0.0 is the address of 10.1.0.0/24 itself"),
        ("  a: {networks: {lan: 10.1.0.255}}\n", "4:23", "10.1.0.255 is the broadcast address"),
        ("  a: {networks: {lan: {address: 10.1.0.999}}}\n", "4:33", "not an IPv4 address"),
        ("  a: {networks: {lan: 'fd00::1'}}\n", "4:23", "network 'lan' has no fixed subnet6"),
        ("  a: {networks: {lan: 'fe80::1%eth0'}}\n", "4:23", "has a zone"),
        ("  a: {routes: [{to: default, via: 10.9.0.1}]}\n", "4:35", "10.9.0.1 is on no network of host 'a'"),
        ("  a: {routes: [{to: 10.2.0.1/16, via: 10.1.0.2}]}\n", "4:21", "is no subnet"),
        ("  a: {count: 254}\n", "2:17", "10.1.0.0/24 has room for 253 hosts beside the gateway, and 254 are on it"),
    ],
)
def test_an_address_that_cannot_be_is_refused(hosts: str, place: str, message: str) -> None:
    error = refused(FIXED + hosts)
    assert str(error).startswith(f"lab.yaml:{place}: "), str(error)
    assert message in error.message


def test_overlapping_subnets_name_the_other_network() -> None:
    error = refused("networks:\n  lan: {subnet: 10.1.0.0/16}\n  wan: {subnet: 10.1.7.0/24}\nhosts: {a: {networks: [lan]}}\n")
    assert (error.line, error.column) == (3, 17)
    assert "10.1.7.0/24 overlaps 10.1.0.0/16 of network 'lan'" in error.message


def test_a_router_must_share_a_network() -> None:
    text = "networks: {l: , r: }\nhosts:\n  a: {networks: [l], routes: [{to: r, via: b}]}\n  b: {networks: [r]}\n"
    assert "hosts 'a' and 'b' share no network" in refused(text).message


@pytest.mark.parametrize("name", ["Client", "a_b", "a.b", "-a", "a-", "ä", "a b", "localhost", "7", "0x7f", "a" * 64, '""', "'a\n\n  b'"])
def test_a_bad_host_name_is_told_at_the_name(name: str) -> None:
    error = refused(f"networks: {{lan: }}\nhosts:\n  ? {name}\n  : \n")
    assert (error.line, error.column) == (3, 5)
    assert error.hint


@pytest.mark.parametrize("name", ["default", "Lan", "l_n"])
def test_a_bad_network_name_is_told_at_the_name(name: str) -> None:
    assert refused(f"networks:\n  {name}:\nhosts: {{a: }}\n").line == 2


@pytest.mark.parametrize("key", ["on", "yes", "null", "true", "a1"])
def test_words_that_yaml_takes_for_values_are_names_too(key: str) -> None:
    assert list(parse(f"networks: {{lan: }}\nhosts:\n  {key}:\n", name="x").hosts) == [key]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "lab.yaml", "the file is empty"),
        ("# nothing\n", "lab.yaml", "the file is empty"),
        ("just text", "lab.yaml:1:1", "this is not a topology"),
        ("- a\n- b\n", "lab.yaml:1:1", "this is not a topology"),
        ("null", "lab.yaml:1:1", "this is not a topology"),
        ("a: [1\nb: 2", "lab.yaml:2:2", "not YAML"),
        ("a: b: c", "lab.yaml:1:5", "not YAML: mapping values are not allowed in this context"),
        ("a:\n\tb: 1", "lab.yaml:2:1", "not YAML: found character that cannot start any token"),
        ("a: *b", "lab.yaml:1:4", "there is no '&b' above"),
        ("a: &a [*a]", "lab.yaml:1:8", "stands inside '&a' itself"),
        ("a: &a\n  b: *a", "lab.yaml:2:6", "stands inside '&a' itself"),
        ("a: 1\n<<: {b: 1}", "lab.yaml:2:1", "there are no merge keys here"),
        ("? [a]\n: b", "lab.yaml:1:3", "a key is text"),
        ("? {a: b}\n: c", "lab.yaml:1:3", "a key is text"),
        ("? \n: b", "lab.yaml:1:2", "a key is missing"),
        (": b", "lab.yaml:1:1", "not YAML"),
        ("a: &x [b]\n? *x\n: c", "lab.yaml:2:3", "a key is text"),
        ("a: 1\nb: 2\na: 3\n", "lab.yaml:3:1", "'a' is there already, in line 1"),
        ("a: 1\n---\nb: 2\n", "lab.yaml:2:1", "a second document begins"),
        ("a: !!binary aGVsbG8=", "lab.yaml:1:4", "there are no tags like '!!binary' here"),
        ("a: !!python/object/apply:os.system [x]", "lab.yaml:1:4", "there are no tags like"),
        ("a: !x {b: c}", "lab.yaml:1:4", "there are no tags like '!x' here"),
        ("a: 1\nb: \0", "lab.yaml:2:4", "the character U+0000 is not text"),
        ("a: \ud800", "lab.yaml:1:4", "the character U+D800 is not text"),
        ('a: "\\0"', "lab.yaml:1:4", "the text has the character U+0000 in it"),
        ('a: "\\uD800"', "lab.yaml:1:", ""),
        ("[" * 100, "lab.yaml:1:", ""),
        ("[" * 100_000, "lab.yaml:1:", ""),
        ("- " * 1000 + "a", "lab.yaml:1:67", "more than 32 levels deep"),
        ("{a: " * 40 + "1" + "}" * 40, "lab.yaml:1:130", "more than 32 levels deep"),
        ("x" * (MOST_CHARACTERS + 1), "lab.yaml", "the file has more than 1,048,576 characters"),
        ("[" + "x," * 60_000 + "]", "lab.yaml:1:", "more than 50,000 values"),
    ],
)
def test_text_that_cannot_be_a_topology(text: str, place: str, message: str) -> None:
    error = refused(text)
    assert str(error).startswith(f"{place}"), str(error)
    assert message in error.message


def test_aliases_that_explode_are_refused_at_once() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{chr(one)}: &{chr(one)} [{', '.join([f'*{chr(one - 1)}'] * 10)}]" for one in range(ord("b"), ord("k"))]
    error = refused("\n".join(lines))
    assert "more than 50,000 values, aliases written out" in error.message
    assert error.line == 5


def test_aliases_that_do_not_explode_are_fine() -> None:
    text = "networks: {lan: }\nhosts:\n  a: &like {memory: 8M, sysctls: {net.core.somaxconn: 3}}\n  b: *like\n"
    topology = parse(text, name="x")
    assert topology.hosts["b"] == topology.hosts["a"].model_copy(update={"name": "b"})


def test_two_hosts_with_one_name_are_told_at_the_second() -> None:
    error = refused("networks: {lan: }\nhosts:\n  a:\n  b:\n  a:\n  b:\n")
    assert (error.line, error.column) == (5, 3)
    assert str(error).splitlines() == [
        "lab.yaml:5:3: 'a' is there already, in line 3",
        "lab.yaml:6:3: 'b' is there already, in line 4",
        "  each key stands once in its mapping",
    ]


@pytest.mark.parametrize("missing", ["networks", "hosts"])
@pytest.mark.parametrize("written", ["", "{key}: \n", "{key}: {{}}\n", "{key}: 5\n", "{key}: [a]\n"])
def test_networks_and_hosts_are_needed(missing: str, written: str) -> None:
    other = {"networks": "hosts: {a: }\n", "hosts": "networks: {lan: }\n"}[missing]
    error = refused(written.format(key=missing) + other)
    assert missing.removesuffix("s") in error.message


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    assert parse(f"\ufeff{PAIR}", name="x").hosts


def test_a_file_written_on_windows_is_read() -> None:
    assert parse(PAIR.replace("\n", "\r\n"), name="x").hosts


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: gr\xfc\xdfe\n")
    (tmp_path / "pair.yaml").write_text(PAIR)
    for path, place, message in [
        (tmp_path / "pear.yaml", "", "there is no such file, did you mean 'pair.yaml'?"),
        (tmp_path / "no" / "x.yaml", "", "there is no such file"),
        (tmp_path, "", "this is a directory"),
        (tmp_path / "pair.yaml" / "x", "", "the file cannot be read: not a directory"),
        (tmp_path / ("x" * 300), "", "the file cannot be read: file name too long"),
        (tmp_path / "a\0b", "", "the file cannot be read: embedded null"),
        (tmp_path / "latin.yaml", ":2:6", "the file is not UTF-8 text"),
        (Path("/dev/zero"), "", "the file has more than 1,048,576 characters"),
    ]:
        with pytest.raises(TopologyError) as caught:
            load(path)
        assert message in caught.value.message
        if place:
            assert str(caught.value).startswith(f"{path}{place}: ")


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # root may read everything, so the refusal is the operating system's in name only
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(TopologyError, match="the file may not be read"):
        load(tmp_path / "x.yaml")


def test_a_source_that_is_not_there_is_told_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    text = host(
        "files:\n  /a: {source: not-there}\n  /b: {source: there}\n  /c: {source: \"\"}\n  /d: {source: 'xxx'}".replace("xxx", "y" * 300)
    )
    lines = str(refused(text, directory=tmp_path)).splitlines()
    assert lines[0] == "lab.yaml:5:20: hosts.a.files./a.source: 'not-there' is not there"
    assert lines[1] == f"  a file, looked for in {tmp_path}"
    assert "lab.yaml:6:20: hosts.a.files./b.source: 'there' is not a file" in lines
    assert "lab.yaml:7:20: hosts.a.files./c.source: '' is not a file" in lines
    assert any("lab.yaml:8:20" in line for line in lines)


def test_a_source_is_found_beside_the_file_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "data").write_text("x")
    (tmp_path / "lab" / "lab.yaml").write_text(host("files: {/a: {source: data}}"))
    monkeypatch.chdir(tmp_path)
    file = load("lab/lab.yaml").hosts["a"].files["/a"]
    assert file.source == tmp_path / "lab" / "data"


def test_a_topology_can_come_through_a_pipe(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    assert stat.S_ISFIFO(os.fstat(read_end).st_mode)
    os.write(write_end, f"name: piped\n{PAIR}".encode())
    os.close(write_end)
    topology = load(f"/dev/fd/{read_end}")
    os.close(read_end)
    assert isinstance(topology, Topology)
    assert topology.name == "piped"
