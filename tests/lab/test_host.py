"""Commands on real hosts of every kind: what differs from pipes is Docker in between, the other architecture, and another kernel."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from testbed import architecture, images
from testbed.architecture import EMULATED, Architecture
from testbed.engine import ContainerSpec, Engine
from testbed.errors import DeadlineExceeded, InputError, LabError
from testbed.guest import CONNECT
from testbed.host import AGENT, Host, HostFacts
from testbed.lab import Lab
from testbed.process import wait_until
from tests.lab.support import Labs, run_testbed, topology

EVERY_BYTE = bytes(range(256))
NATIVE = architecture.of_machine()
# Of a vm it takes ten times as long to come to a gigabyte, and what counts is that it is many times what fits anywhere on the way.
MUCH_OUTPUT = {"native": 200_000_000, "emulated": 100_000_000, "vm": 30_000_000}  # bytes; the agent is to stay below 4 MB
LAB = """
networks:
  lan:
hosts:
  native: {networks: [lan], environment: {GIVEN: to the host}}
  emulated: {kind: emulated, networks: [lan], environment: {GIVEN: to the host}}
  vm: {kind: vm, arch: s390x, networks: [lan], environment: {GIVEN: to the host}}
"""


@pytest.fixture(params=["native", "emulated", "vm"])
def kind(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


pytestmark = topology(LAB)
# What a guest's one way to many clients makes difficult.
ABOVE_ALL_A_VM = pytest.mark.parametrize("kind", ["vm", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("native", "emulated"))])


@pytest.fixture
def host(lab: Lab, kind: str) -> Iterator[Host]:
    with lab.host(kind) as one:
        yield one


@pytest.fixture
def own_file(labs: Labs, kind: str) -> Path:
    """The file of a lab whose only host, `alone`, is of that kind."""
    return labs.file(f"networks:\n  lan:\nhosts:\n  alone: {{kind: {kind}{', arch: s390x' if kind == 'vm' else ''}}}\n")


@pytest.fixture
def own_host(labs: Labs, own_file: Path) -> Iterator[Host]:
    """A host of a test's own, that may break."""
    run_testbed("up", own_file).check()
    with labs.lab(own_file) as there:
        yield there.host("alone")


def architecture_of(kind: str) -> Architecture:
    return NATIVE if kind == "native" else EMULATED


def names_of_processes(host: Host) -> str:
    return host.run(["ps", "-e", "-o", "args"]).check().text


def test_a_command_is_a_program_of_the_hosts_architecture(host: Host, kind: str) -> None:
    wanted = architecture_of(kind)
    assert host.run(["uname", "-m"]).text == f"{wanted.machine}\n"
    order = host.run(["python3", "-c", "import sys; print(sys.byteorder, end='')"]).text
    assert order == host.byte_order == wanted.byte_order


def test_streams_exit_code_environment_directory_and_user(host: Host) -> None:
    data = EVERY_BYTE * 4000
    result = host.run(["sh", "-c", "tee /dev/stderr; exit 9"], stdin=data)
    assert (result.exit_code, result.stdout, result.stderr) == (9, data, data)
    script = "pwd; id -u; id -g; echo $HOME $GIVEN $MORE"
    lines = host.run(["sh", "-c", script], directory="/usr", user="nobody", environment={"MORE": "and more"}).text.splitlines()
    assert lines == ["/usr", "65534", "65534", "/nonexistent to the host and more"]
    assert host.run(["sh", "-c", "kill -9 $$"]).exit_code == 137


def test_what_is_not_there_is_named(host: Host) -> None:
    with pytest.raises(InputError, match=f"no command 'no-such-command' on host {host.name}"):
        host.run(["no-such-command"])
    with pytest.raises(InputError, match=f"no user 'nemo' on host {host.name}"):
        host.run(["true"], user="nemo")


def facts_of(container: str) -> HostFacts:
    """Of a native host that is in no lab."""
    return HostFacts("lab", "a", "native", NATIVE.name, NATIVE.byte_order, container, {})


def test_a_host_without_the_capability_says_that_it_cannot_change_users(engine: Engine) -> None:
    (image,) = images.build(engine, [NATIVE])
    name = f"test-host-{uuid.uuid4().hex[:8]}"
    made = engine.create_container(ContainerSpec(name, image.reference, [], {"testbed.test": name}))
    try:
        engine.start(made)
        with Host.in_container(facts_of(made), engine) as host, pytest.raises(LabError, match="Operation not permitted") as caught:
            host.run(["true"], user="nobody")
        assert "SETUID" in caught.value.hint
    finally:
        engine.remove_container(made)


