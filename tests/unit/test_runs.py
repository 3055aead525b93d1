"""Whether the run that a lab belongs to is over: never guessed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import lab, runs
from testbed.engine import Container, DockerNetwork
from testbed.lab import RUN, Parts, abandoned
from testbed.process import wait_until
from testbed.runs import Run, this_run


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its input."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def run_of(process: subprocess.Popen[bytes]) -> Run:
    state_and_start = runs._state_and_start(process.pid)
    assert state_and_start is not None
    return replace(this_run(), pid=process.pid, start=state_and_start[1])


def test_this_run_goes_on_and_is_written_in_one_line() -> None:
    run = this_run()
    assert run.pid == os.getpid()
    assert run.over is False
    assert Run.parse(str(run)) == run
    assert "\n" not in str(run)


@pytest.mark.parametrize("text", ["", "boot", "boot/1/2", "boot/1/2/x", "boot/1/2/3/4", "/1/2/3", "boot/-1/2/3"])
def test_what_is_no_run_is_none(text: str) -> None:
    assert Run.parse(text) is None


def test_a_killed_run_is_over_also_before_anybody_has_waited_for_it(child: subprocess.Popen[bytes]) -> None:
    run = run_of(child)
    assert run.over is False
    child.kill()
    wait_until(lambda: run.over, timeout_s=10, what="the end of the run")
    assert (runs._state_and_start(child.pid) or "")[0] == "Z", "nobody has waited for it, so it is there as a zombie"
    child.wait()
    assert run.over is True


def test_another_process_under_the_same_number_is_another_run(child: subprocess.Popen[bytes]) -> None:
    assert replace(run_of(child), start=run_of(child).start - 1).over is True


def test_of_another_machine_boot_or_container_nothing_is_known() -> None:
    # Process 2^22 + 1 cannot be: PID_MAX_LIMIT.
    gone = replace(this_run(), pid=2**22 + 1)
    assert gone.over is True
    assert replace(gone, boot="another").over is None
    assert replace(gone, pid_namespace=gone.pid_namespace + 1).over is None


def test_what_is_hidden_from_us_is_not_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """/proc mounted with hidepid shows nothing of other people's processes."""
    run = this_run()
    runs._here()
    monkeypatch.setattr(runs, "_PROC", tmp_path)

    def refuses(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuses)
    assert run.over is False


ENDED = Run("boot-of-another-machine", 1, 1, 1)


def container(state: str, run: str | None) -> Container:
    return Container("id", "name", {lab.LAB: "a", **({RUN: run} if run else {})}, state, "")


def parts(*containers: Container, network_run: str | None = None) -> Parts:
    labels = {lab.LAB: "a", **({RUN: network_run} if network_run else {})}
    networks = {"lan": DockerNetwork("id", "lan", labels, ())} if network_run is not None else {}
    return Parts("a", None, {str(number): one for number, one in enumerate(containers)}, [], networks)


def gone() -> str:
    return str(replace(this_run(), pid=2**22 + 1))


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (parts(container("running", gone()), network_run=gone()), True),
        (parts(network_run=gone()), True),  # killed before the first container
        (parts(container("running", None)), False),
        (parts(container("running", "nonsense")), False),
        (parts(container("running", gone()), network_run=""), False),  # a part that is not of the run
        (parts(container("running", str(this_run()))), False),
        (parts(container("exited", str(this_run()))), False),
        (parts(container("exited", gone()), container("exited", str(this_run()))), False),
        # of another machine, or of before the last boot of this one
        (parts(container("running", str(ENDED))), False),
        (parts(container("created", str(ENDED))), False),
        (parts(network_run=str(ENDED)), False),
        (parts(container("exited", str(ENDED)), container("running", str(ENDED))), False),
        (parts(container("exited", str(ENDED)), network_run=str(ENDED)), True),
    ],
)
def test_a_lab_is_abandoned_only_when_that_is_certain(there: Parts, expected: bool) -> None:
    assert abandoned({"a": there}) == (["a"] if expected else [])
