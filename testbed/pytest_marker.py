"""What `@pytest.mark.topology(...)` on a test, its class or its module says: which topology, and when its lab is reset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pytest

from testbed.errors import InputError, TestbedError, UnknownName

if TYPE_CHECKING:
    from testbed.topology import Topology

MARKER = "topology"
# Fixtures that say whose `lab` and `host` a test uses: a project may have fixtures of its own by these names.
OUR_LAB, OUR_HOST, TESTINFRAS_HOST = "_testbed", "_testbed_host", "_testinfra_host"
Scope = Literal["function", "class", "module", "session"]
USAGE = '@pytest.mark.topology("pair"): a topology that comes with testbed, the path of a file, or a testbed.Topology'


@dataclass(frozen=True, eq=False)
class Wanted:
    """The lab that a test wants, as pytest hands it to the fixture `lab`: the same object for tests that may share what they do to it.

    ``key`` is the same for two topologies that are the same. ``problem`` is what is wrong with the marker, to be said when the test is
    set up.
    """

    topology: Topology | None = None
    reset: Scope = "function"
    key: str = ""
    problem: TestbedError | None = None


@dataclass(frozen=True)
class Marked:
    """What the marker of a test says. ``hosts`` are those that the fixture `host` is, one after the other."""

    wanted: Wanted
    hosts: tuple[str, ...]


@dataclass
class Reader:
    """Reads markers. What was read is given again for the same marker, as pytest sees by it that two tests share a lab."""

    root: Path
    _read: dict[tuple[str, Scope], Wanted] = field(default_factory=dict)
    _files: dict[Path | str, Topology] = field(default_factory=dict)

    def marked(self, node: pytest.Item | pytest.Collector, path: Path) -> Marked | None:
        """What the closest markers of a test in the file ``path`` say; None without any."""
        marks = closest(levels(node))
        if not marks:
            return None
        try:
            return self._one(marks, path.parent)
        except TestbedError as error:
            return Marked(Wanted(problem=error), ())

    def _one(self, marks: list[pytest.Mark], directory: Path) -> Marked:
        # On one level the order means nothing to a reader, so two may not disagree.
        first, *others = [self._from(mark, directory) for mark in marks]
        for other in others:
            if other != first:
                names = " and ".join(_shown(mark) for mark in reversed(marks))
                raise InputError(
                    f"a test has one topology, and here are {len(marks)} markers: {names}", hint="take one of the markers away"
                )
        return first

    def _from(self, mark: pytest.Mark, directory: Path) -> Marked:
        extra = set(mark.kwargs) - {"reset", "hosts"}
        if len(mark.args) != 1 or extra:
            raise InputError(f"{_shown(mark)} is not what the marker takes", hint=f"{USAGE}; and reset=, hosts=")
        reset = mark.kwargs.get("reset", "function")
        if reset not in get_args(Scope):
            hint = f"one of: {', '.join(get_args(Scope))}; the lab is reset before each of them"
            raise InputError(f"{_shown(mark)}: {reset!r} is nothing that a lab could be reset for", hint=hint)
        topology = self._topology(mark.args[0], directory, _shown(mark))
        hosts = _hosts(mark.kwargs.get("hosts"), topology, _shown(mark))
        key = topology.model_dump_json()
        return Marked(self._read.setdefault((key, reset), Wanted(topology, reset, key)), hosts or tuple(topology.hosts))

    def _topology(self, named: object, directory: Path, shown: str) -> Topology:
        from testbed.topology import Topology

        if isinstance(named, Topology):
            return named
        if not isinstance(named, str | os.PathLike):
            raise InputError(f"{shown}: {named!r} is no topology", hint=USAGE)
        file = self._find(os.fspath(named), directory)
        if file not in self._files:
            from testbed import topology_file

            self._files[file] = topology_file.load(file)
        return self._files[file]

    def _find(self, named: Any, directory: Path) -> Path:
        """A path is relative to the test's own file, else to pytest's root directory; a bare name is of a topology that
        comes with testbed."""
        from testbed import shipped

        path = Path(named)
        if not path.suffix and len(path.parts) == 1:
            if named not in shipped.names():
                raise UnknownName("topology that comes with testbed", named, shipped.names())
            return shipped.directory() / f"{named}.yaml"
        candidates = [directory / path, self.root / path]  # an absolute path is both of them
        found = next((one for one in candidates if one.exists()), None)
        if found is None:
            places = " and ".join(dict.fromkeys(str(one.parent) for one in candidates))
            known = f"; without .yaml it is one that comes with testbed: {', '.join(shipped.names())}"
            raise InputError(f"there is no topology file {path.name}", hint=f"looked for in {places}{known}")
        return found.resolve()


def _hosts(hosts: object, topology: Topology, shown: str) -> tuple[str, ...]:
    """The hosts that a marker names; () for all."""
    if hosts is None:
        return ()
    names = (hosts,) if isinstance(hosts, str) else tuple(hosts) if isinstance(hosts, Iterable) else ()
    if not names or not all(isinstance(one, str) for one in names):
        raise InputError(f"{shown}: hosts= is the name of a host, or a list of names", hint=f"of: {', '.join(topology.hosts)}")
    for name in names:
        if name not in topology.hosts:
            raise UnknownName(f"host of topology '{topology.name}'", name, topology.hosts)
    return tuple(dict.fromkeys(names))


def levels(node: pytest.Item | pytest.Collector) -> Iterator[list[pytest.Mark]]:
    """The topology markers of a test's own, then of its class, then of what the class inherits from, then of its module."""
    for one in node.iter_parents():
        if isinstance(one, pytest.Class):
            for cls in one.obj.__mro__:
                yield _topologies(_as_list(vars(cls).get("pytestmark", [])))
        yield _topologies(one.own_markers)


