"""Sweeps without hosts: grids as they are written, the folder of one, the table of its results."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed import experiment_find as finding
from testbed import experiment_run as running
from testbed.errors import InputError
from testbed.experiment import Cell, CellRun, Claim, Experiment, Facts, Parameter, Prediction, Record, Verdict, between, one_of
from testbed.experiment_run import On
from testbed.sweep import Axis, Point, Sweep, axis, plan, written
from testbed.sweep_folder import opened
from testbed.sweep_run import in_words, left_s
from testbed.sweep_table import as_csv, columns, failures, rows

NATIVE = On.named("native")
DOCS = Path(__file__).parents[2] / "docs" / "experiments.md"
S = "net.core.somaxconn"


def raises(*_: object) -> dict[str, int]:
    raise KeyError("oops")


def nothing(*_: object) -> None:
    pass


MINE = Experiment(
    id="X1",
    name="mine",
    claim=Claim("", ""),
    linux="",
    prediction=Prediction("", (), lambda facts, run: {"twice": 2 * int(facts.parameters["n"])}),
    provoke=nothing,
    observe=lambda *_: {},
    judge=lambda *_: Verdict("HOLDS"),
    refused={"emulated": "no"},
    parameters={
        "n": Parameter(5, "a number", least=-10),
        "share": Parameter(0.5, "a part"),
        "flag": Parameter(True, "yes or no"),
        "word": Parameter("a", "a word"),
        "which": Parameter(None, "a cell", usual="one", choices=("one", "two")),
    },
    sysctls={S: 128},
)
QUEUE = finding.known()["accept-queue"]
FULL = finding.known()["full-queue"]


def record_at(point: Point, *runs: CellRun, kernel: str = "6.18.0") -> Record:
    facts = Facts("native", "amd64", "little", kernel, "the machine's", point.parameters)
    return Record("mine", facts, runs, set_by_user=point.sysctls)


def good(point: Point, **more: Any) -> Record:
    return record_at(point, CellRun("all", {}, {}, {"twice": 2 * int(point.parameters["n"]), **more}))


# A grid as it is written


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("n=0..3", (0, 1, 2, 3)),
        ("n=-1..1", (-1, 0, 1)),
        ("n=-3..-2", (-3, -2)),
        ("n=0..10..5", (0, 5, 10)),
        ("n=0..9..5", (0, 5)),
        ("n=3..1..-1", (3, 2, 1)),
        ("n=7", (7,)),
        ("n=4..4", (4,)),
        ("n=8,1..3,2", (8, 1, 2, 3)),
        ("share=0.1..0.3..0.1", (0.1, 0.2, 0.3)),
        ("flag=yes,no", (True, False)),
        ("word=a..b,c d", ("a..b", "c d")),
        ("which=two,one", ("two", "one")),
        (f"{S}=1,2,4..6", (1, 2, 4, 5, 6)),
        ("net.ipv4.tcp_rmem=4096 8192 16384,4096 4096 4096", ("4096 8192 16384", "4096 4096 4096")),
    ],
)
def test_an_axis_is_read(text: str, values: tuple[object, ...]) -> None:
    found = axis(text, MINE)
    assert found == Axis(text.partition("=")[0], values)  # type: ignore[arg-type]
    assert [type(one) for one in found.values] == [type(one) for one in values]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n", "'n' is not NAME=VALUES"),
        ("n=", "'n=' is not NAME=VALUES"),
        ("=1", "'=1' is not NAME=VALUES"),
        ("m=1", "experiment mine has no parameter 'm'"),
        ("n=1,,2", "n: '' is no range"),
        ("n=1..x", "n: '1..x' is no range"),
        ("n=1...5", "n: '1...5' is no range"),
        ("n=3..1", "n: the range 3..1 is empty"),
        ("n=1..3..-1", "n: the range 1..3..-1 is empty"),
        ("n=1..3..0", "n: the range 1..3..0 is empty"),
        ("n=0..1000000000000", "n: the range 0..1000000000000 has 1,000,000,000,001 values"),
        ("n=1.5", "n=1.5: a number belongs here"),
        ("n=-11", "n=-11: at least -10 belongs here"),
        ("flag=true", "flag=true: yes or no belongs here"),
        ("which=three", "which=three: one of these belongs here: one, two"),
    ],
)
def test_what_is_wrong_with_an_axis_is_said(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        axis(text, MINE)
    assert error.value.message.startswith(message)
    assert error.value.hint or "belongs here" in message


def test_a_grid_has_every_pair_and_the_last_axis_changes_fastest() -> None:
    sweep = plan(MINE, NATIVE, ["n=1..2", f"{S}=4,8"], {"flag": "no", "net.ipv4.tcp_syncookies": "0"})
    assert [(str(point), point.number) for point in sweep.points] == [
        (f"n=1 {S}=4", 1),
        (f"n=1 {S}=8", 2),
        (f"n=2 {S}=4", 3),
        (f"n=2 {S}=8", 4),
    ]
    last = sweep.points[-1]
    assert last.parameters == {"n": 2, "share": 0.5, "flag": False, "word": "a", "which": "one"}
    assert last.sysctls == {S: "8", "net.ipv4.tcp_syncookies": "0"}


@pytest.mark.parametrize(
    ("over", "settings", "on", "message"),
    [
        ([], {}, "native", "over what?"),
        (["n=1", "n=2"], {}, "native", "'n' is given twice"),
        (["n=1"], {"n": "3"}, "native", "'n' is given twice"),
        (["n=1"], {"m": "3"}, "native", "experiment mine has no parameter 'm'"),
        (["n=1..1000", "share=1..11"], {}, "native", "this grid has 11,000 points, and 10,000 are the most"),
        (["n=1"], {}, "emulated", "mine does not run on emulated: no"),
        (["net.core.netdev_max_backlog=1"], {}, "native", "'net.core.netdev_max_backlog' is not per network namespace"),
        (["n=1"], {"kernel.pid_max": "5", "net.core.rmem_max": "1"}, "native", "'kernel.pid_max' is not per namespace"),
    ],
)
def test_what_is_wrong_with_a_grid_is_said(over: list[str], settings: Mapping[str, str], on: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(MINE, On.named(on), over, settings)
    assert error.value.message.startswith(message)


def test_a_guest_may_have_what_is_the_machines_elsewhere() -> None:
    assert plan(MINE, On.named("vm"), ["net.core.netdev_max_backlog=1"], {}).points


def test_a_point_has_one_cell_where_the_experiment_has_many() -> None:
    sweep = plan(QUEUE, NATIVE, ["backlog=-1..8", f"{S}=0,1,2,4,8"], {})
    assert len(sweep.points) == 50
    assert {len(sweep.at(point).cells(point.parameters)) for point in sweep.points} == {1}


@pytest.mark.parametrize("name", finding.known())
def test_every_parameter_can_be_swept(name: str) -> None:
    one = finding.known()[name]
    for parameter, its in one.parameters.items():
        sweep = plan(one, On.named(one.kinds[0]), [f"{parameter}={written(its.example)}"], {})
        (point,) = sweep.points
        assert point.at == {parameter: its.example}
        assert sweep.at(point).cells(point.parameters)


def test_the_sweeps_of_the_docs_can_be_planned() -> None:
    commands = re.findall(r"^    testbed sweep (\S+) (.*?)(?:  .*)?$", DOCS.read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for name, rest in commands:
        words = shlex.split(rest)
        options = list(zip(words[::2], words[1::2], strict=True))
        over, on = [value for option, value in options if option == "--over"], dict(options).get("--on", "native")
        (experiment,) = finding.chosen([name])
        assert plan(experiment, On.named(on), over, {}).points


def test_cells_that_choose_a_sysctl_of_the_grid_are_left_out() -> None:
    sweep = plan(FULL, NATIVE, ["net.ipv4.tcp_abort_on_overflow=0,1"], {})
    for point in sweep.points:
        cells = sweep.at(point).cells(point.parameters)
        assert cells
        assert not any("net.ipv4.tcp_abort_on_overflow" in cell.sysctls for cell in cells)
    stubborn = replace(MINE, cells=lambda _: [Cell(sysctls={S: 1})])
    with pytest.raises(InputError, match=f"every cell of mine has its own {S}"):
        plan(stubborn, NATIVE, [f"{S}=1,2"], {})


def test_a_sweep_has_a_name_of_its_own() -> None:
    one, same, other = (plan(MINE, NATIVE, [f"n={text}"], {}) for text in ("1..3", "1,2,3", "1..4"))
    assert one.name == same.name != other.name
    assert one.name != plan(MINE, On.named("vm"), ["n=1..3"], {}).name
    assert one.name != plan(MINE, NATIVE, ["n=1..3"], {"word": "b"}).name


# Its folder


@pytest.fixture
def sweep() -> Sweep:
    return plan(MINE, NATIVE, ["n=1..3"], {S: "7"})


def test_what_was_saved_is_found_again(sweep: Sweep, tmp_path: Path) -> None:
    first, second, third = sweep.points
    with opened(sweep, tmp_path / "new" / "sweep") as folder:
        folder.save(third, good(third))
        folder.save(first, good(first))
    with opened(sweep, tmp_path / "new" / "sweep") as folder:
        there = folder.done()
        assert sorted(there) == [1, 3]
        assert there[1].as_json() == json.loads(json.dumps(good(first).as_json()))
        assert not folder.file(second).exists()


def test_what_was_half_written_does_not_count(sweep: Sweep, tmp_path: Path) -> None:
    with opened(sweep, tmp_path) as folder:
        folder.file(sweep.points[0]).with_name("00001.json.new").write_text('{"format"')
        assert folder.done() == {}
        folder.save(sweep.points[0], good(sweep.points[0]))
        assert list(folder.done()) == [1]


def test_one_process_at_a_time(sweep: Sweep, tmp_path: Path) -> None:
    with opened(sweep, tmp_path), pytest.raises(InputError, match="another process is at the sweep in"), opened(sweep, tmp_path):
        pass
    with opened(sweep, tmp_path):
        pass


def test_another_sweeps_folder_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    other = plan(MINE, NATIVE, ["n=1..3"], {S: "8"})
    with opened(other, tmp_path):
        pass
    with opened(sweep, tmp_path) as folder:  # nothing was measured
        folder.save(sweep.points[0], good(sweep.points[0]))
    with pytest.raises(InputError, match="has another sweep, which differs in: sysctls"), opened(other, tmp_path):
        pass


def test_a_folder_with_other_files_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="has other files, and is no folder of a sweep"), opened(sweep, tmp_path):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written_is_an_error(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/x cannot be written"), opened(sweep, tmp_path / "file" / "x"):
        pass


@pytest.mark.parametrize("text", ["{", '{"format": 2}'])
def test_a_damaged_record_is_an_error(sweep: Sweep, tmp_path: Path, text: str) -> None:
    with opened(sweep, tmp_path) as folder:
        folder.file(sweep.points[0]).write_text(text)
        with pytest.raises(InputError, match=r"00001\.json"):
            folder.done()


def test_a_record_of_another_point_is_an_error(sweep: Sweep, tmp_path: Path) -> None:
    with opened(sweep, tmp_path) as folder:
        folder.save(sweep.points[0], good(sweep.points[1]))
        with pytest.raises(InputError, match="is not a record of the point n=1"):
            folder.done()


def test_tables_are_written_beside_the_records(sweep: Sweep, tmp_path: Path) -> None:
    with opened(sweep, tmp_path) as folder:
        data = folder.write_tables({1: good(sweep.points[0])})
    assert json.loads((tmp_path / "results.json").read_text()) == data
    assert (data["points"], data["done"]) == (3, 1)
    assert (tmp_path / "results.csv").read_text() == as_csv(sweep, data["rows"])


# Its table


def test_the_table_has_a_row_for_each_quantity_of_each_cell(sweep: Sweep) -> None:
    first, second, _ = sweep.points
    table = rows(sweep, {1: good(first, more=[1, 2]), 2: record_at(second, CellRun("all", {}, {}, {"twice": 5}))})
    assert [(row["point"], row["n"], row["quantity"], row["seen"], row["predicted"], row["matches"]) for row in table] == [
        (1, 1, "twice", 2, 2, True),
        (1, 1, "more", [1, 2], None, None),
        (2, 2, "twice", 5, 4, False),
    ]
    assert all(list(row) == columns(sweep) for row in table)
    assert failures(table) == [table[2]]


def test_the_csv_reads_as_it_was_written(sweep: Sweep) -> None:
    text = as_csv(sweep, rows(sweep, {1: good(sweep.points[0], more=[1, "a,b"], flag=False, words='say "x"')}))
    twice, more, flag, words = csv.DictReader(io.StringIO(text))
    assert (twice["experiment"], twice["kernel"], twice["n"], twice["matches"]) == ("mine", "6.18.0", "1", "TRUE")
    assert json.loads(more["seen"]) == [1, "a,b"]
    assert (flag["seen"], flag["matches"], words["seen"]) == ("FALSE", "", 'say "x"')


def test_what_may_vary_has_bounds() -> None:
    expected = {"range": between(1, 2.5, reason="r"), "choice": one_of(3, 4, reason="r"), "word": "x", "flag": True}
    one = replace(MINE, prediction=replace(MINE.prediction, of=lambda *_: expected))
    sweep = plan(one, NATIVE, ["n=1"], {})
    seen = {"range": 2, "choice": 4, "word": "x", "flag": True}
    table = rows(sweep, {1: record_at(sweep.points[0], CellRun("all", {}, {}, seen))})
    assert [(row["predicted"], row["predicted_low"], row["predicted_high"]) for row in table] == [
        ("1 to 2.5", 1, 2.5),
        ("3 or 4", 3, 4),
        ("x", None, None),
        (True, None, None),
    ]
    assert not failures(table)


@pytest.mark.parametrize(
    ("run", "one", "note"),
    [
        (CellRun("all", {}, {}, {}, problem="the host is gone"), MINE, "the host is gone"),
        (CellRun("all", {}, {}, {"twice": 2}), replace(MINE, took_effect=lambda _: "nothing happened"), "nothing happened"),
        (CellRun("all", {}, {}, {"twice": 2}), replace(MINE, prediction=Prediction("", (), raises)), "nothing can be predicted"),
    ],
)
def test_a_cell_that_says_nothing_is_a_failure_with_a_note(run: CellRun, one: Experiment, note: str) -> None:
    sweep = plan(one, NATIVE, ["n=1"], {})
    (row,) = failures(rows(sweep, {1: record_at(sweep.points[0], run)}))
    assert row["note"].startswith(note)


def test_a_number_that_was_not_seen_is_a_failure(sweep: Sweep) -> None:
    (row,) = failures(rows(sweep, {1: record_at(sweep.points[0], CellRun("all", {}, {}, {}))}))
    assert (row["quantity"], row["seen"], row["predicted"], row["matches"]) == ("twice", None, 2, False)


def test_an_axis_called_like_a_column_has_one_of_its_own() -> None:
    one = replace(MINE, parameters={**MINE.parameters, "cell": Parameter(1, "a number")})
    sweep = plan(one, NATIVE, ["cell=1..2"], {})
    assert len(set(columns(sweep))) == len(columns(sweep))
    (row,) = rows(sweep, {2: good(sweep.points[1])})
    assert (row["cell_"], row["cell"]) == (2, "all")


# How long


def test_what_is_left_is_estimated_from_what_was_done() -> None:
    assert left_s(10, 5, 20) == 40
    assert [in_words(one) for one in (0.4, 89, 90, 5000, 7200)] == ["about 0 s", "about 89 s", "about 2 min", "about 83 min", "about 2 h"]


def test_records_of_experiments_are_loaded_as_they_are(tmp_path: Path) -> None:
    sweep = plan(MINE, NATIVE, ["n=1"], {})
    with opened(sweep, tmp_path) as folder:
        folder.save(sweep.points[0], good(sweep.points[0]))
        assert running.load(folder.file(sweep.points[0])).experiment == "mine"
