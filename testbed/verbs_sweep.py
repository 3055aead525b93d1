"""The verb that measures an experiment over a grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.errors import CheckFailed, InputError
from testbed.verbs import AS_JSON, assignments, print_json

if TYPE_CHECKING:
    from testbed.sweep import Sweep

SWEEPS = Path("testbed-sweeps")
MOST_ROWS = 12


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--over", metavar="NAME=VALUES", multiple=True, help="What is varied: b=0..8, net.core.somaxconn=1,4,16, x=0..100..25.")
@click.option("--on", "kind", metavar="KIND", default="native", show_default=True, help="native, emulated, vm-s390x, vm-amd64.")
@click.option("--kernel", metavar="SUITE", help="Whose kernel the vm runs: bookworm, bookworm-backports, trixie.")
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A parameter or sysctl, the same at all points.")
@click.option("--out", metavar="DIR", type=click.Path(path_type=Path), help=f"The folder of the results; {SWEEPS}/... without it.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Points at a time, each in a lab of its own.")
@AS_JSON
def sweep(
    name: str, over: tuple[str, ...], kind: str, kernel: str | None, settings: tuple[str, ...], out: Path | None, jobs: int, as_json: bool
) -> None:
    """Measure an experiment at every point of a grid: of its parameters, and (with dots) of its subjects' sysctls.

    Each point has hosts made new, and is saved when it is done: the same command again goes on where it was stopped. The
    results are a tidy table, results.csv and results.json, a row for each quantity of each cell of each point.

    \b
    Examples:
      testbed sweep accept-queue --over backlog=-1..8 --over net.core.somaxconn=0,1,2,4,8
      testbed sweep udp-overflow --over rcvbuf=4096..16384..4096 --on vm-s390x
    """
    from testbed.experiment_find import chosen
    from testbed.experiment_run import On
    from testbed.sweep import plan
    from testbed.sweep_folder import opened
    from testbed.sweep_table import failures

    experiments = chosen([name])
    if len(experiments) != 1:
        raise InputError(f"a sweep is of one experiment; '{name}' is {', '.join(one.name for one in experiments)}")
    wanted = plan(experiments[0], On.named(kind, kernel), over, assignments(settings))
    path = out or SWEEPS / wanted.name
    with opened(wanted, path) as folder:
        try:
            _measure(wanted, folder, jobs)
        except BaseException:
            if there := folder.done():
                folder.write_tables(there)
                click.echo(f"{len(there)} of {len(wanted.points)} points are in {path}; the same command goes on from there", err=True)
            raise
        results = folder.write_tables(folder.done())
    wrong = failures(results["rows"])
    points = len({row["point"] for row in wrong})
    if as_json:
        print_json(results)
    else:
        _print(wanted, results, wrong, path)
    if wrong:
        raise CheckFailed(
            f"{points} of {len(wanted.points)} points are not as predicted", hint=f"the column 'note' or 'matches' of {path}/results.csv"
        )


def _measure(wanted: Sweep, folder: Any, jobs: int) -> None:
    from testbed.progress import Progress
    from testbed.sweep_run import in_words, run

    with Progress() as progress:

        def saw(done: int, of: int, left_s: float) -> None:
            progress(wanted.experiment.name, f"{done} of {of} points, {in_words(left_s)} left")

        run(wanted, folder, jobs=jobs, progress=progress, saw=saw)


def _print(wanted: Sweep, results: dict[str, Any], wrong: list[dict[str, Any]], path: Path) -> None:
    compared = [row for row in results["rows"] if row["matches"] is not None]
    words = f"all as predicted ({len(compared)} numbers)" if not wrong else f"{len(wrong)} of {len(compared)} numbers NOT as predicted"
    click.echo(f"{wanted.experiment.id} {wanted.experiment.name} on {wanted.on}: {len(wanted.points)} points, {words}")
    axes = list(results["sweep"]["axes"])
    for row in wrong[:MOST_ROWS]:
        at = " ".join(f"{name}={row.get(name)}" for name in axes)
        what = row["note"] or f"{row['quantity']} should be {row['predicted']}, and is {row['seen']}"
        click.echo(f"  {at}: {row['cell']}: {what}")
    if len(wrong) > MOST_ROWS:
        click.echo(f"  and {len(wrong) - MOST_ROWS} more")
    click.echo(f"  {path}/results.csv")
