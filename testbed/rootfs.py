"""Root file systems of hosts as tar streams: Debian packages unpacked and trimmed, our files and programs put in.

Nothing is written to this machine's disk: each tool works on a tmpfs in namespaces of its own, and what it
makes leaves through a pipe. Whoever kills this process, however hard, takes all of that along.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO

from testbed.architecture import Architecture
from testbed.errors import ImageError
from testbed.native_tools import DIRECTORY as NATIVE_TOOLS
from testbed.native_tools import File, chosen, is_candidate
from testbed.process import search_path
from testbed.shipped import as_root, setup_command

MIRROR_VARIABLE = "TESTBED_DEBIAN_MIRROR"
# Packages are unpacked and not configured, so nothing runs in what is made that would need /proc and /dev there.
UNPACK = ("--mode=root", "--variant=extract", "--skip=chroot/mount", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr")
OWN_PROGRAMS = "./usr/lib/testbed"  # init and the agent, which are always the machine's own
# Only the Python that runs this can make bytecode of its own version; a host's Python of another one goes without.
MODULES = f"./usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/"
PIECE = 1 << 20
# Without /etc/ld.so.cache every start of a program looks for its libraries in some 250 directories that are not there. ldconfig knows
# only libraries of its own architecture, so it is the host's, static; where that is foreign, emulated for a twentieth of a second.
LIBRARY_CACHE = '"$1/usr/sbin/ldconfig" -r "$1"'
# What dpkg would have noted of the packages, for dpkg-query. They count as installed: what their scripts would have done is in the image.
PACKAGE_LIST = """
set -e
for package in "$1"/var/cache/apt/archives/*.deb; do
    about=$(dpkg-deb --field "$package")
    printf '%s\\n\\n' "$about" | sed '/^Package:/a Status: install ok installed'
done > "$1/var/lib/dpkg/status"
"""

# What each tool runs in. /tmp becomes a tmpfs that nobody else sees; --pdeathsig and --kill-child pass the death of
# this process on to the whole PID namespace, and when its last process is gone the kernel takes the tmpfs away.
# The session of its own keeps signals inside: an mmdebstrap that fails sends SIGHUP to its process group.
# Whoever is not root is so in a user namespace that knows no other user; files that would belong to others belong to root.
ISOLATED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *(("--user", "--map-root-user") if os.geteuid() != 0 else ()),
    *("sh", "-c", 'mount -t tmpfs -o mode=1777 testbed /tmp && cd /tmp && export TMPDIR=/tmp HOME=/tmp && exec setsid "$@"', "sh"),
)

Step = Callable[[str], None]
"""Told what is being done now, in a few words."""


def silent(step: str) -> None:
    """For those who do not want to be told."""


@dataclass(frozen=True)
class NativeRecipe:
    """Which ``tools`` of emulated hosts are the machine's own, which ``packages`` have them, and which are ``launched`` by our program."""

    packages: tuple[str, ...]
    tools: tuple[str, ...]
    launched: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """images/host/recipe.toml and images/host/files. Paths are as tar writes them: ``./etc/hosts``; ``epoch`` in seconds."""

    suite: str
    packages: tuple[str, ...]
    trim: tuple[str, ...]
    links: Mapping[str, str]
    directories: Mapping[str, int]
    files: Mapping[str, bytes]
    epoch: int
    native: NativeRecipe

    @classmethod
    def of(cls, sources: Mapping[str, bytes]) -> Recipe:
        """The recipe among ``sources``: contents by path below images/."""
        raw = tomllib.loads(sources["host/recipe.toml"].decode())
        prefix = "host/files/"
        return cls(
            suite=raw["suite"],
            packages=tuple(raw["packages"]),
            trim=tuple(raw["trim"]),
            links=raw["links"],
            directories={path: int(mode, 8) for path, mode in raw["directories"].items()},
            files={f"./{path.removeprefix(prefix)}": content for path, content in sources.items() if path.startswith(prefix)},
            epoch=int(os.environ.get("SOURCE_DATE_EPOCH", raw["source_date_epoch"])),
            native=NativeRecipe(**{name: tuple(raw["native"][name]) for name in ("packages", "tools", "launched")}),
        )

    def keeps(self, path: str) -> bool:
        """Whether the file of that path in a package comes into the root file system."""
        return self._trimmed.match(path) is None and path not in self._replaced

    @cached_property
    def _trimmed(self) -> re.Pattern[str]:
        return re.compile("|".join(translate(pattern) for pattern in self.trim))

    @cached_property
    def _replaced(self) -> frozenset[str]:
        return frozenset((*self.files, *self.links, *self.directories))


class Workbench:
    """Where tools run, so that all of them can be stopped from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._kills: list[Callable[[], object]] = []

    def tool(self, doing: str, argv: Sequence[str], *, stdin: bytes = b"", on_line: Step = silent) -> Tool:
        """Start one; ``doing`` is what an error message calls it. Raises :class:`ImageError` when the bench is stopped."""
        with self._lock:
            if self._stopped:
                raise ImageError(f"{doing}: stopped")
            tool = Tool(doing, argv, stdin=stdin, on_line=on_line)
            self._kills.append(tool.kill)
            return tool

    def when_stopped(self, kill: Callable[[], object]) -> None:
        """Call ``kill`` too when all are stopped, at once if they have been."""
        with self._lock:
            self._kills.append(kill)
            stopped = self._stopped
        if stopped:
            kill()

    def stop(self) -> None:
        """Kill them all, and start no more."""
        with self._lock:
            self._stopped = True
            kills, self._kills = self._kills, []
        for kill in kills:
            kill()


class Tool:
    """A program in isolation, as a context manager: its standard output is ``output``, its failure an :class:`ImageError`.

    Left early, by an exception, it is killed with all that it started.
    """

    def __init__(self, doing: str, argv: Sequence[str], *, stdin: bytes, on_line: Step) -> None:
        self.doing = doing
        self._on_line = on_line
        self._last_lines: deque[str] = deque(maxlen=12)
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": search_path(), "TAR_OPTIONS": "--no-same-owner"}
        with os.fdopen(os.memfd_create("stdin"), "w+b") as given:
            given.write(stdin)
            given.seek(0)
            self._process = subprocess.Popen(
                [*ISOLATED, *argv], stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        assert self._process.stdout
        assert self._process.stderr
        self.output: IO[bytes] = self._process.stdout
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()

    def _listen(self, stderr: IO[bytes]) -> None:
        with stderr:
            for raw in stderr:
                line = raw.decode(errors="backslashreplace").rstrip()
                self._last_lines.append(line)
                self._on_line(line)

    def __enter__(self) -> Tool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A tar that is cut short is a consequence; the tool's own words are the cause.
        try:
            if error is None or isinstance(error, tarfile.TarError):
                self.finish()
        finally:
            self.kill()
            self._process.wait()
            self.output.close()
            self._listener.join()

    def kill(self) -> None:
        """End it and all that it started; one that has ended already is fine."""
        self._process.kill()

    def finish(self) -> None:
        """Wait for its end. Raises :class:`ImageError` with its last lines when the exit code is not 0."""
        while self.output.read(PIECE):
            pass
        code = self._process.wait()
        self._listener.join()
        if code != 0:
            tail = "\n".join(f"  | {line}" for line in self._last_lines)
            raise ImageError(f"{self.doing} failed with exit code {code}:\n{tail}", hint=_hint_for(tail))


def _hint_for(output: str) -> str:
    if "No space left on device" in output:
        return "a root file system takes 300 MB of memory (a tmpfs) while it is made; free some"
    if re.search("Could not resolve|Could not connect|Unable to connect|Failed to fetch|Temporary failure|404 +Not Found", output):
        mirror = os.environ.get(MIRROR_VARIABLE, "that mmdebstrap takes by itself")
        return f"is the Debian mirror {mirror} reachable? {MIRROR_VARIABLE}=URL names another one"
    if "unshare" in output and os.geteuid() != 0:
        return f"this machine lets only root make namespaces. Build the images as root: {as_root('images build')}"
    return ""


def root_file_system(
    bench: Workbench,
    sources: Mapping[str, bytes],
    architecture: Architecture,
    machine: Architecture,
    step: Step = silent,
    shared: Future[Mapping[str, File]] | None = None,
) -> Generator[bytes]:
    """The tar of a root file system for ``architecture``, piece by piece, made on a ``machine``.

    ``sources`` are contents by path below images/. ``shared`` is for two that are made at the same time: the machine's own puts
    into it what the other takes tools from. Raises :class:`ImageError` before the tar's end if anything failed.
    """
    recipe = Recipe.of(sources)
    hooks = (f"--extract-hook={LIBRARY_CACHE}", f"--extract-hook={PACKAGE_LIST}")
    argv = ["env", f"SOURCE_DATE_EPOCH={recipe.epoch}", *unpacking(recipe.packages, recipe.suite, architecture, *hooks)]
    foreign = architecture != machine
    candidates: dict[str, File] = {}
    present: set[str] = set()

    def on_line(line: str) -> None:
        if line.startswith("I: ") and line.endswith("..."):
            step(line.removeprefix("I: ").removesuffix("..."))

    def on_member(member: tarfile.TarInfo, content: bytes) -> None:
        present.add(member.name)
        if shared and not foreign and is_candidate(member, machine):
            candidates[member.name] = File(content, member.linkname)

    with bench.tool(f"unpacking Debian packages for {architecture.name}", argv, on_line=on_line) as tool:
        programs = compiled(bench, sources, "programs", architecture)  # while the packages are on their way
        own = compiled(bench, sources, "own", machine)
        beside = compiled(bench, sources, "native", machine) if foreign else {}
        with tarfile.open(fileobj=tool.output, mode="r|", bufsize=PIECE) as tar:
            yield from kept(tar, recipe, on_member)
    if shared and not foreign:
        shared.set_result(candidates)
    added = dict(recipe.files)
    for folder, made in (("./usr/local/bin", programs), (OWN_PROGRAMS, own), (NATIVE_TOOLS, beside)):
        added |= {f"{folder}/{name}": program for name, program in made.items()}
    yield from additions(recipe, added)
    if foreign:
        files = shared.result() if shared else unpacked_tools(bench, recipe, machine)
        tools = chosen(files, recipe.native.tools, recipe.native.launched, machine)
        yield from tools_beside(tools, recipe.epoch, present | {*recipe.directories, *recipe.links, *added})
    yield bytes(2 * tarfile.BLOCKSIZE)


def unpacking(packages: Iterable[str], suite: str, architecture: Architecture, *options: str) -> list[str]:
    """The command that writes ``packages`` and what they depend on, unpacked, as a tar. Raises :class:`ImageError` when it is absent."""
    _require("mmdebstrap", "mmdebstrap")
    return [
        *("mmdebstrap", *UNPACK, f"--architectures={architecture.name}", *options),
        *(f"--include={','.join(packages)}", "--format=tar", suite, "-", *apt_sources(suite)),
    ]


def unpacked_tools(bench: Workbench, recipe: Recipe, machine: Architecture) -> dict[str, File]:
    """What the tools of ``machine`` are taken from when its own root file system is not being made. Raises :class:`ImageError`."""
    argv = unpacking(recipe.native.packages, recipe.suite, machine)
    with (
        bench.tool(f"unpacking the tools of {machine.name}", argv) as tool,
        tarfile.open(fileobj=tool.output, mode="r|", bufsize=PIECE) as tar,
    ):
        return {
            member.name: File(content_of(tar, member) if member.isreg() else b"", member.linkname)
            for member in tar
            if is_candidate(member, machine)
        }


def compiled(bench: Workbench, sources: Mapping[str, bytes], target: str, architecture: Architecture) -> dict[str, bytes]:
    """What ``make TARGET`` of images/Makefile gives for ``architecture``, by name. Raises :class:`ImageError`."""
    _require(architecture.compiler, f"gcc-{architecture.triplet.replace('_', '-')}")
    _require("make", "make")
    script = 'tar -x && make -s "$1" CC="$2" OUT=out >&2 && exec tar -c -C out --exclude=.objects .'
    argv = ["sh", "-c", script, "sh", target, architecture.compiler]
    with (
        bench.tool(f"compiling the C programs for {architecture.name}", argv, stdin=tar_of(sources)) as tool,
        tarfile.open(fileobj=tool.output, mode="r|") as tar,
    ):
        return {Path(member.name).name: content_of(tar, member) for member in tar if member.isreg()}


def apt_sources(suite: str) -> list[str]:
    """The lines of sources.list; none leave it to mmdebstrap, which takes Debian's own mirror with its updates and security suites.

    A mirror that the user names is used alone: it may not carry those.
    """
    mirror = os.environ.get(MIRROR_VARIABLE)
    return [f"deb {mirror} {suite} main"] if mirror else []


def kept(tar: tarfile.TarFile, recipe: Recipe, on_member: Callable[[tarfile.TarInfo, bytes], None]) -> Iterator[bytes]:
    """The members of ``tar`` that the recipe keeps, as the bytes of a new tar without its end; ``on_member`` is told of each.

    Python modules get their bytecode, which dpkg would have made: it is the same for all architectures, and without it
    an emulated host spends two seconds on its first ``import socket``. Everything belongs to root, whoever makes it.
    """
    for member in tar:
        if not recipe.keeps(member.name):
            continue
        member.uid = member.gid = 0
        member.mode &= ~stat.S_ISGID  # which lends the rights of a group that it now is not of
        yield member.tobuf(tarfile.PAX_FORMAT)
        content = content_of(tar, member) if member.isreg() else b""
        on_member(member, content)
        if member.isreg():
            yield _padded(content)
            if member.name.startswith(MODULES) and member.name.endswith(".py"):
                yield from file_entry(_bytecode_path(member.name), _bytecode(member.name, content), 0o644, recipe.epoch)


def additions(recipe: Recipe, files: Mapping[str, bytes]) -> Iterator[bytes]:
    """The recipe's directories and links, and ``files``, as the bytes of a tar without its end."""
    for path, mode in recipe.directories.items():
        yield entry_header(path, tarfile.DIRTYPE, mode, recipe.epoch)
    for path, target in recipe.links.items():
        yield entry_header(path, tarfile.SYMTYPE, 0o777, recipe.epoch, target=target)
    for path, content in files.items():
        yield from file_entry(path, content, 0o755 if path.startswith("./usr/") else 0o644, recipe.epoch)


def tools_beside(files: Mapping[str, File], epoch: int, present: Container[str]) -> Iterator[bytes]:
    """Programs, libraries and links, with the directories that they are in, as the bytes of a tar without its end.

    What is ``present`` already is left out: the engine takes no tar with a path that comes twice.
    """
    for directory in dict.fromkeys(f"./{parent}" for path in files for parent in reversed(PurePosixPath(path).parents[:-1])):
        if directory not in present:
            yield entry_header(directory, tarfile.DIRTYPE, 0o755, epoch)
    for path, file in files.items():
        if path in present:
            continue
        if file.target:
            yield entry_header(path, tarfile.SYMTYPE, 0o777, epoch, target=file.target)
        else:
            yield from file_entry(path, file.content, 0o755, epoch)


def _bytecode_path(path: str) -> str:
    module = Path(path)
    return f"./{module.parent}/__pycache__/{module.stem}.{sys.implementation.cache_tag}.pyc"


@lru_cache(maxsize=2048)  # the architectures have most modules in common
def _bytecode(path: str, source: bytes) -> bytes:
    """A .pyc file that Python takes without a look at the source's date (PEP 552, unchecked hash)."""
    code = compile(source, path.removeprefix("."), "exec", dont_inherit=True)
    unchecked = (1).to_bytes(4, "little")
    # In later versions the bytes depend on which strings this process happens to have interned, for whatever reason.
    marshalled = marshal.dumps(code, 2)
    return importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(source) + marshalled


def file_entry(path: str, content: bytes, mode: int, epoch: int) -> Iterator[bytes]:
    """A file as the bytes of a tar; ``epoch`` in seconds."""
    yield entry_header(path, tarfile.REGTYPE, mode, epoch, size=len(content))
    yield _padded(content)


def entry_header(path: str, kind: bytes, mode: int, epoch: int, *, size: int = 0, target: str = "") -> bytes:
    """What stands before an entry of a tar: of a file of ``size`` bytes, a directory, or a link to ``target``."""
    member = tarfile.TarInfo(path)
    member.type, member.mode, member.mtime, member.size, member.linkname = kind, mode, epoch, size, target
    return member.tobuf(tarfile.PAX_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a regular file in ``tar``."""
    file = tar.extractfile(member)
    assert file, f"{member.name} is a regular file"
    return file.read()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar of ``files``: contents by path."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _require(command: str, package: str) -> None:
    if shutil.which(command, path=search_path()) is None:
        raise ImageError(f"{command} is not on this machine", hint=f"run: {setup_command()} (or: apt-get install {package})")