def closest(marks: Iterable[list[pytest.Mark]]) -> list[pytest.Mark]:
    return next((level for level in marks if level), [])


def _topologies(marks: Iterable[pytest.Mark | pytest.MarkDecorator]) -> list[pytest.Mark]:
    found = [one.mark if isinstance(one, pytest.MarkDecorator) else one for one in marks]
    return [one for one in found if one.name == MARKER]


def _as_list(marks: Any) -> list[pytest.Mark | pytest.MarkDecorator]:
    return list(marks) if isinstance(marks, list | tuple) else [marks]


def _shown(mark: pytest.Mark) -> str:
    """The marker as it is written in a test."""
    words = [_value(one) for one in mark.args] + [f"{name}={_value(value)}" for name, value in mark.kwargs.items()]
    return f"topology({', '.join(words)})"


def _value(value: object) -> str:
    name = getattr(value, "name", None)
    return f"<Topology {name}>" if hasattr(value, "hosts") and isinstance(name, str) else repr(value)


READER = pytest.StashKey[Reader]()


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Let the fixtures of a test with a marker be what it says: so pytest lets the test choose a fixture's scope."""
    config, node, names = metafunc.config, metafunc.definition, metafunc.fixturenames
    marked = config.stash.setdefault(READER, Reader(config.rootpath)).marked(node, node.path)
    if marked is None:
        return
    scope = marked.wanted.reset
    if not _parametrizes(node, "lab"):
        if "lab" not in names:
            names.append("lab")  # for request.getfixturevalue("lab")
        metafunc.parametrize("lab", [marked.wanted], ids=[pytest.HIDDEN_PARAM], indirect=True, scope=scope)
    if OUR_HOST in names and not _parametrizes(node, "host"):
        hosts: Sequence[str | None] = marked.hosts or [None]  # what is wrong with the marker, `lab` will say
        ids = [name or pytest.HIDDEN_PARAM for name in hosts]
        values = [(marked.wanted, name) for name in hosts]
        if TESTINFRAS_HOST in names:
            metafunc.parametrize(["host", TESTINFRAS_HOST], [(one, None) for one in values], ids=ids, indirect=True, scope=scope)
            names.remove(TESTINFRAS_HOST)  # else testinfra runs the test for each of its own hosts as well
        else:
            metafunc.parametrize("host", values, ids=ids, indirect=True, scope=scope)


def wanted(item: pytest.Item) -> Wanted | None:
    """The lab that a test's marker asks for."""
    param = callspec_param(item, "lab")
    return param if isinstance(param, Wanted) else None


def callspec_param(item: pytest.Item, name: str) -> Any:
    """What a fixture of this test is parametrized with; None when it is not."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get(name) if callspec is not None else None


def _parametrizes(node: pytest.Item, name: str) -> bool:
    """Whether a test itself parametrizes a fixture."""
    for mark in node.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        if name in ([one.strip() for one in names.split(",")] if isinstance(names, str) else names):
            return True
    return False
