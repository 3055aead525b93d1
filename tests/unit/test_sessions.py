"""Many clients on the one way to a guest's agent: the runner's part of it, with the agent itself as the guest."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import threading
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed import host as host_module
from testbed import images
from testbed.agent import MAGIC, SESSION_IDS, Kind
from testbed.architecture import ARCHITECTURES, Architecture, of_machine
from testbed.errors import LabError
from testbed.host import Host
from testbed.process import run_local, wait_until
from tests.unit.test_agent import FACTS, Pipes, marked_sleep, sleeping, wait_for_none
from tests.unit.test_agent_protocol import HELLO, frame, numbers, start

LIMIT_S = 30
GUEST_GONE, SIGNALLED = -1, -2
SESSIONS = 255  # clients at once
STRICT = ["-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-O2"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sessions")
    vm = images.directory() / "vm"
    run_local(["make", "-s", "-C", str(images.directory()), "agent", f"OUT={out}"]).check()
    below = ["cc", *STRICT, '-DAGENT_DIRECTORY="run"', f"-I{vm}", "-o"]
    ours = [Path(__file__).with_name("sessions.c"), vm / "sessions.c", vm / "guest_agent.c"]
    run_local([*below, str(out / "sessions"), *map(str, ours)]).check()
    run_local([*below, str(out / "connect"), str(vm / "connect.c")]).check()
    return out


class Connection:
    """A client's way to the agent: a socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(str(path))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        while data := self.socket.recv(65536):
            yield 1, data

    def hear(self, wanted: bytes) -> bytes:
        """All that comes until ``wanted`` does."""
        heard = b""
        while wanted not in heard:
            data = self.socket.recv(65536)
            assert data, f"the end, after {heard!r}"
            heard += data
        return heard

    def ends(self) -> bool:
        """Whether the other side ends it, whatever it says before."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def close(self) -> None:
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was faster
        self.socket.close()


class Guest:
    """An agent on a device, the end of which that QEMU has, and the runner's loop, which joins it with clients."""

    def __init__(self, programs: Path, directory: Path, *command: str, environment: dict[str, str] | None = None) -> None:
        master, slave = pty.openpty()
        tty.setraw(slave)
        self.agent = subprocess.Popen([programs / "agent", "--device", os.ttyname(slave)], stderr=subprocess.PIPE)
        ours, theirs = socket.socketpair()
        # A device is no socket, which the runner expects: QEMU is between them.
        self._pumps = [
            threading.Thread(target=self._pump, args=(lambda: os.read(master, 65536), ours.sendall, ours)),
            threading.Thread(target=self._pump, args=(lambda: ours.recv(4096), lambda data: _write(master, data), ours)),
        ]
        number = str(theirs.fileno())
        self.runner = subprocess.Popen(
            [programs / "sessions", number, *command],
            pass_fds=[theirs.fileno()],
            cwd=directory,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        theirs.close()
        for one in self._pumps:
            one.start()
        assert self.runner.stdout
        said = self.runner.stdout.readline()
        os.close(slave)  # the agent has it open by now
        assert said == b"serving\n"
        self.master, self.ours = master, ours
        self.path = directory / "run" / "agent"
        self._cleanup = ExitStack()

    @staticmethod
    def _pump(read: Callable[[], bytes], write: Callable[[bytes], object], way: socket.socket) -> None:
        try:
            while data := read():
                write(data)
        except OSError:
            pass  # one side is gone, and then the other one shall hear of it
        try:
            way.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def client(self) -> Host:
        """Another program of testbed's, as it were."""
        return self._cleanup.enter_context(Host(FACTS, lambda: Connection(self.path)))

    def connection(self) -> Connection:
        """A client that says what a test lets it say, after the greeting."""
        made = Connection(self.path)
        self._cleanup.callback(made.close)
        made.send(HELLO)
        made.hear(frame(Kind.HELLO, 7, MAGIC + b"\2"))
        return made

    def result(self) -> int:
        """What serve_clients() gave, once it has."""
        assert self.runner.stdout
        said = int(self.runner.stdout.readline())
        assert self.runner.wait(LIMIT_S) == 0
        return said

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()
        for process in (self.runner, self.agent):
            process.kill()
            process.wait(LIMIT_S)
        for one in self._pumps:
            one.join(LIMIT_S)
        os.close(self.master)
        self.ours.close()
        assert self.runner.stdout
        assert self.agent.stderr
        self.runner.stdout.close()
        self.agent.stderr.close()


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@pytest.fixture
def guest(programs: Path, tmp_path: Path) -> Iterator[Guest]:
    with Guest(programs, tmp_path) as one:
        yield one


@pytest.mark.parametrize("architecture", [of_machine(), ARCHITECTURES["s390x"]], ids=lambda one: one.name)
def test_the_programs_of_guests_compile_without_a_warning(architecture: Architecture, tmp_path: Path) -> None:
    make = ["make", "-s", "-C", str(images.directory()), "vm", "guest", "init", f"CC={architecture.compiler}", f"OUT={tmp_path}"]
    done = run_local(make)
    assert (done.exit_code, done.text, done.error_text) == (0, "", "")


# --- clients beside each other


def test_clients_with_the_same_numbers_hear_of_their_own_commands_only(guest: Guest) -> None:
    clients = [guest.client() for _ in range(2)]
    gate = threading.Barrier(2)

    def use(which: int) -> list[bytes]:
        gate.wait(LIMIT_S)  # each numbers its commands from 1
        script = f'read word; echo {which} $word; echo "err {which}" >&2; exit {10 + which}'
        results = [clients[which].run(["sh", "-c", script], stdin=f"{number}\n".encode()) for number in range(40)]
        assert {(one.exit_code, one.stderr) for one in results} == {(10 + which, f"err {which}\n".encode())}
        return [one.stdout for one in results]

    with ThreadPoolExecutor(2) as threads:
        outputs = list(threads.map(use, range(2)))
    assert outputs == [[f"{which} {number}\n".encode() for number in range(40)] for which in range(2)]


def test_much_passes_both_ways_for_several_at_once(guest: Guest) -> None:
    def use(which: int) -> None:
        data = bytes([which]) * 1_500_000
        result = guest.client().run(["sh", "-c", "tee /dev/stderr"], stdin=data)
        assert (result.exit_code, result.stdout == data, result.stderr == data) == (0, True, True)

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(use, range(3)))


