"""What a program needs to start, from its ELF file: its machine, dynamic loader and libraries. 64 bits, either byte order; pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAGIC, CLASS_64, LITTLE = b"\x7fELF", 2, 1
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3  # System V ABI, gabi41, "Program Header"
MACHINES = {22: "s390x", 62: "x86_64", 183: "aarch64"}  # e_machine (the same, "ELF Header"), and what uname -m prints there
DT_NULL, DT_NEEDED, DT_STRTAB = 0, 1, 5  # the same, "Dynamic Section"


@dataclass(frozen=True)
class Needs:
    """``loader`` is the path of the dynamic loader, empty for a library; ``libraries`` are their names (soname)."""

    loader: str
    libraries: tuple[str, ...]


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int  # in the file
    address: int  # in memory
    size: int  # in the file


def needs(content: bytes) -> Needs:
    """What a program or library needs; nothing for one that is linked statically, or no ELF file. Raises :class:`ValueError`
    when the file is cut short or of 32 bits."""
    if not content.startswith(MAGIC):
        return Needs("", ())
    if content[4] != CLASS_64:
        raise ValueError("an ELF file of 32 bits")
    order = "<" if content[5] == LITTLE else ">"
    try:
        segments = list(_segments(content, order))
        loader = next((_text(content, one.offset) for one in segments if one.kind == PT_INTERP), "")
        dynamic = next((one for one in segments if one.kind == PT_DYNAMIC), None)
        return Needs(loader, tuple(_libraries(content, order, dynamic, segments)) if dynamic else ())
    except struct.error as error:
        raise ValueError(f"an ELF file that is cut short: {error}") from error


def _segments(content: bytes, order: str) -> Iterator[_Segment]:
    (table,) = struct.unpack_from(f"{order}Q", content, 32)
    size, count = struct.unpack_from(f"{order}HH", content, 54)
    for index in range(count):
        kind, _, offset, address, _, in_file = struct.unpack_from(f"{order}IIQQQQ", content, table + index * size)
        yield _Segment(kind, offset, address, in_file)


def _libraries(content: bytes, order: str, dynamic: _Segment, segments: list[_Segment]) -> Iterator[str]:
    entries = []
    for at in range(dynamic.offset, dynamic.offset + dynamic.size, 16):
        tag, value = struct.unpack_from(f"{order}qQ", content, at)
        if tag == DT_NULL:
            break
        entries.append((tag, value))
    names = next((value for tag, value in entries if tag == DT_STRTAB), 0)
    load = next((one for one in segments if one.kind == PT_LOAD and one.address <= names < one.address + one.size), None)
    if load is None:
        raise ValueError("an ELF file whose names are nowhere in it")
    start = names - load.address + load.offset
    yield from (_text(content, start + value) for tag, value in entries if tag == DT_NEEDED)


def _text(content: bytes, at: int) -> str:
    return content[at : content.index(b"\0", at)].decode()


def machine(content: bytes) -> str:
    """What an ELF file is for, as ``uname -m`` prints it; ``another`` for what is not known here, empty for what is no ELF file. The first
    20 bytes are enough."""
    if not content.startswith(MAGIC) or len(content) < 20:
        return ""
    return MACHINES.get(int.from_bytes(content[18:20], "little" if content[5] == LITTLE else "big"), "another")
