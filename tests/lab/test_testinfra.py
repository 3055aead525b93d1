"""testinfra on hosts of every kind: what each of its modules says, held against what is known from elsewhere."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
import testinfra

from testbed import testinfra_backend
from testbed.architecture import ARCHITECTURES
from testbed.errors import DeadlineExceeded, InputError, LabError, UnknownName
from testbed.host import Host, Process
from testbed.lab import Lab
from testbed.process import Result, run_local, wait_until
from tests.lab.support import Labs, run_testbed, topology

KINDS = ("native", "emulated", "vm")
OF_EACH = """
    networks: [lan], environment: {GIVEN: to the host}, sysctls: {net.core.somaxconn: 77, net.ipv4.tcp_rmem: [4096, 8192, 16384]},
    files: {/etc/app/given.conf: {content: "first\\nsecond\\n", mode: "0600"}},
    command: [echo-server, "8001"], ready: {listening: 8001}
"""
LAB = f"""
networks:
  lan: {{ipv6: true, mtu: 1400}}
hosts:
  native: {{ {OF_EACH} }}
  emulated: {{kind: emulated, {OF_EACH} }}
  vm: {{kind: vm, arch: s390x, {OF_EACH} }}
  peer: {{networks: [lan], command: [echo-server, "8001"], ready: {{listening: 8001}}}}
"""


pytestmark = topology(LAB)


class Cell:
    """A host as testinfra has it (``infra``), and as we have it (``host``), with what is known of it."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.host = lab.host(name)
        self.peer = lab.host("peer")
        self.infra: Any = testinfra.get_host(f"testbed://{lab.name}/{name}")  # has no types
        (self.link,) = lab.settings[name]["links"]
        self.network = ip_interface(self.link["addresses"][0]).network
        self.four, self.six = (str(one) for one in self.host.addresses["lan"])
        self.peer_four, self.peer_six = (str(one) for one in self.peer.addresses["lan"])

    def text_of(self, *argv: str) -> str:
        return self.host.run(argv).check(where=self.name).text.strip()


@pytest.fixture(params=KINDS)
def cell(lab: Lab, request: pytest.FixtureRequest) -> Cell:
    return Cell(lab, request.param)


def listening(host: Host, *options: str) -> Process:
    """nc that listens, once it does: the port, or path, is the last of ``options``."""
    server = host.start(["nc", "-l", "-k", *options])

    def there() -> bool:
        # The kernel's own list, whose addresses an emulated reader would garble; port and path are plain.
        wanted = options[-1] if options[-1].startswith("/") else f":{int(options[-1]):04X} "
        return any(wanted in line for line in host.run(["sh", "-c", "cat /proc/net/tcp* /proc/net/udp* /proc/net/unix"]).text.splitlines())

    wait_until(there, timeout_s=30, what=f"nc listening on {options[-1]}")
    return server


# The table: what is asked of every module, on every kind of host


def command(cell: Cell) -> None:
    done = cell.infra.run("echo out; echo err >&2; exit 3")
    assert (done.rc, done.stdout, done.stderr, done.failed) == (3, "out\n", "err\n", True)
    assert cell.infra.check_output("printf %%s %s", "two  words; $HOME 'quoted' ä") == "two  words; $HOME 'quoted' ä"
    assert cell.infra.command("cat /etc/app/given.conf | wc -l").stdout.strip() == "2"
    assert cell.infra.run("head -c 300000 /dev/zero").stdout_bytes == bytes(300000)
    assert cell.infra.exists("echo-server")
    assert not cell.infra.command.exists("no-such-program")
    assert cell.infra.run("kill -KILL $$").rc == 137


def sudo(cell: Cell) -> None:
    assert cell.infra.check_output("id -un") == "root"
    with cell.infra.sudo("user"):
        assert cell.infra.check_output("id -un") == "user"
        with cell.infra.sudo():
            assert cell.infra.check_output("id -un") == "root"
    with pytest.raises(InputError, match="no-such-user"), cell.infra.sudo("no-such-user"):
        cell.infra.run("id")


def environment(cell: Cell) -> None:
    assert cell.infra.environment()["GIVEN"] == "to the host"


def system_info(cell: Cell) -> None:
    info = cell.infra.system_info
    assert (info.type, info.distribution, info.codename) == ("linux", "debian", "bookworm")
    assert info.arch == ARCHITECTURES[cell.host.arch].machine
    assert f'VERSION_ID="{info.release}"' in cell.host.read("/etc/os-release").decode()


