"""`testbed experiment` without hosts: what is listed and shown, what is refused, and what its exit codes mean."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from testbed import cli, experiment_lanes
from testbed import experiment_run as running
from testbed.errors import CheckFailed, InputError, TestbedError, UnknownName
from testbed.experiment import Experiment, Record
from tests.no_labs import NoLabs

RECORDS = Path(__file__).parent / "records"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.testbed, ["experiment", *arguments])


def error_of(result: Result) -> TestbedError:
    assert isinstance(result.exception, TestbedError), result.output
    return result.exception


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Instead of running, experiments give the record that was once made on a native host; what was asked for."""
    asked: list[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]] = []
    lock = threading.Lock()

    def pretend(
        one: Experiment, _: None, on: running.On, *, parameters: Mapping[str, Any], sysctls: Mapping[str, Any], **__: Any
    ) -> Record:
        with lock:
            asked.append((one.name, str(on), parameters, sysctls))
        return running.load(RECORDS / f"{one.name}.native.json")

    monkeypatch.setattr(experiment_lanes, "Lanes", NoLabs)
    monkeypatch.setattr(running, "run", pretend)
    monkeypatch.chdir(tmp_path)
    return asked


def test_the_list_has_every_claim() -> None:
    rows = json.loads(run("list", "--json").output)
    assert len(rows) == 25
    assert rows[0] == {
        "id": "A1",
        "name": "sockaddr-in-layout",
        "kinds": ["native", "emulated", "vm"],
        "claim": "struct sockaddr_in has five members: sin_len, sin_family, sin_port, sin_addr and sin_zero.",
    }
    assert "accept-queue" in run("list").output


def test_an_experiment_is_shown_with_its_prediction_and_its_sources() -> None:
    shown = run("show", "C2").output
    assert "sk_acceptq_is_full" in shown
    assert "| emulated | no: the queues are the kernel's" in shown
    assert run("show", "--all").output.count("\n## ") == 24


def test_without_on_it_runs_on_both_byte_orders_of_kernels(ran: list[Any]) -> None:
    result = run("run", "htonl", "A1", "--jobs", "1", "--json")
    assert result.exit_code == 0, result.output
    native, vm = ([(name, on) for name in ("htonl", "sockaddr-in-layout")] for on in ("native", "vm s390x, kernel bookworm"))
    assert [(name, on) for name, on, _, _ in ran] == [*vm, *native]  # what takes longest begins first
    assert [(one["experiment"], one["on"]) for one in json.loads(result.output)["runs"]] == [*native, *vm]
    assert len(list(Path("testbed-records").iterdir())) == 4


def test_a_refuted_claim_that_was_predicted_is_no_failure(ran: list[Any]) -> None:
    result = run("run", "accept-queue", "--on", "native")
    assert result.exit_code == 0
    assert ": REFUTED, as predicted (38 numbers)" in result.output
    assert ran


def test_what_is_set_is_a_parameter_or_with_dots_a_sysctl(ran: list[Any]) -> None:
    run("run", "two-queues", "--on", "native", "--set", "half_open=1", "--set", "net.core.somaxconn=16")
    assert ran[0][2:] == ({"half_open": 1, "complete": 2, "hold": True}, {"net.core.somaxconn": "16"})


def test_a_number_that_was_not_predicted_is_a_failure(ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    record = running.load(RECORDS / "htonl.native.json")
    wrong = replace(record, cells=[replace(record.cells[0], seen={**record.cells[0].seen, "htons": "0x102"})])
    monkeypatch.setattr(running, "run", lambda *_, **__: wrong)
    result = run("run", "htonl", "--on", "native")
    assert isinstance(error_of(result), CheckFailed)
    assert "htons should be 0x201, and is 0x102" in result.output


def test_runs_that_differ_are_a_failure(ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    good = running.load(RECORDS / "htonl.native.json")
    wrong = replace(good, cells=[replace(good.cells[0], seen={**good.cells[0].seen, "htons": "0x102"})])
    records = iter([good, good, wrong])
    monkeypatch.setattr(running, "run", lambda *_, **__: next(records))
    result = run("run", "htonl", "--on", "native", "--repeat", "3", "--jobs", "1")
    assert "as predicted in 2 of 3 runs, the same verdict and numbers in 2" in result.output
    assert "| A6 htonl | native | 2 of 3 | 2 of 3 |" in result.output
    assert "not the same numbers each time" in error_of(result).hint


def test_a_kind_that_cannot_show_it_is_refused_with_the_reason(ran: list[Any]) -> None:
    error = error_of(run("run", "accept-queue", "--on", "emulated"))
    assert isinstance(error, InputError)
    assert error.message.startswith("accept-queue does not run on emulated: the queues are the kernel's")
    result = run("run", "accept-queue", "htonl", "--on", "emulated", "--json")
    assert [one["experiment"] for one in json.loads(result.output)["runs"]] == ["htonl"]
    assert json.loads(result.output)["not_run"][0]["experiment"] == "accept-queue"
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "which experiments?"),
        (["run", "--all", "htonl"], "which experiments?"),
        (["run", "htonk"], "no experiment is called 'htonk', did you mean 'htonl'?"),
        (["run", "htonl", "--on", "vms"], "there is no kind of host 'vms'"),
        (["run", "htonl", "--on", "native", "--kernel", "trixie"], "a host of kind native has no kernel of its own to choose"),
        (["run", "htonl", "--set", "somaxconn"], "'somaxconn' is not NAME=VALUE"),
        (["run", "htonl", "--set", "somaxconn=4"], "experiment htonl has no parameter 'somaxconn'"),
        (["show"], "which experiments?"),
    ],
)
def test_what_is_wrong_is_said(ran: list[Any], arguments: list[str], message: str) -> None:
    error = error_of(run(*arguments))
    assert isinstance(error, InputError)
    assert error.message.startswith(message)
    assert not ran


def test_records_are_judged_again(tmp_path: Path) -> None:
    good = RECORDS / "htonl.native.json"
    assert run("judge", str(good)).exit_code == 0
    data = json.loads(good.read_text())
    data["cells"][0]["seen"]["htons"] = "0x102"
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(data))
    result = run("judge", str(good), str(bad), "--json")
    assert isinstance(error_of(result), CheckFailed)
    assert [one["passed"] for one in json.loads(result.output)] == [True, False]
    bad.write_text(json.dumps({**data, "experiment": "gone"}))
    assert isinstance(error_of(run("judge", str(bad))), UnknownName)
