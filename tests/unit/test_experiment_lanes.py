"""What runs side by side without hosts: results in order, and an end that waits for all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from testbed import experiment_find as finding
from testbed import experiment_lanes
from testbed.errors import InputError, LabError
from testbed.experiment_lanes import Lanes, Stopped, in_order
from testbed.experiment_run import On

PATIENCE_S = 20
NATIVE = On.named("native")
ONE = finding.known()["htonl"]


def never() -> None:
    raise AssertionError("nothing is to be stopped")


def test_results_come_in_the_order_of_the_tasks() -> None:
    second_is_done = threading.Event()

    def work(task: int) -> int:
        if task == 1:
            assert second_is_done.wait(PATIENCE_S)
        if task == 2:
            second_is_done.set()
        return task * task

    assert list(in_order(work, [1, 2, 3], jobs=2, stop=never)) == [1, 4, 9]


def test_so_many_run_at_a_time_and_no_more() -> None:
    running, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(2)

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait(PATIENCE_S)  # never passed unless two are here
        with lock:
            running -= 1

    list(in_order(work, range(6), jobs=2, stop=never))
    assert most == 2


def test_the_longest_are_begun_first_and_the_results_are_in_order() -> None:
    begun: list[int] = []

    def work(task: int) -> int:
        begun.append(task)
        return task

    assert list(in_order(work, [1, 3, 2, 3], jobs=1, stop=never, length=float)) == [1, 3, 2, 3]
    assert begun == [3, 3, 2, 1]


def test_with_one_job_each_waits_for_the_one_before() -> None:
    threads = set(in_order(lambda _: threading.get_ident(), range(5), jobs=1, stop=never))
    assert len(threads) == 1


@pytest.fixture
def stop() -> Iterator[tuple[Callable[[], None], threading.Event]]:
    stopped = threading.Event()
    yield stopped.set, stopped
    stopped.set()


def test_the_first_failure_ends_the_others_and_is_raised(stop: tuple[Callable[[], None], threading.Event]) -> None:
    begun, ended = [], []

    def work(task: int) -> None:
        begun.append(task)
        if task == 2:
            raise InputError("broken")
        assert stop[1].wait(PATIENCE_S)
        ended.append(task)
        raise Stopped("stopped")

    with pytest.raises(InputError):
        list(in_order(work, [1, 2, 3, 4], jobs=2, stop=stop[0]))
    assert ended == [1]
    assert set(begun) == {1, 2}


def test_a_failure_while_others_are_still_given_out_is_the_one_that_is_raised(stop: tuple[Callable[[], None], threading.Event]) -> None:
    def work(task: int) -> None:
        raise InputError(f"broken: {task}")

    with pytest.raises(InputError, match="broken: 0"):
        list(in_order(work, range(2000), jobs=1, stop=stop[0]))


def test_whoever_takes_no_more_ends_them_all(stop: tuple[Callable[[], None], threading.Event]) -> None:
    ended = []

    def work(task: int) -> int:
        if task > 1:
            assert stop[1].wait(PATIENCE_S)
            ended.append(task)
        return task

    with closing(in_order(work, range(1, 9), jobs=2, stop=stop[0])) as results:
        assert next(results) == 1
    assert len(ended) <= 2  # those that had begun


class NoLab:
    """A lab in which nothing is."""

    def __init__(self, there: list[NoLab]) -> None:
        self.there = there
        self.downs = 0

    def up(self) -> None:
        self.there.append(self)

    def down(self) -> None:
        self.downs += 1


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[NoLab]:
    made: list[NoLab] = []

    class Labs(NoLab):
        @classmethod
        def from_topology(cls, *_: Any, **__: Any) -> NoLab:
            return cls(made)

    monkeypatch.setattr(experiment_lanes, "Lab", Labs)
    return made


def test_a_lab_is_used_again_and_another_one_made_when_it_is_not_free(there: list[NoLab]) -> None:
    lanes = Lanes([(ONE, NATIVE), (ONE, On.named("vm"))])
    with lanes.lab(ONE, NATIVE) as first:
        pass
    with lanes.lab(ONE, NATIVE) as again, lanes.lab(ONE, NATIVE) as other:
        assert again is first is not other
    with lanes.lab(ONE, On.named("vm")):
        assert len(there) == 3
    lanes.stop()
    lanes.stop()
    assert [one.downs for one in there] == [1, 1, 1]


def test_a_lab_in_which_something_broke_is_not_used_again(there: list[NoLab]) -> None:
    lanes = Lanes([(ONE, NATIVE)])
    with pytest.raises(InputError), lanes.lab(ONE, NATIVE) as broken:
        raise InputError("broken")
    with lanes.lab(ONE, NATIVE) as other:
        assert other is not broken
    lanes.stop()
    assert [one.downs for one in there] == [1, 1]


def test_nothing_begins_once_all_is_to_end(there: list[NoLab]) -> None:
    lanes = Lanes([(ONE, NATIVE)])
    lanes.stop()
    with pytest.raises(Stopped), lanes.lab(ONE, NATIVE):
        pass
    assert not there
    with pytest.raises(Stopped):
        lanes.go_on(1, 2)


def test_a_lab_that_comes_up_too_late_is_removed(there: list[NoLab], monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes([(ONE, NATIVE)])

    def up(self: NoLab) -> None:
        there.append(self)
        lanes.stop()

    monkeypatch.setattr(NoLab, "up", up)
    with pytest.raises(Stopped), lanes.lab(ONE, NATIVE):
        pass
    assert [one.downs for one in there] == [1]


def test_a_lab_that_is_being_reset_is_removed_when_that_is_over(there: list[NoLab], monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([LabError("another testbed command is bringing lab 'x' up or down"), None])

    def down(self: NoLab) -> None:
        self.downs += 1
        if error := next(answers):
            raise error

    monkeypatch.setattr(NoLab, "down", down)
    lanes = Lanes([(ONE, NATIVE)])
    with lanes.lab(ONE, NATIVE):
        lanes.stop()
    assert [one.downs for one in there] == [2]
