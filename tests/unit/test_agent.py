"""Commands through the agent, compiled for this machine and reached over pipes: what a host does, without Docker."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import host as host_module
from testbed import images
from testbed.agent import INPUT_WINDOW, OUTPUT_WINDOW
from testbed.errors import CommandFailed, DeadlineExceeded, InputError, LabError
from testbed.host import Host, HostFacts
from testbed.process import run_local, wait_until
from testbed.transcript import Transcript

EVERY_BYTE = bytes(range(256))
FACTS = HostFacts("lab", "a", "native", "amd64", "little", "", {})


class Pipes:
    """An agent that is a child of ours."""

    def __init__(self, argv: list[str | Path]) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def send(self, data: bytes) -> None:
        if self.stdin.closed:  # by a test; the reading thread may not have seen the agent's end yet
            raise BrokenPipeError("the pipe to the agent was closed")
        view = memoryview(data)
        while view:
            view = view[self.stdin.write(view) :]

    def frames(self) -> Iterator[tuple[int, bytes]]:
        while data := self.stdout.read(65536):
            yield 1, data

    def close(self) -> None:
        self.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("agent")
    run_local(["make", "-s", "-C", str(images.directory()), "agent", f"OUT={out}"]).check()
    return out / "agent"


@pytest.fixture
def pipes(program: Path) -> Iterator[list[Pipes]]:
    """The connections that were made, to look behind them."""
    made: list[Pipes] = []
    yield made
    for one in made:
        one.process.kill()
        one.process.wait(10)
        one.stdout.close()


@pytest.fixture
def host(program: Path, pipes: list[Pipes]) -> Iterator[Host]:
    def connect() -> Pipes:
        # SIGINT and SIGPIPE are ignored here, as in a shell's background; no command may inherit that
        pipes.append(Pipes(["sh", "-c", "trap '' INT PIPE; exec \"$0\"", program]))
        return pipes[-1]

    with Host(FACTS, connect) as one:
        yield one


def marked_sleep() -> str:
    """A number of seconds to sleep that no other process sleeps."""
    marked_sleep.count += 1  # type: ignore[attr-defined]
    return f"3{os.getpid():07}.{marked_sleep.count:06}"  # type: ignore[attr-defined]


marked_sleep.count = 0  # type: ignore[attr-defined]


def sleeping(mark: str) -> list[int]:
    """The processes whose command line ends in the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cmdline").read_bytes().split(b"\0")[-2:-1] == [mark.encode()]:
                found.append(int(entry.name))
        except OSError:
            continue  # it ended while we looked
    return found


def wait_for_none(mark: str) -> None:
    wait_until(lambda: not sleeping(mark), timeout_s=5, what=f"the end of every process marked {mark}")


def resident_kib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


# --- what a command gets and gives


def test_output_error_output_and_exit_code_are_apart(host: Host) -> None:
    result = host.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert result.argv == ("sh", "-c", "echo out; echo err >&2; exit 3")


def test_a_command_that_a_signal_ended_has_128_and_the_signal_as_exit_code(host: Host) -> None:
    assert host.run(["sh", "-c", "kill -TERM $$"]).exit_code == 128 + signal.SIGTERM
    assert host.run(["sh", "-c", "kill -SEGV $$"]).exit_code == 128 + signal.SIGSEGV


def test_arguments_reach_the_command_as_they_are(host: Host) -> None:
    words = ["", " two  words ", "$HOME", "*", "a\nb", "ü", "--", '"']
    assert host.run(["printf", "%s\\0", *words]).stdout == b"".join(word.encode() + b"\0" for word in words)


def test_a_path_is_an_argument(host: Host) -> None:
    assert host.run([Path("/bin/echo"), Path("/x y")]).stdout == b"/x y\n"


def test_every_byte_passes_through_both_streams_and_the_input(host: Host) -> None:
    data = EVERY_BYTE * 5000
    result = host.run(["sh", "-c", "tee /dev/stderr"], stdin=data)
    assert (result.stdout, result.stderr) == (data, data)


def test_without_input_there_is_none(host: Host) -> None:
    assert host.run(["cat"]).stdout == b""


