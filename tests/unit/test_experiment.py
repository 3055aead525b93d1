"""Experiments without hosts: records that were made on real ones are judged, and spoilt in every way; finding, naming, saving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed import experiment_find as finding
from testbed import experiment_run as running
from testbed.errors import InputError, UnknownName
from testbed.experiment import Cell, CellRun, Expected, Experiment, Facts, Record, Verdict, between, judge, one_of
from testbed.experiment_page import headline, page, same_numbers

# Made with `testbed experiment run --all`, then without their steps.
RECORDS = sorted((Path(__file__).parent / "records").glob("*.json"))
ALL = finding.known()
CLAIMS = ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "B1", "B2", "B3", "B4", "C1", "C2", "C3", "C4", "C5", "C6", "C7"]
CLAIMS += ["D1", "D2", "D3", "D4", "E1", "E2", "E3"]


def called(identifier: str) -> Experiment:
    return next(one for one in ALL.values() if one.id == identifier)


def raises(*_: Any) -> Any:
    raise KeyError("oops")


def facts(kernel: str = "6.18.44", order: str = "little", **parameters: Any) -> Facts:
    return Facts("native", "amd64", "little" if order == "little" else "big", kernel, "the machine's", parameters)


def with_seen(record: Record, number: int, seen: dict[str, Any]) -> Record:
    cells = list(record.cells)
    cells[number] = replace(cells[number], seen=seen)
    return replace(record, cells=cells)


# Records of real hosts


def test_there_is_a_record_of_each_claim() -> None:
    assert {running.load(path).experiment for path in RECORDS} == set(ALL)
    assert [one.id for one in ALL.values()] == CLAIMS


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_judged_as_on_the_day_it_was_made(path: Path) -> None:
    record = running.load(path)
    judgement = judge(ALL[record.experiment], record)
    assert judgement.passed, (judgement.verdict, [one for one in judgement.comparisons if not one.matches])
    assert Record.from_json(json.loads(json.dumps(record.as_json()))).as_json() == record.as_json()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_number_that_is_predicted_counts(path: Path) -> None:
    record = running.load(path)
    experiment = ALL[record.experiment]
    for number, run in enumerate(record.cells):
        for quantity in experiment.prediction.of(record.facts, run):
            for spoilt in ({**run.seen, quantity: "something else"}, {key: value for key, value in run.seen.items() if key != quantity}):
                assert not judge(experiment, with_seen(record, number, spoilt)).passed, (run.cell, quantity)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_cell_that_broke_is_never_passed_over(path: Path) -> None:
    record = running.load(path)
    broken = replace(record, cells=[replace(record.cells[0], problem="the host is gone", seen={}), *record.cells[1:]])
    judgement = judge(ALL[record.experiment], broken)
    assert judgement.verdict == Verdict("INCONCLUSIVE", f"{record.cells[0].cell}: the host is gone")
    assert not judgement.passed
    nothing = judge(ALL[record.experiment], replace(record, cells=[]))
    assert (nothing.verdict.outcome, nothing.passed) == ("INCONCLUSIVE", False)


# Judging


def record_of(identifier: str) -> Record:
    name = called(identifier).name
    return running.load(next(path for path in RECORDS if path.stem.startswith(f"{name}.native")))


@pytest.mark.parametrize(
    "broken", [replace(called("A6"), judge=raises), replace(called("A6"), took_effect=raises)], ids=["judge", "took_effect"]
)
def test_a_judge_that_crashes_gives_no_verdict(broken: Experiment) -> None:
    judgement = judge(broken, record_of("A6"))
    assert judgement.verdict == Verdict("INCONCLUSIVE", "it cannot be judged: KeyError: 'oops'")
    assert not judgement.passed


def test_a_prediction_that_crashes_gives_no_verdict() -> None:
    one = called("A6")
    judgement = judge(replace(one, prediction=replace(one.prediction, of=raises)), record_of("A6"))
    assert judgement.verdict.outcome == "INCONCLUSIVE"
    assert not judgement.passed


def test_an_experiment_that_predicts_nothing_passes_never() -> None:
    one = called("A6")
    assert not judge(replace(one, prediction=replace(one.prediction, of=lambda *_: {})), record_of("A6")).passed


def test_a_claim_that_is_refuted_as_predicted_passes() -> None:
    judgement = judge(called("C2"), record_of("C2"))
    assert judgement.verdict.outcome == "REFUTED"
    assert judgement.passed


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        (Expected((1,)), [1], [True, 1.5, "1", None, 2]),
        (Expected((True,)), [True], [1, "yes"]),
        (Expected(([1, 2],)), [[1, 2]], [[2, 1], (1, 2)]),
        (one_of(3, 4, reason="by kernel"), [3, 4], [5, "3"]),
        (between(1, 2.5, reason="polled"), [1, 2, 2.5], [0.9, 2.6, "2", True, None]),
    ],
)
def test_what_is_expected(expected: Expected, right: Sequence[object], wrong: Sequence[object]) -> None:
    assert all(expected.allows(one) for one in right)
    assert not any(expected.allows(one) for one in wrong)


# Predictions


@pytest.mark.parametrize(
    ("backlog", "somaxconn", "accept_queue"),
    [(-1, 4, 5), (-1, 0, 1), (0, 4, 1), (1, 4, 2), (8, 4, 5), (4, 8, 5), (2**31, 128, 129)],
)
def test_the_accept_queue_is_predicted(backlog: int, somaxconn: int, accept_queue: int) -> None:
    run = CellRun("", {"b": backlog, "fill": "accept queue"}, {"net.core.somaxconn": somaxconn}, {})
    assert called("C2").prediction.of(facts(), run)["accept queue"] == accept_queue


@pytest.mark.parametrize(
    ("cookies", "most", "half_open"),
    [*((0, m, n) for m, n in enumerate([1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11, 12, 13, 13])), (1, 1, 129), (2, 1024, 0)],
)
def test_half_open_requests_are_predicted(cookies: int, most: int, half_open: int) -> None:
    sysctls = {"net.core.somaxconn": 128, "net.ipv4.tcp_syncookies": cookies, "net.ipv4.tcp_max_syn_backlog": most}
    assert called("C3").prediction.of(facts(), CellRun("", {"b": 128}, sysctls, {}))["half open"] == half_open


def test_an_older_kernel_has_one_half_open_request_less() -> None:
    run = CellRun("", {"b": 3, "fill": "half open"}, {"net.core.somaxconn": 128}, {})
    of = called("C2").prediction.of
    assert str(of(facts("6.1.0-50-s390x"), run)["half open"]) == "3 or 4"
    assert of(facts("6.14.1"), run)["half open"] == of(facts("7.0"), run)["half open"] == 4


def test_byte_orders_are_predicted() -> None:
    run = CellRun("", {}, {}, {})
    of = called("A5").prediction.of
    assert of(facts(port=8001), run)["listens without htons on"] == [16671]
    assert of(facts(order="big", port=8001), run)["listens without htons on"] == [8001]


# What an experiment is


def test_a_kind_of_host_is_shown_or_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="neither runs on emulated nor says why not"):
        replace(called("C2"), refused={})


@pytest.mark.parametrize("name", ALL)
def test_each_says_where_its_claim_and_its_prediction_are_from(name: str) -> None:
    one = ALL[name]
    assert one.claim.text.endswith(".")
    assert one.claim.source
    assert one.linux.endswith(".")
    assert one.prediction.sources
    text = page(one)
    assert one.claim.text in text
    assert all(reason in text for reason in one.refused.values())


@pytest.mark.parametrize("name", ALL)
def test_each_pins_what_its_cells_change(name: str) -> None:
    one = ALL[name]
    cells = one.cells(one.with_values({}))
    assert {sysctl for cell in cells for sysctl in cell.sysctls} <= set(one.sysctls)
    assert len({cell.name for cell in cells}) == len(cells)


def test_parameters_are_read_as_what_they_are() -> None:
    assert called("C1").with_values({"half_open": "2", "hold": "no"}) == {"half_open": 2, "complete": 2, "hold": False}
    for given, message in (
        ({"half_open": "two"}, "half_open=two: a number belongs here, like 3"),
        ({"hold": "1"}, "hold=1: yes or no belongs here"),
        ({"complet": "1"}, "has no parameter 'complet', did you mean 'complete'?"),
    ):
        with pytest.raises(InputError, match=message.replace("?", r"\?")):
            called("C1").with_values(given)


# Kinds of host


def test_kinds_of_host_by_name() -> None:
    assert running.On.named("vm") == running.On.named("vm-s390x") == running.On("vm", "s390x", "bookworm")
    assert str(running.On.named("vm-amd64", "trixie")) == "vm amd64, kernel trixie"
    for name, kernel, message in (
        ("nativ", None, "no kind of host 'nativ', did you mean 'native'"),
        ("native", "trixie", "has no kernel of its own"),
        ("vm", "buster", "there is no kernel 'buster'"),
    ):
        with pytest.raises(InputError, match=message):
            running.On.named(name, kernel)


def test_subjects_are_of_the_kind_in_question_and_the_others_are_native() -> None:
    made = running.topology("x", [called("A1"), called("C2")], running.On.named("vm-amd64", "trixie"))
    assert {name: (host.kind, host.kernel) for name, host in made.hosts.items()} == {"client": ("native", None), "server": ("vm", "trixie")}


# Finding

OWN = """
from dataclasses import replace
from testbed.experiments.addresses import CONVERSION
EXPERIMENTS = (replace(CONVERSION, id="X1", name="mine"),)
"""


def test_by_name_id_family_and_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    assert [one.id for one in finding.chosen(["htonl", "c2", "E", str(file), "A6"])] == ["A6", "C2", "E1", "E2", "E3", "X1"]
    assert len(finding.chosen([], everything=True)) == len(CLAIMS)
    with pytest.raises(UnknownName, match="no experiment is called 'accept-que', did you mean 'accept-queue'"):
        finding.chosen(["accept-que"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no EXPERIMENTS"),
        ("EXPERIMENTS = (1,)", "has no EXPERIMENTS"),
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        (OWN + "EXPERIMENTS *= 2", "two experiments are called"),
    ],
)
def test_a_file_that_is_wrong_is_said_to_be(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        finding.chosen([str(file)])
    with pytest.raises(InputError, match="there is no file"):
        finding.chosen([str(tmp_path / "yours.py")])


def test_experiments_of_installed_packages_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib.metadata import EntryPoint

    (tmp_path / "of_a_package.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("theirs", "of_a_package", finding.GROUP)
    monkeypatch.setattr(finding, "entry_points", lambda group: [entry] if group == finding.GROUP else [])
    assert list(finding.known())[-1] == "mine"


# Records


def test_records_of_one_second_have_files_of_their_own(tmp_path: Path) -> None:
    record = replace(record_of("A6"), begun="2025-01-01T10:00:00+00:00")
    paths = [running.save(record, tmp_path / "new", running.On.named("vm")) for _ in range(2)]
    assert [path.name for path in paths] == [f"htonl.vm-s390x-bookworm.20250101T100000.{number}.json" for number in (1, 2)]
    assert running.load(paths[1]).as_json() == record.as_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "not the record"),
        ('{"format": 7}', "not the record"),
        ('{"format": 1, "cells": []}', "damaged: 'facts'"),
    ],
)
def test_what_is_no_record_is_said_to_be_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "record.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        running.load(file)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        running.save(record_of("A6"), tmp_path / "file", running.On.named("native"))


def test_numbers_are_compared_where_one_was_predicted() -> None:
    record, one = record_of("D3"), called("D3")
    moved = [replace(run, seen={**run.seen, "bind succeeds after s": 3.3}) if "fin_timeout=3" in run.cell else run for run in record.cells]
    assert same_numbers([judge(one, record), judge(one, replace(record, cells=moved))]) == 2
    other = [replace(run, seen={**run.seen, "bind at first": "ok"}) for run in record.cells]
    assert same_numbers([judge(one, record), judge(one, replace(record, cells=other))]) == 1


def test_a_headline_says_verdict_and_prediction_apart() -> None:
    record, one = record_of("C7"), called("C7")
    assert ": HOLDS, as predicted (6 numbers), " in headline(one, record, judge(one, record))
    spoilt = with_seen(record, 0, {**record.cells[0].seen, "netstat Send-Q": 5})
    assert ": HOLDS, NOT as predicted (1 of 6 numbers), " in headline(one, spoilt, judge(one, spoilt))


def test_a_cell_is_all_of_an_experiment_without_cells() -> None:
    one = called("A6")
    assert list(one.cells({})) == [Cell()]
