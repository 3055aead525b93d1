"""Another user of this machine, who is not root: what they run comes from a copy of this checkout that they may read."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import images
from testbed.process import Result, run_local
from tests.lab.support import LIMIT_S

UID = 54321  # nobody's on any machine that we know of
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else; whoever is not runs all of these tests so")


@dataclass(frozen=True)
class OtherUser:
    """``groups`` are those that they are in besides their own; the copy of the checkout is in their ``home``."""

    groups: Sequence[int]
    home: Path
    libraries: str

    def command(self, *argv: str | Path) -> list[str]:
        """Their command, for root to run; :attr:`environment` goes with it."""
        return [*_as_other(self.groups), *map(str, argv)]

    def python(self, *arguments: str | Path) -> list[str]:
        return self.command(readable_python(), *arguments)

    @property
    def environment(self) -> dict[str, str]:
        # As Debian has it for those who are not root: programs for root are not in it.
        path = "/usr/local/bin:/usr/bin:/bin"
        modules = f"{self.home / 'checkout'}{os.pathsep}{self.libraries}"
        return {"PATH": path, "HOME": str(self.home), "TMPDIR": str(self.home), "PYTHONPATH": modules}

    def run(self, argv: Sequence[str], *, stdin: bytes = b"") -> Result:
        return run_local(argv, stdin=stdin, directory=self.home, environment=self.environment, timeout_s=LIMIT_S)

    def testbed(self, *arguments: str | Path, stdin: bytes = b"") -> Result:
        return self.run(self.python("-m", "testbed", *arguments), stdin=stdin)


@contextmanager
def other_user(groups: Sequence[int] = ()) -> Iterator[OtherUser]:
    """Another user in some groups, with a home of their own, as long as the block runs."""
    # Not in pytest's own temporary directory, which every new pytest closes to others.
    with tempfile.TemporaryDirectory(prefix="testbed-other-") as place:
        home = Path(place)
        copied(home / "checkout")
        libraries = [path for path in sys.path if path.endswith("-packages")]
        if run_local([*_as_other(groups), "ls", *libraries]).exit_code != 0:
            ignored = shutil.ignore_patterns("__pycache__", "mypy*", "ruff*", "pip*")
            for number, library in enumerate(libraries):
                shutil.copytree(library, home / f"libraries-{number}", ignore=ignored)
            libraries = [str(home / f"libraries-{number}") for number in range(len(libraries))]
        for path in (home, *home.rglob("*")):
            os.chown(path, UID, UID)
        yield OtherUser(groups, home, os.pathsep.join(libraries))


def _as_other(groups: Iterable[int]) -> list[str]:
    more = ",".join(map(str, groups))
    return ["setpriv", f"--reuid={UID}", f"--regid={UID}", f"--groups={more}" if more else "--clear-groups"]


def group_of(socket: Path) -> int:
    """Who is in it may use the engine."""
    assert socket.stat().st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP
    return socket.stat().st_gid


def readable_python() -> str:
    """An interpreter of this version that anybody may run: this one, or the machine's."""
    wanted = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info[1]}", f"/usr/local/bin/python3.{sys.version_info[1]}"):
        if run_local([*_as_other(()), candidate, "-c", wanted]).exit_code == 0:
            return candidate
    raise AssertionError(f"no Python {sys.version_info[:2]} that other users may run")


def copied(folder: Path) -> Path:
    """A copy of this checkout's package with what it comes with."""
    checkout = images.directory().parent
    for name in ("testbed", "images", "topologies", "setup"):
        shutil.copytree(checkout / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "build", "*.o"))
    return folder
