"""Programs that the user has built: of two files of one name, each host gets the one for its architecture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from testbed.architecture import Architecture, ByteOrder
from testbed.elf import machine
from testbed.endian_program import DIRECTORY, Program
from testbed.errors import InputError

HEADER = 20  # bytes of a file that say what it is for
BUILD = "give one for each, of one name in two folders: --file x86_64/NAME --file s390x/NAME (GOARCH=s390x go build, cargo build --target)"


def by_order(files: Iterable[Path], own: Mapping[ByteOrder, Architecture]) -> dict[ByteOrder, tuple[Path, ...]]:
    """The files that hosts of each byte order get.

    Raises :class:`InputError` for several of one name that are not one for each, and for an executable of one architecture only: on an
    emulated host one for this machine would run too, as what it is."""
    named: dict[str, list[Path]] = {}
    for one in files:
        alike = named.setdefault(one.name, [])
        if one.resolve() not in [other.resolve() for other in alike]:
            alike.append(one)
    chosen = [_of_one_name(alike, own) for alike in named.values()]
    return {order: tuple(one[order] for one in chosen) for order in own}


def _of_one_name(alike: Sequence[Path], own: Mapping[ByteOrder, Architecture]) -> dict[ByteOrder, Path]:
    for_machines = [(machine_of(one), one) for one in alike]
    first = alike[0]
    built = dict(for_machines)
    if len(alike) > 1 and ("" in built or len(built) < len(alike)):
        raise InputError(f"--file: '{alike[1]}' and '{first}' have the same name", hint=f"both would be {DIRECTORY}/{first.name}")
    if len(alike) == 1 and ("" in built or not first.stat().st_mode & 0o111):
        return dict.fromkeys(own, first)
    if other := next((path for what, path in for_machines if what not in {one.machine for one in own.values()}), None):
        raise InputError(f"--file: '{other}' is a program for no host that is here", hint=BUILD.replace("NAME", other.name))
    for order, one in own.items():
        if one.machine not in built:
            what = f"'{first}' is a program for {machine_of(first)} only, and {order}-endian hosts are {one.machine}"
            raise InputError(f"--file: {what}", hint=BUILD.replace("NAME", first.name))
    return {order: built[one.machine] for order, one in own.items()}


def machine_of(file: Path) -> str:
    """See :func:`testbed.elf.machine`."""
    with file.open("rb") as opened:
        return machine(opened.read(HEADER))


def placed(program: Program, files: Sequence[Path]) -> tuple[Program, tuple[Path, ...]]:
    """A command that begins with an executable of the user's, by a relative path or by the name of one of the ``files``, runs where hosts
    get it; and the file, if it is none of these."""
    word = program.argv[0]
    path = Path(word)
    here = replace(program, argv=(f"{DIRECTORY}/{path.name}", *program.argv[1:]))
    if program.sources:
        return program, ()
    if "/" not in word:
        return (here if any(one.name == word and one.is_file() and one.stat().st_mode & 0o111 for one in files) else program), ()
    if path.is_absolute() or not path.is_file() or not machine_of(path):
        return program, ()
    return here, (path,)
