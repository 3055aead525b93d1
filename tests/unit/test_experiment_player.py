"""A player, on this machine: what it answers, and that another one is a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from testbed.errors import DeadlineExceeded
from testbed.experiment_stage import PROGRAM, Stage, StepFailed
from testbed.traffic import rows_of_tables


class Running:
    """A program of this machine as a host's process is."""

    def __init__(self, argv: list[str]) -> None:
        self._popen = subprocess.Popen([sys.executable, *argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.stdin, self.stdout = self, self
        self.stderr = SimpleNamespace(rest=lambda: b"")
        self.late = False

    def write(self, data: bytes) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(data)
        self._popen.stdin.flush()

    def readline(self, *, timeout_s: float) -> bytes:
        if self.late:
            raise DeadlineExceeded("an answer", timeout_s)
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()

    @property
    def exit_code(self) -> int | None:
        return self._popen.poll()

    def wait(self) -> None:
        self._popen.wait()

    def close(self) -> None:
        self._popen.kill()
        self._popen.communicate()


class Here:
    """This machine as a host."""

    kind = "native"

    def __init__(self) -> None:
        self.addresses = {"lan": ["127.0.0.1"]}
        self.started: list[Running] = []

    def start(self, argv: list[str]) -> Running:
        assert argv[-1] == PROGRAM
        self.started.append(Running(argv))
        return self.started[-1]


@pytest.fixture
def here() -> Here:
    return Here()


@pytest.fixture
def stage(here: Here) -> Iterator[Stage]:
    stage = Stage({"server": here}, {})  # type: ignore[dict-item]
    yield stage
    stage.close()


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("1 + 1", 2),
        ("b'\\x01\\xff'", "01ff"),
        ("(1, [True, None], {2: 'ä\\n'})", [1, [True, None], {"2": "ä\n"}]),
        ("socket.AF_INET", 2),
        ("float('nan')", "nan"),
        ("0.25", 0.25),
        ("x = 3", None),
    ],
)
def test_a_value_comes_as_json_has_it(stage: Stage, code: str, value: object) -> None:
    assert json.dumps(stage.on("server").do(code)) == json.dumps(value)  # for Python True is 1


def test_what_the_kernel_refuses_is_an_outcome_and_a_mistake_is_not(stage: Stage) -> None:
    player = stage.on("server")
    assert player.outcome("os.close(-1)") == "EBADF"
    with pytest.raises(StepFailed, match="gave EBADF"):
        player.do("os.close(-1)")
    with pytest.raises(StepFailed, match="ZeroDivisionError"):
        player.outcome("1 / 0")


def test_another_player_is_a_process_with_none_of_the_first_ones_sockets(stage: Stage, here: Here) -> None:
    first, other = stage.on("server"), stage.on("server", "old")
    port = first.do("s = socket.create_server(('127.0.0.1', 0)); 0") or first.do("s.getsockname()[1]")
    assert other.do("os.getppid()") == first.do("os.getpid()")
    assert other.outcome("os.fstat(3)") == "EBADF"
    with pytest.raises(StepFailed, match="NameError"):
        other.do("s")
    first.do("s.close()")
    other.do(f"t = socket.create_server(('127.0.0.1', {port}))")  # nobody holds it any more
    assert len(here.started) == 1


def test_an_interrupt_ends_one_player_and_its_sockets_alone(stage: Stage) -> None:
    first, other = stage.on("server"), stage.on("server", "old")
    port = other.do("(s := socket.create_server(('127.0.0.1', 0))).getsockname()[1]")
    pid = other.do("os.getpid()")
    assert first.do("interrupt('old')") == -2
    assert first.outcome(f"os.kill({pid}, 0)") == "ESRCH"
    assert first.outcome(f"socket.create_connection(('127.0.0.1', {port}))") == "ECONNREFUSED"
    assert stage.on("server", "old").do("os.getpid()") != pid


def test_a_player_that_ends_says_so_and_is_started_anew(stage: Stage, here: Here) -> None:
    with pytest.raises(StepFailed, match=r"the player 'old' on the server ended during `os._exit"):
        stage.on("server", "old").do("os._exit(0)")
    assert stage.on("server", "old").do("1") == 1
    assert len(here.started) == 1
    with pytest.raises(StepFailed, match=r"the player on the server ended during `os._exit"):
        stage.on("server").do("os._exit(0)")
    here.started[0].wait()
    assert stage.on("server").do("1") == 1


@pytest.mark.parametrize("name", ["", "old"])
def test_what_a_cell_leaves_is_closed_with_it(stage: Stage, name: str) -> None:
    descriptor = stage.on("server", name).do("(s := socket.create_server(('127.0.0.1', 0))).fileno()")
    stage.clean()
    assert stage.on("server", name).outcome(f"os.fstat({descriptor})") == "EBADF"
    with pytest.raises(StepFailed, match="NameError"):
        stage.on("server", name).do("s")


def test_an_answer_that_comes_too_late_is_not_that_to_the_next_question(stage: Stage, here: Here) -> None:
    stage.on("server").do("x = 1")
    here.started[0].late = True
    with pytest.raises(DeadlineExceeded):
        stage.on("server").do("'late'")
    assert stage.on("server").do("'next'") == "next"
    assert len(here.started) == 2


# Two lines each of real hosts, a little-endian and a big-endian one: a server on port 20000, a client on 35000, and UDP.
TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:4E20 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 4102 1 0000000000000000 100 0 0 10 0
   1: 0A4D0C03:4E20 0A4D0C02:88B8 01 00000007:00000005 00:00000000 00000000     0        0 0 1 0000000000000000 20 0 0 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 0000000000000000FFFF0000030C4D0A:4E20 0000000000000000FFFF0000020C4D0A:88B9 06 00000000:00000000 03:0000176D 00000000     0
"""
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  311: 00000000:4E21 00000000:0000 07 00000000:00000340 00:00000000 00000000     0        0 4711 2 0000000000000000 0
"""


def row(protocol: str, state: str, port: int, peer: int | None, waits: int, unsent: int) -> Mapping[str, Any]:
    return {"protocol": protocol, "state": state, "port": port, "peer": peer, "receive_queue": waits, "send_queue": unsent}


def test_the_kernels_tables_are_read() -> None:
    assert rows_of_tables([f"tcp\n{TCP}", f"tcp6\n{TCP6}", f"udp\n{UDP}"]) == [
        row("tcp", "LISTEN", 20000, None, 2, 0),
        row("tcp", "ESTABLISHED", 20000, 35000, 5, 7),
        row("tcp", "TIME_WAIT", 20000, 35001, 0, 0),
        row("udp", "CLOSE", 20001, None, 0x340, 0),
    ]
