"""Real labs for tests: where :mod:`testbed.pytest_labs` gets them from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import evidence
from testbed import lab as labs
from testbed.api import Lab
from testbed.engine import Engine
from testbed.errors import LabError
from testbed.evidence import Evidence
from testbed.recording import Recording
from testbed.runs import this_run
from testbed.transcript import Transcript
from testbed.up import up

if TYPE_CHECKING:
    from testbed.topology import Topology


class EngineLab:
    """A lab of the engine that is up, with what is noted of it for the case that a test fails."""

    def __init__(self, name: str, warnings: Sequence[str], *, record: bool) -> None:
        self.name = name
        self.warnings = warnings
        self.lab = Lab.attach(name)
        self.hosts = list(self.lab.hosts)
        for host in self.lab.hosts.values():
            host.transcript = Transcript()
        self._recording = None
        try:
            self._recording = Recording(self.lab.running) if record else None
        except LabError as error:
            self.lab.close()
            error.hint = "without a recording of its networks: pytest -o testbed_record=false"
            raise

    def host(self, name: str) -> object:
        """testinfra's host, with the testbed.Host as its ``testbed``."""
        from testbed.testinfra_backend import as_testinfra  # only where testinfra is installed

        host = self.lab.host(name)
        made = as_testinfra(host)
        made.testbed = host
        return made

    def reset(self) -> None:
        self.lab.reset()

    def begin(self) -> None:
        for host in self.lab.hosts.values():
            if host.transcript is not None:
                host.transcript.clear()
        if self._recording is not None:
            self._recording.mark()

    def gather(self, directory: Path) -> Evidence:
        return evidence.gather(self.lab.running, directory, recording=self._recording)

    def close(self) -> None:
        if self._recording is not None:
            self._recording.close()
        self.lab.close()

    def down(self) -> None:
        self.close()
        self.lab.down()


class EngineLabs:
    """Labs of a Docker engine. They are this process's and go with it, also when it is killed, unless ``keep``; with ``record`` their
    networks are recorded."""

    def __init__(self, *, keep: bool, record: bool) -> None:
        self._run = None if keep else this_run()
        self._record = record

    def up(self, topology: Topology) -> EngineLab:
        """Bring a lab up. Raises :class:`TestbedError`, and then nothing is left of it."""
        engine = Engine()
        try:
            outcome = up(engine, topology, new=True, run=self._run)
            try:
                return EngineLab(topology.name, outcome.warnings, record=self._record)
            except BaseException:
                labs.down(engine, topology.name)
                raise
        finally:
            engine.close()

    def remove_abandoned(self) -> list[str]:
        """Remove the labs of runs that were killed, and give their names. Several runs may do that at the same time."""
        engine = Engine()
        try:
            return labs.remove_abandoned(engine)
        finally:
            engine.close()
