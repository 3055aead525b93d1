"""A terminal here joined with one that an agent made: what is typed and shown, sizes, and how it all ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from testbed import images
from testbed.agent import INPUT_WINDOW
from testbed.process import run_local, wait_until
from tests.pseudo_terminal import Terminal, terminal
from tests.unit.test_agent import marked_sleep, sleeping, wait_for_none

LIMIT_S = 20
# The command's own handling of errors and signals around a host that is an agent without Docker.
SHELL = """
import signal, sys
from testbed import cli
from testbed.host import Host
from testbed.terminal import interactive
from tests.unit.test_agent import FACTS, Pipes

def shell():
    with Host(FACTS, lambda: Pipes([sys.argv[1]])) as host:
        sys.exit(interactive(host, sys.argv[2:]))

signal.signal(signal.SIGTERM, cli._as_interrupt)
sys.exit(cli._run(shell))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("agent")
    run_local(["make", "-s", "-C", str(images.directory()), "agent", f"OUT={out}"]).check()
    return str(out / "agent")


def on_terminal(program: str, *argv: str, stdout: int | None = None) -> AbstractContextManager[Terminal]:
    return terminal(sys.executable, "-c", SHELL, program, *argv, stdout=stdout)


@pytest.fixture
def there(program: str) -> Iterator[Terminal]:
    """A shell at its prompt."""
    with on_terminal(program, "sh") as opened:
        opened.expect("a:/# ")
        yield opened


def test_a_shell_has_the_size_and_the_kind_of_this_terminal_and_its_own_exit_code(there: Terminal) -> None:
    there.type("tty; stty size; echo $TERM\n")
    there.expect(r"/dev/pts/\d+\s+30 90\s+xterm\s")
    assert there.settings() != there.settings_before
    there.type("exit 9\n")
    assert there.process.wait(LIMIT_S) == 9
    assert there.settings() == there.settings_before
    assert "access tty" not in there.seen


def test_new_sizes_are_passed_on_and_the_last_one_stays(there: Terminal) -> None:
    there.type("sh -c 'trap \"stty size\" WINCH; echo armed $((40 + 2)); while :; do sleep 0.05; done'\n")
    there.expect("armed 42")
    for rows in range(40, 60):
        there.resize(rows, 132)
    there.expect(r"\s59 132\s")


def in_the_foreground(mark: str) -> bool:
    """Whether the one sleeper sleeps, and is of the process group that its terminal's keys go to (proc_pid_stat(5))."""
    (sleeper,) = sleeping(mark)
    state, _parent, group, _session, _terminal, foreground = Path(f"/proc/{sleeper}/stat").read_text().rpartition(")")[2].split()[:6]
    return state == "S" and group == foreground


def test_keys_that_a_terminal_acts_on_act_on_the_other_one(there: Terminal) -> None:
    mark = marked_sleep()
    there.type(f"sleep {mark}\n")
    wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
    there.type("\x1a")
    there.expect(r"Stopped.*\s+a:/# ")
    there.type("fg\n")
    # The shell prints the command before it hands the terminal over: a key typed in between would be the shell's.
    wait_until(lambda: in_the_foreground(mark), timeout_s=5, what="the sleeper in the foreground")
    there.type("\x03")
    there.expect("a:/# ")
    wait_for_none(mark)
    there.type("cat\n\x04exit\n")
    assert there.process.wait(LIMIT_S) in (0, 130)  # dash leaves with the code of its last command


def test_what_was_typed_before_the_shell_was_there_is_for_it(program: str) -> None:
    with on_terminal(program, "sh") as there:
        there.type("echo early $((40 + 2)); exit 3\n")
        there.expect("early 42")
        assert there.process.wait(LIMIT_S) == 3


def test_much_output_comes_whole_and_in_order(program: str) -> None:
    with on_terminal(program, "seq", "200000") as there:
        there.expect(r"^1\r+\n2\r+\n")
        there.expect("199999\r+\n200000\r+\n")
        assert there.process.wait(LIMIT_S) == 0


