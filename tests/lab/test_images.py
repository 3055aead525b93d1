"""The host images as they are run: their tools, their programs, their PID 1, and how they are built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import architecture, images, rootfs
from testbed.architecture import EMULATED, Architecture
from testbed.engine import Engine
from testbed.errors import ImageError
from testbed.process import Result, run_local, wait_until

NATIVE = architecture.of_machine()
BOTH = [NATIVE, EMULATED]
LIMIT_S = 30


@pytest.fixture(scope="module")
def references() -> dict[Architecture, str]:
    return {one.architecture: one.reference for one in images.build(Engine(), BOTH)}


Run = Callable[..., Result]


@pytest.fixture
def run(references: dict[Architecture, str]) -> Run:
    """Run a program instead of init in a new container that is removed afterwards."""

    def run(on: Architecture, *argv: str) -> Result:
        entry, *arguments = argv
        return docker("run", "--rm", "--network=none", f"--entrypoint={entry}", references[on], *arguments)

    return run


def docker(*arguments: str) -> Result:
    return run_local(["docker", *arguments], timeout_s=LIMIT_S)


class Host:
    """A container with init as its PID 1."""

    def __init__(self, reference: str, options: tuple[str, ...], init: tuple[str, ...]) -> None:
        self.name = f"test-images-{uuid.uuid4().hex[:8]}"
        docker("run", "--detach", f"--name={self.name}", "--label=testbed=test", *options, reference, *init).check()

    def run(self, *argv: str) -> str:
        return docker("exec", self.name, *argv).check().text

    def words(self) -> str:
        """What init has said so far."""
        return docker("logs", self.name).error_text

    def lines(self, number: int) -> list[str]:
        """What the command has written, once that is so many lines: the engine takes its two outputs in any order."""
        lines = docker("logs", self.name).text.splitlines()
        return lines if len(lines) >= number else []

    def wait_for_words(self, words: str) -> str:
        wait_until(lambda: words in self.words(), timeout_s=LIMIT_S, what=f"init says '{words}'")
        return self.words()

    def state(self, field: str) -> str:
        return docker("inspect", f"--format={{{{.State.{field}}}}}", self.name).check().text.strip()

    def end(self) -> tuple[int, str]:
        """init's exit code when it ends by itself, and what it said."""
        wait_until(lambda: self.state("Running") == "false", timeout_s=LIMIT_S, what="init ends")
        return int(self.state("ExitCode")), self.words()


Start = Callable[..., Host]


@pytest.fixture
def start(references: dict[Architecture, str]) -> Iterator[Start]:
    with ExitStack() as cleanup:

        def start(*init: str, on: Architecture = NATIVE, options: tuple[str, ...] = ("--network=none",)) -> Host:
            host = Host(references[on], options, init)
            cleanup.callback(docker, "rm", "--force", host.name)
            return host

        yield start


each_architecture = pytest.mark.parametrize("on", BOTH, ids=lambda one: one.name)


@each_architecture
def test_the_image_says_whose_it_is(references: dict[Architecture, str], on: Architecture) -> None:
    image = docker("inspect", "--format={{.Os}}/{{.Architecture}} {{.Config.Labels}}", references[on]).check().text.strip()
    assert image == f"linux/{on.name} map[testbed:image testbed.architecture:{on.name}]"


@each_architecture
def test_every_tool_runs(run: Run, on: Architecture) -> None:
    calls = {
        "sh -c 'echo from sh'": "from sh",
        "bash --version": "GNU bash",
        "python3 --version": "Python 3.11",
        "ip -V": "iproute2",
        "ss -V": "iproute2",
        "tc -V": "iproute2",
        "netstat -V": "net-tools",
        "sysctl --version": "procps",
        "ps --version": "procps",
        "tcpdump --version": "libpcap",
        "nc -h": "OpenBSD netcat",
        "ping -V": "iputils",
        "ethtool --version": "ethtool",
        "awk 'BEGIN { print 6 * 7 }'": "42",
        "getent services ssh": "22/tcp",
        "getent protocols tcp": "6",
        "getent hosts localhost": "::1",
        "id -un 65534": "nobody",
        "stat -c %a /tmp": "1777",
    }
    script = "\n".join(f"{call} 2>&1; echo ----" for call in calls)
    said = run(on, "sh", "-c", script).check().text.split("----\n")
    assert [(call, word in answer) for (call, word), answer in zip(calls.items(), said, strict=False)] == [(call, True) for call in calls]


