"""One `up` of a lab at a time, and what a killed one leaves behind."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from testbed import lock as locks
from testbed.errors import InputError, LabError
from testbed.lock import Lock


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's own directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "testbed"


@pytest.fixture
def socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine's socket on a machine with a place for the locks of all, which is `shared`."""
    everybodys = tmp_path / "run-lock"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    monkeypatch.setattr(locks, "PLACES", (tmp_path / "absent", everybodys))
    (tmp_path / "docker.sock").touch()
    return tmp_path / "docker.sock"


@pytest.fixture
def shared(socket: Path) -> Path:
    """Where the locks of its group are, as soon as somebody has made it."""
    return socket.parent / "run-lock" / f"testbed-locks-{socket.stat().st_gid}"


def lock(lab: str) -> AbstractContextManager[Lock]:
    """A lock of this user's own: the engine is elsewhere."""
    return locks.lock(lab, None)


def interrupted() -> list[str]:
    return locks.interrupted(None)


def test_a_second_holder_is_told_to_wait() -> None:
    with lock("lab"), pytest.raises(LabError, match="another testbed command is bringing lab 'lab' up or down") as caught, lock("lab"):
        pass
    assert "try again" in caught.value.hint


def test_who_has_patience_waits_until_the_first_one_is_done() -> None:
    order = []

    def second() -> None:
        with locks.lock("lab", None, patience_s=10):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with lock("lab"):
            waiting = pool.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=2 * locks.LOOK_S)
            order.append("first")
        waiting.result(timeout=10)
    assert order == ["first", "second"]


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
    script = (
        "from testbed.lock import lock\nwith lock('lab', None) as held:\n    held.at_work()\n    print('held', flush=True)\n    input()\n"
    )
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
        assert (place / "lab.lock").is_file()


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


def test_the_locks_of_an_engine_are_for_all_of_its_group_whatever_the_umask_is(socket: Path, shared: Path) -> None:
    before = os.umask(0o077)
    try:
        with locks.lock("lab", socket) as held:
            held.at_work()
    finally:
        os.umask(before)
    assert (shared.stat().st_gid, stat.S_IMODE(shared.stat().st_mode)) == (socket.stat().st_gid, 0o2770)
    assert stat.S_IMODE((shared / "lab.lock").stat().st_mode) == 0o660
    assert [path.name for path in shared.iterdir()] == ["lab.lock"]
    assert list(shared.parent.iterdir()) == [shared]
    assert locks.interrupted(socket) == ["lab"]
    assert interrupted() == [], "that is another place"


def test_a_lab_of_an_engine_has_one_lock(socket: Path, shared: Path) -> None:
    with locks.lock("lab", socket), pytest.raises(LabError, match="another testbed command"), locks.lock("lab", socket):
        pass
    assert list(shared.iterdir()) == []


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(socket: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had it removed its file after we had opened it, and before it was ours."""
    flock = fcntl.flock
    files: list[tuple[int, int]] = []

    def late(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        if not files:
            (shared / "lab.lock").unlink()
        files.append((os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino))

    monkeypatch.setattr(fcntl, "flock", late)
    with locks.lock("lab", socket):
        there = (shared / "lab.lock").stat()
        assert len(files) == 2
        assert files[1] == (there.st_dev, there.st_ino)


def test_many_at_once_are_one_after_the_other(socket: Path) -> None:
    """None of them has the lock together with another, while its file comes and goes."""
    holders: list[int] = []
    refusal, refusals = "another testbed command is bringing lab 'lab' up or down", set[str]()

    def work(number: int) -> int:
        done = 0
        while done < 20 and refusals <= {refusal}:
            try:
                with locks.lock("lab", socket):
                    holders.append(number)
                    assert holders == [number]
                    holders.pop()
                    done += 1
            except LabError as error:
                refusals.add(error.message)
        return done

    with ThreadPoolExecutor(4) as workers:
        assert list(workers.map(work, range(4))) == [20] * 4


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a directory to any group")


@pytest.mark.parametrize("fault", ["other rights", "for everybody", "a link", pytest.param("another group", marks=only_root)])
def test_a_shared_directory_that_somebody_else_can_have_made_is_not_trusted(socket: Path, shared: Path, fault: str) -> None:
    with locks.lock("lab", socket):
        pass
    if fault == "a link":
        shared.rename(shared.with_name("elsewhere"))
        shared.symlink_to("elsewhere")
    elif fault == "for everybody":
        shared.chmod(0o2777)
    elif fault == "another group":
        os.chown(shared, -1, socket.stat().st_gid + 1)
        shared.chmod(0o2770)
    else:
        shared.chmod(0o755)
    with pytest.raises(LabError, match="was not made by testbed") as caught, locks.lock("lab", socket):
        pass
    assert str(shared) in caught.value.message


def test_who_may_not_give_to_the_engines_group_has_locks_of_their_own(
    socket: Path, shared: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    with locks.lock("lab", socket):
        assert (place / "lab.lock").is_file()
    assert list(shared.parent.iterdir()) == []


def test_without_a_place_for_everybody_locks_are_this_users_own(socket: Path, shared: Path, place: Path) -> None:
    shared.parent.chmod(0o755)
    with locks.lock("lab", socket):
        assert (place / "lab.lock").is_file()
