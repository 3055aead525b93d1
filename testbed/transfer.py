"""Files and directories as streams of bytes: what put and get send and take."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, cast

from testbed.errors import InputError, LabError

PIECE = 256 * 1024


class Reader(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


class Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


def copy(source: Reader, target: Writer) -> None:
    while piece := source.read(PIECE):
        target.write(piece)


@contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """What this machine refuses becomes an error that names the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        kind = InputError if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError) else LabError
        raise kind(f"{error.filename or path}: {reason}") from error


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[IO[bytes]]:
    """A file to write; a half-written one is not left behind when that fails."""
    is_new = not path.exists()
    file = path.open("wb")
    try:
        with file:
            yield file
            os.fchmod(file.fileno(), mode)
    except BaseException:
        if is_new:
            path.unlink(missing_ok=True)
        raise


def pack(directory: Path, name: str, target: Writer) -> None:
    """A directory as a tar stream in which it is called ``name``; with an empty name its content only."""
    with tarfile.open(fileobj=cast("IO[bytes]", target), mode="w|", bufsize=PIECE, format=tarfile.PAX_FORMAT) as tar:
        if name:
            tar.add(directory, name, filter=_unowned)
        else:
            for child in sorted(directory.iterdir()):
                tar.add(child, child.name, filter=_unowned)


def _unowned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(source: Reader, directory: Path) -> None:
    """A tar stream of a directory's content into ``directory``, made if it is not there; nothing leads out of it.

    Raises :class:`LabError` for a path or link that would, and for what is no file, directory or link.
    """
    if not directory.parent.is_dir():
        raise FileNotFoundError(2, os.strerror(2), str(directory.parent))
    modes: list[tuple[Path, int]] = []
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", source), mode="r|", bufsize=PIECE) as tar:
            for member in tar:
                path = _place(directory, member.name)
                if member.isdir():
                    path.mkdir(exist_ok=True)
                    modes.append((path, member.mode))
                elif member.isreg():
                    _replace(path)
                    content = tar.extractfile(member)
                    assert content is not None
                    with new_file(path, stat.S_IMODE(member.mode)) as file:
                        copy(content, file)
                elif member.issym():
                    _replace(path)
                    path.symlink_to(member.linkname)
                else:
                    raise LabError(f"{member.name} is no file, directory or symbolic link, and cannot be copied")
    except tarfile.TarError as error:
        raise LabError(f"the directory came incomplete or damaged: {error}") from error
    # At last: a directory that nobody may write can still be filled before.
    for path, mode in reversed(modes):
        path.chmod(stat.S_IMODE(mode))


def _place(directory: Path, name: str) -> Path:
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    path = directory.joinpath(*parts)
    parent = path.parent if parts else directory
    if ".." in parts or name.startswith("/") or (parts and not parent.resolve().is_relative_to(directory.resolve())):
        raise LabError(f"'{name}' leads out of the directory that is copied")
    return path


def _replace(path: Path) -> None:
    """A link that is in the way is not written through."""
    if path.is_symlink():
        path.unlink()
