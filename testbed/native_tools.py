"""The machine's own tools on emulated hosts: which files of its packages they are, and where they go. Pure.

QEMU's user mode does not translate netlink, nor what /proc/net says to a big-endian reader, so `ss`, `ip` or `nft` of
the emulated architecture are refused or print nonsense. Programs of the machine's own architecture run on its kernel as they are,
in the host's namespaces, so they see the host and see it right. They are put in Debian's multiarch way: libraries in the folder
of their architecture, beside the emulated ones, and the dynamic loader at its path. Links in a folder that comes first in PATH
make them what a user types; the emulated ones stay where they were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from tarfile import TarInfo

from testbed import elf
from testbed.architecture import Architecture
from testbed.errors import ImageError

DIRECTORY = "./usr/lib/testbed/native"
FIRST_IN_PATH = "./usr/local/bin"
LAUNCH = "launch"  # images/native/launch.c
LINKS_MOST = 20  # of one path; more are a circle


@dataclass(frozen=True)
class File:
    """A file, or where ``target`` is not empty a symbolic link."""

    content: bytes = b""
    target: str = ""


def is_candidate(member: TarInfo, architecture: Architecture) -> bool:
    """Whether a member of a package can be one of a tool: a program, a library, or a link on the way to one."""
    path, name = member.name, PurePosixPath(member.name).name
    if not (member.isreg() or member.issym()):
        return False
    program = path.startswith(("./usr/bin/", "./usr/sbin/"))
    library = path.startswith(f"./usr/lib/{architecture.triplet}/") and ".so" in name
    return program or library or name.startswith(("ld-linux", "ld64")) or path.count("/") == 1


def chosen(files: Mapping[str, File], tools: Iterable[str], launched: Iterable[str], architecture: Architecture) -> dict[str, File]:
    """What makes ``tools`` run, by path, out of ``files`` of unpacked packages of ``architecture``: the programs in a folder of
    ours, what they are linked with where it belongs, and a link for each tool in a folder that comes first in PATH.

    The links of those that are ``launched`` lead to our program that starts them. Raises :class:`ImageError` for a tool or
    library that is not there.
    """
    placed: dict[str, File] = {}
    wanted: deque[str] = deque()
    for tool in tools:
        found = next((path for folder in ("sbin", "bin") if (path := f"./usr/{folder}/{tool}") in files), None)
        if found is None:
            raise ImageError(f"the packages of {architecture.name} hold no program {tool}", hint="images/host/recipe.toml, under [native]")
        *_, path = traced(files, found)
        name = PurePosixPath(path).name
        placed[f"{DIRECTORY}/bin/{name}"] = files[path]
        if name != tool:  # pkill is a link to pgrep
            placed[f"{DIRECTORY}/bin/{tool}"] = File(target=name)
        through = LAUNCH if tool in launched else f"bin/{tool}"
        placed[f"{FIRST_IN_PATH}/{tool}"] = File(target=f"{DIRECTORY.removeprefix('.')}/{through}")
        wanted.append(path)
    seen: set[str] = set()
    while wanted:
        path = wanted.popleft()
        if path in seen:
            continue
        seen.add(path)
        try:
            needs = elf.needs(files[path].content)
        except ValueError as error:
            raise ImageError(f"{path} of {architecture.name}: {error}") from error
        for needed in (*([needs.loader] if needs.loader else []), *(f"/usr/lib/{architecture.triplet}/{one}" for one in needs.libraries)):
            way = traced(files, needed)
            placed |= {one: files[one] for one in way}
            wanted.append(way[-1])
    return placed


def traced(files: Mapping[str, File], path: str) -> list[str]:
    """The symbolic links that ``path`` leads through, and the file at its end, as they are called in ``files``.

    Raises :class:`ImageError` when no file is there.
    """
    way: list[str] = []
    at, rest = PurePosixPath("."), deque(PurePosixPath(path).parts)
    while rest and len(way) < LINKS_MOST:
        part = rest.popleft()
        if part == "/":
            at = PurePosixPath(".")
            continue
        if part == "..":
            at = at.parent
            continue
        file = files.get(f"./{at / part}")
        if file is None or not file.target:
            at /= part
            continue
        way.append(f"./{at / part}")
        rest.extendleft(reversed(PurePosixPath(file.target).parts))
    end = f"./{at}"
    if rest or end not in files:
        raise ImageError(f"{path} is in none of the unpacked packages of the machine's tools")
    return [*way, end]