@each_architecture
def test_nft_runs_where_netlink_is_the_kernel_s_own(run: Run, on: Architecture) -> None:
    """On the emulated host, too: what is called nft there is the machine's own."""
    assert "nftables" in run(on, "nft", "--version").check().text


@pytest.mark.skipif(NATIVE == EMULATED, reason="nothing is emulated on this machine")
def test_the_emulated_nft_is_refused_by_the_emulator(run: Run) -> None:
    """QEMU does not translate NETLINK_NETFILTER. When this fails, docs/images.md has to be told."""
    refused = run(EMULATED, "/usr/sbin/nft", "--version")
    assert refused.exit_code != 0
    assert "Protocol not supported" in refused.error_text


@each_architecture
def test_programs_and_python_agree_on_the_byte_order(run: Run, on: Architecture) -> None:
    assert run(on, "python3", "-c", "import sys; print(sys.byteorder)").check().text == f"{on.byte_order}\n"
    told = run(on, "byte-order").check().text.splitlines()
    assert told[0] == f"byte-order {on.byte_order}"
    assert told[1] == "memory 0x01020304 " + (0x01020304).to_bytes(4, on.byte_order).hex(" ")
    assert told[-1] == f"forgotten-htons 8001 {16671 if on.byte_order == 'little' else 8001}"


def test_the_structures_lie_alike_in_both(run: Run) -> None:
    native, emulated = (run(on, "struct-layout").check().text for on in BOTH)
    assert native == emulated
    assert "sockaddr_in size 16" in native


@each_architecture
def test_every_program_does_its_work(run: Run, on: Architecture) -> None:
    script = """
        set -e
        wait_for() { until grep -q "$1" "$2" 2>/dev/null; do sleep 0.02; done; }
        exchange-server -n 2 8001 > server & wait_for listening server
        exchange-client 127.0.0.1 8001 16909060 hello
        exchange-client -r 127.0.0.1 8001 1 hello || true
        cat server
        echo-server -1 8002 > echo & wait_for listening echo
        echo-client localhost 8002 'round trip'
        mkfifo commands
        listener -b 2 8003 < commands > listener & exec 9> commands; wait_for listening listener
        (wait_for accepted listener; echo state) | connector localhost 8003 1 > connector & wait_for connected connector
        echo accept >&9; wait_for accepted listener; wait $!
        cat listener connector
    """
    said = run(on, "sh", "-c", f"cd /tmp; {script}").check().text.splitlines()
    raw = (1).to_bytes(4, on.byte_order) + (5).to_bytes(2, on.byte_order) + b"hello"
    assert "received 01 02 03 04 00 05 68 65 6c 6c 6f" in said
    assert said.count("integer 16909060") == 2
    assert f"received {raw.hex(' ')}" in said
    assert f"integer {int.from_bytes(raw[:4], 'big')}" in said
    assert "echo round trip" in said
    assert "connection 1 connected" in said
    assert "connecting 0 connected 1 failed 0 closed 0" in said


@each_architecture
def test_python_finds_its_bytecode(run: Run, on: Architecture) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("only Python 3.11 makes bytecode for bookworm's Python")
    said = run(on, "python3", "-v", "-c", "import socket, subprocess, json").check().error_text
    assert "# code object from '/usr/lib/python3.11/__pycache__/socket.cpython-311.pyc'" in said


# --- init -------------------------------------------------------------------------------------------------------


@each_architecture
def test_pid_1_is_the_machine_s_own_program(start: Start, on: Architecture) -> None:
    host = start(on=on)
    host.wait_for_words("init: ready\n")
    assert str(Path(f"/proc/{host.state('Pid')}/exe").readlink()) == images.INIT


# Docker mounts /proc/sys read-only into containers that do not ask for it to be as it is.
WITH_SYSCTLS = ("--network=none", "--cap-add=NET_ADMIN", "--security-opt=systempaths=unconfined")


