"""Images of hosts with packages of their own: an image of testbed's with one layer more, cached by content as all images.

A reference ends in a digest of the image below and of what is wanted, so hosts and labs that want the same have the same one. A package
without a version is the one of the day on which the image was made.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from testbed import guest_image, images
from testbed.architecture import ARCHITECTURES, Architecture
from testbed.engine import ContainerSpec, Engine
from testbed.errors import EngineError, TestbedError
from testbed.guest import DIRECTORY, Guest
from testbed.images import Progress, silent
from testbed.lock import lock
from testbed.package_names import Extras

if TYPE_CHECKING:
    from testbed.packages import Layer
    from testbed.rootfs import Step, Workbench

REPOSITORY = "testbed/derived"
WANTED, HAS, LEFT_OUT = "testbed.wanted", "testbed.packages", "testbed.left-out"
MECHANISM = ("derived.py", "maintainer_scripts.py", "packages.py", "pip_fetch.py")
PATIENCE_S = 900.0  # for another process that is making the same image
ROOT_DISK = "root.sqfs"
# The guest's disk unpacked, the layer laid over it, and packed again as it was: not compressed, since reading it is what matters.
_DISK = f"""
set -e
tar -x
unsquashfs -quiet -no-progress -dest root {ROOT_DISK} >&2
rm {ROOT_DISK}
tar -x --keep-directory-symlink -C root -f layer.tar
mksquashfs root new -quiet -no-progress -noI -noD -noF -noX -all-root >&2
exec cat new
"""


@dataclass(frozen=True)
class PackagedGuest(Guest):
    """A guest whose disk has packages of its own; ``packages`` is a digest of what makes it another disk."""

    packages: str = ""

    @property
    def name(self) -> str:
        return f"{super().name}-{self.packages}"


@dataclass(frozen=True)
class Derived:
    """An image that a host wants: ``extras`` over the host image of an architecture, or over that of a ``guest``.

    A digest reads all that it is made of, so each is made once.
    """

    extras: Extras
    architecture: Architecture
    machine: Architecture
    guest: Guest | None = None

    @property
    def base(self) -> str:
        """The image below."""
        if self.guest:
            return guest_image.base_reference(self.guest, self.machine)
        return images.host_image(self.architecture, self.machine).reference

    @cached_property
    def key(self) -> str:
        made_of = {name: Path(__file__).with_name(name).read_bytes() for name in MECHANISM}
        wanted = json.dumps([self.extras.packages, self.extras.pip])
        return images.digest({**made_of, "base": self.base.encode(), "wanted": wanted.encode()})

    @property
    def packaged(self) -> PackagedGuest:
        """The guest with the packages on its disk."""
        assert self.guest
        return PackagedGuest(**{one.name: getattr(self.guest, one.name) for one in fields(Guest)}, packages=self.key)

    @cached_property
    def reference(self) -> str:
        """What a host is made from."""
        if self.guest:
            return guest_image.reference(self.packaged, self.machine)
        return f"{REPOSITORY}-{self.architecture.name}:{self.key}"

    @property
    def made(self) -> str:
        """The image that gets the layer; a guest's then gets its snapshot."""
        return guest_image.base_reference(self.packaged, self.machine) if self.guest else self.reference


def build(engine: Engine, wanted: Mapping[str, Derived], progress: Progress = silent) -> None:
    """Make the images that hosts want, by host, and that are not there; the images below are. Of two that make the same, one waits.

    Raises :class:`InputError` for packages that are not to be had, with the host's name; :class:`ImageError`.
    """
    missing: dict[str, tuple[str, Derived]] = {}
    for host, one in wanted.items():
        if one.reference not in missing and not engine.image_exists(one.reference):
            missing[one.reference] = (host, one)
    if not missing:
        return
    from testbed.rootfs import Workbench  # late: a check that finds every image has no use for it

    bench = Workbench()
    with ThreadPoolExecutor(len(missing)) as workers:
        try:
            for done in as_completed([workers.submit(_build_one, engine, bench, host, one, progress) for host, one in missing.values()]):
                done.result()
        except BaseException:  # also Ctrl-C: what still runs would keep the pool, and so everybody, waiting
            bench.stop()
            raise


