"""`testbed sweep` without hosts: what is refused, what is written, and what is measured again."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from testbed import cli, sweep_run
from testbed import experiment_run as running
from testbed.errors import CheckFailed, InputError, TestbedError, UnknownName
from testbed.experiment import CellRun, Experiment, Facts, Record
from tests.no_labs import NoLabs

SIMPLE = ["accept-queue", "--over", "backlog=0..3"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.testbed, ["sweep", *arguments])


def error_of(result: Result) -> TestbedError:
    assert isinstance(result.exception, TestbedError), result.output
    return result.exception


class Pretence:
    """A kernel whose accept queues are as predicted; ``measured`` are the backlogs of the points that were run. Those of ``broken`` break,
    those of ``wrong`` have one place more, and at ``stop_at`` the user has had enough."""

    def __init__(self) -> None:
        self.measured: list[int] = []
        self.broken: set[int] = set()
        self.wrong: set[int] = set()
        self.stop_at: int | None = None
        self.lock = threading.Lock()

    def run(
        self, one: Experiment, _: None, on: running.On, *, parameters: Mapping[str, Any], sysctls: Mapping[str, str], **__: Any
    ) -> Record:
        b = parameters["backlog"]
        if b == self.stop_at:
            raise KeyboardInterrupt
        with self.lock:
            self.measured.append(b)
        (cell,) = one.cells(parameters)
        there = {**one.sysctls, **sysctls}
        limit = min(b % 2**32, int(there["net.core.somaxconn"]))
        full = limit + 1 + (b in self.wrong)
        seen = {"accept queue": full, "half open": 0, "sum": full, "limit": limit}
        problem = "the host is gone" if b in self.broken else ""
        facts = Facts(on.kind, "amd64", "little", "6.18.0", "the machine's", parameters)
        return Record(one.name, facts, [CellRun(cell.name, cell.values, there, {} if problem else seen, problem)], set_by_user=sysctls)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretence:
    pretence = Pretence()
    monkeypatch.setattr(sweep_run, "Lanes", NoLabs)
    monkeypatch.setattr(sweep_run, "try_sysctls", lambda *_: None)
    monkeypatch.setattr(running, "run", pretence.run)
    monkeypatch.chdir(tmp_path)
    return pretence


def test_a_sweep_is_measured_and_written(kernel: Pretence) -> None:
    result = run(*SIMPLE, "--over", "net.core.somaxconn=1,2")
    assert result.exit_code == 0, result.output
    assert "C2 accept-queue on native: 8 points, all as predicted (16 numbers)" in result.output
    (folder,) = Path("testbed-sweeps").iterdir()
    assert f"{folder}/results.csv" in result.output
    lines = (folder / "results.csv").read_text().splitlines()
    assert lines[0].startswith("point,experiment,kind,arch,byte_order,kernel,backlog,net.core.somaxconn,cell,quantity,seen,predicted,")
    assert len(lines) == 1 + 8 * 4
    assert sorted(kernel.measured) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_json_is_what_is_written(kernel: Pretence) -> None:
    data = json.loads(run(*SIMPLE, "--out", "here", "--json").stdout)
    assert data == json.loads(Path("here/results.json").read_text())
    assert [row["seen"] for row in data["rows"] if row["quantity"] == "accept queue"] == [1, 2, 3, 4]
    assert kernel.measured


def test_what_is_done_is_not_done_again(kernel: Pretence) -> None:
    assert run(*SIMPLE).exit_code == 0
    kernel.measured.clear()
    assert run(*SIMPLE).exit_code == 0
    assert kernel.measured == []


def test_a_sweep_that_was_stopped_goes_on(kernel: Pretence) -> None:
    kernel.stop_at = 2
    result = run(*SIMPLE, "--jobs", "1", "--out", "here")
    assert result.exit_code != 0
    assert "2 of 4 points are in here; the same command goes on from there" in result.output
    assert json.loads(Path("here/results.json").read_text())["done"] == 2
    kernel.stop_at = None
    result = run(*SIMPLE, "--jobs", "1", "--out", "here")
    assert result.exit_code == 0
    assert kernel.measured == [0, 1, 2, 3]


def test_a_point_that_broke_is_shown_and_measured_again(kernel: Pretence) -> None:
    kernel.broken = {2}
    result = run(*SIMPLE)
    assert isinstance(error_of(result), CheckFailed)
    assert "backlog=2: b=2: accept queue: the host is gone" in result.output
    kernel.broken = set()
    kernel.measured.clear()
    assert run(*SIMPLE).exit_code == 0
    assert kernel.measured == [2]


def test_a_number_that_was_not_predicted_is_a_failure(kernel: Pretence) -> None:
    kernel.wrong = {1, 3}
    result = run(*SIMPLE)
    error = error_of(result)
    assert isinstance(error, CheckFailed)
    assert error.message == "2 of 4 points are not as predicted"
    assert "backlog=1: b=1: accept queue: accept queue should be 2, and is 3" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["accept-que", "--over", "backlog=1"], "no experiment is called 'accept-que', did you mean 'accept-queue'?"),
        (["C", "--over", "backlog=1"], "a sweep is of one experiment; 'C' is two-queues, accept-queue"),
        (["C2"], "over what?"),
        (["C2", "--over", "b=1"], "experiment accept-queue has no parameter 'b'"),
        (["C2", "--over", "backlog=1", "--on", "emulated"], "accept-queue does not run on emulated: the queues are the kernel's"),
        (["C2", "--over", "backlog=1", "--kernel", "trixie"], "a host of kind native has no kernel of its own to choose"),
        (["C2", "--over", "backlog=1", "--set", "fill"], "'fill' is not NAME=VALUE"),
        (["C2", "--over", "net.core.somaxcon=1"], "'net.core.somaxcon'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(kernel: Pretence, arguments: list[str], message: str) -> None:
    error = error_of(run(*arguments))
    assert isinstance(error, InputError | UnknownName)
    assert message in error.message
    assert not kernel.measured
    assert not Path("testbed-sweeps").exists()
