"""What is said while somebody waits."""

from __future__ import annotations

import io

import pytest

from testbed import progress as module
from testbed.progress import Progress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Screen(io.StringIO):
    """What a terminal was told."""

    def isatty(self) -> bool:
        return True


def test_without_a_terminal_a_quick_command_says_nothing(clock: Clock) -> None:
    plain = io.StringIO()
    with Progress(total=30, out=plain) as progress:
        for number in range(30):
            progress(f"h{number}", "starting")
            progress(f"h{number}", "ready")
    assert plain.getvalue() == ""


def test_without_a_terminal_a_slow_one_says_a_line_now_and_then(clock: Clock) -> None:
    plain = io.StringIO()
    with Progress(total=30, out=plain) as progress:
        for number in range(30):
            clock.now += 0.4
            progress(f"h{number}", "ready")
    lines = plain.getvalue().splitlines()
    assert lines[0] == "3 of 30 hosts ready, h2: ready"
    assert len(lines) == 10


def test_every_step_of_an_image_is_said(clock: Clock) -> None:
    plain = io.StringIO()
    with Progress(out=plain) as progress:
        progress("host-s390x", "root file system")
        progress("host-s390x", "importing")
    assert plain.getvalue() == "host-s390x: root file system\nhost-s390x: importing\n"


def test_on_a_terminal_one_line_moves_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    with Progress(total=2, out=screen) as progress:
        progress("a", "starting")
        progress("a", "ready")
    assert "1 of 2 hosts ready, a: ready" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[1A\x1b[2K"), "one line up, and that line erased"


def test_brackets_are_no_markup(clock: Clock) -> None:
    plain = io.StringIO()
    with Progress(out=plain) as progress:
        progress("host-x", "step [1/2]")
    assert plain.getvalue() == "host-x: step [1/2]\n"
