"""The agent and its client against a partner that misbehaves, dies, or speaks another language; frame by frame."""

from __future__ import annotations

import os
import pty
import re
import socket
import struct
import subprocess
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed import agent as agent_module
from testbed import images
from testbed.agent import MAGIC, OUTPUT_WINDOW, SESSION_IDS, Agent, Kind, Order
from testbed.architecture import EMULATED, Architecture, of_machine
from testbed.errors import LabError
from testbed.process import run_local, wait_until


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agent")
    run_local(["make", "-s", "-C", str(images.directory()), "agent", f"OUT={out}"]).check()
    return out / "agent"


def frame(kind: int, number: int = 0, body: bytes = b"") -> bytes:
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


HELLO = frame(Kind.HELLO, 7, MAGIC)


def start(number: int, *argv: str, terminal: tuple[int, int] | None = None) -> bytes:
    return frame(Kind.START, number, Order(argv, terminal=terminal).packed())


def numbers(arguments: int, variables: int, *, flags: int = 0) -> bytes:
    """What a START begins with."""
    return struct.pack(">IIHHII", flags, 0, 24, 80, arguments, variables)


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    while data:
        size, kind, number = struct.unpack_from(">IBI", data)
        yield kind, number, data[9 : 4 + size]
        data = data[4 + size :]


def conversation(program: Path, said: bytes) -> tuple[int, bytes, str]:
    """The agent's exit code, its answers and its complaints when it is told all this and then that the client is gone."""
    done = subprocess.run([program], input=said, capture_output=True, timeout=20)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("architecture", [of_machine(), EMULATED], ids=lambda one: one.name)
def test_the_agent_compiles_without_a_warning(architecture: Architecture, tmp_path: Path) -> None:
    done = run_local(["make", "-s", "-C", str(images.directory()), "agent", f"CC={architecture.compiler}", f"OUT={tmp_path}"])
    assert (done.exit_code, done.text, done.error_text) == (0, "", "")


# --- the agent


def test_numbers_are_in_network_order_and_the_answer_has_the_clients_number(program: Path) -> None:
    code, answer, complaint = conversation(program, b"\0\0\0\x0d\x01\0\0\0\x07TESTBED\n")
    assert (code, answer, complaint) == (0, b"\0\0\0\x0e\x01\0\0\0\x07TESTBED\n\x02", "")


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a frame of 1195725856 bytes"),
        (frame(Kind.HELLO, 0, b"HELLO?!\n"), "greets in another language"),
        (start(1, "true"), "frame 2 before HELLO"),
        (HELLO + b"\0\0\0\4\1\0\0\0", "a frame of 4 bytes"),
        (HELLO + struct.pack(">I", 256 * 1024 + 1), "a frame of 262145 bytes"),
        (HELLO + frame(99), "a frame of kind 99"),
        (HELLO + frame(Kind.STARTED), "a frame of kind 9"),
        (HELLO + frame(Kind.START, 1, b"\0" * 19), "a START of 19 bytes"),
        (HELLO + frame(Kind.START, 1, numbers(0, 0) + b"\0" * 5), "a START with 0 arguments"),
        (HELLO + frame(Kind.START, 1, numbers(2**32 - 1, 0) + b"\0" * 9), "4294967295 arguments"),
        (HELLO + frame(Kind.START, 1, numbers(5, 0) + b"\0" * 5 + b"true\0"), "fewer strings than it says"),
        (HELLO + frame(Kind.START, 1, numbers(1, 0) + b"\0" * 5 + b"true"), "fewer strings than it says"),
        (HELLO + frame(Kind.START, 1, numbers(1, 1) + b"\0" * 5 + b"true\0A\0"), "a variable without '='"),
        (HELLO + frame(Kind.START, 1, numbers(1, 0, flags=3) + b"\0" * 5 + b"true\0"), "a START with flags 3"),
        (HELLO + start(1, "sleep", "60") + start(1, "true"), "command 1 is there already"),
        (HELLO + start(1, "sleep", "60") + frame(Kind.SIGNAL, 1, b"\xff"), "a wrong SIGNAL"),
        (HELLO + start(1, "sleep", "60") + frame(Kind.SIGNAL, 1), "a wrong SIGNAL"),
        (HELLO + start(1, "sleep", "60") + frame(Kind.RESIZE, 1, b"\0\x18\0\x50"), "a wrong RESIZE"),
        (HELLO + start(1, "sleep", "60", terminal=(24, 80)) + frame(Kind.RESIZE, 1, b"\0\x18"), "a wrong RESIZE"),
        (HELLO + start(1, "sleep", "60") + frame(Kind.CREDIT, 1, b"\1"), "a wrong CREDIT"),
        (HELLO + start(1, "sleep", "60") + frame(Kind.CREDIT, 1, b"\0\0\0\0\1"), "a wrong CREDIT"),
        (HELLO + start(1, "sleep", "60") + frame(Kind.CREDIT, 1, b"\1\0\0\0\1"), "credit beyond the window"),
        (HELLO + start(1, "sleep", "60") + frame(Kind.STDIN, 1, bytes(65536)) * 6, "more input than it had credit for"),
    ],
)
def test_garbage_ends_the_agent_with_a_reason(program: Path, said: bytes, complaint: str) -> None:
    code, _, said_back = conversation(program, said)
    assert code == 2
    assert said_back.startswith("agent: ")
    assert complaint in said_back
    assert len(said_back.splitlines()) == 1


