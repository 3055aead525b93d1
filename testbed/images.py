"""The images that hosts are made from: what is in images/, built from Debian's archive and cached by content.

A reference ends in a digest of everything the image is made of, so an image that is there is the right one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from testbed import architecture as architectures
from testbed import shipped
from testbed.architecture import Architecture
from testbed.errors import ImageError, TestbedError

if TYPE_CHECKING:
    from testbed.engine import Engine
    from testbed.native_tools import File
    from testbed.rootfs import Workbench

REPOSITORY = "testbed/host"
INIT = "/usr/lib/testbed/init"
HOST_FOLDERS = ("agent", "host", "init", "native", "programs")
MECHANISM = ("elf.py", "native_tools.py", "rootfs.py")  # the modules that put an image together
PIECE = 1 << 20  # bytes that are read at once
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"

Progress = Callable[[str, str], None]
"""``progress(name, step)``: what is done now for the image called ``name``. Called from several threads."""


def silent(name: str, step: str) -> None:
    """For those who do not want to be told."""


class ImageStore(Protocol):
    """Where images are kept: the Docker engine."""

    def image_exists(self, reference: str) -> bool: ...

    def list_images(self) -> Sequence[str]:
        """The references of all images of ours."""

    def import_image(self, tar: BinaryIO, reference: str, *, platform: str, changes: Sequence[str]) -> str:
        """Make an image of a root file system, read from ``tar`` as it comes; gives the image's id.

        Nothing stays behind when ``tar.read`` raises.
        """

    def remove_image(self, reference: str) -> None: ...


@dataclass(frozen=True)
class HostImage:
    """The image of hosts of one architecture. ``machine`` is the architecture that the images are built on and run on."""

    architecture: Architecture
    machine: Architecture
    reference: str

    @property
    def name(self) -> str:
        return f"host-{self.architecture.name}"

    @property
    def platform(self) -> str:
        """Docker's word for the architecture."""
        return f"linux/{self.architecture.name}"


@dataclass(frozen=True)
class Plan:
    """Which images are there already, which have to be built."""

    present: tuple[HostImage, ...]
    missing: tuple[HostImage, ...]


def directory() -> Path:
    """images/, wherever it is. Raises :class:`LabError` when testbed is not complete."""
    return shipped.folder("images")


@cache
def sources(folders: tuple[str, ...] = HOST_FOLDERS) -> Mapping[str, bytes]:
    """Everything that an image is made of, by default a host's: contents by path below images/. What `make` leaves there is
    not among it."""
    root = directory()
    files = [root / "Makefile"]
    for folder in folders:
        files += [path for path in (root / folder).rglob("*") if path.is_file() and not path.name.startswith(".") and path.suffix != ".o"]
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(files)}


def host_image(architecture: Architecture, machine: Architecture | None = None, content: Mapping[str, bytes] | None = None) -> HostImage:
    """The image for hosts of ``architecture`` on a machine of architecture ``machine`` (by default this one)."""
    machine = machine or architectures.of_machine()
    content = sources() if content is None else content
    mechanism = {
        **{name: Path(__file__).with_name(name).read_bytes() for name in MECHANISM},
        "changes": "\n".join(_changes(architecture)).encode(),
        "for": f"{architecture.name} on {machine.name}".encode(),
    }
    return HostImage(architecture, machine, f"{REPOSITORY}-{architecture.name}:{digest({**content, **mechanism})}")


