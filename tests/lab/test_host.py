"""Commands on real hosts, native and emulated: what differs from pipes is Docker in between, and the other architecture."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import architecture, images
from testbed.architecture import EMULATED, Architecture
from testbed.engine import ContainerSpec, Engine
from testbed.errors import InputError, LabError
from testbed.host import Host, HostFacts
from testbed.process import wait_until
from testbed.topology_values import DEFAULT_CAPABILITIES

EVERY_BYTE = bytes(range(256))
NATIVE = architecture.of_machine()


def facts_of(one: Architecture, container: str) -> HostFacts:
    return HostFacts("lab", "a", "native" if one is NATIVE else "emulated", one.name, one.byte_order, container, {})


@pytest.fixture(params=[NATIVE, EMULATED], ids=["native", "emulated"])
def kind(request: pytest.FixtureRequest) -> Architecture:
    assert isinstance(request.param, Architecture)
    return request.param


@pytest.fixture
def container(engine: Engine, kind: Architecture) -> Iterator[str]:
    (image,) = images.build(engine, [kind])
    name = f"test-host-{uuid.uuid4().hex[:8]}"
    made = engine.create_container(
        ContainerSpec(
            name, image.reference, [], {"testbed.test": name}, capabilities=DEFAULT_CAPABILITIES, environment={"GIVEN": "to the host"}
        )
    )
    try:
        engine.start(made)
        yield made
    finally:
        engine.remove_container(made)


@pytest.fixture
def host(engine: Engine, kind: Architecture, container: str) -> Iterator[Host]:
    with Host.in_container(facts_of(kind, container), engine) as one:
        yield one


def names_of_processes(host: Host) -> str:
    return host.run(["ps", "-e", "-o", "args"]).check().text


def test_a_command_is_a_program_of_the_hosts_architecture(host: Host, kind: Architecture) -> None:
    assert host.run(["uname", "-m"]).text == f"{kind.machine}\n"
    order = host.run(["python3", "-c", "import sys; print(sys.byteorder, end='')"]).text
    assert order == host.byte_order == kind.byte_order


def test_streams_exit_code_environment_directory_and_user(host: Host) -> None:
    data = EVERY_BYTE * 4000
    result = host.run(["sh", "-c", "tee /dev/stderr; exit 9"], stdin=data)
    assert (result.exit_code, result.stdout, result.stderr) == (9, data, data)
    script = "pwd; id -u; id -g; echo $HOME $GIVEN $MORE"
    lines = host.run(["sh", "-c", script], directory="/usr", user="nobody", environment={"MORE": "and more"}).text.splitlines()
    assert lines == ["/usr", "65534", "65534", "/nonexistent to the host and more"]
    assert host.run(["sh", "-c", "kill -9 $$"]).exit_code == 137


def test_what_is_not_there_is_named(host: Host) -> None:
    with pytest.raises(InputError, match="no command 'no-such-command' on host a"):
        host.run(["no-such-command"])
    with pytest.raises(InputError, match="no user 'nemo' on host a"):
        host.run(["true"], user="nemo")


def test_a_host_without_the_capability_says_that_it_cannot_change_users(engine: Engine) -> None:
    (image,) = images.build(engine, [NATIVE])
    name = f"test-host-{uuid.uuid4().hex[:8]}"
    made = engine.create_container(ContainerSpec(name, image.reference, [], {"testbed.test": name}))
    try:
        engine.start(made)
        with Host.in_container(facts_of(NATIVE, made), engine) as host, pytest.raises(LabError, match="Operation not permitted") as caught:
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


def test_the_agent_is_seen_by_nobody_on_the_network(host: Host) -> None:
    host.run(["true"])
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "packet", "unix"):
        assert len(host.read(f"/proc/net/{table}").splitlines()) == 1, table  # the heading


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


def test_64_commands_at_once(host: Host) -> None:
    host.run(["true"])
    with ThreadPoolExecutor(64) as threads:
        outputs = list(
            threads.map(lambda number: host.run(["sh", "-c", f"read word; echo $word {number}"], stdin=b"hello\n").text, range(64))
        )
    assert outputs == [f"hello {number}\n" for number in range(64)]


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
        host.write("/dev/shm/big", bytes(70_000_000))  # Docker makes it 64 MB


def test_the_end_of_the_host_is_an_error_at_once(engine: Engine, host: Host, container: str) -> None:
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(host.run, ["sleep", "60"]) for _ in range(2)]
        process = host.start(["sleep", "60"])
        engine.kill(container)
        began = time.monotonic()
        for one in waiting:
            with pytest.raises(LabError, match="host a is gone: its container has ended with exit code 137"):
                one.result(10)
        with pytest.raises(LabError, match="host a is gone"):
            process.wait(10)
        assert time.monotonic() - began < 2
    with pytest.raises(LabError, match=r"host a cannot be reached: .* is not running"):
        host.run(["true"])
    engine.start(container)
    assert host.run(["echo", "again"]).stdout == b"again\n"


def test_a_container_that_is_not_there_is_an_error(engine: Engine) -> None:
    with pytest.raises(LabError, match=r"host a cannot be reached: .*No such container"):
        Host.in_container(facts_of(NATIVE, "no-such-container"), engine).run(["true"])


def test_an_image_without_an_agent_is_an_error_with_dockers_words(host: Host) -> None:
    host.run(["mv", "/usr/lib/testbed/agent", "/usr/lib/testbed/elsewhere"]).check()
    host.close()
    with pytest.raises(LabError, match=re.escape("/usr/lib/testbed/agent")):
        host.run(["true"])


def test_a_client_that_is_killed_takes_its_commands_along(engine: Engine, host: Host, container: str) -> None:
    script = f"""
from testbed.engine import Engine
from testbed.host import Host, HostFacts
host = Host.in_container(HostFacts("lab", "a", "native", "amd64", "little", "{container}", {{}}), Engine())
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


def test_a_gigabyte_of_output_leaves_the_agent_small(host: Host) -> None:
    with host.start(["head", "-c", "1000000000", "/dev/zero"]) as process:
        count = 0
        while data := process.stdout.read_some(1 << 20):
            count += len(data)
        assert process.wait() == 0
    assert count == 1_000_000_000
    (resident,) = re.findall(r"VmHWM:\s+(\d+) kB", host.run(["sh", "-c", "cat /proc/$PPID/status"]).text)
    assert int(resident) < 4096


def test_a_host_is_reached_in_milliseconds(host: Host, container: str) -> None:
    """Against docker exec in the same seconds, as this machine may be busy. The emulator's own start is in both."""
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