def _build_one(engine: Engine, bench: Workbench, host: str, one: Derived, progress: Progress) -> None:
    name = f"{one.guest.name if one.guest else f'host-{one.architecture.name}'} with {one.extras.words}"

    def step(what: str) -> None:
        progress(name, what)

    # No lab has dots in its name.
    with lock(f"image.{one.made.replace('/', '.').replace(':', '.')}", engine.socket, patience_s=PATIENCE_S):
        if not engine.image_exists(one.made):
            try:
                _build_image(engine, bench, one, step)
            except TestbedError as error:
                error.message = f"host '{host}': {error.message}"
                raise
        if one.guest:
            guest_image.build(engine, [], [one.packaged], one.machine, progress)
    step("done")


def _build_image(engine: Engine, bench: Workbench, one: Derived, step: Step) -> None:
    """A container of the image below, which never runs, with the layer put into it, kept as an image."""
    from testbed import rootfs
    from testbed.packages import STATUS, layer

    recipe = rootfs.Recipe.of(images.sources())
    role = {guest_image.ROLE: guest_image.SNAPSHOT}
    container = engine.create_container(
        ContainerSpec(name=f"testbed-derived-{uuid4().hex[:12]}", image=one.base, argv=["none"], labels=role)
    )
    try:
        if one.guest:
            disk = _file(engine, container, f"{DIRECTORY}/{ROOT_DISK}")
            status = _from_disk(bench, disk, STATUS).decode()
        else:
            status = _file(engine, container, f"/{STATUS}").decode()
        made = layer(bench, one.extras, one.architecture, recipe, status, step)
        step("keeping the image")
        if one.guest:
            whole = rootfs.tar_of({ROOT_DISK: disk, "layer.tar": made.files})
            with bench.tool("making the guest's disk", ["sh", "-c", _DISK], stdin=whole) as tool:
                new = tool.output.read()
            engine.put_archive(container, DIRECTORY, rootfs.tar_of({ROOT_DISK: new}))
        else:
            engine.put_archive(container, "/", made.files)
        try:
            engine.commit(container, one.made, changes=changes(one, made))
        except EngineError as error:
            raise images.no_room(f"keeping {one.made}: {error.message}", error) from error
    finally:
        engine.remove_container(container)


def changes(one: Derived, made: Layer) -> list[str]:
    """What the image says of itself, as lines of a Dockerfile."""
    about = {guest_image.BASE: one.base, WANTED: one.extras.words, HAS: ", ".join(made.versions), LEFT_OUT: "; ".join(made.left_out)}
    return ["CMD []", *(f"LABEL {key}={json.dumps(value)}" for key, value in about.items())]


def _file(engine: Engine, container: str, path: str) -> bytes:
    from testbed.rootfs import content_of

    with tarfile.open(fileobj=io.BytesIO(b"".join(engine.get_archive(container, path)))) as tar:
        return content_of(tar, tar.getmembers()[0])


def _from_disk(bench: Workbench, disk: bytes, path: str) -> bytes:
    argv = ["sh", "-c", 'cat > disk && exec unsquashfs -cat disk "$1"', "sh", path]
    with bench.tool("reading the guest's disk", argv, stdin=disk) as tool:
        return tool.output.read()


# Which there are


@dataclass(frozen=True)
class Present:
    """A derived image that is there: what it was made for, of what it is in the end, and what nobody did for its packages."""

    reference: str
    wanted: str
    has: str
    left_out: str


def present(engine: Engine) -> list[Present]:
    """All of them, of this version of testbed or another; a guest's also before its snapshot."""
    ours = {
        one: said for one, said in engine.labels_of_images().items() if one.startswith((f"{REPOSITORY}-", f"{guest_image.REPOSITORY}-"))
    }
    return [
        Present(one, *(said.get(label, "") for label in (WANTED, HAS, LEFT_OUT))) for one, said in sorted(ours.items()) if said.get(WANTED)
    ]


def unused(engine: Engine) -> list[str]:
    """The derived images that no host of any lab is made from, guests' without a snapshot among them."""
    return [one.reference for one in present(engine) if not engine.image_in_use(one.reference)]


def stale(engine: Engine, machine: Architecture) -> list[str]:
    """The derived host images over images that this version of testbed does not use. (Guests' are among :func:`guest_image.stale`.)"""
    current = {images.host_image(one, machine).reference for one in ARCHITECTURES.values()}
    ours = {one: said for one, said in engine.labels_of_images().items() if one.startswith(f"{REPOSITORY}-")}
    return sorted(one for one, said in ours.items() if said.get(guest_image.BASE) not in current)