def test_where_the_output_goes_is_not_the_terminals_matter(program: str, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, on_terminal(program, "seq", "100000", stdout=out.fileno()) as there:
        assert there.process.wait(LIMIT_S) == 0
    assert (tmp_path / "out").read_bytes() == b"".join(b"%d\r\n" % i for i in range(1, 100001))


def test_a_reader_of_the_output_that_leaves_ends_it(program: str) -> None:
    readable, writable = os.pipe()
    with on_terminal(program, "yes", stdout=writable) as there:
        os.close(writable)
        assert os.read(readable, 2) == b"y\r"
        os.close(readable)
        assert there.process.wait(LIMIT_S) == 128 + signal.SIGPIPE
        assert there.settings() == there.settings_before


def test_a_signal_to_end_gives_the_settings_back_and_ends_the_shell_and_its_job(there: Terminal) -> None:
    mark = marked_sleep()
    there.type(f"sleep {mark}\n")
    wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
    there.process.terminate()
    assert there.process.wait(LIMIT_S) == 130
    assert there.settings() == there.settings_before
    there.expect("testbed: interrupted")
    wait_for_none(mark)


def test_a_signal_to_end_is_heard_while_the_command_reads_nothing(program: str) -> None:
    mark = marked_sleep()
    with on_terminal(program, "sh", "-c", f"stty raw -echo; exec sleep {mark}") as there:
        wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
        assert there.fill() > INPUT_WINDOW
        there.process.terminate()
        assert there.process.wait(LIMIT_S) == 130
        assert there.settings() == there.settings_before
    wait_for_none(mark)


def test_a_signal_to_end_is_heard_while_this_terminal_takes_no_output(program: str) -> None:
    mark = marked_sleep()
    with on_terminal(program, "sh", "-c", f"seq 1000000 & sleep {mark}") as there:
        wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
        there.process.terminate()
        wait_for_none(mark)
        wait_until(lambda: there.settings() == there.settings_before, timeout_s=5, what="the settings as they were")
        there.expect("testbed: interrupted")
        assert there.process.wait(LIMIT_S) == 130


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_the_end_of_the_command_or_its_terminal_ends_the_shell_and_its_job(there: Terminal, number: int | None) -> None:
    mark = marked_sleep()
    there.type(f"sleep {mark}\n")
    wait_until(lambda: sleeping(mark), timeout_s=5, what="the sleeper")
    if number:
        there.process.send_signal(number)
    else:
        there.hang_up()
    there.process.wait(LIMIT_S)
    wait_for_none(mark)


def test_a_terminal_that_is_gone_ends_also_a_program_that_ignores_the_hang_up(program: str) -> None:
    mark = marked_sleep()
    with terminal("env", "--ignore-signal=HUP", sys.executable, "-c", SHELL, program, "sh", "-c", f"echo ready; sleep {mark}") as there:
        there.expect("ready")  # the terminals are joined: before, its end would be met elsewhere
        wait_until(lambda: sleeping(mark), timeout_s=20, what="the sleeper")
        there.hang_up()
        assert there.process.wait(LIMIT_S) == 128 + signal.SIGHUP
    wait_for_none(mark)


def test_the_end_of_the_agent_is_an_error_on_a_line_of_its_own(there: Terminal) -> None:
    there.type("kill -9 $PPID\n")
    there.expect(r"\r\ntestbed: host a is gone: its agent ended")
    assert there.process.wait(LIMIT_S) == 3
    assert there.settings() == there.settings_before


def test_a_command_that_is_not_there_leaves_the_settings_alone(program: str) -> None:
    with on_terminal(program, "no-such-command") as there:
        there.expect("testbed: there is no command 'no-such-command' on host a")
        assert there.process.wait(LIMIT_S) == 2
        assert there.settings() == there.settings_before


def test_a_shell_at_rest_does_nothing(there: Terminal) -> None:
    def used_s() -> float:
        fields = Path(f"/proc/{there.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, until = used_s(), time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > until, timeout_s=5, what="half a second in which nothing is to happen")
    assert used_s() - before <= 0.05


# A thread is interrupted, and not the one that waits: so is the one that waits when a signal comes just before it begins to.
INTERRUPTED_ELSEWHERE = """
import os, signal, sys, threading, time
from testbed.host import Host
from testbed.terminal import attached
from tests.unit.test_agent import FACTS, Pipes

def run(host, argv):
    try:
        host.run(argv)
    except KeyboardInterrupt:
        return 42

def interrupt():
    os.read(int(sys.argv[3]), 1)
    time.sleep(0.5)  # it passes without, whatever waits or not; with it nothing else wakes a wait that the signal does not
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

with Host(FACTS, lambda: Pipes([sys.argv[1]])) as host:
    threading.Thread(target=interrupt, daemon=True).start()
    sys.exit({"attached": attached, "run": run}[sys.argv[2]](host, sys.argv[4:]))
"""


@pytest.mark.parametrize("way", ["attached", "run"])
def test_a_signal_that_interrupts_another_thread_is_not_lost(program: str, way: str, tmp_path: Path) -> None:
    there = tmp_path / "begun"
    script = f"trap 'exit 42' INT; : > {there}; while :; do sleep 0.05; done"
    told, tell = os.pipe()
    command = [sys.executable, "-c", INTERRUPTED_ELSEWHERE, program, way, str(told), "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[told]) as running:
        os.close(told)
        try:
            wait_until(there.exists, timeout_s=LIMIT_S, what="the command")
            os.write(tell, b"!")
            assert running.wait(timeout=LIMIT_S) == 42
        finally:
            running.kill()
            os.close(tell)