@each_architecture
def test_sysctls_are_set_before_init_is_ready(start: Start, on: Architecture) -> None:
    wanted = {"net.core.somaxconn": "7", "net.ipv4.tcp_rmem": "4096 87380  200000", "net/ipv4/conf/lo/rp_filter": "2"}
    host = start(*(word for name, value in wanted.items() for word in ("--sysctl", f"{name}={value}")), on=on, options=WITH_SYSCTLS)
    assert host.wait_for_words("ready") == "init: ready\n"
    values = host.run("cat", "/proc/sys/net/core/somaxconn", "/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/conf/lo/rp_filter")
    assert values == "7\n4096\t87380\t200000\n2\n"


@pytest.mark.parametrize(
    ("assignment", "options", "words"),
    [
        ("net.ipv4.tcp_nonsense=1", WITH_SYSCTLS, "sysctl net.ipv4.tcp_nonsense: ENOENT"),
        ("net.ipv4.tcp_syncookies=many", WITH_SYSCTLS, "sysctl net.ipv4.tcp_syncookies: EINVAL"),
        ("net.core.somaxconn=8", ("--network=none",), "sysctl net.core.somaxconn: EROFS"),
        ("net.ipv4.tcp_max_syn_backlog=010", WITH_SYSCTLS, "sysctl net.ipv4.tcp_max_syn_backlog: wrote '010', reads '8'"),
        ("../etc/passwd=x", WITH_SYSCTLS, "sysctl ../etc/passwd: EINVAL"),
    ],
)
def test_a_sysctl_that_cannot_be_set_ends_init_with_its_name(start: Start, assignment: str, options: tuple[str, ...], words: str) -> None:
    assert start("--sysctl", assignment, options=options).end() == (1, f"init: {words}\n")


@dataclass(frozen=True)
class Bridge:
    """A bridge network of both families: ``four`` and ``six`` are the beginnings of its addresses."""

    name: str
    four: str
    six: str

    def addresses(self, text: str) -> str:
        return text.format(four=self.four, six=self.six)

    @property
    def options(self) -> tuple[str, ...]:
        return (f"--network={self.name}", "--cap-add=NET_ADMIN")


@pytest.fixture(scope="module")
def bridge() -> Iterator[Bridge]:
    """Of addresses that RFC 2544 and RFC 3849 set aside, at random: another run of these tests may have one, too. Written as ip does,
    without zeros before."""
    random = uuid.uuid4()
    one, two = random.bytes[:2]
    bridge = Bridge(f"test-images-{random.hex[:8]}", f"198.18.{one}", f"2001:db8:1{two % 16:x}{one:02x}:")
    subnets = (f"--subnet={bridge.four}.0/24", f"--subnet={bridge.six}:/64")
    docker("network", "create", "--internal", "--ipv6", *subnets, bridge.name).check()
    yield bridge
    docker("network", "rm", bridge.name).check()


@each_architecture
def test_routes_are_added_and_a_default_route_is_replaced(start: Start, bridge: Bridge, on: Architecture) -> None:
    routes = [
        ("203.0.113.0/24", f"{bridge.four}.9"),
        ("default", f"{bridge.four}.10"),
        ("2001:db8:9999::/48", f"{bridge.six}:9"),
        ("::/0", f"{bridge.six}:10"),
        ("203.0.113.0/24", f"{bridge.four}.11"),
        ("0.0.0.0/0", f"{bridge.four}.12"),
    ]
    host = start(*(word for route in routes for word in ("--route", *route)), on=on, options=bridge.options)
    assert host.wait_for_words("ready") == "init: ready\n"
    namespace = ["nsenter", "--net", f"--target={host.state('Pid')}"]  # from outside: QEMU garbles what ip asks
    four = run_local([*namespace, "ip", "-4", "route"]).check().text
    six = run_local([*namespace, "ip", "-6", "route"]).check().text
    assert [line.split()[:3] for line in four.splitlines() if "via" in line] == [
        ["default", "via", f"{bridge.four}.12"],
        ["203.0.113.0/24", "via", f"{bridge.four}.11"],
    ]
    assert sorted(line.split()[:3] for line in six.splitlines() if "via" in line) == [
        ["2001:db8:9999::/48", "via", f"{bridge.six}:9"],
        ["default", "via", f"{bridge.six}:10"],
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("destination", "via", "error"),
    [
        ("203.0.113.0/24", "192.0.2.1", "ENETUNREACH"),
        ("203.0.113.0/33", "{four}.9", "EINVAL"),
        ("203.0.113.0", "{four}.9", "EINVAL"),
        ("203.0.113.0/24", "router", "EINVAL"),
        ("203.0.113.0/24", "{six}:9", "EINVAL"),
        ("203.0.113.1/24", "{four}.9", "EINVAL"),
    ],
)
def test_a_route_that_cannot_be_set_ends_init_with_its_name(start: Start, bridge: Bridge, destination: str, via: str, error: str) -> None:
    via = bridge.addresses(via)
    host = start("--route", destination, via, options=bridge.options)
    assert host.end() == (1, f"init: route {destination} via {via}: {error}\n")