def sysctl(cell: Cell) -> None:
    assert cell.infra.sysctl("net.core.somaxconn") == 77
    assert cell.infra.sysctl("net.ipv4.tcp_rmem") == "4096\t8192\t16384"
    cell.host.write("/proc/sys/net/ipv4/tcp_fin_timeout", b"17\n")
    assert cell.infra.sysctl("net.ipv4.tcp_fin_timeout") == 17


def socket(cell: Cell) -> None:
    with (
        listening(cell.host, "-4", "0.0.0.0", "8002"),
        listening(cell.host, "-4", "127.0.0.1", "8003"),
        listening(cell.host, "-4", "-u", cell.four, "8004"),
        listening(cell.host, "-U", "/run/testbed/b.sock"),
    ):
        there = {one: cell.infra.socket(one).is_listening for one in SOCKETS}
        assert there == SOCKETS
        assert cell.infra.socket(f"udp://{cell.four}:8004").is_listening
        listed = cell.infra.socket.get_listening_sockets()
        expected = {"tcp://:::8001", "tcp://0.0.0.0:8001", "tcp://0.0.0.0:8002", "tcp://127.0.0.1:8003", f"udp://{cell.four}:8004"}
        assert {one for one in listed if ":800" in one} == expected
        assert "unix:///run/testbed/b.sock" in listed
        port = 4000 + KINDS.index(cell.name)
        with cell.peer.start(["nc", "-p", str(port), cell.four, "8002"]) as client:
            client.stdin.write(b"x")
            clients = wait_until(lambda: cell.infra.socket("tcp://0.0.0.0:8002").clients, timeout_s=30, what="the client")
        assert clients == [(cell.peer_four, port)]


SOCKETS = {
    "tcp://8001": True,
    "tcp://0.0.0.0:8001": True,
    "tcp://:::8001": True,
    "tcp://127.0.0.1:8001": True,
    "tcp://0.0.0.0:8002": True,
    "tcp://:::8002": False,
    "tcp://127.0.0.1:8003": True,
    "tcp://0.0.0.0:8003": False,
    "tcp://0.0.0.0:8009": False,
    "udp://0.0.0.0:8002": False,
    "unix:///run/testbed/b.sock": True,
    "unix:///run/testbed/c.sock": False,
}


def process(cell: Cell) -> None:
    server = cell.infra.process.get(comm="echo-server")
    assert (server.args, server.user, server.ppid) == ("echo-server 8001", "root", int(cell.text_of("pgrep", "-n", "-x", "init")))
    with cell.host.start(["sleep", "4711"], user="user") as sleeping:
        (found,) = cell.infra.process.filter(args="sleep 4711")
        assert (found.pid, found.comm, found.user) == (sleeping.pid, "sleep", "user")
        assert cell.infra.process.get(pid=sleeping.pid).args == "sleep 4711"
    assert cell.infra.process.filter(args="sleep 4711") == []


def interface(cell: Cell) -> None:
    device = cell.infra.interface("eth0")
    assert device.exists
    assert not cell.infra.interface("eth7").exists
    assert [one for one in device.addresses if not one.startswith("fe80:")] == [cell.four, cell.six]
    assert cell.infra.interface("eth0", "inet").addresses == [cell.four]
    (link,) = device.link
    assert (link["address"], link["mtu"], "UP" in link["flags"]) == (cell.link["mac"], 1400, True)
    assert set(cell.infra.interface.names()) == {"lo", "eth0"}
    assert (str(cell.network), cell.four) in [(one["dst"], one.get("prefsrc")) for one in device.routes()]
    cell.text_of("ip", "route", "add", "default", "via", cell.peer_four)
    try:
        assert cell.infra.interface.default().name == "eth0"
    finally:
        cell.text_of("ip", "route", "delete", "default")


def addr(cell: Cell) -> None:
    peer = cell.infra.addr("peer")
    assert peer.is_resolvable
    assert peer.is_reachable
    assert (peer.ipv4_addresses, peer.ipv6_addresses) == ([cell.peer_four], [cell.peer_six])
    assert set(peer.ip_addresses) == {cell.peer_four, cell.peer_six}
    assert peer.port(8001).is_reachable
    assert not peer.port(8009).is_reachable
    assert not cell.infra.addr("nobody").is_resolvable
    assert not cell.infra.addr(str(cell.network[-6])).is_reachable