def test_50_clients_at_once(guest: Guest) -> None:
    gate = threading.Barrier(50)

    def use(which: int) -> tuple[int, bytes]:
        client = guest.client()
        gate.wait(LIMIT_S)
        result = client.run(["sh", "-c", f"read word; seq 2000; echo $word; exit {which}"], stdin=f"w{which}\n".encode())
        return result.exit_code, result.stdout[-8:]

    with ThreadPoolExecutor(50) as threads:
        results = list(threads.map(use, range(50)))
    assert [code for code, _ in results] == list(range(50))
    assert all(end.endswith(f"\nw{which}\n".encode()) for which, (_, end) in enumerate(results))


def test_a_client_that_reads_nothing_holds_nobody_up(guest: Guest) -> None:
    deaf = guest.connection()
    deaf.send(b"".join(start(number, "yes") for number in range(1, 9)))
    assert guest.client().run(["seq", "100000"]).stdout.endswith(b"\n100000\n")
    deaf.close()
    assert guest.client().run(["echo", "on"]).stdout == b"on\n"


def test_a_client_that_says_nothing_holds_nobody_up(guest: Guest) -> None:
    Connection(guest.path).close()
    silent = Connection(guest.path)
    assert guest.client().run(["echo", "on"]).stdout == b"on\n"
    silent.close()


def test_signals_sizes_and_terminals_pass(guest: Guest) -> None:
    client = guest.client()
    with client.start(["sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"], terminal=(24, 80)) as process:
        process.wait_for_line("ready", LIMIT_S)
        process.resize(50, 90)
        assert process.wait_for_line(r"\d+ \d+", LIMIT_S)[0] == "50 90"
        process.send_signal(signal.SIGKILL)
        assert process.wait(LIMIT_S) == 128 + signal.SIGKILL


# --- clients that leave