def test_a_route_without_the_capability_is_refused(start: Start, bridge: Bridge) -> None:
    via = bridge.addresses("{four}.9")
    host = start("--route", "default", via, options=(f"--network={bridge.name}", "--cap-drop=NET_ADMIN"))
    assert host.end() == (1, f"init: route default via {via}: EPERM\n")


@each_architecture
@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_host_outlives_its_command_and_keeps_the_exit_code(start: Start, on: Architecture, script: str, code: int) -> None:
    host = start("--", "sh", "-c", script, on=on)
    assert host.wait_for_words("command ended") == f"init: ready\ninit: command ended with exit code {code}\n"
    assert host.run("cat", "/run/testbed/command.exit") == f"{code}\n"
    assert host.state("Running") == "true"


@pytest.mark.parametrize(("command", "error", "code"), [("no-such-program", "ENOENT", 127), ("/etc/hosts", "EACCES", 126)])
def test_a_command_that_cannot_be_executed_is_named(start: Start, command: str, error: str, code: int) -> None:
    host = start("--", command, "argument")
    assert host.wait_for_words("command ended") == (
        f"init: ready\ninit: command {command}: {error}\ninit: command ended with exit code {code}\n"
    )
    assert host.run("cat", "/run/testbed/command.exit") == f"{code}\n"


def test_the_command_starts_as_a_program_expects_it(start: Start) -> None:
    host = start("--", "sh", "-c", "readlink /proc/self/fd/0; ps -o pid=,sid= -p $$; exec grep -E 'Sig(Blk|Ign)' /proc/self/status")
    said = wait_until(lambda: host.lines(4), timeout_s=LIMIT_S, what="four lines of the command")
    pid, session = said[1].split()
    assert said[0] == "/dev/null"
    assert pid == session != "1"
    assert said[2:] == ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]


@each_architecture
def test_orphans_are_reaped(start: Start, on: Architecture) -> None:
    host = start(on=on)
    host.wait_for_words("ready")
    # Ten orphans, and PID 1 is their parent as soon as the shell is gone. Each writes a line before it ends.
    host.run("sh", "-c", "for i in 0 1 2 3 4 5 6 7 8 9; do (sleep 0.2; echo >> /tmp/ended) & done")
    wait_until(lambda: host.run("wc", "-l", "/tmp/ended").startswith("10 "), timeout_s=LIMIT_S, what="the orphans end")
    processes = Path("/proc") / host.state("Pid") / "task" / host.state("Pid") / "children"
    wait_until(lambda: not processes.read_text().split(), timeout_s=LIMIT_S, what="init has reaped the orphans")


@each_architecture
@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_a_signal_ends_the_host_at_once(start: Start, on: Architecture, signal: str) -> None:
    host = start("--", "sleep", "1000", on=on)
    host.wait_for_words("ready")
    docker("kill", f"--signal={signal}", host.name).check()
    wait_until(lambda: host.state("Running") == "false", timeout_s=2, what="the host ends")
    assert host.state("ExitCode") == "0"


