"""Where experiments are: in testbed/experiments, in the entry points of other packages, and in files that the user names.

A module of experiments has them in ``EXPERIMENTS``. A package tells of its own ones in the group ``testbed.experiments`` of its
entry points; each names such a module.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from testbed import experiments
from testbed.errors import InputError, UnknownName
from testbed.experiment import Experiment

GROUP = "testbed.experiments"


def known() -> dict[str, Experiment]:
    """Every experiment that is installed, by name, in the order of their ids. Raises :class:`InputError` for a module that is none."""
    found: list[Experiment] = []
    for one in pkgutil.iter_modules(experiments.__path__):
        found += experiments_of(importlib.import_module(f"testbed.experiments.{one.name}"), one.name)
    for entry in entry_points(group=GROUP):
        try:
            module = entry.load()
        except Exception as error:  # anybody's module, and whatever it stumbles over
            raise InputError(f"experiments of '{entry.name}' ({entry.value}): {type(error).__name__}: {error}") from error
        found += experiments_of(module, entry.value)
    return by_name(sorted(found, key=lambda one: one.id))


def chosen(words: Sequence[str], *, everything: bool = False) -> list[Experiment]:
    """The experiments that are meant by words: a name, an id (A1), a family (A), a file of one's own (`mine.py`).

    Each once, in the order of the words. Raises :class:`UnknownName` and :class:`InputError`.
    """
    installed = known()
    found = list(installed.values()) if everything else []
    for word in words:
        found += [*from_file(Path(word)).values()] if word.endswith(".py") else _called(word, installed)
    return list(dict.fromkeys(found))


def from_file(path: Path) -> dict[str, Experiment]:
    """The experiments of a file, by name. Raises :class:`InputError`."""
    spec = importlib.util.spec_from_file_location(f"experiments_of_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: {type(error).__name__}: {error}") from error
    return by_name(experiments_of(module, str(path)))


def experiments_of(module: ModuleType, where: str) -> list[Experiment]:
    """The experiments of a module. Raises :class:`InputError` when it has none."""
    found = getattr(module, "EXPERIMENTS", None)
    if not isinstance(found, tuple | list) or not all(isinstance(one, Experiment) for one in found):
        raise InputError(
            f"{where} has no EXPERIMENTS", hint="a tuple of testbed.experiment.Experiment; docs/experiments.md walks through one"
        )
    return list(found)


def by_name(found: Iterable[Experiment]) -> dict[str, Experiment]:
    names: dict[str, Experiment] = {}
    for one in found:
        for name in {one.name, one.id}:
            if any(name in (other.name, other.id) for other in names.values()):
                raise InputError(f"two experiments are called '{name}'", hint="names and ids must differ")
        names[one.name] = one
    return names


def _called(word: str, installed: dict[str, Experiment]) -> list[Experiment]:
    meant = [one for one in installed.values() if word == one.name or word.upper() == one.id]
    if not meant and re.fullmatch("[A-Za-z]", word):
        meant = [one for one in installed.values() if one.id.startswith(word.upper())]
    if not meant:
        raise UnknownName("experiment", word, [*installed, *(one.id for one in installed.values())])
    return meant