def file(cell: Cell) -> None:
    content = b"first\nsecond\n"
    given = cell.infra.file("/etc/app/given.conf")
    assert (given.exists, given.is_file, given.is_directory, given.is_executable, given.is_symlink) == (True, True, False, False, False)
    assert (given.user, given.uid, given.group, given.gid, given.mode, given.size) == ("root", 0, "root", 0, 0o600, len(content))
    assert (given.content, given.content_string) == (content, content.decode())
    assert (given.sha256sum, given.md5sum) == (hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest())
    assert given.contains("^second$")
    assert not given.contains("third")
    cell.host.write("/tmp/octets", bytes(range(256)))
    assert cell.infra.file("/tmp/octets").content == bytes(range(256))
    assert cell.infra.file("/etc/app").is_directory
    assert cell.infra.file("/etc/app").listdir() == ["given.conf"]
    assert cell.infra.file("/usr/bin/nc").linked_to == "/usr/bin/nc.openbsd"
    assert cell.infra.file("/usr/bin/nc").is_symlink
    assert cell.infra.file("/usr/local/bin/echo-server").is_executable
    assert not cell.infra.file("/no/such/file").exists


def package(cell: Cell) -> None:
    python = cell.infra.package("python3.11")
    assert python.is_installed
    assert cell.text_of("python3", "-c", "import platform; print(platform.python_version())") in python.version
    assert cell.infra.package("iproute2").version.partition("-")[0] in cell.text_of("ip", "-V")
    assert not cell.infra.package("nginx").is_installed


def mount_point(cell: Cell) -> None:
    root = cell.infra.mount_point("/")
    assert (root.exists, root.filesystem, "rw" in root.options) == (True, "overlay", True)
    assert cell.infra.mount_point("/proc").filesystem == "proc"
    assert not cell.infra.mount_point("/etc").exists


def user(cell: Cell) -> None:
    one = cell.infra.user("user")
    assert (one.exists, one.uid, one.gid, one.group, one.home, one.shell) == (True, 1000, 1000, "user", "/home/user", "/bin/bash")
    assert one.gecos == "an ordinary user"
    assert cell.infra.user().name == "root"
    assert not cell.infra.user("nobody-at-all").exists


def group(cell: Cell) -> None:
    assert (cell.infra.group("user").exists, cell.infra.group("user").gid) == (True, 1000)
    assert not cell.infra.group("nobody-at-all").exists


def service(cell: Cell) -> None:
    """Nothing on a host manages services, so none runs, whatever processes there are: those are asked for by `process`."""
    assert cell.infra.process.get(comm="echo-server")
    assert not cell.infra.service("echo-server").is_running


MODULES: tuple[Callable[[Cell], None], ...] = (
    command, sudo, environment, system_info, sysctl, socket, process, interface, addr, file, package, mount_point, user, group, service,
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda one: one.__name__)
def test_a_module_is_right_on_every_kind_of_host(cell: Cell, module: Callable[[Cell], None]) -> None:
    module(cell)


# Through the address


def test_an_address_names_user_and_time(cell: Cell) -> None:
    place = f"{cell.lab.name}/{cell.name}"
    assert testinfra.get_host(f"testbed://user@{place}").check_output("id -un") == "user"
    assert testinfra.get_host(f"testbed://{place}?sudo=true&sudo_user=daemon").check_output("id -un") == "daemon"
    with pytest.raises(DeadlineExceeded, match=r"sleep 4711.* not within 0\.5 s"):
        testinfra.get_host(f"testbed://{place}?timeout=0.5").run("sleep 4711")
    assert cell.infra.process.filter(args="sleep 4711") == []


def test_patterns_give_the_hosts_of_a_lab_each_once(lab: Lab) -> None:
    def names(*specs: str) -> list[str]:
        return [one.backend.get_pytest_id().removeprefix(f"testbed://{lab.name}/") for one in testinfra.get_hosts(specs)]

    assert sorted(names(f"testbed://{lab.name}/*")) == sorted([*KINDS, "peer"])
    assert names(f"testbed://{lab.name}/v*", f"testbed://{lab.name}/vm") == ["vm"]
    assert "emulated" in names(f"testbed://{lab.name[:-1]}*/emulated")


