"""One `up` of a lab at a time, and what a killed one leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.errors import InputError, LabError
from testbed.lock import interrupted, lock


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "testbed"


def test_a_second_holder_is_told_to_wait() -> None:
    with lock("lab"), pytest.raises(LabError, match="another testbed command is bringing lab 'lab' up or down") as caught, lock("lab"):
        pass
    assert "try again" in caught.value.hint


def test_other_labs_and_later_holders_are_not_kept_waiting() -> None:
    with lock("one"), lock("two"):
        pass
    with lock("one") as held:
        assert not held.interrupted


def test_work_that_was_done_leaves_no_word() -> None:
    with lock("lab") as held:
        held.at_work()
        held.done()
    assert interrupted() == []


def test_nothing_stays_of_a_lock_that_has_nothing_to_tell(place: Path) -> None:
    with lock("pair") as held:
        held.at_work()
        held.done()
    with pytest.raises(InputError), lock("other"):
        raise InputError("found before any work")
    assert list(place.rglob("*.lock")) == []


def test_work_that_was_given_up_is_known_to_the_next() -> None:
    with lock("lab") as held:
        held.at_work()
    assert interrupted() == ["lab"]
    with lock("lab") as held:
        assert held.interrupted
        held.done()
    assert interrupted() == []


def test_a_killed_process_gives_the_lock_back_and_is_known() -> None:
    script = "from testbed.lock import lock\nwith lock('lab') as held:\n    held.at_work()\n    print('held', flush=True)\n    input()\n"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LabError), lock("lab"):
            pass
        process.send_signal(signal.SIGKILL)
    with lock("lab") as held:
        assert held.interrupted


def test_the_directory_is_for_this_user_alone(place: Path) -> None:
    with lock("lab"):
        assert place.stat().st_mode & 0o777 == 0o700
        assert (place / "lab.lock").stat().st_mode & 0o777 == 0o600


def test_a_directory_of_somebody_else_is_not_trusted(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LabError, match="belongs to somebody else"), lock("lab"):
        pass
    assert os.listdir(tmp_path / "elsewhere") == []  # noqa: PTH208  # short


def test_a_link_in_the_place_of_the_lock_is_not_followed(place: Path, tmp_path: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "lab.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"), lock("lab"):
        pass
    assert not (tmp_path / "victim").exists()