def test_what_a_client_had_ends_with_it_and_nothing_else(guest: Guest) -> None:
    his, other = marked_sleep(), marked_sleep()
    leaving, staying = guest.client(), guest.client()
    leaving.start(["sh", "-c", f"sleep {his} & sleep {his}"])
    process = staying.start(["sh", "-c", f"sleep {other}; echo after"])
    wait_until(lambda: len(sleeping(his)) == 2 and sleeping(other), timeout_s=LIMIT_S, what="three sleepers")
    leaving.close()
    wait_for_none(his)
    (sleeper,) = sleeping(other)
    os.kill(sleeper, signal.SIGTERM)
    assert process.result(LIMIT_S).stdout == b"after\n"


def test_a_client_that_dies_in_the_middle_of_a_frame_harms_nobody(guest: Guest) -> None:
    mark = marked_sleep()
    staying, dying = guest.client(), guest.connection()
    dying.send(start(1, "sleep", mark))
    wait_until(lambda: sleeping(mark), timeout_s=LIMIT_S, what="the sleeper")
    dying.send(start(2, "sleep", mark)[:-3])
    dying.close()
    wait_for_none(mark)
    assert staying.run(["cat"], stdin=bytes(100_000)).stdout == bytes(100_000)


def test_a_detached_command_stays_when_its_client_leaves(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "DETACHED_OUTPUT", str(tmp_path))
    mark = marked_sleep()
    client = guest.client()
    client.start(["sleep", mark], detached=True)
    wait_until(lambda: sleeping(mark), timeout_s=LIMIT_S, what="the sleeper")
    client.close()
    assert guest.client().run(["true"]).exit_code == 0  # the agent has heard of the end by then
    (sleeper,) = sleeping(mark)
    os.kill(sleeper, signal.SIGKILL)


def test_the_place_of_a_client_that_left_is_free_again(guest: Guest) -> None:
    for _ in range(SESSIONS + 20):
        one = guest.connection()
        one.send(start(1, "echo", "here"))
        one.hear(frame(Kind.EXITED, 1, b"\0\0"))
        one.close()


def test_a_client_too_many_waits_until_another_one_leaves(guest: Guest) -> None:
    everybody = [guest.connection() for _ in range(SESSIONS)]
    waiting = Connection(guest.path)
    waiting.send(HELLO)
    everybody[0].send(start(1, "echo", "still served"))
    everybody[0].hear(frame(Kind.EXITED, 1, b"\0\0"))
    waiting.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        waiting.socket.recv(1)
    waiting.socket.settimeout(LIMIT_S)
    everybody[77].close()
    waiting.hear(frame(Kind.HELLO, 7, MAGIC + b"\2"))
    waiting.close()


# --- clients that are wrong


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\4\1\0\0\0",
        frame(99),
        frame(Kind.STARTED, 1, bytes(4)),
        frame(Kind.HELLO, 7, b"HELLO?!\n"),
        frame(Kind.GOODBYE, 0),
        frame(Kind.ENVIRONMENT, 0, b"A=b\0"),
        start(SESSION_IDS + 1, "true"),
        frame(Kind.SIGNAL, SESSION_IDS + 1, b"\x0f"),
        frame(Kind.START, 1, bytes(19)),
        frame(Kind.START, 1, numbers(0, 0) + bytes(5)),
        frame(Kind.START, 1, numbers(5, 0) + bytes(5) + b"true\0"),
        frame(Kind.START, 1, numbers(1, 1) + bytes(5) + b"true\0A\0"),
        frame(Kind.START, 1, numbers(1, 0, flags=3) + bytes(5) + b"true\0"),
        start(1, "sleep", "60") + start(1, "true"),
        start(1, "sleep", "60") + frame(Kind.SIGNAL, 1, b"\xff"),
        start(1, "sleep", "60") + frame(Kind.RESIZE, 1, bytes(4)),
        start(1, "sleep", "60") + frame(Kind.CREDIT, 1, b"\1"),
        start(1, "sleep", "60") + frame(Kind.CREDIT, 1, b"\1\0\0\0\1"),
        start(1, "sleep", "60") + frame(Kind.STDIN, 1, bytes(65536)) * 6,
    ],
    ids=lambda said: f"{said[:40]!r}",
)
def test_a_client_that_says_what_none_may_is_dropped_alone(guest: Guest, said: bytes) -> None:
    mark = marked_sleep()
    staying, wrong = guest.client(), guest.connection()
    process = staying.start(["cat"])
    wrong.send(start(5, "sleep", mark))
    wait_until(lambda: sleeping(mark), timeout_s=LIMIT_S, what="the sleeper")
    wrong.send(said + start(6, "sleep", mark))
    assert wrong.ends()
    wait_for_none(mark)
    process.stdin.write(b"on")
    assert process.result(LIMIT_S).stdout == b"on"
    assert guest.client().run(["echo", "on"]).stdout == b"on\n"