def test_a_name_that_is_not_there_is_told_with_those_that_are(lab: Lab) -> None:
    for ask in (testinfra.get_host, lambda spec: testinfra.get_hosts([spec])):
        with pytest.raises(UnknownName, match="no lab is called 'b-nowhere'") as caught:
            ask("testbed://b-nowhere/native")
        assert lab.name in caught.value.hint
        assert "testbed up" in caught.value.hint
        with pytest.raises(UnknownName, match=f"no host of lab '{lab.name}' is called 'nativ', did you mean 'native'") as caught:
            ask(f"testbed://{lab.name}/nativ")
        assert "there is: emulated, native, peer, vm" in caught.value.hint


def test_a_host_that_one_has_is_asked_through_its_own_connection(cell: Cell) -> None:
    there: Any = testinfra_backend.as_testinfra(cell.host)
    assert there.check_output("id -un") == "root"
    assert there.sysctl("net.core.somaxconn") == 77
    assert there.backend.get_pytest_id() == f"testbed://{cell.lab.name}/{cell.name}"


def test_commands_of_one_process_share_one_connection(cell: Cell) -> None:
    def ways_in() -> int:
        listed = run_local(["docker", "top", cell.host.container, "-o", "pid,args"]).check().text.splitlines()
        return len([line for line in listed if "/usr/lib/testbed/agent" in line or "/usr/lib/testbed/connect" in line])

    cell.infra.run("true")
    before = ways_in()
    assert before > 0
    for number in range(5):
        assert cell.infra.run("exit %s", str(number)).rc == number
        assert testinfra.get_host(f"testbed://{cell.lab.name}/{cell.name}", sudo=True).run("true").rc == 0
    assert ways_in() == before


def test_a_lab_that_was_made_anew_is_found_again(labs: Labs) -> None:
    file = labs.file("networks: {lan: }\nhosts: {a: {files: {/etc/which: the first}}}\n")
    run_testbed("up", file).check()
    there: Any = testinfra.get_host(f"testbed://{file.stem}/a")
    assert there.file("/etc/which").content_string == "the first"
    run_testbed("down", file.stem).check()
    with pytest.raises(UnknownName, match=file.stem):
        there.run("true")
    file.write_text(file.read_text().replace("first", "second"))
    run_testbed("up", file).check()
    assert there.file("/etc/which").content_string == "the second"


def test_a_host_that_has_ended_is_an_error(labs: Labs) -> None:
    with labs.up("networks: {lan: }\nhosts: {a: }\n") as lab:
        there: Any = testinfra.get_host(f"testbed://{lab.name}/a")
        assert there.run("true").rc == 0
        lab.engine.kill(lab.host("a").container)
        with pytest.raises(LabError, match="host a "):
            there.run("true")


# Through pytest

USERS_TEST = """
def test_its_name(host):
    assert host.check_output("hostname") == host.backend.get_hostname().rpartition("/")[2]
    assert host.sysctl("net.core.somaxconn") == (4096 if "peer" in host.backend.get_hostname() else 77)
"""


def run_pytest(folder: Path, *arguments: str) -> Result:
    """pytest as a user of ours starts it, in a folder of his own. Installed, our entry point makes the plugin known."""
    installed = any(one.name == "testbed-testinfra" for one in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "testbed.testinfra_plugin"]
    path = {**os.environ, "PYTHONPATH": str(Path(testinfra_backend.__file__).parents[1])}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *arguments]
    return run_local(argv, directory=folder, environment=path, timeout_s=120)


def test_hosts_option_runs_a_test_on_every_host_of_a_lab(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TEST)
    done = run_pytest(tmp_path, "-v", f"--hosts=testbed://{lab.name}/*")
    assert done.exit_code == 0, done.text
    for name in (*KINDS, "peer"):
        assert f"test_its_name[testbed://{lab.name}/{name}] PASSED" in done.text


