"""Root file systems of hosts as tar streams: Debian packages unpacked and trimmed, our files and programs put in.

Nothing is written to this machine's disk: each tool works on a tmpfs in namespaces of its own, and what it
makes leaves through a pipe. Whoever kills this process, however hard, takes all of that along.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tarfile
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO

from testbed.architecture import Architecture
from testbed.errors import ImageError

MIRROR_VARIABLE = "TESTBED_DEBIAN_MIRROR"
MIRROR = "http://debian.example/debian"
SECURITY_MIRROR = "http://debian.example/debian-security"
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
INIT_PATH = "./usr/lib/testbed/init"
PIECE = 1 << 20

# What each tool runs in. /tmp becomes a tmpfs that nobody else sees; --pdeathsig and --kill-child pass the death of
# this process on to the whole PID namespace, and when its last process is gone the kernel takes the tmpfs away.
ISOLATED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
    *("sh", "-c", 'mount -t tmpfs -o mode=1777 testbed /tmp && cd /tmp && export TMPDIR=/tmp HOME=/tmp && exec "$@"', "sh"),
)

Step = Callable[[str], None]
"""Told what is being done now, in a few words."""


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


class Tool:
    """A program in isolation, as a context manager: its standard output is ``output``, its failure an :class:`ImageError`.

    Left early, by an exception, it is killed with all that it started.
    """

    def __init__(self, doing: str, argv: Sequence[str], *, stdin: bytes = b"", on_line: Step = lambda line: None) -> None:
        self.doing = doing
        self._on_line = on_line
        self._last_lines: deque[str] = deque(maxlen=12)
        with open(os.memfd_create("stdin"), "w+b") as input_file:
            input_file.write(stdin)
            input_file.seek(0)
            self._process = subprocess.Popen(
                [*ISOLATED, *argv], stdin=input_file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C.UTF-8"}
            )
        assert self._process.stdout is not None and self._process.stderr is not None
        self.output: IO[bytes] = self._process.stdout
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()

    def _listen(self, stderr: IO[bytes]) -> None:
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
            self._process.kill()
            self._process.wait()
            self.output.close()
            self._listener.join()
            if self._process.stderr is not None:
                self._process.stderr.close()

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
        mirror = os.environ.get(MIRROR_VARIABLE, MIRROR)
        return f"is the Debian mirror {mirror} reachable? {MIRROR_VARIABLE}=URL names another one"
    if "unshare" in output and os.geteuid() != 0:
        return "building images needs root, for namespaces and for the files' owners"
    return ""


def compiled(sources: Mapping[str, bytes], target: str, architecture: Architecture) -> dict[str, bytes]:
    """What ``make TARGET`` of images/Makefile gives for ``architecture``, by name. Raises :class:`ImageError`."""
    package = f"gcc-{architecture.triplet.replace('_', '-')}"
    _require(architecture.compiler, "the C compiler ", package)
    _require("make", "", "make")
    script = 'tar -x && make -s "$1" CC="$2" OUT=/tmp/out >&2 && exec tar -c -C out .'
    doing = f"compiling the C programs for {architecture.name}"
    with Tool(doing, ["sh", "-c", script, "sh", target, architecture.compiler], stdin=_tar_of(sources)) as tool:
        with tarfile.open(fileobj=tool.output, mode="r|") as tar:
            return {Path(member.name).name: _content(tar, member) for member in tar if member.isreg()}


def root_file_system(
    recipe: Recipe, architecture: Architecture, programs: Mapping[str, bytes], init: bytes, step: Step = lambda step: None
) -> Iterator[bytes]:
    """The tar of a root file system, piece by piece. Raises :class:`ImageError` before the tar's end if anything failed."""
    _require("mmdebstrap", "", "mmdebstrap")
    argv = [
        *("env", f"SOURCE_DATE_EPOCH={recipe.epoch}"),
        *("mmdebstrap", "--mode=root", "--variant=extract", f"--hook-dir={MERGED_USR}", f"--architectures={architecture.name}"),
        *(f"--include={','.join(recipe.packages)}", "--format=tar", recipe.suite, "-", *apt_sources(recipe.suite)),
    ]

    def on_line(line: str) -> None:
        if line.startswith("I: ") and line.endswith("..."):
            step(line.removeprefix("I: ").removesuffix("..."))

    with Tool(f"unpacking Debian packages for {architecture.name}", argv, on_line=on_line) as tool:
        with tarfile.open(fileobj=tool.output, mode="r|", bufsize=PIECE) as tar:
            yield from kept(tar, recipe)
    added = {**recipe.files, **{f"./usr/local/bin/{name}": program for name, program in programs.items()}, INIT_PATH: init}
    yield from additions(recipe, added)
    yield bytes(2 * tarfile.BLOCKSIZE)


def apt_sources(suite: str) -> list[str]:
    """The lines of sources.list. A mirror that the user names is used alone: it may not carry security updates."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    if mirror:
        return [f"deb {mirror} {suite} main"]
    return [f"deb {MIRROR} {suite} main", f"deb {MIRROR} {suite}-updates main", f"deb {SECURITY_MIRROR} {suite}-security main"]


def kept(tar: tarfile.TarFile, recipe: Recipe) -> Iterator[bytes]:
    """The members of ``tar`` that the recipe keeps, as the bytes of a new tar without its end."""
    for member in tar:
        if recipe.keeps(member.name):
            yield member.tobuf(tarfile.PAX_FORMAT)
            if member.isreg():
                yield _padded(_content(tar, member))


def additions(recipe: Recipe, files: Mapping[str, bytes]) -> Iterator[bytes]:
    """The recipe's directories and links, and ``files``, as the bytes of a tar without its end."""

    def member(path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        one = tarfile.TarInfo(path)
        one.type, one.mode, one.mtime = kind, mode, recipe.epoch
        return one

    for path, mode in recipe.directories.items():
        yield member(path, tarfile.DIRTYPE, mode).tobuf(tarfile.PAX_FORMAT)
    for path, target in recipe.links.items():
        link = member(path, tarfile.SYMTYPE, 0o777)
        link.linkname = target
        yield link.tobuf(tarfile.PAX_FORMAT)
    for path, content in files.items():
        file = member(path, tarfile.REGTYPE, 0o755 if path.startswith("./usr/") else 0o644)
        file.size = len(content)
        yield file.tobuf(tarfile.PAX_FORMAT)
        yield _padded(content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, f"{member.name} is a regular file"
    return file.read()


def _tar_of(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _require(command: str, what: str, package: str) -> None:
    if shutil.which(command) is None:
        raise ImageError(f"{what}{command} is not on this machine", hint=f"run: make setup (or: apt-get install {package})")
