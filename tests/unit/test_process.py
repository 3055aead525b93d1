"""Waiting for something: how often it is looked at."""

from __future__ import annotations

import time

import pytest

from testbed.errors import DeadlineExceeded
from testbed.process import LONGEST_REST_S, rest_s, wait_until


def test_a_look_is_followed_by_a_longer_rest_but_not_by_a_long_one() -> None:
    assert rest_s(0.05) == 0.1
    assert rest_s(10) == LONGEST_REST_S == 0.25


@pytest.mark.parametrize(("look_s", "every_s", "rest"), [(0.0, 0.02, 0.02), (0.05, 0.02, 0.1), (5.0, 0.02, 0.25), (0.05, 0.5, 0.5)])
def test_what_is_waited_for_is_left_alone_in_between(monkeypatch: pytest.MonkeyPatch, look_s: float, every_s: float, rest: float) -> None:
    now, rests = [0.0], []

    def sleep(seconds: float) -> None:
        rests.append(seconds)
        now[0] += seconds

    def look() -> bool:
        now[0] += look_s
        return len(rests) == 3

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    assert wait_until(look, timeout_s=60, what="the third rest", every_s=every_s)
    assert rests == pytest.approx([rest] * 3)


def test_it_is_looked_at_once_more_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with pytest.raises(DeadlineExceeded, match="a miracle"):
        wait_until(lambda: looks.append(now[0]), timeout_s=0.05, what="a miracle", every_s=0.02)
    assert looks == pytest.approx([0.0, 0.02, 0.04, 0.05])