def test_the_environment_is_the_agents_with_what_is_given(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_CONTAINER", "yes")
    monkeypatch.delenv("LANG", raising=False)
    lines = host.run(["env"], environment={"GIVEN": "a=b", "OF_BOTH": "x"}).text.splitlines()
    assert {"OF_THE_CONTAINER=yes", "LANG=C.UTF-8", "GIVEN=a=b", "OF_BOTH=x"} <= set(lines)
    assert len([line for line in lines if line.startswith("PATH=")]) == 1


def test_an_empty_environment_has_path_home_and_language(program: Path, pipes: list[Pipes]) -> None:
    def connect() -> Pipes:
        pipes.append(Pipes(["env", "-i", program]))
        return pipes[-1]

    with Host(FACTS, connect) as one:
        lines = one.run(["env"]).text.splitlines()
    assert set(lines) == {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}


def test_a_command_is_looked_for_on_its_own_path(host: Host, tmp_path: Path) -> None:
    script = tmp_path / "only-here"
    script.write_text("#!/bin/sh\necho found\n")
    script.chmod(0o755)
    assert host.run(["only-here"], environment={"PATH": f"/nowhere:{tmp_path}"}).stdout == b"found\n"
    assert host.run(["./only-here"], directory=str(tmp_path)).stdout == b"found\n"
    with pytest.raises(InputError, match="no command 'only-here' on host a"):
        host.run(["only-here"])


def test_the_working_directory_is_the_root_or_the_given_one(host: Host, tmp_path: Path) -> None:
    assert host.run(["pwd"]).text == "/\n"
    assert host.run(["pwd"], directory=str(tmp_path)).text == f"{tmp_path}\n"


def test_a_user_is_a_name_a_number_or_a_number_and_a_group(host: Host) -> None:
    assert os.geteuid() == 0, "these tests run as root, as everything here does"
    of_nobody = host.run(["sh", "-c", "id -u; id -g; echo $USER $HOME"], user="nobody").text.split()
    assert of_nobody == ["65534", "65534", "nobody", "/nonexistent"]
    assert host.run(["id", "-u"], user="65534").text == "65534\n"
    assert host.run(["sh", "-c", "id -u; id -g; id -G"], user="4711:5").text.split() == ["4711", "5", "5"]
    assert host.run(["id", "-G"]).text == run_local(["id", "-G"]).text


def test_the_groups_of_a_user_are_his(host: Host) -> None:
    lines = [line.split(":") for line in Path("/etc/group").read_text().splitlines()]
    members = [(line[0], line[3].split(",")[0]) for line in lines if len(line) == 4 and line[3]]
    user = members[0][1] if members else "nobody"
    assert set(host.run(["id", "-G"], user=user).text.split()) == set(run_local(["id", "-G", user]).text.split())


def test_signals_are_as_a_program_expects_them(host: Host) -> None:
    status = host.run(["cat", "/proc/self/status"]).text
    assert re.findall(r"Sig(?:Blk|Ign|Cgt):\s+(\w+)", status) == ["0" * 16] * 3


def test_a_command_has_a_session_of_its_own_and_no_other_files(host: Host) -> None:
    result = host.run(["sh", "-c", "echo $$; cut -d' ' -f5,6 /proc/$$/stat; ls /proc/self/fd"])
    pid, group, session, *files = result.text.split()
    assert (group, session) == (pid, pid)
    assert files == ["0", "1", "2", "3"]  # 3 is ls reading the directory


@pytest.mark.parametrize(
    ("argv", "arguments", "says"),
    [
        (["no-such-command"], {}, "no command 'no-such-command' on host a"),
        (["/etc/hostname/x"], {}, "Not a directory"),
        (["/etc"], {}, "Permission denied"),
        (["true"], {"directory": "/no/such"}, "directory '/no/such' on host a: No such file"),
        (["true"], {"user": "no-such-user"}, "no user 'no-such-user' on host a"),
        (["true"], {"user": "0:x"}, "no user '0:x'"),
        (["true"], {"user": "4294967295"}, "no user"),
        ([], {}, "no command to run"),
        ([""], {}, "no command to run"),
        ("ls -l", {}, "a list of arguments"),
        (["echo", "a\0b"], {}, "zero byte"),
        (["echo", 5], {}, "not 5"),
        (["true"], {"environment": {"A=B": "x"}}, "'A=B' cannot be the name"),
        (["true"], {"environment": {"A": "x\0"}}, "zero byte"),
        (["true"], {"directory": "/\0"}, "zero byte"),
        (["echo", "x" * 300_000], {}, "and 262139 fit"),
        (["echo", "x" * 200_000], {}, "Argument list too long"),
    ],
)
def test_what_cannot_be_run_is_the_users_error_and_says_why(host: Host, argv: list[str], arguments: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        host.run(argv, **arguments)  # type: ignore[arg-type]
    assert host.run(["echo", "on"]).stdout == b"on\n"


def test_a_file_that_is_no_program_of_this_machine_is_refused_with_a_hint(host: Host, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo no interpreter line\n")
    script.chmod(0o755)
    with pytest.raises(InputError, match="Exec format error") as caught:
        host.run([script])
    assert "architecture" in caught.value.hint


# --- ends


def test_a_command_beyond_its_time_takes_its_group_along_and_the_error_has_its_output(host: Host) -> None:
    mark = marked_sleep()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"not within 0\.2 s") as caught:
        host.run(["sh", "-c", f"echo so far; echo oh >&2; trap '' TERM; sleep {mark} & sleep {mark}"], timeout_s=0.2)
    assert 0.6 < time.monotonic() - began < 3
    assert "| so far" in caught.value.hint
    assert "| oh" in caught.value.hint
    wait_for_none(mark)


def test_a_command_beyond_its_time_may_tidy_up_at_sigterm(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        host.run(["sh", "-c", f"trap 'echo tidied; touch {tmp_path}/tidy; exit' TERM; while :; do sleep 0.01; done"], timeout_s=0.2)
    assert (tmp_path / "tidy").exists()
    assert "| tidied" in caught.value.hint


def test_what_a_command_leaves_in_the_background_may_finish_writing_and_is_killed(host: Host) -> None:
    mark = marked_sleep()
    assert host.run(["sh", "-c", "(sleep 0.05; echo late) & echo early"]).stdout == b"early\nlate\n"
    began = time.monotonic()
    assert host.run(["sh", "-c", f"sleep {mark} & echo gone"]).stdout == b"gone\n"
    assert time.monotonic() - began < 3
    wait_for_none(mark)
    host.run(["sh", "-c", f"sleep {mark} >/dev/null 2>&1 &"])
    wait_for_none(mark)


def test_a_daemon_in_a_session_of_its_own_stays_and_is_not_waited_for(host: Host) -> None:
    mark = marked_sleep()
    began = time.monotonic()
    assert host.run(["sh", "-c", f"setsid sleep {mark} & echo started; sleep 0.05"]).stdout == b"started\n"
    assert time.monotonic() - began < 3
    (pid,) = sleeping(mark)
    os.kill(pid, signal.SIGKILL)


def test_an_endless_writer_that_left_the_group_does_not_hold_the_command(host: Host) -> None:
    began = time.monotonic()
    result = host.run(["sh", "-c", "setsid timeout 20 yes & sleep 0.05"])
    assert result.exit_code == 0
    assert result.stdout.startswith(b"y\ny\n")
    assert time.monotonic() - began < 5


def test_an_interrupted_wait_takes_the_command_along(host: Host) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    mark = marked_sleep()
    host.run(["true"])
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            host.run(["sleep", mark])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    wait_for_none(mark)


def test_the_end_of_the_client_ends_its_commands(host: Host, pipes: list[Pipes]) -> None:
    mark = marked_sleep()
    host.start(["sh", "-c", f"sleep {mark} & sleep {mark}"])
    wait_until(lambda: len(sleeping(mark)) == 2, timeout_s=5, what="two sleepers")
    pipes[0].stdin.close()  # as the kernel does for a client that was killed
    assert pipes[0].process.wait(5) == 0
    wait_for_none(mark)


def test_the_end_of_the_agent_is_an_error_at_once_and_the_next_command_gets_a_new_one(host: Host, pipes: list[Pipes]) -> None:
    mark = marked_sleep()
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(host.run, ["sleep", mark]) for _ in range(3)]
        process = wait_until(lambda: host.start(["sleep", mark]) if len(sleeping(mark)) == 3 else None, timeout_s=5, what="sleepers")
        pipes[0].process.kill()
        began = time.monotonic()
        for one in waiting:
            with pytest.raises(LabError, match="host a is gone: its agent ended"):
                one.result(5)
        for wait in (process.wait, process.stdout.read, process.result, lambda: process.stdin.write(b"x")):
            with pytest.raises(LabError, match="host a is gone"):
                wait()
        assert time.monotonic() - began < 1
    wait_for_none(mark)  # the kernel tells the children of a killed agent
    assert host.run(["echo", "again"]).stdout == b"again\n"
    assert len(pipes) == 2


def test_a_closed_host_tells_who_waits(host: Host) -> None:
    process = host.start(["sleep", marked_sleep()])
    host.close()
    with pytest.raises(LabError, match="connection to host a was closed"):
        process.wait()


def test_why_a_host_is_gone_is_asked_where_it_is_known(program: Path, pipes: list[Pipes]) -> None:
    def connect() -> Pipes:
        pipes.append(Pipes([program]))
        return pipes[-1]

    with Host(FACTS, connect, why=lambda: "its container has ended with exit code 137") as one:
        process = one.start(["sleep", marked_sleep()])
        pipes[0].process.kill()
        with pytest.raises(LabError, match="host a is gone: its container has ended with exit code 137"):
            process.wait()


def test_a_question_that_fails_keeps_nobody_waiting(program: Path, pipes: list[Pipes]) -> None:
    def connect() -> Pipes:
        pipes.append(Pipes([program]))
        return pipes[-1]

    def why() -> str:
        raise RuntimeError("nobody can tell")

    with Host(FACTS, connect, why=why) as one:
        process = one.start(["sleep", marked_sleep()])
        pipes[0].process.kill()
        with pytest.raises(LabError, match="host a is gone: nobody can tell"):
            process.wait(20)


# --- many, and much


def test_64_commands_at_once_have_each_their_own_output(host: Host) -> None:
    gate = threading.Barrier(64)

    def one(number: int) -> bytes:
        gate.wait(30)
        script = f"read word; sleep 0.2; echo $word; seq {number}; exit {number}"
        return host.run(["sh", "-c", script], stdin=f"w{number}\n".encode()).stdout

    began = time.monotonic()
    with ThreadPoolExecutor(64) as threads:
        outputs = list(threads.map(one, range(64)))
    assert outputs == [f"w{number}\n".encode() + b"".join(b"%d\n" % i for i in range(1, number + 1)) for number in range(64)]
    assert time.monotonic() - began < 10  # one after the other would be 13 s


def test_a_gigabyte_of_output_takes_no_memory_and_no_time_from_others(host: Host, pipes: list[Pipes]) -> None:
    host.run(["true"])
    agent = pipes[0].process.pid
    before_agent, before_client = resident_kib(agent), resident_kib(os.getpid())
    count, slowest = 0, 0.0
    with host.start(["head", "-c", "1000000000", "/dev/zero"]) as process:
        next_look = 0
        while data := process.stdout.read_some(1 << 20):
            count += len(data)
            if count >= next_look:
                next_look += 200_000_000
                slowest = max(slowest, host.run(["true"]).duration_s)
        assert process.wait() == 0
    assert count == 1_000_000_000
    assert slowest < 2
    assert resident_kib(agent) - before_agent < 2048
    assert resident_kib(os.getpid()) - before_client < 16384


def test_output_that_nobody_reads_stops_its_command_alone(host: Host, pipes: list[Pipes]) -> None:
    with host.start(["yes"]) as endless, host.start(["sh", "-c", "yes >&2"]):
        wait_until(lambda: len(endless._command.available(1)) == OUTPUT_WINDOW, timeout_s=10, what="a full window")
        assert host.run(["seq", "100000"]).stdout.endswith(b"\n100000\n")
        assert len(endless._command.available(1)) == OUTPUT_WINDOW
        assert resident_kib(pipes[0].process.pid) < 8192
    assert endless.exit_code == 128 + signal.SIGKILL


def test_a_command_that_ended_is_known_to_though_its_output_is_not_read(host: Host) -> None:
    process = host.start(["head", "-c", "1100000", "/dev/zero"])
    assert process.wait(10) == 0
    assert len(process.stdout.read()) == 1_100_000


def test_a_hundred_megabytes_of_input_stream_through(host: Host, pipes: list[Pipes]) -> None:
    piece = EVERY_BYTE * 4096
    with host.start(["sha256sum"]) as process:
        with process.stdin:
            for _ in range(100):
                process.stdin.write(piece)
        digest = process.result().text.split()[0]
    assert digest == hashlib.sha256(piece * 100).hexdigest()
    assert resident_kib(pipes[0].process.pid) < 8192


def test_input_is_taken_as_the_command_reads_it(host: Host) -> None:
    with host.start(["sh", "-c", "read first; echo got $first; exec cat"]) as process:
        process.stdin.write(b"one\n")
        assert process.stdout.readline() == b"got one\n"
        process.stdin.write(b"two")
        process.stdin.close()
        assert process.stdout.read() == b"two"


def test_a_command_that_does_not_read_its_input_ends_as_it_will(host: Host) -> None:
    assert host.run(["true"], stdin=bytes(10_000_000)).exit_code == 0
    assert host.run(["sh", "-c", "exec <&-; sleep 0.1; echo on"], stdin=bytes(10_000_000)).stdout == b"on\n"
    with host.start(["sh", "-c", "exec <&-; echo closed; sleep 60"]) as process:
        process.stdout.readline()
        with pytest.raises(LabError, match="does not read its standard input any more"):
            process.stdin.write(bytes(10_000_000))
    with host.start(["sleep", "60"]) as process, pytest.raises(DeadlineExceeded, match="to read its standard input"):
        process.stdin.write(bytes(10_000_000), timeout_s=0.2)


# --- processes


def test_a_process_is_read_while_it_runs(host: Host) -> None:
    with host.start(["sh", "-c", "echo one; echo two; printf three; exit 4"]) as process:
        assert process.pid > 0
        assert list(process.stdout) == [b"one\n", b"two\n", b"three"]
        assert process.stdout.read() == b""
        assert process.wait() == 4
        assert process.exit_code == 4


def test_a_read_waits_no_longer_than_it_may(host: Host) -> None:
    with host.start(["sh", "-c", "printf abc; exec sleep 60"]) as process:
        assert process.exit_code is None
        assert process.stdout.read(2) == b"ab"
        for late in (process.stdout.read, process.stdout.readline, lambda *, timeout_s: process.stdout.read(5, timeout_s=timeout_s)):
            with pytest.raises(DeadlineExceeded, match="output of 'sh"):
                late(timeout_s=0.05)
        with pytest.raises(DeadlineExceeded, match="the end of 'sh"):
            process.wait(0.05)
        assert process.stdout.read_some() == b"c"  # what came before the deadline is not lost
    assert process.exit_code == 128 + signal.SIGKILL


def test_a_line_is_waited_for_in_both_streams_and_stays_in_the_result(host: Host) -> None:
    script = "echo starting; sleep 0.05; echo listening on port 8080 >&2; read go; echo done"
    with host.start(["sh", "-c", script]) as process:
        assert process.wait_for_line(r"port (\d+)", 10)[1] == "8080"
        process.stdin.write(b"go\n")
        result = process.result()
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"starting\ndone\n", b"listening on port 8080\n")


def test_a_line_counts_when_it_is_whole_or_the_last(host: Host) -> None:
    with host.start(["sh", "-c", "printf 'port 80'; sleep 0.1; printf '80\nend'"]) as process:
        assert process.wait_for_line(r"port (\d+)")[1] == "8080"
        assert process.wait_for_line("end")[0] == "end"


def test_a_line_that_does_not_come_is_an_error_with_the_output(host: Host) -> None:
    with host.start(["sh", "-c", "echo so far; exec sleep 60"]) as process:
        with pytest.raises(DeadlineExceeded, match="a line that matches 'ready'") as caught:
            process.wait_for_line("ready", 0.1)
        assert "| so far" in caught.value.hint
    with host.start(["sh", "-c", "echo cannot bind >&2; exit 7"]) as process:
        with pytest.raises(LabError, match="ended with exit code 7 before a line that matches 'ready'") as ended:
            process.wait_for_line("ready")
        assert "| cannot bind" in ended.value.hint


def test_a_signal_reaches_the_whole_group(host: Host) -> None:
    mark = marked_sleep()
    with host.start(["sh", "-c", f"trap 'echo int; exit 5' INT; echo ready; sleep {mark} & wait"]) as process:
        process.wait_for_line("ready")
        process.send_signal(signal.SIGINT)
        assert process.result().stdout == b"ready\nint\n"
        assert process.exit_code == 5
        process.send_signal(signal.SIGINT)  # it is gone, and that is fine
        with pytest.raises(InputError, match="no signal 99"):
            process.send_signal(99)
    wait_for_none(mark)


def test_a_detached_command_outlives_its_client_and_keeps_its_output(
    host: Host, pipes: list[Pipes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_module, "DETACHED_OUTPUT", str(tmp_path))
    mark = marked_sleep()
    process = host.start(["sh", "-c", f"echo up; echo err >&2; sleep {mark}; echo after"], detached=True, user="nobody")
    assert process.wait_for_line("err", 10)[0] == "err"
    assert process.output_files is not None
    host.close()
    assert pipes[0].process.wait(5) == 0
    (sleeper,) = wait_until(lambda: sleeping(mark), timeout_s=20, what="the sleeper")  # it may be a while from echo to sleep
    os.kill(sleeper, signal.SIGTERM)
    output = Path(process.output_files[0])
    wait_until(lambda: output.read_text().endswith("after\n"), timeout_s=5, what="the rest of the output")
    assert host.read(process.output_files[0]) == b"up\nafter\n"
    assert host.read(process.output_files[1]).startswith(b"err\n")


def test_a_detached_command_that_ends_has_a_result(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host_module, "DETACHED_OUTPUT", str(tmp_path))
    process = host.start(["sh", "-c", "echo out; cat; exit 6"], detached=True)
    result = process.result()
    assert (result.exit_code, result.stdout) == (6, b"out\n")
    with pytest.raises(LabError, match="exit code 6 before"):
        process.wait_for_line("never")


# --- terminals


def test_a_command_on_a_terminal_has_it_for_all_streams_and_under_its_control(host: Host) -> None:
    script = "tty; stty size; echo err >&2; echo to the terminal itself >/dev/tty; ps -o tpgid= -p $$; echo $$"
    with host.start(["sh", "-c", script], terminal=(31, 97)) as process:
        name, size, error, itself, foreground, pid = process.stdout.read().decode().split("\r\n")[:-1]
        assert process.wait() == 0
    assert re.fullmatch(r"/dev/pts/\d+", name)
    assert (size, error, itself) == ("31 97", "err", "to the terminal itself")
    assert int(foreground) == int(pid) == process.pid
    assert process.stderr.read() == b""


def test_a_new_size_is_told_at_once(host: Host) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    with host.start(["sh", "-c", script], terminal=(0, 0)) as process:
        process.wait_for_line("ready")
        process.resize(50, 65535)
        assert process.wait_for_line(r"\d+ \d+")[0] == "50 65535"
    process.resize(1, 2)  # it is gone, and that is fine


def test_ctrl_c_on_a_terminal_interrupts_what_is_in_the_foreground(host: Host) -> None:
    mark = marked_sleep()
    with host.start(["sh", "-c", f"trap 'echo interrupted' INT; sleep {mark}; exit 5"], terminal=(24, 80)) as process:
        wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
        process.stdin.write(b"\x03")
        process.wait_for_line("interrupted", 10)
        assert process.wait(10) == 5


def test_a_shell_on_a_terminal_controls_its_jobs(host: Host) -> None:
    mark = marked_sleep()
    with host.start(["sh", "-i"], environment={"PS1": "> "}, terminal=(24, 80)) as process:
        process.stdin.write(f"sleep {mark}\n".encode())
        wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
        process.stdin.write(b"\x1a")
        process.wait_for_line("Stopped", 10)
        process.stdin.write(b"kill %1; fg; echo ended $?\n")
        process.wait_for_line(rf"ended {128 + signal.SIGTERM}", 10)
        process.stdin.write(b"\x04")
        assert process.wait(10) == 0
        assert b"can't access tty" not in process.result().stdout
    wait_for_none(mark)


def test_the_end_of_the_input_of_a_terminal_is_typed_on_it(host: Host) -> None:
    with host.start(["cat"], terminal=(24, 80)) as process:
        process.stdin.write(b"line\n")
        assert process.result(10).stdout == b"line\r\nline\r\n"  # the first one is the echo
    with host.start(["sh", "-c", "stty eof ^X -echo; echo ready; cat"], terminal=(24, 80)) as process:
        process.wait_for_line("ready")
        assert process.result(10).exit_code == 0


def test_a_full_input_window_is_typed_with_its_end(host: Host) -> None:
    lines = b"0123456\n" * (INPUT_WINDOW // 8)
    with host.start(["sh", "-c", "stty -echo; echo ready; sleep 0.2; exec sha256sum"], terminal=(24, 80)) as process:
        process.wait_for_line("ready")
        process.stdin.write(lines)
        assert hashlib.sha256(lines).hexdigest() in process.result(20).text


def test_a_raw_terminal_passes_every_byte_both_ways_however_many(host: Host, pipes: list[Pipes]) -> None:
    data = EVERY_BYTE * 20_000
    script = f"stty raw -echo; echo ready; exec head -c {len(data)}"
    with host.start(["sh", "-c", script], terminal=(24, 80)) as process, ThreadPoolExecutor(1) as threads:
        assert process.stdout.readline() == b"ready\n"
        sent = threads.submit(process.stdin.write, data)
        assert process.stdout.read() == data
        assert sent.result(10) == len(data)
        assert process.wait() == 0
    assert resident_kib(pipes[0].process.pid) < 8192


def test_output_of_a_terminal_that_nobody_reads_stops_its_command_alone(host: Host) -> None:
    with host.start(["yes"], terminal=(24, 80)) as endless:
        wait_until(lambda: len(endless._command.available(1)) == OUTPUT_WINDOW, timeout_s=10, what="a full window")
        assert host.run(["seq", "1000"]).stdout.endswith(b"\n1000\n")
        endless.stdin.write(b"\x03")  # it is heard all the same
        assert endless.wait(10) == 128 + signal.SIGINT
        assert len(endless.stdout.read()) >= OUTPUT_WINDOW


@pytest.mark.parametrize("size", [1, 4000, OUTPUT_WINDOW - 1, OUTPUT_WINDOW + 10_000])
def test_the_last_output_of_a_terminal_is_not_lost(host: Host, size: int) -> None:
    for _ in range(5):
        process = host.start(["head", "-c", str(size), "/dev/zero"], terminal=(24, 80))
        if size < OUTPUT_WINDOW:
            assert process.wait(10) == 0
        assert len(process.stdout.read()) == size
        assert process.wait(10) == 0


def test_a_terminal_does_not_end_before_its_command(host: Host) -> None:
    script = "exec <&- >&- 2>&-; sleep 0.1; echo again >/dev/tty; exit 6"
    with host.start(["sh", "-c", script], terminal=(24, 80)) as process:
        assert process.stdout.read() == b"again\r\n"
        assert process.wait() == 6


def test_what_a_shell_left_in_the_background_does_not_hold_its_terminal(host: Host) -> None:
    mark = marked_sleep()
    began = time.monotonic()
    with host.start(["sh", "-c", f"set -m; trap '' HUP; sleep {mark} & echo $!"], terminal=(24, 80)) as process:
        pid = int(process.stdout.readline())
        assert process.stdout.read() == b""
        assert process.wait() == 0
    assert time.monotonic() - began < 10
    assert sleeping(mark) == [pid]  # it has a group of its own
    os.kill(pid, signal.SIGKILL)
    size = OUTPUT_WINDOW + 3000  # so that some of it still waits in the terminal when its shell has ended
    script = f"stty -opost; set -m; trap '' HUP; sleep {mark} & head -c {size} /dev/zero"
    with host.start(["sh", "-c", script], terminal=(24, 80)) as process:
        assert process.wait(10) == 0
        assert process.stdout.read() == bytes(size)
    (pid,) = sleeping(mark)
    os.kill(pid, signal.SIGKILL)


def test_an_endless_writer_in_the_background_does_not_hold_a_terminal(host: Host) -> None:
    began = time.monotonic()
    script = "set -m; trap '' HUP; timeout 20 yes & sleep 0.05"
    with host.start(["sh", "-c", script], terminal=(24, 80)) as process:
        assert process.result(10).exit_code == 0
    with host.start(["sh", "-c", "set -m; trap '' HUP; timeout 20 yes & read line"], terminal=(24, 80)) as process:
        wait_until(lambda: len(process._command.available(1)) == OUTPUT_WINDOW, timeout_s=10, what="a full window")
        process.stdin.write(b"\n")
        assert process.wait(10) == 0
        assert len(process.stdout.read()) > OUTPUT_WINDOW + 4096  # more than the first of the terminal's two buffers holds
    assert time.monotonic() - began < 15  # and not the 20 of the writer


def test_the_end_of_the_client_ends_a_shell_and_its_job(host: Host, pipes: list[Pipes]) -> None:
    mark = marked_sleep()
    process = host.start(["sh", "-i"], terminal=(24, 80))
    process.stdin.write(f"sleep {mark}\n".encode())
    wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
    pipes[0].stdin.close()
    assert pipes[0].process.wait(5) == 0
    wait_for_none(mark)
    wait_until(lambda: not Path(f"/proc/{process.pid}").exists(), timeout_s=5, what="the end of the shell")


def test_a_terminal_belongs_to_its_user(host: Host, tmp_path: Path) -> None:
    with host.start(["sh", "-c", "stat -c %u $(tty); echo >$(tty)"], terminal=(24, 80), user="nobody") as process:
        assert process.stdout.read() == b"65534\r\n\r\n"
    host.write(str(tmp_path / "file"), b"the agent is itself again")
    with host.start(["sh", "-c", "stat -c %u $(tty)"], terminal=(24, 80)) as process:
        assert process.stdout.read() == b"0\r\n"


def test_what_has_no_terminal_or_no_such_size_is_refused(host: Host) -> None:
    with pytest.raises(InputError, match="no terminal has 70000 rows and 80 columns"):
        host.start(["true"], terminal=(70000, 80))
    with pytest.raises(InputError, match="cannot be detached and have a terminal"):
        host.start(["true"], terminal=(24, 80), detached=True)
    with pytest.raises(InputError, match="no command 'no-such-command'"):
        host.start(["no-such-command"], terminal=(24, 80))
    with host.start(["sleep", "60"]) as process, pytest.raises(InputError, match="'sleep' on host a has no terminal"):
        process.resize(24, 80)
    with host.start(["sleep", "60"], terminal=(24, 80)) as process, pytest.raises(InputError, match="no terminal has 24 rows and -1"):
        process.resize(24, -1)


def test_a_machine_without_terminals_is_said_to_be_one(program: Path, pipes: list[Pipes]) -> None:
    def connect() -> Pipes:
        pipes.append(Pipes(["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/pts; exec "$0"', program]))
        return pipes[-1]

    with Host(FACTS, connect) as one, pytest.raises(LabError, match="host a has no terminal for 'sh'") as caught:
        one.start(["sh"], terminal=(24, 80))
    assert "/dev/pts" in caught.value.hint


# --- files


def test_a_file_is_written_and_read_with_its_mode(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    host.write(str(path), EVERY_BYTE * 4000, mode=0o640)
    assert (host.read(str(path)), path.stat().st_mode & 0o7777) == (EVERY_BYTE * 4000, 0o640)
    host.write(str(path), b"", mode=0o4755)
    assert (host.read(str(path)), path.stat().st_mode & 0o7777) == (b"", 0o4755)
    assert host.read("/proc/self/comm") == b"cat\n"  # a file whose size is not known before


def test_a_file_travels_there_and_back(host: Host, tmp_path: Path) -> None:
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    here.write_bytes(EVERY_BYTE * 100_000)
    here.chmod(0o751)
    host.put(here, str(there))
    host.get(str(there), back)
    assert back.read_bytes() == here.read_bytes()
    assert (there.stat().st_mode & 0o7777, back.stat().st_mode & 0o7777) == (0o751, 0o751)
    (tmp_path / "folder").mkdir()
    host.put(here, f"{tmp_path}/folder/")
    assert (tmp_path / "folder" / "here").read_bytes() == here.read_bytes()


def test_a_directory_travels_there_and_back(host: Host, tmp_path: Path) -> None:
    here, there, back = tmp_path / "here", tmp_path / "there", tmp_path / "back"
    (here / "deep" / ("long" * 40)).mkdir(parents=True)
    (here / "deep" / ("long" * 40) / "ü\n").write_bytes(EVERY_BYTE)
    (here / "program").write_bytes(b"#!/bin/sh\n")
    (here / "program").chmod(0o755)
    (here / "twin").hardlink_to(here / "program")
    (here / "link").symlink_to("program")
    (here / "empty").mkdir()
    (here / "empty").chmod(0o500)
    for _ in range(2):  # the second time everything is there
        host.put(here, str(there))
        host.get(str(there), back)
    for copy in (there, back):
        found = {str(path.relative_to(copy)): path.lstat().st_mode for path in copy.rglob("*")}
        assert found == {str(path.relative_to(here)): path.lstat().st_mode for path in here.rglob("*")}
        assert (copy / "deep" / ("long" * 40) / "ü\n").read_bytes() == EVERY_BYTE
        assert (copy / "link").readlink() == Path("program")


def test_wrong_paths_are_errors_that_name_them(host: Host, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    folder = tmp_path / "folder"
    folder.mkdir()
    missing = str(tmp_path / "no" / "such")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: host.read(missing), f"'{missing}' on host a: No such file"),
        (lambda: host.read(str(folder)), "Is a directory"),
        (lambda: host.read("relative"), "begins with /"),
        (lambda: host.write(missing, b""), f"'{missing}' on host a: No such file"),
        (lambda: host.write(str(folder), b""), "Is a directory"),
        (lambda: host.put(Path(missing), "/tmp/x"), f"{missing}: No such file"),
        (lambda: host.put(file, str(folder)), f"'{folder}' on host a: Is a directory"),
        (lambda: host.put(file, missing), f"'{missing}' on host a: No such file"),
        (lambda: host.get(missing, tmp_path / "x"), "No such file"),
        (lambda: host.get(str(file), folder), f"{folder}: Is a directory"),
        (lambda: host.get(str(file), Path(missing)), f"{missing}: No such file"),
        (lambda: host.get(str(folder), Path(missing)), f"{tmp_path}/no: No such file"),
    ]
    for wrong, says in cases:
        with pytest.raises(InputError, match=re.escape(says)):
            wrong()
    assert not (tmp_path / "x").exists()
    with pytest.raises(CommandFailed, match=r"Not a directory|Cannot open"):
        host.put(folder, f"{file}/x")


def test_a_full_device_is_an_error_in_the_hosts_words(host: Host, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No space left on device"):
        host.write("/dev/full", bytes(1_000_000))
    (tmp_path / "file").write_bytes(bytes(10_000_000))
    with pytest.raises(LabError, match="No space left on device"):
        host.put(tmp_path / "file", "/dev/full")


def test_a_fifo_without_a_reader_stops_nobody(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LabError, match="No such device or address"):
        host.write(str(tmp_path / "fifo"), b"x")
    assert host.run(["echo", "on"]).stdout == b"on\n"


def test_a_transcript_has_what_was_run_and_wrote_however_it_was_read(host: Host, tmp_path: Path) -> None:
    host.transcript = Transcript()
    host.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    with host.start(["sh", "-c", "echo begun; read line; echo $line"]) as process:
        process.wait_for_line("begun")
        running = host.transcript.entries[-1]
        assert (running.ending, running.output(1)) == ("", ("begun\n", 0))
        process.stdin.write(b"told\n")
        process.wait()
        assert process.stdout.read() == b"told\n"
    with pytest.raises(InputError):
        host.run(["no-such-command"])
    host.write(f"{tmp_path}/file", b"content")  # no command of the caller's
    assert host.read(f"{tmp_path}/file") == b"content"
    host.get(f"{tmp_path}/file", tmp_path / "copy")
    assert [(one.ending, one.output(1)[0], one.output(2)[0]) for one in host.transcript.entries] == [
        ("exit code 3", "out\n", "err\n"),
        ("exit code 0", "begun\ntold\n", ""),
        ("there is no command 'no-such-command' on host a", "", ""),
    ]


def test_a_transcript_says_what_became_of_a_command_whose_host_went_away(host: Host, pipes: list[Pipes]) -> None:
    host.transcript = Transcript()
    host.start(["sleep", "1000"])
    (entry,) = host.transcript.entries
    assert entry.ending == ""
    pipes[-1].process.kill()
    wait_until(lambda: entry.ending, timeout_s=10, what="the end of the connection")
    assert "is gone" in entry.ending
