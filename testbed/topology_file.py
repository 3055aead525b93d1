"""A topology file: YAML with ``defaults:`` and ``count:`` becomes a :class:`Topology`, and every error knows its line and column."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from testbed.errors import TopologyError, did_you_mean
from testbed.topology import MOST_HOSTS, MOST_OF_A_COUNT, Host, Network, Topology, keys_at
from testbed.topology_parts import SOME_HOST
from testbed.topology_problems import Problem, Step, problems_of, topology_error
from testbed.topology_values import shown, slug
from testbed.topology_yaml import MOST_CHARACTERS, Node, Position, end_of, read


def load(path: Path | str) -> Topology:
    """The topology in a file. Without a ``name:`` it is called like the file. Raises :class:`TopologyError`."""
    path = Path(path)
    return parse(_text_of(path), file=str(path), name=slug(path.stem), directory=path.parent)


def parse(text: str, *, file: str = "", name: str = "", directory: Path | None = None) -> Topology:
    """The topology in ``text``. ``file`` is what errors call it, ``name`` its name when it has none of its own.

    A host's files with a relative ``source:`` are looked for in ``directory``; when that is None, nothing is looked for.
    Raises :class:`TopologyError` for the first line that is not YAML, or for everything that is wrong with the topology.
    """
    root = read(text, file=file)
    if not isinstance(root.value, dict):
        line, column = root.at
        hint = "a topology is a mapping with networks: and hosts:"
        raise TopologyError("this is not a topology", file=file, line=line, column=column, hint=hint)
    expansion = _Expansion(root, directory)
    data = expansion.data
    if name and data.get("name") is None:
        data["name"] = name
    problems = list(expansion.problems)
    try:
        topology = Topology.model_validate(data)
    except ValidationError as error:
        problems += expansion.in_file(problems_of(error, keys_at))
    else:
        if not problems:
            return topology
    raise topology_error(problems, file=file, locate=expansion.locate)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a topology file, for editors. It describes the file, with its short forms."""
    from testbed import topology_schema

    return topology_schema.json_schema()


def _text_of(path: Path) -> str:
    file = str(path)
    try:
        with path.open("rb") as stream:
            if stat.S_ISDIR(os.fstat(stream.fileno()).st_mode):
                raise IsADirectoryError
            # One character may take four bytes; a file that never ends is not read to its end.
            data = stream.read(4 * MOST_CHARACTERS + 4)
    except FileNotFoundError:
        raise TopologyError(f"there is no such file{_similar_file(path)}", file=file) from None
    except IsADirectoryError:
        raise TopologyError("this is a directory", file=file, hint="name a file in it") from None
    except PermissionError:
        raise TopologyError("the file may not be read", file=file, hint="look at its permissions, and its directory's") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TopologyError(f"the file cannot be read: {reason.lower()}", file=file.replace("\0", "\\0")) from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = end_of(data[: error.start].decode("utf-8"))
        raise TopologyError("the file is not UTF-8 text", file=file, line=line, column=column, hint="save it as UTF-8") from None


def _similar_file(path: Path) -> str:
    try:
        beside = [one.name for one in path.parent.iterdir() if one.suffix in (".yaml", ".yml")]
    except (OSError, ValueError):
        return ""
    return did_you_mean(path.name, beside)