# --- the guest


def test_what_the_container_is_told_commands_on_the_guest_get(programs: Path, tmp_path: Path) -> None:
    with Guest(programs, tmp_path, environment={"OF_THE_TOPOLOGY": "a = b"}) as guest:
        client = guest.client()
        assert "OF_THE_TOPOLOGY=a = b" in client.run(["env"]).text.splitlines()
        assert "OF_THE_TOPOLOGY=c" in client.run(["env"], environment={"OF_THE_TOPOLOGY": "c"}).text.splitlines()


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("exit 0", 0), ("kill -TERM $$", 128 + signal.SIGTERM)])
def test_the_end_of_its_own_command_is_the_end(programs: Path, tmp_path: Path, script: str, code: int) -> None:
    os.mkfifo(tmp_path / "gate")
    with Guest(programs, tmp_path, "sh", "-c", f"read line < {tmp_path}/gate; {script}") as guest:
        client = guest.client()
        assert client.run(["echo", "on"]).stdout == b"on\n"
        (tmp_path / "gate").write_text("go\n")
        assert guest.result() == code


def test_the_end_of_a_clients_command_is_not_the_end(programs: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    with Guest(programs, tmp_path, "sh", "-c", f"read line < {tmp_path}/gate; exit 3") as guest:
        assert guest.client().run(["sh", "-c", "exit 7"]).exit_code == 7  # the first command of a client, as the own one is
        assert guest.client().run(["echo", "on"]).stdout == b"on\n"
        (tmp_path / "gate").write_text("go\n")
        assert guest.result() == 3


def test_the_end_of_the_guest_is_the_end_and_an_error_for_every_client(guest: Guest) -> None:
    processes = [guest.client().start(["sleep", marked_sleep()]) for _ in range(3)]
    guest.agent.kill()
    assert guest.result() == GUEST_GONE
    for process in processes:
        with pytest.raises(LabError, match="host a is gone"):
            process.wait(LIMIT_S)


def test_a_signal_ends_it(guest: Guest) -> None:
    guest.runner.terminate()
    assert guest.result() == SIGNALLED


# --- a client's way in


def test_connect_joins_its_streams_with_the_agent(programs: Path, guest: Guest, tmp_path: Path) -> None:
    way: list[str | Path] = ["sh", "-c", 'cd "$1" && exec "$2"', "sh", tmp_path, programs / "connect"]
    with Host(FACTS, lambda: Pipes(way)) as host:
        data = bytes(range(256)) * 8000
        result = host.run(["sh", "-c", "tee /dev/stderr; exit 3"], stdin=data)
        assert (result.exit_code, result.stdout == data, result.stderr == data) == (3, True, True)


def test_connect_ends_with_its_input_and_with_the_guest(programs: Path, guest: Guest, tmp_path: Path) -> None:
    mark = marked_sleep()
    ways = [
        subprocess.Popen([programs / "connect"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) for _ in range(2)
    ]
    for one in ways:
        assert one.stdin
        assert one.stdout
        one.stdin.write(HELLO + start(1, "sleep", mark))
        assert one.stdout.read(4) == b"\0\0\0\x0e"
    wait_until(lambda: len(sleeping(mark)) == 2, timeout_s=LIMIT_S, what="two sleepers")
    first, second = ways
    first.communicate(timeout=LIMIT_S)
    assert first.returncode == 0
    wait_until(lambda: len(sleeping(mark)) == 1, timeout_s=LIMIT_S, what="the end of one")
    guest.agent.kill()
    assert second.wait(LIMIT_S) == 0
    assert second.stdin
    assert second.stdout
    second.stdin.close()
    second.stdout.close()


def test_connect_says_why_there_is_no_way(programs: Path, tmp_path: Path) -> None:
    done = subprocess.run([programs / "connect"], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert re.fullmatch("its guest cannot be reached: No such file or directory\n", done.stderr)