@pytest.mark.long
@pytest.mark.parametrize("init", [("--nonsense",), ("--sysctl", "net.core.somaxconn"), ("--route", "default"), ("--",), ("sh",)])
def test_init_refuses_what_it_does_not_know(start: Start, init: tuple[str, ...]) -> None:
    code, words = start(*init).end()
    assert code == 2
    assert words.splitlines()[0] == f"init: {init[0]}: unknown, or its value is missing or malformed"
    assert words.splitlines()[1].startswith("init: usage: init ")


# --- the build --------------------------------------------------------------------------------------------------


def build() -> bytes:
    return b"".join(rootfs.root_file_system(rootfs.Workbench(), images.sources(), EMULATED, NATIVE))


@pytest.mark.long
def test_a_mirror_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(rootfs.MIRROR_VARIABLE, "http://127.0.0.1:9/debian")
    with pytest.raises(ImageError, match=r"unpacking (Debian packages for s390x|the tools of \w+) failed") as caught:
        build()
    assert "http://127.0.0.1:9/debian" in caught.value.hint


@pytest.mark.parametrize("missing", ["mmdebstrap", "make", EMULATED.compiler])
def test_a_tool_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, **how: None if name == missing else real(name, **how))
    with pytest.raises(ImageError, match=f"{missing} is not on this machine") as caught:
        build()
    assert "make setup" in caught.value.hint


def test_what_a_failing_tool_said_last_is_told() -> None:
    tool = rootfs.Workbench().tool("compiling", ["sh", "-c", "echo one; echo the reason >&2; exit 3"])
    with pytest.raises(ImageError, match=r"(?s)compiling failed with exit code 3.*the reason"), tool:
        assert tool.output.read() == b"one\n"


def test_a_full_tmpfs_is_told_with_a_way_out() -> None:
    fill = "mount -t tmpfs -o size=64k small /mnt && dd if=/dev/zero of=/mnt/file bs=1k count=100"
    with pytest.raises(ImageError, match="No space left on device") as caught, rootfs.Workbench().tool("filling", ["sh", "-c", fill]):
        pass
    assert "memory" in caught.value.hint


def test_a_tool_that_signals_its_process_group_does_not_reach_us() -> None:
    """mmdebstrap does so when it fails. In a process of its own, which would die of it."""
    call = "from testbed import rootfs; rootfs.Workbench().tool('dying', ['sh', '-c', 'kill -HUP 0; exit 3']).finish()"
    environment = {**os.environ, "PYTHONPATH": str(Path(images.__file__).parents[1])}
    argv = [sys.executable, "-c", call]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=LIMIT_S, start_new_session=True)
    assert "ImageError: dying failed with exit code 3" in done.stderr


def test_a_stopped_workbench_ends_its_tools_and_starts_no_more() -> None:
    bench = rootfs.Workbench()
    with pytest.raises(ImageError, match="waiting failed"), bench.tool("waiting", ["sleep", "1000"]):
        bench.stop()
    with pytest.raises(ImageError, match="more: stopped"):
        bench.tool("more", ["true"])


BUILD = """
from testbed import architecture, images, rootfs
build = rootfs.root_file_system(
    rootfs.Workbench(), images.sources(), architecture.EMULATED, architecture.of_machine(), lambda step: print(step, flush=True)
)
for piece in build: pass
"""


@pytest.mark.alone
@pytest.mark.parametrize("moment", ["running apt-get update", "extracting archives", "creating tarball"])
def test_a_build_that_is_killed_leaves_nothing(moment: str, tmp_path: Path) -> None:
    mounts = Path("/proc/mounts").read_text()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(images.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", BUILD], stdout=subprocess.PIPE, text=True, env=environment) as build:
        assert build.stdout
        assert any(line.strip() == moment for line in build.stdout), f"the build never came to: {moment}"
        family = descendants(build.pid)
        build.kill()
    assert len(family) > 3
    wait_until(lambda: not any(alive(*one) for one in family), timeout_s=5, what="all that the build started is gone")
    assert Path("/proc/mounts").read_text() == mounts
    assert list(tmp_path.iterdir()) == []


def descendants(pid: int) -> set[tuple[int, str]]:
    """(PID, start time) of all processes below ``pid``."""
    found: set[tuple[int, str]] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found |= {(int(child), start_time(int(child))), *descendants(int(child))}
    return found


def alive(pid: int, started: str) -> bool:
    return start_time(pid) == started


def start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