@given(st.binary(max_size=400))
def test_any_bytes_at_all_end_the_agent_in_order(program: Path, said: bytes) -> None:
    code, _, complaint = conversation(program, HELLO + said)
    assert (code, complaint) == (0, "") or (code == 2 and complaint.startswith("agent: garbage"))


def test_frames_about_a_command_that_is_over_are_ignored(program: Path) -> None:
    late = (
        frame(Kind.STDIN, 5, b"x")
        + frame(Kind.STDIN_END, 5)
        + frame(Kind.SIGNAL, 5, b"\x0f")
        + frame(Kind.RESIZE, 5, bytes(4))
        + frame(Kind.CREDIT, 5, b"\1\0\0\0\1")
    )
    code, answer, complaint = conversation(program, HELLO + late)
    assert (code, complaint, [kind for kind, _, _ in frames(answer)]) == (0, "", [Kind.HELLO])


class Talk:
    """An agent that is talked to frame by frame."""

    def __init__(self, argv: list[str | Path], **options: object) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **options)  # type: ignore[call-overload]

    def say(self, data: bytes) -> None:
        self.process.stdin.write(data)

    def hear(self) -> tuple[int, int, bytes]:
        size, kind, number = struct.unpack(">IBI", self._read(9))
        return kind, number, self._read(size - 5)

    def _read(self, size: int) -> bytes:
        """So many bytes: a pipe that is nearly full gives them in pieces."""
        data = b""
        while len(data) < size:
            piece = self.process.stdout.read(size - len(data))
            assert piece, f"the agent ended after {data!r}"
            data += piece
        return data

    def pid_of(self, *argv: str, number: int = 1) -> int:
        self.say(start(number, *argv))
        while True:
            kind, about, body = self.hear()
            if (kind, about) == (Kind.STARTED, number):
                return int.from_bytes(body, "big")

    def __enter__(self) -> Talk:
        self.say(HELLO)
        assert self.hear()[0] == Kind.HELLO
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


