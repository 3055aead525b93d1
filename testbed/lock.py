"""One `up` or `down` of a lab at a time, and whether the last `up` came to its end.

The labels are the truth about a lab; the lock's file only tells that an `up` was killed, so that somebody may wait for
what the engine was still making for it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.errors import LabError

_AT_WORK = "at work"


class Lock:
    """The lock of one lab, held. ``interrupted``: whoever held it last never said that it was done."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.interrupted = bool(os.pread(descriptor, 1, 0))

    def at_work(self) -> None:
        """From now until :meth:`done`, whoever comes after a sudden death knows of it."""
        os.pwrite(self._descriptor, _AT_WORK.encode(), 0)

    def done(self) -> None:
        os.ftruncate(self._descriptor, 0)


@contextmanager
def lock(lab: str) -> Iterator[Lock]:
    """Hold the lock of a lab; its file goes when it has nothing to tell. Raises :class:`LabError` when another testbed command has it."""
    path = own_directory() / f"{lab}.lock"
    descriptor = _hold(path, lab)
    try:
        yield Lock(descriptor)
    finally:
        if os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _hold(path: Path, lab: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LabError(f"another testbed command is bringing lab '{lab}' up or down", hint="try again when it is done") from None
        # Whoever had it may have removed the file between the two: then this is a lock on nothing.
        if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)


def interrupted() -> list[str]:
    """The labs whose last `up` was killed."""
    return sorted(path.stem for path in own_directory().glob("*.lock") if path.stat().st_size)


def own_directory() -> Path:
    """A directory of this user's own, which nobody else can have made."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "testbed" if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir()) / f"testbed-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise LabError(f"{path} belongs to somebody else", hint="remove it, or set TMPDIR to a directory of yours")
    return path