class _Expansion:
    """The data of a file with ``defaults:`` merged in and ``count:`` expanded, and the way from its paths back to positions."""

    def __init__(self, root: Node, directory: Path | None) -> None:
        self.problems: list[Problem] = []
        self._root = root
        self._origins: dict[str, str] = {}  # host -> its key in the file
        self.data: dict[str, Any] = root.plain()
        defaults = self._defaults(self.data.pop("defaults", None))
        if isinstance(self.data.get("networks"), dict):
            self._refuse_names("networks", self.data["networks"], Network.__name__.lower())
        if isinstance(self.data.get("hosts"), dict):
            self._refuse_names("hosts", self.data["hosts"], Host.__name__.lower())
            self.data["hosts"] = dict(self._hosts(self.data["hosts"], defaults))
            if directory is not None:
                self._find_sources(self.data["hosts"], directory)

    def _defaults(self, defaults: Any) -> dict[str, Any]:
        if defaults is None:
            return {}
        if not isinstance(defaults, dict):
            self.problems.append(Problem(("defaults",), "this is not a mapping", f"keys here: {_listed(('defaults',))}"))
            return {}
        for key in ("name", "count"):
            if key in defaults:
                message = f"'{key}' cannot be the same for all hosts"
                self.problems.append(Problem(("defaults", key), message, f"keys here: {_listed(('defaults',))}", on_key=True))
                del defaults[key]
        try:
            Host.model_validate({"name": "defaults", **defaults}, context=SOME_HOST)
        except ValidationError as error:
            # An error without a place is a contradiction between values, which a host may put right; the rest is wrong for all.
            if any(one["loc"] for one in error.errors()):
                found = problems_of(error, _default_keys)
                self.problems += [Problem(("defaults", *one.path), one.message, one.hint, one.on_key) for one in found]
        return defaults

    def _refuse_names(self, place: str, parts: dict[str, Any], what: str) -> None:
        for key, part in parts.items():
            if isinstance(part, dict) and "name" in part:
                message = f"there is no key 'name': the {what} is called {shown(key)} already"
                self.problems.append(Problem((place, key, "name"), message, f"keys here: {_listed((place, key))}", on_key=True))
                del part["name"]

    def _hosts(self, hosts: dict[str, Any], defaults: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        total = 0
        single = {key for key, own in hosts.items() if not (isinstance(own, dict) and own.get("count") is not None)}
        for key, own in hosts.items():
            if own is not None and not isinstance(own, dict):
                self._origins[key] = key
                yield key, own  # the model says what is wrong with it
                continue
            host = _merged(defaults, own or {})
            count = self._count(key, host)
            total += count or 1
            if total > MOST_HOSTS:
                hint = f"at most {MOST_HOSTS} in one topology"
                self.problems.append(Problem(("hosts", key), f"with these there are more than {MOST_HOSTS} hosts", hint))
                return
            names = [key] if count is None else [f"{key}-{number}" for number in range(1, count + 1)]
            if len(names) > 1:
                self._refuse_fixed_addresses(key, host, len(names))
            for name in names:
                if name in self._origins or (name != key and name in single):
                    message = f"{shown(key)} with count: {count} makes a host {shown(name)}, which is there already"
                    self.problems.append(Problem(("hosts", key), message, "call one of them otherwise", on_key=True))
                    continue
                self._origins[name] = key
                yield name, host

    def _count(self, key: str, host: dict[str, Any]) -> int | None:
        """How many hosts a key stands for; None when it is the host itself."""
        written = host.pop("count", None)
        if written is None:
            return None
        if isinstance(written, str) and re.fullmatch("[0-9]{1,9}", written) and 1 <= int(written) <= MOST_OF_A_COUNT:
            return int(written)
        message = f"{shown(written)} is not a number of hosts"
        self.problems.append(Problem(("hosts", key, "count"), message, f"a whole number from 1 to {MOST_OF_A_COUNT}"))
        return 1  # so that the rest of the file can be judged

    def _refuse_fixed_addresses(self, key: str, host: dict[str, Any], count: int) -> None:
        networks = host.get("networks")
        if not isinstance(networks, dict):
            return
        for network, attachment in networks.items():
            fixed = attachment.values() if isinstance(attachment, dict) else [attachment]
            if any(address is not None for address in fixed):
                message = f"{count} hosts cannot all have one address"
                hint = "leave the address to be chosen, or write the hosts one by one"
                self.problems.append(Problem(("hosts", key, "networks", network), message, hint))

    def _find_sources(self, hosts: dict[str, Any], directory: Path) -> None:
        """Make sources absolute, and say which are not there. Hosts that share a mapping share what is done to it."""
        seen: set[int] = set()
        problems: list[Problem] = []
        for name, host in hosts.items():
            files = host.get("files") if isinstance(host, dict) else None
            if not isinstance(files, dict) or id(host) in seen:
                continue
            seen.add(id(host))
            host["files"] = found = dict(files)
            for path, file in files.items():
                if isinstance(file, dict) and isinstance(file.get("source"), str):
                    source = (directory / file["source"]).absolute()
                    found[path] = {**file, "source": str(source)}
                    wrong = _unreadable(source)
                    if wrong:
                        here = ("hosts", name, "files", path, "source")
                        problems.append(Problem(here, f"{shown(file['source'])} {wrong}", f"a file, looked for in {directory}"))
        self.problems += self.in_file(problems)

    def in_file(self, problems: list[Problem]) -> list[Problem]:
        """The problems with the paths of the file: a host's own words, else those of ``defaults:`` that it got; each said once."""
        result = []
        heard: dict[tuple[Step, ...], str] = {}
        for problem in problems:
            path = problem.path
            match path:
                case ("hosts", str(name), *rest) if name in self._origins:
                    own, given = ("hosts", self._origins[name], *rest), ("defaults", *rest)
                    missing = [len(one) - self._walk(one, on_key=False)[0] for one in (own, given)]
                    path = given if rest and missing[1] < missing[0] else own
                    if heard.setdefault(path, name) != name:
                        continue  # what is wrong with one of many alike is wrong with all
            result.append(Problem(path, problem.message, problem.hint, problem.on_key))
        return result

    def locate(self, problem: Problem) -> Position:
        """Line and column of what a problem is about."""
        return self._walk(problem.path, on_key=problem.on_key)[1]

    def _walk(self, path: tuple[Step, ...], *, on_key: bool) -> tuple[int, Position]:
        """How many steps of a path the file has, and the place of the last."""
        node, place = self._root, self._root.at
        for taken, step in enumerate(path):
            match node.value:
                case dict() as items if step in items:
                    place, node = node.keys[str(step)], items[str(step)]
                case list() as entries if isinstance(step, int) and step < len(entries):
                    node = entries[step]
                    place = node.at
                case list() as entries if isinstance(step, str):
                    # A list of names is a short form: the name's own place.
                    named = next((one for one in entries if one.value == step), None)
                    return (taken, place) if named is None else (taken + 1, named.at)
                case str():
                    return taken, node.at  # a short form: the value stands for what is inside
                case _:
                    return taken, place
        scalar_or_list = isinstance(node.value, str | list)
        return len(path), node.at if scalar_or_list and not on_key else place


def _merged(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A host with what it does not say itself: mappings key by key, all else as a whole; an own nothing removes a default."""
    merged = {**defaults, **own}
    for key, value in own.items():
        given = defaults.get(key)
        if isinstance(value, dict) and isinstance(given, dict) and key != "ready":
            both = {**given, **value}
            merged[key] = both if key == "networks" else {one: both[one] for one in both if not (both[one] is None and one in given)}
    return merged


def _default_keys(path: tuple[Step, ...]) -> set[str]:
    return keys_at(("defaults", *path))


def _listed(path: tuple[Step, ...]) -> str:
    return ", ".join(sorted(keys_at(path)))


def _unreadable(path: Path) -> str:
    """What keeps a file from being read, or nothing."""
    try:
        if not path.exists():
            return "is not there"
        if not path.is_file():
            return "is not a file"
        return "" if os.access(path, os.R_OK) else "may not be read"
    except (OSError, ValueError) as error:
        return f"cannot be a file: {error}"