def test_a_module_can_name_its_hosts_itself(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(f'testinfra_hosts = ["testbed://{lab.name}/vm", "testbed://{lab.name}/emulated"]\n{USERS_TEST}')
    done = run_pytest(tmp_path, "-q")
    assert done.exit_code == 0, done.text
    assert "2 passed" in done.text


@pytest.mark.parametrize(
    ("spec", "words"), [("b-nowhere/*", "no lab is called 'b-nowhere'"), ("b-nowhere", "'testbed://b-nowhere' names no host")]
)
def test_a_wrong_hosts_option_is_told_without_a_traceback(lab: Lab, tmp_path: Path, spec: str, words: str) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TEST)
    done = run_pytest(tmp_path, f"--hosts=testbed://{spec}")
    assert done.exit_code == 2
    assert words in done.text
    assert "Error:" not in done.text, done.text
    assert "testbed/" not in done.text, done.text


# Where testinfra is wrong. When one of these fails, it has been mended there, and docs/testinfra.md is to be told.


@pytest.fixture
def native(lab: Lab) -> Cell:
    return Cell(lab, "native")


def test_testinfra_misses_a_listener_on_all_addresses_when_asked_for_one(native: Cell) -> None:
    with listening(native.host, "-4", "0.0.0.0", "8002"):
        assert native.host.run(["nc", "-z", "127.0.0.1", "8002"]).exit_code == 0
        assert not native.infra.socket("tcp://127.0.0.1:8002").is_listening


def test_testinfra_takes_a_listener_on_ipv6_alone_for_one_on_ipv4(native: Cell) -> None:
    script = (
        "import socket, sys; s = socket.create_server(('::', 8002), family=socket.AF_INET6); print('ready', flush=True); sys.stdin.read()"
    )
    with native.host.start(["python3", "-c", script]) as server:
        assert server.stdout.readline() == b"ready\n"
        assert native.host.run(["nc", "-z", "-4", "127.0.0.1", "8002"]).exit_code == 1
        assert native.infra.socket("tcp://127.0.0.1:8002").is_listening
        assert native.infra.socket("tcp://0.0.0.0:8002").is_listening


def test_testinfra_finds_no_clients_of_a_socket_named_by_its_address(native: Cell) -> None:
    with listening(native.host, "-4", native.four, "8002"), native.peer.start(["nc", "-p", "4101", native.four, "8002"]) as client:
        client.stdin.write(b"x")
        wait_until(lambda: native.infra.socket("tcp://8002").clients, timeout_s=30, what="the client")
        assert native.infra.socket("tcp://8002").clients == [(native.peer_four, 4101)]
        assert native.infra.socket(f"tcp://{native.four}:8002").clients == []


def test_testinfra_gives_an_ipv4_client_of_a_server_of_both_in_brackets(native: Cell) -> None:
    with native.peer.start(["nc", "-p", "4102", native.four, "8001"]) as client:
        client.stdin.write(b"x")
        client.stdout.read(1)
        assert native.infra.socket("tcp://8001").clients == [(f"[::ffff:{native.peer_four}]", 4102)]
        assert native.infra.socket("tcp://0.0.0.0:8001").clients == []


def test_testinfra_does_not_look_whether_ss_failed(lab: Lab) -> None:
    """With the emulated ss, it would give a wrong answer and no error. What it finds in PATH is the machine's own."""
    cell = Cell(lab, "emulated")
    with listening(cell.host, "-4", "127.0.0.1", "8003"):
        right = cell.infra.socket("tcp://127.0.0.1:8003")
        wrong = type("Emulated", (type(right),), {"_command": "/usr/bin/ss"})("tcp://127.0.0.1:8003")
        assert "Cannot open netlink socket" in cell.infra.run("/usr/bin/ss -ltn").stderr
        assert (right.is_listening, wrong.is_listening) == (True, False)
        assert "tcp://1.0.0.127:8003" in wrong.get_listening_sockets()


def test_testinfra_gives_a_list_of_one_for_a_link(native: Cell) -> None:
    assert [one["ifname"] for one in native.infra.interface("eth0").link] == ["eth0"]


def test_testinfra_gives_an_interface_without_a_name_where_there_is_no_default_route(native: Cell) -> None:
    assert native.infra.interface.default().name is None


@pytest.mark.long
def test_testinfra_keeps_the_hosts_of_a_pattern(labs: Labs) -> None:
    file = labs.file("networks: {lan: }\nhosts: {a: }\n")
    run_testbed("up", file).check()
    spec = [f"testbed://{file.stem}/*"]
    assert len(testinfra.get_hosts(spec)) == 1
    file.write_text("networks: {lan: }\nhosts: {a: , b: }\n")
    run_testbed("up", file).check()
    assert len(testinfra.get_hosts(spec)) == 1
