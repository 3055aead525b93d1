"""One `up` or `down` of a lab at a time, whoever runs it, and whether the last `up` came to its end.

The labels are the truth about a lab; the lock's file only tells that an `up` was killed, so that somebody may wait for
what the engine was still making for it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.errors import LabError
from testbed.process import Deadline

# Where everybody may make a directory. Not TMPDIR: it may be another one for each user.
PLACES = (Path("/run/lock"), Path("/tmp"))
SHARED = 0o2770  # what is made in it has its group
LOOK_S = 0.1  # from one look at a lock that somebody else has to the next
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
def lock(lab: str, socket: Path | None, *, patience_s: float = 0.0) -> Iterator[Lock]:
    """Hold the lock of a lab of the engine with that ``socket`` (None: the engine is on another machine).

    Its file goes when it has nothing to tell. Raises :class:`LabError` when another testbed command has it, for longer than ``patience_s``.
    """
    path = directory(socket) / f"{lab}.lock"
    descriptor = _hold(path, lab, Deadline(patience_s))
    try:
        yield Lock(descriptor)
    finally:
        if os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _hold(path: Path, lab: str, deadline: Deadline) -> int:
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            if not deadline.passed:
                time.sleep(LOOK_S)
                continue
            raise LabError(f"another testbed command is bringing lab '{lab}' up or down", hint="try again when it is done") from None
        # Whoever had it may have removed the file between the two: then this is a lock on nothing.
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def _open(path: Path) -> int:
    """The file, made if it is not there. It has the rights of its directory when it gets its name, whatever the umask is."""
    while True:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        descriptor, new = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            os.fchmod(descriptor, 0o660)
            os.link(new, path)
            return descriptor
        except FileExistsError:
            os.close(descriptor)
        finally:
            Path(new).unlink()


def interrupted(socket: Path | None) -> list[str]:
    """The labs whose last `up` was killed."""
    return sorted(path.stem for path in directory(socket).glob("*.lock") if _tells(path))


def _tells(path: Path) -> bool:
    """Whether it is more than just held."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def directory(socket: Path | None) -> Path:
    """Where the locks of an engine's labs are: in one directory for all who may use its ``socket`` by its group or as root.

    Whoever may use it in another way (an access control list) has a directory, and so locks, of their own; so has everybody
    where the engine is on another machine.
    """
    place = next((one for one in PLACES if one.is_dir() and one.stat().st_mode & 0o1777 == 0o1777), None)
    if socket is None or place is None:
        return own_directory()
    group = socket.stat().st_gid
    path = place / f"testbed-locks-{group}"
    if not os.path.lexists(path) and not _make_shared(path, group):
        return own_directory()
    there = path.lstat()
    # Nobody but root can give anything to a group that they are not in. So somebody who may use the engine has made this.
    if (there.st_gid, stat.S_IMODE(there.st_mode)) != (group, SHARED):
        raise LabError(f"{path} was not made by testbed, or has been changed", hint="remove it")
    return path if os.access(path, os.W_OK) else own_directory()


def _make_shared(path: Path, group: int) -> bool:
    """Make a directory for a group; False when this user may not. It has its rights when it gets its name."""
    new = Path(tempfile.mkdtemp(prefix=f"{path.name}.", dir=path.parent))
    try:
        os.chown(new, -1, group)
        new.chmod(SHARED)
        new.rename(path)
    except OSError:
        new.rmdir()
    return os.path.lexists(path)  # perhaps somebody was faster


def own_directory() -> Path:
    """A directory of this user's own, which nobody else can have made."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "testbed" if runtime and Path(runtime).is_dir() else Path(tempfile.gettempdir()) / f"testbed-{os.geteuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.is_symlink() or path.stat().st_uid != os.geteuid():
        raise LabError(f"{path} belongs to somebody else", hint="remove it, or set TMPDIR to a directory of yours")
    return path