def digest(made_of: Mapping[str, bytes]) -> str:
    """What the tag of an image ends in: a digest of all that it is made of, contents by name."""
    whole = hashlib.sha256()
    for path, content in sorted(made_of.items()):
        whole.update(f"{path}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()[:12]


def plan(wanted: Iterable[HostImage], present: Collection[str]) -> Plan:
    """Sort the wanted images by whether their reference is ``present``."""
    wanted = tuple(dict.fromkeys(wanted))
    return Plan(
        tuple(one for one in wanted if one.reference in present),
        tuple(one for one in wanted if one.reference not in present),
    )


def build(
    store: ImageStore, wanted: Sequence[Architecture], progress: Progress = silent, *, bench: Workbench | None = None
) -> tuple[HostImage, ...]:
    """The host images of the ``wanted`` architectures; those that are not there are built, at the same time, on ``bench``.

    Raises :class:`ImageError`; an image is complete or not there at all.
    """
    images = tuple(host_image(one) for one in dict.fromkeys(wanted))
    todo = plan(images, [one.reference for one in images if store.image_exists(one.reference)])
    if todo.missing:
        from testbed.rootfs import Workbench  # late: a check that finds every image has no use for it

        bench = bench or Workbench()
        # An emulated host's image has tools of the machine's own; where that one's is built as well, out of the same packages.
        shared: Future[Mapping[str, File]] | None = Future() if any(one.architecture == one.machine for one in todo.missing) else None
        with ThreadPoolExecutor(len(todo.missing)) as workers:
            try:
                for done in as_completed([workers.submit(_build_one, store, bench, one, progress, shared) for one in todo.missing]):
                    done.result()
            except BaseException:  # also Ctrl-C: what still runs would keep the pool, and so everybody, waiting
                bench.stop()
                raise
    return images


def wanted_by(engine: Engine) -> tuple[HostImage, ...]:
    """The host images that an engine needs for hosts of every kind: its machine's own, and the emulated one."""
    machine = architectures.of_machine(engine.machine)
    return tuple(host_image(one, machine) for one in dict.fromkeys((machine, architectures.EMULATED)))


def stale(store: ImageStore) -> list[str]:
    """The host images that this version of testbed does not use: their references, or ids where a newer image took the reference."""
    current = {host_image(one).reference for one in architectures.ARCHITECTURES.values()}
    return sorted(one for one in store.list_images() if one.startswith((f"{REPOSITORY}-", "sha256:")) and one not in current)


def remove_stale(store: ImageStore) -> list[str]:
    """Remove the images of :func:`stale`; gives their references."""
    old = stale(store)
    for one in old:
        store.remove_image(one)
    return old


def _changes(architecture: Architecture) -> list[str]:
    """What an image says besides its files, as lines of a Dockerfile."""
    return [
        f'ENTRYPOINT ["{INIT}"]',
        f"ENV PATH={PATH}",
        "LABEL testbed=image",
        f"LABEL testbed.architecture={architecture.name}",
    ]


def _build_one(
    store: ImageStore, bench: Workbench, image: HostImage, progress: Progress, shared: Future[Mapping[str, File]] | None
) -> None:
    from testbed import rootfs

    def step(what: str) -> None:
        progress(image.name, what)

    pieces = rootfs.root_file_system(bench, sources(), image.architecture, image.machine, step, shared)
    try:
        import_pieces(store, pieces, image.reference, platform=image.platform, changes=_changes(image.architecture))
    except BaseException as error:
        if shared and image.architecture == image.machine and not shared.done():
            shared.set_exception(error)  # the other would wait for it
        raise
    step("done")


def import_pieces(store: ImageStore, pieces: Generator[bytes], reference: str, *, platform: str, changes: Sequence[str]) -> None:
    """Make an image of a root file system that comes as the ``pieces`` of a tar. Raises :class:`ImageError`, or what they raise."""
    with _Stream(pieces) as stream, io.BufferedReader(stream, PIECE) as tar:
        try:
            store.import_image(cast(BinaryIO, tar), reference, platform=platform, changes=changes)
        except TestbedError as error:
            if stream.error is not None:  # the cause; what the engine says of a tar that breaks off is a consequence
                raise stream.error from None
            raise no_room(f"importing {reference}: {error.message}", error) from error


def no_room(message: str, error: TestbedError) -> ImageError:
    """The error of an image that the engine did not take, with a hint where it has no room for it."""
    full = "no space left" in error.message.lower()
    hint = "an image needs 100 to 300 MB where the engine keeps them; 'docker system df' shows what takes space" if full else error.hint
    return ImageError(message, hint=hint)


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file to read from; ``error`` is what ended them early."""

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = cast(memoryview, buffer)
        try:
            while not self._rest:
                self._rest = memoryview(next(self._pieces))
        except StopIteration:
            return 0
        except Exception as error:
            self.error = error
            raise
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        self._pieces.close()
        super().close()
