"""Verbs about experiments: list, show, run, judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.errors import CheckFailed, InputError
from testbed.verbs import AS_JSON, Verbs, assignments, console, print_json

if TYPE_CHECKING:
    from testbed.experiment import Experiment, Judgement, Record
    from testbed.experiment_run import On

WITHOUT_ON = ("native", "vm-s390x")
JOBS = 4


@click.group(cls=Verbs)
def experiment() -> None:
    """The claims of textbooks, tried on real kernels.

    \b
    Examples:
      testbed experiment list
      testbed experiment run accept-queue --on native
      testbed experiment run C --on vm-amd64 --kernel trixie
      testbed experiment run mine.py
    """


@experiment.command(name="list")
@AS_JSON
def list_(as_json: bool) -> None:
    """List all experiments: those that come with testbed, and those of installed packages.

    \b
    Example:
      testbed experiment list --json
    """
    from testbed.experiment_find import known
    from testbed.experiment_page import contents

    rows = contents(known().values())
    if as_json:
        print_json([{"id": one, "name": name, "kinds": kinds.split(", "), "claim": claim} for one, name, kinds, claim in rows])
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("id", "name", "runs on", "claim"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table, markup=False)


@experiment.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every experiment that is installed.")
def show(names: tuple[str, ...], everything: bool) -> None:
    """Say what an experiment is: the claim, what is predicted and from where, what it needs, its parameters. As Markdown.

    \b
    Example:
      testbed experiment show accept-queue
    """
    from testbed.experiment_page import page

    click.echo("\n".join(page(one) for one in _chosen(names, everything)), nl=False)


@experiment.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every experiment that is installed.")
@click.option("--on", "kinds", metavar="KIND", multiple=True, help="native, emulated, vm-s390x, vm-amd64; without it native and vm-s390x.")
@click.option("--kernel", metavar="SUITE", help="Whose kernel the vm runs: bookworm, bookworm-backports, trixie.")
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A parameter, or (with dots) a sysctl of the subjects.")
@click.option("--repeat", type=click.IntRange(1, 10_000), default=1, help="Run each so many times, and compare the numbers.")
@click.option("--jobs", type=click.IntRange(1, 64), default=JOBS, show_default=True, help="Runs at a time, each in a lab of its own.")
@click.option(
    "--records", type=click.Path(path_type=Path, file_okay=False), default=Path("testbed-records"), show_default=True, help="Where to."
)
@AS_JSON
def run(
    names: tuple[str, ...],
    everything: bool,
    kinds: tuple[str, ...],
    kernel: str | None,
    settings: tuple[str, ...],
    repeat: int,
    jobs: int,
    records: Path,
    as_json: bool,
) -> None:
    """Run experiments: by name, id (C2), family (C), or a file of your own (mine.py).

    What was observed is saved in a file each before it is judged; `testbed experiment judge` judges it again. Exit code 0
    means that every number is as predicted, whatever becomes of the textbook's claim.

    \b
    Examples:
      testbed experiment run accept-queue --set net.core.somaxconn=16
      testbed experiment run --all --on vm-s390x --kernel trixie
    """
    from testbed.experiment_run import On, why_not

    experiments = _chosen(names, everything)
    ons = [On.named(one, kernel if one.startswith("vm") or kinds else None) for one in kinds or WITHOUT_ON]
    given = assignments(settings)
    sysctls = {name: value for name, value in given.items() if "." in name}
    parameters = {one.name: one.with_values({name: given[name] for name in given if name not in sysctls}) for one in experiments}
    refused = [(one, on, reason) for on in ons for one in experiments if (reason := why_not(one, on))]
    if len(refused) == len(ons) * len(experiments):
        raise InputError("; ".join(f"{one.name} does not run on {on}: {reason}" for one, on, reason in refused))
    runs = _Runs(parameters, sysctls, repeat, records, as_json)
    runs.run([(one, on) for on in ons for one in experiments if not why_not(one, on)], jobs)
    left_out = [{"experiment": one.name, "on": str(on), "reason": reason} for one, on, reason in refused]
    if as_json:
        print_json({"runs": runs.results, "repeats": runs.repeats, "not_run": left_out})
    if not as_json and runs.repeats:
        _print_repeats(runs.repeats)
    if not as_json and kinds:  # without --on nobody asked for that kind
        for row in left_out:
            click.echo(f"{row['experiment']} was not run on {row['on']}: {row['reason']}")
    if runs.failed:
        message = f"{len(runs.failed)} of {len(runs.results)} runs are not as predicted"
        raise CheckFailed(message, hint="; ".join(dict.fromkeys(runs.failed)))


@experiment.command()
@click.argument("files", metavar="RECORD...", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--from", "source", metavar="FILE", help="The file with the experiment, where it is not an installed one.")
@AS_JSON
def judge(files: tuple[Path, ...], source: str | None, as_json: bool) -> None:
    """Judge records of experiments again, without any host.

    \b
    Example:
      testbed experiment judge testbed-records/*.json
    """
    from testbed import experiment_find as finding
    from testbed.errors import UnknownName
    from testbed.experiment import judge as judge_record
    from testbed.experiment_run import load

    known = finding.known() if source is None else finding.from_file(Path(source))
    failed, results = [], []
    for path in files:
        record = load(path)
        if record.experiment not in known:
            raise UnknownName("experiment", record.experiment, known)
        judgement = judge_record(known[record.experiment], record)
        results.append({"record": str(path), **judgement.as_json()})
        if not as_json:
            _print(known[record.experiment], record, judgement)
        if not judgement.passed:
            failed.append(str(path))
    if as_json:
        print_json(results)
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(files)} records are not as predicted", hint=", ".join(failed))


@dataclass(frozen=True)
class _Task:
    """One run of an experiment; ``number`` counts the repeats from 1."""

    experiment: Experiment
    on: On
    number: int


@dataclass
class _Runs:
    """What is asked for, and what came of it; ``failed`` names the runs that are not as predicted."""

    parameters: Mapping[str, Any]
    sysctls: Mapping[str, str]
    repeat: int
    records: Path
    as_json: bool
    results: list[dict[str, Any]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    repeats: list[dict[str, Any]] = field(default_factory=list)

    def run(self, pairs: Sequence[tuple[Experiment, On]], jobs: int) -> None:
        """Run them, so many at a time, and say what came of each in their order."""
        from testbed import experiment_run as running
        from testbed.experiment import judge as judge_record
        from testbed.experiment_lanes import Lanes, in_order
        from testbed.progress import Progress

        tasks = [_Task(one, on, number) for one, on in pairs for number in range(1, self.repeat + 1)]
        with Progress() as progress, Lanes(pairs) as lanes:

            def work(task: _Task) -> tuple[Record, Path, Judgement]:
                one, on = task.experiment, task.on
                with lanes.lab(one, on) as lab:
                    progress(one.name, f"on {on}" + (f", {task.number} of {self.repeat}" if self.repeat > 1 else ""))
                    record = running.run(one, lab, on, parameters=self.parameters[one.name], sysctls=self.sysctls, saw=lanes.go_on)
                lanes.go_on()  # else what broke may have broken because of us
                return record, running.save(record, self.records, on), judge_record(one, record)

            judgements: list[Judgement] = []
            with closing(in_order(work, tasks, jobs=jobs, stop=lanes.stop, length=self._length)) as done:
                for task, (record, path, judgement) in zip(tasks, done, strict=True):
                    judgements = [*judgements, judgement] if task.number > 1 else [judgement]
                    self._say(task, record, path, judgements)

    def _length(self, task: _Task) -> float:
        """How long it takes, roughly: by its cells, and on an emulated processor three times as long."""
        return len(task.experiment.cells(self.parameters[task.experiment.name])) * (3 if task.on.kind == "vm" else 1)

    def _say(self, task: _Task, record: Record, path: Path, judgements: Sequence[Judgement]) -> None:
        from testbed.experiment_page import same_numbers

        one, on, judgement = task.experiment, task.on, judgements[-1]
        self.results.append({"experiment": one.name, "id": one.id, "on": str(on), "record": str(path), **judgement.as_json()})
        if not judgement.passed:
            self.failed.append(f"{one.name} on {on}")
        if not self.as_json and (task.number == 1 or not judgement.passed):
            _print(one, record, judgement)
        if task.number < self.repeat or self.repeat == 1:
            return
        same, passed = same_numbers(judgements), sum(one.passed for one in judgements)
        self.repeats.append(
            {"id": one.id, "experiment": one.name, "on": str(on), "runs": self.repeat, "as_predicted": passed, "same": same}
        )
        if not self.as_json:
            click.echo(f"  as predicted in {passed} of {self.repeat} runs, the same verdict and numbers in {same}")
        if same < self.repeat:
            self.failed.append(f"{one.name} on {on}: not the same numbers each time")


def _print_repeats(repeats: Sequence[Mapping[str, Any]]) -> None:
    click.echo("\n| claim | on | as predicted | same verdict and numbers |\n|---|---|---|---|")
    for row in repeats:
        words = [f"{row[name]} of {row['runs']}" for name in ("as_predicted", "same")]
        click.echo(f"| {row['id']} {row['experiment']} | {row['on']} | {' | '.join(words)} |")


def _print(one: Experiment, record: Any, judgement: Judgement) -> None:
    from testbed.experiment_page import details, headline

    click.echo("\n".join([headline(one, record, judgement), *details(judgement)]))


def _chosen(names: tuple[str, ...], everything: bool) -> list[Experiment]:
    from testbed.experiment_find import chosen

    if bool(names) == everything:
        raise InputError("which experiments?", hint="their names, or --all; testbed experiment list has them")
    return chosen(names, everything=everything)
