"""What comes with testbed besides the package: images/, setup/, topologies/. In a checkout they are beside it, when installed inside it."""

from __future__ import annotations

import shlex
import sys
from functools import cache
from pathlib import Path

from testbed.errors import LabError, UnknownName

PACKAGE = Path(__file__).resolve().parent


@cache
def folder(name: str) -> Path:
    """The folder called ``name``: images, setup or topologies. Raises :class:`LabError` when testbed is not complete."""
    # Inside first: beside an installed package is whatever else is installed.
    for candidate in (PACKAGE / name, PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise LabError(f"the folder {name}/ is not there", hint="reinstall testbed, or run it from a complete checkout")


def setup_command() -> str:
    """What a user runs to bring what this machine lacks."""
    return "testbed setup" if (PACKAGE / "setup").is_dir() else "make setup"


def as_root(verb: str) -> str:
    """What a user types to run a verb of this testbed as root."""
    return f"sudo {shlex.quote(sys.executable)} -m testbed {verb}"


def directory() -> Path:
    """topologies/, wherever it is."""
    return folder("topologies")


def names() -> list[str]:
    """The topologies that come with testbed."""
    return sorted(path.stem for path in directory().glob("*.yaml"))


def find(file: str) -> Path:
    """The file that ``file`` means: itself, or the topology of that name that comes with testbed."""
    path = Path(file)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path  # if it is not there, whoever reads it says so
    if file not in names():
        raise UnknownName("topology (a file, or one that comes with testbed)", file, names())
    return directory() / f"{file}.yaml"