def is_running(pid: int) -> bool:
    """Neither gone nor a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_gone(pid: int) -> None:
    wait_until(lambda: not is_running(pid), timeout_s=5, what=f"the end of process {pid}")


def test_a_new_hello_ends_what_the_earlier_client_had(program: Path) -> None:
    with Talk([program]) as talk:
        pid = talk.pid_of("sleep", "60")
        talk.say(frame(Kind.HELLO, 8, MAGIC))
        while talk.hear()[:2] != (Kind.HELLO, 8):
            pass
        # no zombie either: the agent reaps it
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=5, what=f"the end of process {pid}")
        assert is_running(talk.pid_of("sleep", "60"))  # the number 1 is free again


def test_goodbye_ends_an_agent_on_standard_streams(program: Path) -> None:
    with Talk([program]) as talk:
        pid = talk.pid_of("sleep", "60")
        talk.say(frame(Kind.GOODBYE))
        assert talk.process.wait(5) == 0
        wait_gone(pid)


def test_sigterm_ends_the_agent_and_its_commands(program: Path) -> None:
    with Talk([program]) as talk:
        pid = talk.pid_of("sleep", "60")
        talk.process.terminate()
        assert talk.process.wait(5) == 128 + 15
        wait_gone(pid)


def test_a_client_that_hears_no_more_is_gone(program: Path) -> None:
    with Talk([program]) as talk:
        pid = talk.pid_of("sh", "-c", "trap '' PIPE; while :; do echo x; done")
        talk.process.stdout.close()
        assert talk.process.wait(5) == 0  # not by SIGPIPE
        wait_gone(pid)


def test_children_are_reaped(program: Path) -> None:
    with Talk([program]) as talk:
        for number in range(1, 50):
            talk.pid_of("true", number=number)
        children = Path(f"/proc/{talk.process.pid}/task/{talk.process.pid}/children")
        wait_until(lambda: children.read_text() == "", timeout_s=5, what="no child left")


def test_an_idle_agent_does_nothing(program: Path) -> None:
    def switches() -> int:
        status = Path(f"/proc/{talk.process.pid}/status").read_text()
        return sum(int(count) for count in re.findall(r"ctxt_switches:\s+(\d+)", status))

    with Talk([program]) as talk:
        # Each of these would make a poll that asks for too much return at once, for ever: a closed input, output without credit.
        talk.pid_of("sh", "-c", "exec <&-; exec sleep 60", number=1)
        talk.pid_of("sh", "-c", "head -c 1100000 /dev/zero & exec >&-; exec sleep 60", number=2)
        # Likewise terminals: one that its command has let go, one that was left with output for which there is no credit.
        talk.say(start(3, "sh", "-c", "exec <&- >&- 2>&-; exec sleep 60", terminal=(24, 80)))
        talk.say(start(4, "sh", "-c", "head -c 1048577 /dev/zero", terminal=(24, 80)))
        heard = {2: 0, 4: 0}
        while set(heard.values()) != {OUTPUT_WINDOW}:
            kind, number, body = talk.hear()
            if kind == Kind.STDOUT:
                heard[number] += len(body)
        wait_until(lambda: Path(f"/proc/{talk.process.pid}/stat").read_text().split()[2] == "S", timeout_s=5, what="an agent at rest")
        before = switches()
        probe = subprocess.run(["sleep", "0.3"])  # nothing can be waited for where nothing is to happen
        assert probe.returncode == 0
        assert switches() - before < 10


def test_a_terminal_that_has_ended_is_left_alone_until_there_is_credit(program: Path) -> None:
    def used_s() -> float:
        fields = Path(f"/proc/{talk.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with Talk([program]) as talk:
        talk.say(start(1, "head", "-c", str(OUTPUT_WINDOW + 1), "/dev/zero", terminal=(24, 80)))
        heard = 0
        while heard < OUTPUT_WINDOW:
            kind, _, body = talk.hear()
            heard += len(body) if kind == Kind.STDOUT else 0
        before = used_s()
        while talk.hear()[0] != Kind.EXITED:  # a quarter of a second later, as its output is not at its end
            pass
        assert used_s() - before < 0.08
        talk.say(frame(Kind.CREDIT, 1, b"\1\0\0\0\2"))
        assert talk.hear() == (Kind.STDOUT, 1, b"\0")
        assert talk.hear() == (Kind.END, 1, b"\1")


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_terminal_that_cannot_be_had_is_an_answer_and_leaves_nothing_open(program: Path, room: int) -> None:
    # The agent has its three streams, one for signals and one of nothing; a terminal has three ends.
    with Talk(["prlimit", f"--nofile={5 + room}", program]) as talk:
        files = Path(f"/proc/{talk.process.pid}/fd")
        before = sorted(files.iterdir())
        for number in range(1, 20):
            talk.say(start(number, "true", terminal=(24, 80)))
            assert talk.hear() == (Kind.FAILED, number, b"\x08" + (24).to_bytes(4, "big"))  # EMFILE
            assert sorted(files.iterdir()) == before


def test_a_new_hello_hangs_a_terminal_up(program: Path) -> None:
    with Talk([program]) as talk:
        # What is in the foreground of a shell with job control has a group of its own: SIGHUP comes from the terminal.
        talk.say(start(1, "sh", "-c", "set -m; sleep 60 & fg; true", terminal=(24, 80)))
        children = Path(f"/proc/{talk.process.pid}/task/{talk.process.pid}/children")
        shell = wait_until(lambda: int(children.read_text() or 0), timeout_s=5, what="the shell")
        of_shell = Path(f"/proc/{shell}/task/{shell}/children")
        job = wait_until(lambda: int(of_shell.read_text() or 0), timeout_s=5, what="its job")
        # the field after the controlling terminal is the group in its foreground
        wait_until(
            lambda: int(Path(f"/proc/{shell}/stat").read_text().rsplit(")", 1)[1].split()[5]) == job, timeout_s=5, what="the job in front"
        )
        talk.say(frame(Kind.HELLO, 8, MAGIC))
        for pid in (shell, job):
            wait_gone(pid)


def test_too_many_processes_is_an_answer_and_not_the_end(program: Path) -> None:
    with Talk(["prlimit", "--nofile=40", program]) as talk:
        numbers = range(1, 31)
        talk.say(b"".join(start(number, "sleep", "60") for number in numbers))
        answers: dict[int, tuple[int, bytes]] = {}
        while len(answers) < len(numbers):
            kind, number, body = talk.hear()
            if kind in (Kind.STARTED, Kind.FAILED):
                answers[number] = kind, body
        assert answers[1][0] == Kind.STARTED
        assert answers[30] == (Kind.FAILED, b"\x07" + (24).to_bytes(4, "big"))  # EMFILE


def test_two_descriptors_serve_as_well_and_no_command_gets_them(program: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    number = str(theirs.fileno())
    with ours, theirs, subprocess.Popen([program, "--fds", number, number], pass_fds=[theirs.fileno()]) as process:
        ours.sendall(HELLO + start(1, "ls", "/proc/self/fd"))
        data = b""
        while frame(Kind.EXITED, 1, b"\0\0") not in data:
            data += ours.recv(4096)
        assert frame(Kind.STDOUT, 1, b"0\n1\n2\n3\n") in data  # 3 is ls reading the directory
        ours.sendall(frame(Kind.GOODBYE))
        assert process.wait(5) == 0


class Device:
    """An agent on a device that several clients share, which stays. ``before`` is what the agent is started by."""

    def __init__(self, program: Path, *before: str) -> None:
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.process = subprocess.Popen([*before, program, "--device", os.ttyname(self._slave)])
        self._heard = b""

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data) :]

    def hear(self, wanted: bytes) -> bytes:
        """What comes before ``wanted``."""
        while wanted not in self._heard:
            self._heard += os.read(self._master, 65536)
        before, _, self._heard = self._heard.partition(wanted)
        return before

    def output(self, number: int, *argv: str, environment: dict[str, str] | None = None) -> bytes:
        """What a command that ends with 0 wrote, as one piece."""
        self.say(frame(Kind.START, number, Order(argv, environment or {}).packed()))
        before = self.hear(frame(Kind.EXITED, number, b"\0\0"))
        (piece,) = [body for kind, about, body in frames(before) if (kind, about) == (Kind.STDOUT, number)]
        return piece

    def __enter__(self) -> Device:
        self.say(HELLO)
        self.hear(frame(Kind.HELLO, 7, MAGIC + b"\2"))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self._master)
        os.close(self._slave)


def of_session(session: int, number: int = 0) -> int:
    """A number of a command as the runner of a guest makes it."""
    return session * SESSION_IDS + number


def test_on_a_device_goodbye_is_not_the_end(program: Path) -> None:
    with Device(program) as device:
        for session in (1, 2):
            device.say(frame(Kind.HELLO, session, MAGIC) + start(session, "echo", "on a device"))
            before = device.hear(frame(Kind.EXITED, session, b"\0\0"))
            assert frame(Kind.STDOUT, session, b"on a device\n") in before
            device.say(frame(Kind.GOODBYE))
            device.hear(frame(Kind.GOODBYE))
        assert device.process.poll() is None
        device.process.terminate()
        assert device.process.wait(5) == 128 + 15


def test_goodbye_of_one_session_ends_what_it_has_and_is_answered_when_nothing_more_comes(program: Path) -> None:
    his, others, endless = of_session(3, 1), of_session(4, 1), of_session(3, 2)
    with Device(program) as device:
        device.say(start(his, "sleep", "60") + start(others, "sleep", "60"))
        device.say(start(endless, "sh", "-c", "while :; do echo x; done"))
        before = b""
        while not all(frame(Kind.STARTED, number)[4:9] in before for number in (his, others, endless)):
            before += device.hear(b"x\n") + b"x\n"
        pids = {number: int.from_bytes(body, "big") for kind, number, body in frames(before) if kind == Kind.STARTED}
        device.say(frame(Kind.GOODBYE, of_session(3)))
        device.hear(frame(Kind.GOODBYE, of_session(3)))
        wait_gone(pids[his])
        wait_gone(pids[endless])
        assert is_running(pids[others])
        # Another client has its numbers now, and hears nothing of what was.
        device.say(start(his, "echo", "again"))
        heard = list(frames(device.hear(frame(Kind.EXITED, his, b"\0\0"))))
        assert (heard[0][0], {number for _, number, _ in heard}) == (Kind.STARTED, {his})
        assert [body for kind, _, body in heard if kind == Kind.STDOUT] == [b"again\n"]
        assert is_running(pids[others])


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (frame(99, of_session(3)), "a frame of kind 99"),
        (frame(Kind.START, of_session(3, 2), bytes(19)), "a START of 19 bytes"),
        (frame(Kind.START, of_session(3, 2), numbers(5, 0) + bytes(5) + b"true\0"), "a START with fewer strings than it says"),
        (frame(Kind.SIGNAL, of_session(3, 1), b"\xff"), "a wrong SIGNAL"),
        (frame(Kind.CREDIT, of_session(3, 1), b"\1"), "a wrong CREDIT"),
        (frame(Kind.STDIN, of_session(3, 1), bytes(65536)) * 6, "more input than it had credit for"),
    ],
)
def test_garbage_on_a_device_ends_its_session_with_a_reason_and_no_other(program: Path, wrong: bytes, why: str) -> None:
    with Device(program) as device:
        device.say(start(of_session(3, 1), "sleep", "60") + start(of_session(4, 1), "cat"))
        device.say(wrong)
        heard = list(frames(device.hear(why.encode())))  # the last one is cut short
        started = {number: int.from_bytes(body, "big") for kind, number, body in heard if kind == Kind.STARTED}
        assert (heard[-1][0], heard[-1][1] // SESSION_IDS) == (Kind.GOODBYE, 3)
        wait_gone(started[of_session(3, 1)])
        device.say(frame(Kind.STDIN, of_session(4, 1), b"on") + frame(Kind.STDIN_END, of_session(4, 1)))
        assert frame(Kind.STDOUT, of_session(4, 1), b"on") in device.hear(frame(Kind.EXITED, of_session(4, 1), b"\0\0"))


def test_the_environment_that_is_told_later_commands_get(program: Path) -> None:
    with Device(program) as device:
        device.say(frame(Kind.ENVIRONMENT, 0, b"TOLD=a = b\0PATH=/usr/bin:/bin\0EMPTY=\0"))
        lines = device.output(1, "env").decode().splitlines()
        assert {"TOLD=a = b", "PATH=/usr/bin:/bin", "EMPTY="} <= set(lines)
        assert len([line for line in lines if line.startswith("PATH=")]) == 1
        device.say(frame(Kind.ENVIRONMENT, 0, b"TOLD=anew\0"))
        assert "TOLD=anew" in device.output(of_session(9, 1), "env").decode().splitlines()
        assert "TOLD=of the command" in device.output(2, "env", environment={"TOLD": "of the command"}).decode().splitlines()


@pytest.mark.parametrize("body", [b"TOLD\0", b"TOLD=x", b"A=b\0x"])
def test_an_environment_that_is_none_is_garbage(program: Path, body: bytes) -> None:
    code, _, complaint = conversation(program, HELLO + frame(Kind.ENVIRONMENT, 0, body))
    assert (code, "a wrong ENVIRONMENT" in complaint) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--fds", "77", "78"], "'77' is no open file descriptor"),
        (["--device", "/no/such"], "/no/such: No such file or directory"),
        (["--help"], "usage: agent"),
    ],
)
def test_wrong_arguments_are_refused(program: Path, arguments: list[str], complaint: str) -> None:
    done = run_local([str(program), *arguments])
    assert done.exit_code == 2
    assert complaint in done.error_text


# --- the client


class Script:
    """A transport whose other end says what a test lets it say."""

    def __init__(self, *said: tuple[int, bytes], hold: bool = False, version: bytes = b"\2") -> None:
        self.said, self.hold, self.version = said, hold, version
        self.sent = b""
        self.greeted, self.closed = threading.Event(), threading.Event()

    def send(self, data: bytes) -> None:
        self.sent += data
        self.greeted.set()

    def frames(self) -> Iterator[tuple[int, bytes]]:
        assert self.greeted.wait(10)
        number = int.from_bytes(self.sent[5:9], "big")
        for stream, data in self.said:
            yield stream, data.replace(b"<HELLO>", frame(Kind.HELLO, number, MAGIC + self.version))
        if self.hold:
            self.closed.wait(10)

    def close(self) -> None:
        self.closed.set()


def test_what_an_earlier_client_left_on_a_device_is_passed_over() -> None:
    left = frame(Kind.STDOUT, 9, b"old")[3:] + frame(Kind.HELLO, 1, MAGIC + b"\2") + frame(Kind.EXITED, 1, b"\0\0")
    agent = Agent(Script((1, left), (1, b"<HELLO>" + frame(Kind.EXITED, 1, b"\0\0")), hold=True), "a")
    assert agent.alive
    agent.close()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ([(1, b'OCI runtime exec failed: "agent": no such file')], "OCI runtime exec failed"),
        ([(2, b"agent: out of memory\n")], "host a cannot be reached: agent: out of memory"),
        ([], "its agent does not answer"),
        ([(1, b"<HELLO>\xff\xff\xff\xff123456789")], "a frame of 4294967295 bytes"),
    ],
)
def test_a_way_that_leads_to_no_agent_is_an_error_with_its_words(said: list[tuple[int, bytes]], reason: str) -> None:
    def use() -> None:
        Agent(Script(*said), "a").start(Order(("true",))).wait_started()

    with pytest.raises(LabError, match=re.escape(reason)):
        use()


def test_an_agent_of_another_version_is_refused() -> None:
    with pytest.raises(LabError, match="speaks version 1 of the protocol, and this is version 2"):
        Agent(Script((1, b"<HELLO>"), version=b"\1"), "a")


def test_an_agent_that_says_nothing_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_module, "ANSWER_S", 0.2)
    with pytest.raises(LabError, match=r"an answer from the agent of host a: not within 0\.2 s"):
        Agent(Script(hold=True), "a")


def test_an_agent_that_takes_no_input_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script((1, b"<HELLO>"), hold=True)
    agent = Agent(script, "a")

    def stuck(data: bytes) -> None:
        raise BlockingIOError

    monkeypatch.setattr(script, "send", stuck)
    command = agent.start(Order(("true",)))
    with pytest.raises(LabError, match="took no input for 20 s"):
        command.wait_started()
    assert not agent.alive
