"""Labs for tests of the pytest plugin: they cost nothing, do nothing, and everything that was asked of them is in a file.

A test project uses them with this in its conftest.py:

    import tests.fake_labs
    tests.fake_labs.use("asked.txt")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from testbed import pytest_run
from testbed.errors import EngineError, LabError
from testbed.evidence import Evidence
from testbed.recording import Saved
from testbed.topology import Topology


@dataclass
class FakeLabs:
    """Writes a line for everything that is asked, with the process that asked. ``fails`` gives the error for a line, if any."""

    asked: Path
    fails: Callable[[str], Exception | None] = lambda _: None
    abandoned: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def ask(self, what: str) -> None:
        with self.asked.open("a") as file:
            file.write(f"{what}\n")
        if error := self.fails(what):
            raise error

    def up(self, topology: Topology) -> FakeLab:
        self.ask(f"up {topology.name}")
        return FakeLab(self, topology, self.warnings)

    def remove_abandoned(self) -> list[str]:
        self.ask("remove abandoned")
        return list(self.abandoned)


@dataclass
class FakeLab:
    labs: FakeLabs
    topology: Topology
    warnings: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.topology.name

    @property
    def hosts(self) -> list[str]:
        return list(self.topology.hosts)

    @property
    def lab(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.name)

    def host(self, name: str) -> str:
        return f"{self.name}/{name}"

    def reset(self) -> None:
        self.labs.ask(f"reset {self.name}")

    def begin(self) -> None:
        pass

    def gather(self, directory: Path) -> Evidence:
        self.labs.ask(f"gather {self.name}")
        directory.mkdir(parents=True)
        (directory / "sockets.txt").write_text("LISTEN 0.0.0.0:8001")
        texts = {"server/sockets.txt": "LISTEN 0.0.0.0:8001"}
        return Evidence(directory, f"listens\nall of it: {directory}", texts, {"lan.pcap": Saved(directory / "lan.pcap", 3)})

    def close(self) -> None:
        self.labs.ask(f"close {self.name}")

    def down(self) -> None:
        self.labs.ask(f"down {self.name}")


def use(asked: str | Path, *, fails: dict[str, str] | None = None, abandoned: Sequence[str] = (), warnings: Sequence[str] = ()) -> None:
    """From now on the plugin's labs in this process are such. ``fails``: beginning of a line -> the error's message; "engine: ..." is
    an engine that does not answer."""
    path = Path(asked).resolve()

    def failure(what: str) -> Exception | None:
        for beginning, message in (fails or {}).items():
            if what.startswith(beginning):
                engine, _, rest = message.partition("engine: ")
                return EngineError(rest, hint="start it") if rest and not engine else LabError(message)
        return None

    def made(*, keep: bool, record: bool) -> FakeLabs:
        labs = FakeLabs(path, failure, abandoned, warnings)
        labs.ask(f"begin keep={keep} record={record}")
        return labs

    pytest_run.make_provider = made