def test_a_server_in_the_foreground_gets_ctrl_c(host: Host) -> None:
    with host.start(["nc", "-l", "-k", "127.0.0.1", "4000"]) as server:
        wait_until(lambda: host.run(["nc", "-z", "127.0.0.1", "4000"]).exit_code == 0, timeout_s=20, what="a listening server")
        server.send_signal(signal.SIGINT)
        assert server.wait(10) in (128 + signal.SIGINT, 0)
    assert "4000" not in names_of_processes(host)


def test_a_process_of_another_user_is_killed_too(host: Host) -> None:
    with host.start(["sleep", "4711"], user="nobody") as process:
        assert "4711" in names_of_processes(host)
    assert process.exit_code == 137
    assert "4711" not in names_of_processes(host)


def test_the_agent_is_seen_by_nobody_on_the_network(own_host: Host) -> None:
    own_host.run(["true"])
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "packet", "unix"):
        assert len(own_host.read(f"/proc/net/{table}").splitlines()) == 1, table  # the heading


def test_lines_are_waited_for_and_a_detached_command_stays(host: Host) -> None:
    with host.start(["sh", "-c", "echo up on port 77; exec sleep 4712"]) as process:
        assert process.wait_for_line(r"port (\d+)", 20)[1] == "77"
    left = host.start(["sh", "-c", "echo detached; exec sleep 4713"], detached=True)
    left.wait_for_line("detached", 20)
    host.close()
    assert left.output_files is not None
    assert host.read(left.output_files[0]) == b"detached\n"
    listed = names_of_processes(host)
    assert "sleep 4713" in listed
    assert "4712" not in listed
    assert host.run(["pkill", "-f", "sleep 4713"]).exit_code == 0


def test_a_time_limit_ends_the_whole_process_group(host: Host) -> None:
    with pytest.raises(DeadlineExceeded, match=r"not within 0\.5 s") as caught:
        host.run(["sh", "-c", "trap '' TERM; echo begun; sleep 4715 & sleep 4715"], timeout_s=0.5)
    assert "4715" not in names_of_processes(host)
    assert "begun" in caught.value.hint


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGRTMIN + 6])
def test_any_signal_arrives_under_its_own_number(host: Host, number: int) -> None:
    script = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); print('ready', flush=True); "
    script += "print(int(signal.sigwait(signal.valid_signals())))"
    with host.start(["python3", "-c", script]) as process:
        process.wait_for_line("ready", 60)
        process.send_signal(number)
        assert process.result().stdout.splitlines()[-1] == b"%d" % number


@ABOVE_ALL_A_VM
def test_64_commands_at_once(host: Host) -> None:
    host.run(["true"])
    with ThreadPoolExecutor(64) as threads:
        outputs = list(
            threads.map(lambda number: host.run(["sh", "-c", f"read word; echo $word {number}"], stdin=b"hello\n").text, range(64))
        )
    assert outputs == [f"hello {number}\n" for number in range(64)]


@ABOVE_ALL_A_VM
def test_several_clients_at_once_disturb_nobody(lab: Lab, host: Host) -> None:
    """Each is a process with a connection of its own, whose commands have the same numbers as those of the others."""

    def client(number: int) -> bytes:
        script = f"read word; sleep 0.2; head -c 200000 /dev/zero | tr '\\0' {number}; echo $word; exit {number}"
        done = run_testbed("exec", f"{lab.name}/{host.name}", "sh", "-c", script, stdin=b"word of %d\n" % number)
        assert done.exit_code == number, done.error_text
        return done.stdout

    with ThreadPoolExecutor(8) as threads:
        outputs = list(threads.map(client, range(1, 9)))
    assert outputs == [b"%d" % number * 200_000 + b"word of %d\n" % number for number in range(1, 9)]


def test_files_and_directories_there_and_back(host: Host, tmp_path: Path) -> None:
    here, back = tmp_path / "here", tmp_path / "back"
    (here / "deep").mkdir(parents=True)
    (here / "deep" / "data").write_bytes(EVERY_BYTE * 8000)
    (here / "program").write_bytes(b"#!/bin/sh\necho ran\n")
    (here / "program").chmod(0o750)
    (here / "link").symlink_to("program")
    host.put(here, "/tmp/there")
    assert host.run(["/tmp/there/link"]).text == "ran\n"
    assert host.run(["stat", "-c", "%a %u", "/tmp/there/program"]).text == "750 0\n"
    host.get("/tmp/there", back)
    assert (back / "deep" / "data").read_bytes() == EVERY_BYTE * 8000
    assert (back / "program").stat().st_mode & 0o7777 == 0o750
    assert (back / "link").readlink() == Path("program")
    host.put(here / "program", "/tmp/")
    host.get("/tmp/program", tmp_path / "program")
    assert (tmp_path / "program").read_bytes() == (here / "program").read_bytes()
    host.write("/tmp/note", b"x\0y", mode=0o600)
    assert host.read("/tmp/note") == b"x\0y"
    host.write("/proc/sys/net/ipv4/tcp_syn_retries", b"3\n")
    assert host.read("/proc/sys/net/ipv4/tcp_syn_retries") == b"3\n"


