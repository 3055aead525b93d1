"""Experiments side by side: several labs, each with one experiment at a time. Most of an experiment is waiting: for timers, for answers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from testbed.api import Lab
from testbed.change import Progress, silent
from testbed.engine import Engine
from testbed.errors import LabError
from testbed.experiment import Experiment
from testbed.experiment_run import On, topology
from testbed.lab import remove_abandoned, side_by_side
from testbed.process import Deadline

T = TypeVar("T")
R = TypeVar("R")
RESET_S = 120.0  # the longest that a reset of a lab's hosts takes, guests that are booted too
LOOK_S = 1.0  # how often a wait for another thread is looked up from, as Ctrl-C may come a moment before it begins


class Stopped(LabError):
    """What runs is to end, since something else broke or the user wants it so."""


class Lanes:
    """A context manager with the labs of these experiments. One is brought up when it is wanted and none that is there is free; all are
    removed at the end. Any number of threads may take one."""

    def __init__(self, wanted: Iterable[tuple[Experiment, On]], *, progress: Progress = silent) -> None:
        self._wanted = list(wanted)
        self._progress = progress
        self._lock = threading.Lock()
        self._free: dict[tuple[On, tuple[str, ...]], list[Lab]] = {}
        self._all: list[Lab] = []
        self._number = 0
        self._stopping = False

    def __enter__(self) -> Lanes:
        engine = Engine()
        try:
            remove_abandoned(engine)  # of a run that was killed
        finally:
            engine.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def lab(self, experiment: Experiment, on: On) -> Iterator[Lab]:
        """A lab with the hosts that this experiment needs, for this block alone. Raises :class:`Stopped`."""
        key = (on, experiment.subjects)
        with self._lock:
            free = self._free.setdefault(key, [])
            lab = free.pop() if free else None
        lab = lab or self._bring_up(experiment, on)
        self.go_on()
        yield lab
        # A lab in which something broke is not given to another one.
        with self._lock:
            if not self._stopping:
                self._free[key].append(lab)

    def go_on(self, *_: object) -> None:
        """Raises :class:`Stopped` when what runs is to end."""
        if self._stopping:
            raise Stopped("stopped")

    def stop(self) -> None:
        """Remove all labs, also those that are in use: what runs there ends with an error. Again is fine."""
        with self._lock:
            self._stopping = True
            labs, self._all = self._all, []
            self._free.clear()
        side_by_side(_down, labs)

    def _bring_up(self, experiment: Experiment, on: On) -> Lab:
        with self._lock:
            self.go_on()
            self._number += 1
            name = f"experiment-{os.getpid()}-{self._number}"
        alike = [one for one, its in self._wanted if its == on and one.subjects == experiment.subjects]
        lab = Lab.from_topology(topology(name, alike, on), progress=self._progress)
        lab.up()
        with self._lock:
            stopping = self._stopping
            if not stopping:
                self._all.append(lab)
        if stopping:
            lab.down()
            self.go_on()
        return lab


def _down(lab: Lab) -> None:
    """Remove a lab. One that is being reset by the thread that has it is locked until that is done."""
    deadline = Deadline(RESET_S)
    while True:
        try:
            lab.down()
            return
        except LabError:
            if deadline.passed:
                raise
        time.sleep(0.1)


def in_order(
    work: Callable[[T], R], tasks: Sequence[T], *, jobs: int, stop: Callable[[], None], length: Callable[[T], float] = lambda _: 0
) -> Generator[R]:
    """``work`` of every task, ``jobs`` at a time; gives the results in the order of the tasks, each as soon as it can be. They are begun in
    that order too, but for those of another ``length``: the longest first, so that none is left to run alone at the end.

    When a task fails, or whoever takes the results ends, no other is begun, ``stop`` is called, by any thread and maybe several times,
    which is to end those that run, and when they have ended the first error is raised. To be closed (``contextlib.closing``) by who may
    not take all results.
    """
    pool = ThreadPoolExecutor(jobs)
    failed: list[BaseException] = []
    all_given = threading.Event()  # none may fail before: nothing more could be given to a pool that was shut down

    def end() -> None:
        pool.shutdown(wait=False, cancel_futures=True)
        stop()

    def one(task: T) -> R:
        all_given.wait()
        try:
            return work(task)
        except BaseException as error:
            failed.append(error)
            end()
            raise

    begun = sorted(range(len(tasks)), key=lambda index: -length(tasks[index]))
    try:
        futures = {index: pool.submit(one, tasks[index]) for index in begun}
        all_given.set()
        for index in range(len(tasks)):
            yield _result(futures[index])
    except BaseException as error:
        end()
        if failed and isinstance(error, Exception):
            raise failed[0] from None  # the others failed since all was stopped
        raise
    finally:
        all_given.set()
        pool.shutdown(cancel_futures=True)


def _result(future: Future[R]) -> R:
    while True:
        try:
            return future.result(LOOK_S)
        except TimeoutError:
            if future.done():
                return future.result()
