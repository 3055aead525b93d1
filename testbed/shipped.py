"""The topologies that come with testbed, and which file a name on the command line means."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import TopologyError, UnknownName


def directory() -> Path:
    """topologies/, wherever it is: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    for candidate in (package.parent / "topologies", package / "topologies"):
        if candidate.is_dir():
            return candidate
    raise TopologyError("the folder topologies/ is not there", hint="reinstall testbed, or run it from a complete checkout")


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
