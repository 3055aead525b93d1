"""The pytest plugin with real labs: other people's test projects, run as they run them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from testbed.capture import read_pcap
from testbed.engine import Engine
from testbed.lab import down, parts_of, read_parts
from testbed.process import Result, run_local, wait_until
from tests.lab.support import run_testbed, warm_command

ROOT = Path(__file__).parents[2]
PAIR = "networks: {lan: }\nhosts: {client: , server: }\n"
KINDS = "networks: {lan: }\nhosts: {native: , emulated: {kind: emulated}, vm: {kind: vm}}\n"
LIMIT_S = 170


class Project:
    """A project with one topology file, whose labs nobody else has, and with tests."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self.engine = engine
        self.path = path
        self.topology = f"t{uuid.uuid4().hex[:8]}"
        self.write("pytest.ini", "[pytest]\naddopts = -p testbed.pytest_plugin -p no:cacheprovider -rA\n")
        self.environment = {
            # In CI pytest's summary has whole messages, so each of them would be said twice.
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST") and name not in ("CI", "BUILD_NUMBER")},
            # Only the plugins that are named, so that this is the same whether or not this one is installed.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)

    def tests(self, text: str, *, topology: str = PAIR, reset: str = "function") -> None:
        self.write(f"{self.topology}.yaml", topology)
        marker = f"pytestmark = pytest.mark.topology('{self.topology}.yaml', reset='{reset}')"
        self.write("test_it.py", f"import os, pathlib, pytest, time\nfrom testbed.process import wait_until\n{marker}\n{text}")

    def run(self, *options: str, environment: Mapping[str, str] | None = None) -> Result:
        argv = [*warm_command(), "pytest", *options]
        return run_local(argv, directory=self.path, environment={**self.environment, **(environment or {})}, timeout_s=LIMIT_S)

    def begin(self, *options: str) -> subprocess.Popen[bytes]:
        """A run that goes on beside the test."""
        argv = [sys.executable, "-m", "pytest", *options]
        return subprocess.Popen(argv, cwd=self.path, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    @property
    def labs(self) -> set[str]:
        return {name for name in read_parts(self.engine) if name.startswith(self.topology)}

    def wait_for(self, *files: str) -> None:
        wait_until(lambda: all((self.path / one).exists() for one in files), timeout_s=LIMIT_S, what=f"{' and '.join(files)}")

    def remove(self) -> None:
        for name in self.labs:
            down(self.engine, name)


@pytest.fixture
def project(engine: Engine, tmp_path: Path) -> Iterator[Project]:
    project = Project(engine, tmp_path)
    yield project
    project.remove()


def outcomes(result: Result) -> str:
    """The last line, without the time it took."""
    return re.sub(r" in [\d.]+s.*", "", result.text.strip().splitlines()[-1].strip("= "))


def test_a_lab_is_used_by_test_after_test_and_each_finds_it_as_it_came_up(project: Project) -> None:
    project.tests(
        """
seen = set()

@pytest.mark.parametrize("number", range(3))
def test_echo(lab, number):
    seen.add(lab.host("server").container)
    assert "echo-server" not in lab.host("server").run(["ps", "-eo", "comm"]).text
    server = lab.host("server").start(["echo-server", "8001"])
    server.wait_for_line("listening 8001")
    lab.host("client").run(["echo-client", "server", "8001", "hello"]).check()

def test_of_one_lab():
    assert len(seen) == 1
"""
    )
    result = project.run()
    assert outcomes(result) == "4 passed", result.text
    assert project.labs == set()


def test_a_test_of_a_host_runs_on_every_kind(project: Project) -> None:
    project.tests(
        """
def test_order(host):
    said = host.check_output("python3 -c 'import sys; print(sys.byteorder)'")
    assert said == host.testbed.byte_order
    assert host.sysctl("net.ipv4.ip_forward") == 0
    host.testbed.write("/tmp/file", b"")
    assert host.file("/tmp/file").exists
""",
        topology=KINDS,
    )
    result = project.run()
    assert outcomes(result) == "3 passed", result.text


def test_a_module_may_share_a_lab_and_what_runs_in_it(project: Project) -> None:
    project.tests(
        """
@pytest.fixture(scope="module")
def server(lab):
    with lab.host("server").start(["echo-server", "8001"]) as process:
        process.wait_for_line("listening 8001")
        yield process

@pytest.mark.parametrize("number", range(3))
def test_echo(lab, server, number):
    assert server.exit_code is None
    assert lab.host("client").run(["echo-client", "server", "8001", str(number)]).check().text
""",
        reset="module",
    )
    assert outcomes(project.run()) == "3 passed"


def test_a_failure_has_all_that_the_lab_tells(project: Project) -> None:
    project.tests(
        """
def test_before(lab):
    lab.host("native").run(["ping", "-c", "1", "vm"]).check()
    # What records must be there again for the next test. The switch sees all processes of the machine; only its own is meant.
    with lab.running.switch as switch:
        switch.run(["sh", "-c", "pkill --ns $$ --nslist net tcpdump"]).check()

def test_bad(lab):
    program = "import socket; s = socket.create_server(('', 8001)); print('waits'); s.accept(); input()"
    server = lab.host("native").start(["python3", "-uc", program])
    server.wait_for_line("waits")
    lab.host("emulated").start(["listener", "8002"]).wait_listening(8002)
    detached = lab.host("native").start(["sh", "-c", "echo from the dark"], detached=True)
    detached.wait()
    lab.host("vm").run(["sh", "-c", "echo planted | nc -w 1 native 8001"])
    assert server.exit_code == 0
""",
        topology=KINDS,
    )
    result = project.run("--testbed-evidence=told", "--junitxml=junit.xml")
    assert outcomes(result) == "1 failed, 1 passed"
    told = project.path / "told" / "test_it.py-test_bad"
    assert {one.name for one in told.iterdir()} == {"native", "emulated", "vm", "lan.pcap"}
    assert {one.name for one in (told / "native").iterdir()} == {
        *("commands.txt", "counters.txt", "log.txt", "network.txt", "processes.txt", "sockets.txt"),
    }
    assert re.search(r"^tcp +LISTEN .*:8001", (told / "native" / "sockets.txt").read_text(), re.MULTILINE)
    assert re.search(r"^tcp +LISTEN .*:8002", (told / "emulated" / "sockets.txt").read_text(), re.MULTILINE)
    assert "TcpPassiveOpens" in (told / "native" / "counters.txt").read_text()
    assert "s.accept(); input()" in (told / "native" / "processes.txt").read_text()
    commands = (told / "native" / "commands.txt").read_text()
    assert "  | waits\n" in commands
    assert "  | from the dark\n" in commands
    assert "ping" not in commands, "what the test before did is not this one's"
    assert "vm: restored" in (told / "vm" / "console.txt").read_text() or "vm: booted" in (told / "vm" / "console.txt").read_text()
    packets = read_pcap((told / "lan.pcap").read_bytes())
    assert any(b"planted\n" in one.payload for one in packets)
    assert not any(one.ethertype == 0x0800 and one.payload[9] == 1 for one in packets), "the ping of the test before"

    for line in (f"all of it: {told}", f"lan.pcap: {len(packets)} packets", "native (native amd64):", "    | waits"):
        assert f"{line}\n" in result.text
    properties = {one.attrib["name"]: one.attrib["value"] for one in ET.parse(project.path / "junit.xml").iter("property")}
    assert properties["testbed-evidence"] == str(told)
    assert properties["testbed-evidence/native/commands.txt"] == commands
    assert properties["testbed-evidence/lan.pcap"] == f"{len(packets)} packets"


def test_a_host_that_a_test_kills_is_told_of_and_there_again_for_the_next(project: Project) -> None:
    project.tests(
        """
def test_kills(lab):
    import subprocess
    host = lab.host("server")
    subprocess.run(["docker", "kill", host.container], check=True)
    host.run(["true"])

def test_next(lab):
    assert lab.host("client").run(["ping", "-c", "1", "server"]).exit_code == 0
"""
    )
    result = project.run("--testbed-evidence=told")
    assert outcomes(result) == "1 failed, 1 passed", result.text
    told = project.path / "told" / "test_it.py-test_kills"
    assert "server" in (told / "server" / "gone.txt").read_text()
    assert (told / "client" / "sockets.txt").exists()
    assert "could not be reset and was made anew" in result.text
    assert project.labs == set()


@pytest.mark.long
def test_without_a_recording_there_is_no_pcap(project: Project) -> None:
    # The switch sees all processes of the machine, and only its own are meant.
    project.tests(
        """
def test(lab):
    with lab.running.switch as switch:
        assert switch.run(["sh", "-c", "pgrep --ns $$ --nslist net tcpdump"]).exit_code == 0
"""
    )
    assert outcomes(project.run()) == "1 passed"
    result = project.run("-o", "testbed_record=false", "--testbed-evidence=told")
    assert outcomes(result) == "1 failed"
    assert sorted(one.name for one in (project.path / "told" / "test_it.py-test").iterdir()) == ["client", "server"]


def test_workers_have_labs_of_their_own_and_leave_nothing(project: Project) -> None:
    project.tests(
        """
@pytest.mark.parametrize("number", range(6))
def test(lab, number):
    me = os.environ["PYTEST_XDIST_WORKER"]
    pathlib.Path(me).touch()
    wait_until(lambda: pathlib.Path("gw0").exists() and pathlib.Path("gw1").exists(), timeout_s=120, what="the other worker")
    assert lab.name.endswith(me)
    assert lab.host("client").run(["ping", "-c", "1", "server"]).exit_code == 0
"""
    )
    result = project.run("-p", "xdist", "-n", "2")
    assert outcomes(result) == "6 passed", result.text
    assert project.labs == set()


@pytest.mark.long
def test_the_lab_of_a_worker_that_crashes_does_not_outlive_the_run(project: Project) -> None:
    project.tests("def test_crashes(lab): os._exit(1)\ndef test_other(): pass")
    result = project.run("-p", "xdist", "-n", "2")
    assert outcomes(result) == "1 failed, 1 passed", result.text
    assert project.labs == set()


def waiting_test(name: str) -> str:
    """A test that says that it has its lab, and goes on when it is told to."""
    return f"""
def test_{name}(lab):
    pathlib.Path("has-{name}").write_text(lab.name)
    wait_until(pathlib.Path("go-{name}").exists, timeout_s=160, what="leave to go on")
    assert lab.host("client").run(["ping", "-c", "1", "server"]).exit_code == 0
"""


@pytest.mark.long
def test_a_run_that_goes_on_keeps_its_lab_whatever_other_runs_do(project: Project) -> None:
    project.tests(waiting_test("a") + waiting_test("b"))
    with project.begin("-k", "test_a") as first:
        project.wait_for("has-a")
        project.write("go-b", "")
        assert outcomes(project.run("-k", "test_b")) == "1 passed, 1 deselected"
        assert project.labs == {(project.path / "has-a").read_text()}
        project.write("go-a", "")
        assert first.communicate(timeout=LIMIT_S)[0].decode().count("1 passed") == 1
    assert project.labs == set()


def test_what_a_killed_run_leaves_the_next_removes(project: Project) -> None:
    project.tests(waiting_test("a") + waiting_test("b"))
    with project.begin("-k", "test_a") as killed:
        project.wait_for("has-a")
        killed.send_signal(signal.SIGKILL)
    project.write("go-b", "")
    # Or another run on this machine does, if one begins before.
    assert outcomes(project.run("-k", "test_b")) == "1 passed, 1 deselected"
    assert project.labs == set()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_at_any_moment_a_run_leaves_nothing_for_longer_than_the_next(project: Project) -> None:
    project.tests("def test_a(lab): pass\ndef test_b(lab): pass", topology="networks: {lan: }\nhosts: {client: }\n")
    begin = time.monotonic()
    assert outcomes(project.run()) == "2 passed"
    duration_s = time.monotonic() - begin
    for part in range(1, 5):
        with project.begin() as killed:
            try:
                killed.communicate(timeout=duration_s * part / 4)
            except subprocess.TimeoutExpired:
                killed.send_signal(signal.SIGKILL)
        assert outcomes(project.run()) == "2 passed"
        assert project.labs == set(), f"killed in part {part} of 4"


@pytest.mark.long
def test_labs_that_are_kept_stay_through_other_runs_and_are_open_to_people(project: Project) -> None:
    project.tests(
        """
def test_good(lab):
    pass

def test_bad(lab):
    lab.host("server").write("/tmp/left", b"by test_bad")
    assert False

def test_not_reached(lab):
    pass
"""
    )
    result = project.run("--testbed-keep")
    assert outcomes(result) == "1 failed, 1 passed"
    (name,) = project.labs
    for line in (f"lab {name} is up, with hosts client, server", f"  testbed shell {name}/client", f"  testbed down {name}"):
        assert f"{line}\n" in result.text
    project.run("-k", "test_good")
    assert run_testbed("exec", f"{name}/server", "cat", "/tmp/left").check().text == "by test_bad"
    run_testbed("down", name).check()
    assert project.labs == set()


@pytest.mark.long
def test_the_example_of_the_documentation_finds_what_it_says(project: Project) -> None:
    text = (ROOT / "docs" / "pytest.md").read_text()
    for language, name in (("yaml", "byte-orders.yaml"), ("python", "test_frames.py")):
        project.write(name, re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[0])
    result = project.run("--testbed-evidence=told")
    assert outcomes(result) == "1 failed, 3 passed", result.text
    assert "FAILED test_frames.py::test_a_frame_arrives[struct.pack-little-big]" in result.text
    packets = read_pcap((next((project.path / "told").iterdir()) / "lan.pcap").read_bytes())
    assert any(bytes.fromhex("05000000") + b"hello" in one.payload for one in packets)


def test_without_an_engine_there_is_one_short_error_and_collecting_works(project: Project) -> None:
    project.tests("def test_a(lab): pass\ndef test_b(host): pass")
    nowhere = {"DOCKER_HOST": f"unix://{project.path}/nowhere.sock"}
    assert "test_it.py::test_b[server]" in project.run("--collect-only", "-q", environment=nowhere).check().text
    result = project.run(environment=nowhere)
    assert outcomes(result) == "3 errors"
    assert result.text.count(f"labs need a Docker engine: no Docker engine answers at unix://{project.path}/nowhere.sock") == 1
    assert result.text.count("labs need a Docker engine, as test_it.py::test_a says") == 2
    assert "Traceback" not in result.text


def test_a_lab_tells_whose_it_is(project: Project, engine: Engine) -> None:
    project.tests(waiting_test("a"))
    with project.begin() as run:
        project.wait_for("has-a")
        (name,) = project.labs
        parts = parts_of(engine, name)
        assert parts.run is not None
        assert (parts.run.pid, parts.run.over) == (run.pid, False)
        project.write("go-a", "")
        run.communicate(timeout=LIMIT_S)
    assert parts.run.over
