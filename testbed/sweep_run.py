"""A sweep on real hosts: every point that is not in its folder yet, several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from testbed import experiment_run as running
from testbed.api import Lab
from testbed.change import Progress, silent
from testbed.experiment import Record
from testbed.experiment_lanes import Lanes, in_order
from testbed.sweep import Point, Sweep
from testbed.sweep_folder import Folder

Saw = Callable[[int, int, float], None]


def run(sweep: Sweep, folder: Folder, *, jobs: int, progress: Progress = silent, saw: Saw = lambda *_: None) -> None:
    """Measure what the folder has not, or only with a problem, and save the record of each point when it is done.

    ``saw(done, of, left_s)`` is called after each point; ``left_s`` is how many seconds the others will take, as it looks now.
    Raises :class:`InputError` when the hosts cannot have one of the sysctls' values, before anything is measured.
    """
    there = folder.done()
    missing = [point for point in sweep.points if point.number not in there or _broke(there[point.number])]
    done_before, began = len(sweep.points) - len(missing), time.monotonic()
    if not missing:
        return
    with Lanes([(sweep.experiment, sweep.on)], progress=progress) as lanes:
        with lanes.lab(sweep.experiment, sweep.on) as lab:
            try_sysctls(sweep, lab)

        def measure(point: Point) -> None:
            with lanes.lab(sweep.experiment, sweep.on) as lab:
                at, on = sweep.at(point), sweep.on
                record = running.run(at, lab, on, parameters=point.parameters, sysctls=point.sysctls, saw=lanes.go_on, watch=False)
            lanes.go_on()  # else what broke may have broken because of us
            folder.save(point, record)

        with closing(in_order(measure, missing, jobs=jobs, stop=lanes.stop)) as results:
            for number, _ in enumerate(results, start=1):
                saw(done_before + number, len(sweep.points), left_s(time.monotonic() - began, number, len(missing) - number))


def try_sysctls(sweep: Sweep, lab: Lab) -> None:
    """Set every value of every sysctl once. Raises :class:`InputError` for what the subjects cannot have."""
    wanted = [*sweep.sysctls.items(), *((axis.name, str(value)) for axis in sweep.axes if axis.is_sysctl for value in axis.values)]
    for role in sweep.experiment.subjects:
        for name, value in wanted:
            lab.host(role).sysctl[name] = value


def left_s(elapsed_s: float, done: int, left: int) -> float:
    """How long ``left`` points will take, if ``done`` took ``elapsed_s``."""
    return elapsed_s / done * left


def in_words(seconds: float) -> str:
    """About how long, for people."""
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {name}"
    return f"about {seconds:.0f} s"


def _broke(record: Record) -> bool:
    return any(run.problem for run in record.cells)
