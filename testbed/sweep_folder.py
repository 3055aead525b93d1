"""A sweep's folder: what it is a sweep of, a record for each point that is done, and the table of all of them.

A record is written under another name first, so one that is there is whole, whenever the writer was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from testbed.errors import InputError, writing
from testbed.experiment import Record, Value
from testbed.experiment_run import load
from testbed.json_text import json_text
from testbed.sweep import Point, Sweep
from testbed.sweep_table import as_csv, rows

PLAN, POINTS, LOCK = "sweep.json", "points", "lock"
TABLES = ("results.csv", "results.json")
HINT = "--out names another folder"
ANOTHER = "--out names another folder; without it each sweep has its own"


class Folder:
    """The folder of a sweep, in which this process alone writes. Made by :func:`opened`."""

    def __init__(self, sweep: Sweep, path: Path) -> None:
        self.sweep = sweep
        self.path = path

    def done(self) -> dict[int, Record]:
        """The records that are there, by the numbers of their points. Raises :class:`InputError` for one that is damaged or another's."""
        found = {}
        for point in self.sweep.points:
            file = self.file(point)
            if not file.exists():
                continue
            record = load(file)
            if record.experiment != self.sweep.experiment.name or not point.is_of(record):
                raise InputError(f"{file} is not a record of the point {point}", hint="remove it, and that point is measured again")
            found[point.number] = record
        return found

    def save(self, point: Point, record: Record) -> None:
        """Write the record of a point."""
        _write(self.file(point), json_text(record.as_json()))

    def write_tables(self, records: Mapping[int, Record]) -> dict[str, Value]:
        """Write the table of what is there, as CSV and JSON; gives the latter."""
        table = rows(self.sweep, records)
        data = {"sweep": self.sweep.identity, "points": len(self.sweep.points), "done": len(records), "rows": table}
        _write(self.path / TABLES[0], as_csv(self.sweep, table))
        _write(self.path / TABLES[1], json_text(data))
        return data

    def file(self, point: Point) -> Path:
        return self.path / POINTS / f"{point.number:05}.json"


@contextmanager
def opened(sweep: Sweep, path: Path) -> Iterator[Folder]:
    """The folder of a sweep, made if it is not there.

    Raises :class:`InputError` when it cannot be written, has something else, or another process is at it.
    """
    with writing(path, hint=HINT):
        path.mkdir(parents=True, exist_ok=True)
        names = {one.name for one in path.iterdir()}
        strange = PLAN not in names and bool(names - {LOCK, POINTS, f"{PLAN}.new"})
    if strange:
        raise InputError(f"{path} has other files, and is no folder of a sweep", hint=ANOTHER)
    with writing(path, hint=HINT):
        lock = (path / LOCK).open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is at the sweep in {path}", hint="wait for it, or stop it") from None
        folder = Folder(sweep, path)
        _claim(folder)
        yield folder


def _claim(folder: Folder) -> None:
    """The folder is this sweep's: it is now, if it was nobody's, or that of a sweep without any result. Raises :class:`InputError` if it
    is another's."""
    file = folder.path / PLAN
    # As JSON has it, where a tuple is a list.
    mine = json.loads(json.dumps(folder.sweep.identity))
    if not file.exists() or not any((folder.path / POINTS).glob("*.json")):
        with writing(folder.path, hint=HINT):
            (folder.path / POINTS).mkdir(exist_ok=True)
        _write(file, json_text(mine))
        return
    try:
        theirs = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}", hint=ANOTHER) from None
    if theirs != mine:
        differs = [name for name in mine if not isinstance(theirs, dict) or theirs.get(name) != mine[name]]
        raise InputError(f"{folder.path} has another sweep, which differs in: {', '.join(differs)}", hint=ANOTHER)


def _write(file: Path, text: str) -> None:
    with writing(file, hint=HINT):
        # Two threads never write the same file, and other processes are kept out.
        new = file.with_name(f"{file.name}.new")
        with new.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