def test_a_file_system_without_room_is_named(host: Host) -> None:
    with pytest.raises(LabError, match="No space left on device"):
        host.write("/dev/shm/big", bytes(70_000_000))  # Docker makes it 64 MB, a vm has half of its 128 MB
    host.run(["rm", "/dev/shm/big"]).check()


def test_the_end_of_the_host_is_an_error_at_once(engine: Engine, labs: Labs, own_file: Path, own_host: Host) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(own_host.run, ["sleep", "60"]) for _ in range(2)]
        process = own_host.start(["sleep", "60"])
        engine.kill(own_host.container)
        began = time.monotonic()
        for one in waiting:
            with pytest.raises(LabError, match="host alone is gone: its container has ended with exit code 137"):
                one.result(10)
        with pytest.raises(LabError, match="host alone is gone"):
            process.wait(10)
        assert time.monotonic() - began < 2
    with pytest.raises(LabError, match=r"host alone cannot be reached: .* is not running"):
        own_host.run(["true"])
    assert "not running" in run_testbed("up", own_file).check().text
    with labs.lab(own_file) as there:
        assert there.host("alone").run(["echo", "again"]).stdout == b"again\n"


def test_a_broken_connection_is_made_anew(host: Host) -> None:
    assert host.run(["true"]).exit_code == 0
    assert host._agent is not None
    host._agent._transport.close()
    wait_until(lambda: host._agent is None or not host._agent.alive, timeout_s=10, what="the end of the connection")
    assert host.run(["echo", "again"]).stdout == b"again\n"


def test_a_container_that_is_not_there_is_an_error(engine: Engine) -> None:
    with pytest.raises(LabError, match=r"host a cannot be reached: .*No such container"):
        Host.in_container(facts_of("no-such-container"), engine).run(["true"])


def test_an_image_without_a_way_in_is_an_error_with_dockers_words(engine: Engine, own_host: Host) -> None:
    way = PurePosixPath(CONNECT if own_host.kind == "vm" else AGENT)
    broken = io.BytesIO()
    with tarfile.open(fileobj=broken, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(way.name))  # mode 0644: no program
    engine.put_archive(own_host.container, str(way.parent), broken.getvalue())
    with pytest.raises(LabError, match=re.escape(str(way))):
        own_host.run(["true"])


def test_a_client_that_is_killed_takes_its_commands_along(lab: Lab, host: Host) -> None:
    script = f"""
from testbed.engine import Engine
from testbed.lab import Lab, parts_of
engine = Engine()
host = Lab(engine, parts_of(engine, "{lab.name}")).host("{host.name}")
print(host.start(["sh", "-c", "sleep 4714 & sleep 4714"]).pid, flush=True)
host.run(["sleep", "4714"])
"""
    here = Path(images.__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(here)}) as client:
        assert client.stdout is not None
        assert int(client.stdout.readline()) > 0
        wait_until(lambda: names_of_processes(host).count("4714") >= 3, timeout_s=20, what="the commands of the client")
        client.kill()
    wait_until(lambda: "4714" not in names_of_processes(host), timeout_s=10, what="the end of the client's commands")


@ABOVE_ALL_A_VM
def test_much_output_leaves_the_agent_small(engine: Engine, host: Host) -> None:
    size = MUCH_OUTPUT[host.kind]
    with host.start(["head", "-c", str(size), "/dev/zero"]) as process:
        count = 0
        while data := process.stdout.read_some(1 << 20):
            count += len(data)
        assert process.wait() == 0
    assert count == size
    seen = [host.run(["sh", "-c", "cat /proc/$PPID/status"]).text]
    if host.kind == "vm":  # what passes the output on, outside of the guest
        seen.append(Path(f"/proc/{engine.inspect(host.container).pid}/status").read_text())
    for text in seen:
        (most,) = re.findall(r"VmHWM:\s+(\d+) kB", text)
        assert int(most) < 4096, text


def test_a_host_is_reached_in_milliseconds(lab: Lab, host: Host) -> None:
    """Against docker exec in the same seconds, as this machine may be busy. The emulator's own start is in both.

    In a vm's container there is nothing that docker exec could run, so there it is that of the native host.
    """
    container = lab.host("native" if host.kind == "vm" else host.kind).container
    host.run(["true"])
    ours: list[float] = []
    dockers: list[float] = []
    for _ in range(10):
        ours += [host.run(["true"]).duration_s for _ in range(5)]
        began = time.monotonic()
        subprocess.run(["docker", "exec", container, "true"], check=True)
        dockers.append(time.monotonic() - began)
    ratio = sorted(ours)[len(ours) // 2] / sorted(dockers)[len(dockers) // 2]
    assert ratio < (0.25 if host.kind == "native" else 0.6)
