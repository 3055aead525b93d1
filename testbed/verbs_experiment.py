"""Verbs about experiments: list, show, run, judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.errors import CheckFailed, InputError
from testbed.verbs import AS_JSON, Verbs, console, print_json

if TYPE_CHECKING:
    from testbed.experiment import Experiment, Judgement
    from testbed.experiment_run import On

WITHOUT_ON = ("native", "vm-s390x")


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
    given = _assignments(settings)
    sysctls = {name: value for name, value in given.items() if "." in name}
    parameters = {one.name: one.with_values({name: given[name] for name in given if name not in sysctls}) for one in experiments}
    refused = [(one, on, reason) for on in ons for one in experiments if (reason := why_not(one, on))]
    if len(refused) == len(ons) * len(experiments):
        raise InputError("; ".join(f"{one.name} does not run on {on}: {reason}" for one, on, reason in refused))
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for on in ons:
        able = [one for one in experiments if not why_not(one, on)]
        _run_on(able, on, parameters, sysctls, repeat, records, as_json, results, failed)
    left_out = [{"experiment": one.name, "on": str(on), "reason": reason} for one, on, reason in refused]
    if as_json:
        print_json({"runs": results, "not_run": left_out})
    elif kinds:  # without --on nobody asked for that kind
        for row in left_out:
            click.echo(f"{row['experiment']} was not run on {row['on']}: {row['reason']}")
    if failed:
        raise CheckFailed(f"{len(failed)} of {len(results)} runs are not as predicted", hint="; ".join(dict.fromkeys(failed)))


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


def _run_on(
    experiments: list[Experiment],
    on: On,
    parameters: dict[str, Any],
    sysctls: dict[str, str],
    repeat: int,
    records: Path,
    as_json: bool,
    results: list[dict[str, Any]],
    failed: list[str],
) -> None:
    """Run them on one kind of host, and add what came of it to ``results``, and to ``failed`` the names of those not as predicted."""
    from testbed import experiment_run as running
    from testbed.experiment import judge as judge_record
    from testbed.experiment_page import same_numbers
    from testbed.progress import Progress

    with Progress() as progress, running.labs(experiments, on) as lab_for:
        for one in experiments:
            judgements = []
            for number in range(repeat):
                progress(one.name, f"on {on}" + (f", {number + 1} of {repeat}" if repeat > 1 else ""))
                record = running.run(one, lab_for(one), on, parameters=parameters[one.name], sysctls=sysctls)
                path = running.save(record, records, on)
                judgement = judge_record(one, record)
                judgements.append(judgement)
                results.append({"experiment": one.name, "id": one.id, "on": str(on), "record": str(path), **judgement.as_json()})
                if not judgement.passed:
                    failed.append(f"{one.name} on {on}")
                if not as_json and (number == 0 or not judgement.passed):
                    _print(one, record, judgement)
            if repeat > 1 and not as_json:
                click.echo(f"  the same numbers in {same_numbers(judgements)} of {repeat} runs")
            if same_numbers(judgements) < repeat:
                failed.append(f"{one.name} on {on}: not the same numbers each time")


def _print(one: Experiment, record: Any, judgement: Judgement) -> None:
    from testbed.experiment_page import details, headline

    click.echo("\n".join([headline(one, record, judgement), *details(judgement)]))


def _chosen(names: tuple[str, ...], everything: bool) -> list[Experiment]:
    from testbed.experiment_find import chosen

    if bool(names) == everything:
        raise InputError("which experiments?", hint="their names, or --all; testbed experiment list has them")
    return chosen(names, everything=everything)


def _assignments(settings: tuple[str, ...]) -> dict[str, str]:
    for one in settings:
        if not one.partition("=")[1] or one.startswith("="):
            raise InputError(f"'{one}' is not NAME=VALUE", hint="for example --set net.core.somaxconn=4")
    return dict(one.split("=", 1) for one in settings)
