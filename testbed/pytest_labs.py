"""The labs of one test process: each is brought up when a test first wants it, reset before the next one, and removed at the end.

A lab that cannot be had is tried once: its first test says why, the others point there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from testbed.errors import EngineError, TestbedError
from testbed.topology_values import LONGEST_NAME, slug

if TYPE_CHECKING:
    from testbed.evidence import Evidence
    from testbed.pytest_marker import Wanted
    from testbed.topology import Topology

MENDINGS = 3  # in a row, each a lab made anew since it could not be reset


class RunningLab(Protocol):
    """A lab that is up, to whoever keeps it."""

    @property
    def name(self) -> str: ...
    @property
    def hosts(self) -> Sequence[str]: ...
    @property
    def warnings(self) -> Sequence[str]: ...  # what was not as it should be when it came up, and yet well
    @property
    def lab(self) -> object: ...  # what a test is given
    def host(self, name: str) -> object: ...  # ... as testinfra's host
    def reset(self) -> None: ...
    def begin(self) -> None: ...  # a test begins: what comes from now on is its own
    def gather(self, directory: Path) -> Evidence: ...
    def close(self) -> None: ...
    def down(self) -> None: ...


class Provider(Protocol):
    """Where labs come from."""

    def up(self, topology: Topology) -> RunningLab: ...
    def remove_abandoned(self) -> list[str]: ...


@dataclass
class Cause:
    """Why a lab is not to be had, and the first test that was told so."""

    what: str
    error: TestbedError
    told: str = ""

    def words_for(self, test: str) -> str:
        """All of it for the first test, one line for every other one."""
        if self.told in ("", test):
            self.told = test
            return f"{self.what}: {self.error}"
        return f"{self.what}, as {self.told} says: {_first_line(self.error)}"


class NoLab(Exception):
    """A test cannot have its lab. The plugin shows the cause's words in place of a traceback."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(f"{cause.what}: {cause.error}")
        self.cause = cause


@dataclass
class _Place:
    """A lab of this process; ``used`` when a test has had it."""

    topology: Topology
    running: RunningLab
    used: bool = False
    mended: int = 0  # times in a row


@dataclass
class Labs:
    """All labs of this process. ``most`` may be up at a time; the one not used for longest makes room."""

    provider: Provider
    run: str  # what the labs' names have, to be this run's alone
    most: int
    notes: list[str] = field(default_factory=list)  # for the end of the run
    current: RunningLab | None = None  # the one of the test that runs, if it has one
    _places: dict[str, _Place] = field(default_factory=dict)  # by the topology's key, the last used one last
    _missing: dict[str, Cause] = field(default_factory=dict)
    _no_engine: Cause | None = None
    _numbers: dict[str, int] = field(default_factory=dict)
    _begun: bool = False

    def take(self, wanted: Wanted) -> RunningLab:
        """The lab that is wanted, as it is after `up`. Raises :class:`NoLab`."""
        self.current = None
        if wanted.topology is None:
            assert wanted.problem is not None
            raise NoLab(Cause("the topology marker of this test", wanted.problem))
        if cause := self._no_engine or self._missing.get(wanted.key):
            raise NoLab(cause)
        place = self._places.get(wanted.key)
        if place is None:
            self._make_room()
            self._bring_up(wanted.key, wanted.topology)
        elif place.used:
            self._reset(wanted.key, place)
        place = self._places[wanted.key] = self._places.pop(wanted.key)  # the last one is the one that was used last
        place.used = True
        place.running.begin()
        self.current = place.running
        return place.running

    def end(self, *, keep: bool) -> list[RunningLab]:
        """The end of the run: all labs go, or stay and are given."""
        self.current = None
        kept = [place.running for place in self._places.values()] if keep else []
        for running in kept:
            running.close()
        for key in [] if keep else list(self._places):
            self._take_down(key)
        return kept

    def _named(self, topology: Topology) -> Topology:
        """The topology under a name that no other lab of the engine has; another one of the same name gets a number."""
        ending = f"-{self.run}"
        name = topology.name[: LONGEST_NAME - len(ending) - 4].strip("-")
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        return topology.model_copy(update={"name": slug(f"{name}{f'-{number}' if number > 1 else ''}{ending}")})

    def _make_room(self) -> None:
        while len(self._places) >= self.most:
            self._take_down(next(iter(self._places)))

    def _bring_up(self, key: str, topology: Topology, *, mended: int = 0) -> None:
        try:
            if not self._begun:
                removed = self.provider.remove_abandoned()
                self._begun = True
                self.notes += [removal_note(name) for name in removed]
            running = self.provider.up(self._named(topology))
            self.notes += [f"lab {running.name}: {warning}" for warning in running.warnings]
            self._places[key] = _Place(topology, running, mended=mended)
        except TestbedError as error:
            if isinstance(error, EngineError) and error.status is None:  # it did not even refuse
                self._no_engine = cause = Cause("labs need a Docker engine", error)
            else:
                self._missing[key] = cause = Cause(f"a lab of topology '{topology.name}' did not come up", error)
            raise NoLab(cause) from None

    def _reset(self, key: str, place: _Place) -> None:
        """Reset a lab, or make it anew when that fails: then most likely the last test broke it, and the next one is not to suffer."""
        try:
            place.running.reset()
            place.mended = 0
        except TestbedError as error:
            self._take_down(key)
            if place.mended == MENDINGS:
                what = f"a lab of topology '{place.topology.name}' could not be reset, {MENDINGS + 1} times in a row"
                self._missing[key] = Cause(what, error)
                raise NoLab(self._missing[key]) from None
            self.notes.append(f"lab {place.running.name} could not be reset and was made anew: {_first_line(error)}")
            self._bring_up(key, place.topology, mended=place.mended + 1)

    def _take_down(self, key: str) -> None:
        running = self._places[key].running
        try:
            running.down()
        except TestbedError as error:
            self.notes.append(f"lab {running.name} could not be removed: {_first_line(error)}; remove it with: testbed down {running.name}")
        del self._places[key]


def _first_line(error: TestbedError) -> str:
    return error.message.splitlines()[0]


def removal_note(lab: str) -> str:
    return f"lab {lab} was removed: the process that it belonged to had been killed"
