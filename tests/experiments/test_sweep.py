"""Sweeps on real hosts: the numbers of a grid against the formula, and a sweep that is stopped, by Ctrl-C and by force, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.engine import Engine
from testbed.lab import read_parts
from testbed.process import wait_until

PATIENCE_S = 120
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def sweep(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "testbed", "sweep", *arguments, "--out", str(folder)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def points_of(folder: Path) -> dict[str, float]:
    """The points that are done, and when each was written."""
    return {one.name: one.stat().st_mtime for one in (folder / "points").glob("*.json")}


def labs_of(process: subprocess.Popen[str]) -> list[str]:
    engine = Engine()
    try:
        return [name for name in read_parts(engine) if name.startswith(f"experiment-{process.pid}-")]
    finally:
        engine.close()


@pytest.mark.long
def test_the_accept_queue_over_backlog_and_somaxconn(tmp_path: Path) -> None:
    code, out, err = ended(sweep(tmp_path, "accept-queue", "--over", "backlog=-1..1,3", "--over", "net.core.somaxconn=0,2", "--json"))
    assert code == 0, err
    found = {
        (row["backlog"], row["net.core.somaxconn"]): row["seen"] for row in json.loads(out)["rows"] if row["quantity"] == "accept queue"
    }
    # min(b as an unsigned number, somaxconn) + 1
    assert found == {(-1, 0): 1, (-1, 2): 3, (0, 0): 1, (0, 2): 1, (1, 0): 1, (1, 2): 2, (3, 0): 1, (3, 2): 3}


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_stopped_goes_on_where_it_was(tmp_path: Path, how: signal.Signals) -> None:
    arguments = ("netstat", "--over", "clients=1..6", "--jobs", "2")
    first = sweep(tmp_path, *arguments)
    wait_until(lambda: len(points_of(tmp_path)) >= 2 or first.poll() is not None, timeout_s=PATIENCE_S, what="two points")
    first.send_signal(how)
    code, _, err = ended(first)
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL), err
    done = points_of(tmp_path)
    assert len(done) < 6
    if how == signal.SIGINT:
        assert f"{len(done)} of 6 points are in {tmp_path}; the same command goes on from there" in err
        assert labs_of(first) == []
    code, out, err = ended(sweep(tmp_path, *arguments))
    assert code == 0, err
    assert "6 points, all as predicted" in out
    after = points_of(tmp_path)
    assert {name: after[name] for name in done} == done
    assert len(after) == 6
    assert labs_of(first) == []  # the second one removes what the first could not


def test_a_value_that_a_sysctl_cannot_have_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    code, _, err = ended(sweep(tmp_path, "accept-queue", "--over", "net.core.somaxconn=4,-5"))
    assert code == 2
    assert "net.core.somaxconn = -5" in err
    assert points_of(tmp_path) == {}
