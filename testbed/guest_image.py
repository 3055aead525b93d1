"""The images of guests: QEMU, the guest's disks and kernel; and for each kind of guest, the same with a snapshot in it.

Nothing is configured and nothing runs under emulation but the guest itself, once, to make its snapshot. A reference ends
in a digest of all that the image is made of, so an image that is there is the right one, as with host images.
"""

from __future__ import annotations

import io
import lzma
import re
import tarfile
import tomllib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import fnmatch, translate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from testbed import images
from testbed.architecture import Architecture
from testbed.engine import STDERR, ContainerSpec, Engine
from testbed.errors import EngineError, GuestFailed, ImageError
from testbed.guest import DEFAULT_KERNEL, DIRECTORY, KERNELS, MEMORY, MODELS, RUNNER, Guest, Model
from testbed.images import Progress, silent

if TYPE_CHECKING:
    from testbed.rootfs import Workbench

FOLDERS = (*images.HOST_FOLDERS, "guest", "vm")
REPOSITORY = "testbed/vm"
TCG_S, KVM_S = 150.0, 20.0  # for a guest to boot and be saved; the runner gives up sooner, and says why
ROLE, SNAPSHOT, BASE, RELEASE = "testbed.role", "snapshot", "testbed.base", "testbed.kernel"


# Debian's newest kernel package of a flavour, as it is in the archive; nothing of it is installed. It is that of a point release:
# the suites of updates in between change often, and a mirror then offers half of one. So it may with the newest package.
_KERNEL = """
set -e
export ARCHITECTURE="$1" SUITE="$2" FLAVOUR="${3#linux-image-}"
RELEASE="${SUITE%-backports}"
shift 3
mkdir /tmp/kernel
fetch() {
    mmdebstrap --mode=root --variant=custom --skip=check/qemu,chroot/mount --architectures="$ARCHITECTURE" --format=null \\
    --setup-hook='sed -i "/-updates /d; /-security /d" "$1/etc/apt/sources.list"
        test "$SUITE" = "${SUITE%-backports}" ||
            sed -i -n "p; s/ ${SUITE%-backports} / $SUITE /p" "$1/etc/apt/sources.list"' \\
    --customize-hook='cd /tmp/kernel; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
        for one in $(apt-cache pkgnames linux-image- | grep -x "linux-image-[0-9][^a-z]*[a-z]*[0-9.]*-$FLAVOUR" | sort -V -r); do
            apt-get -q -o APT::Sandbox::User=root download "$one" >&2 && exit 0
        done
        exit 1' \\
    "$RELEASE" - "$@" >&2
}
# A mirror in the middle of an update offers files of two states for a moment.
fetch "$@" || fetch "$@" || fetch "$@"
exec dpkg-deb --fsys-tarfile /tmp/kernel/*.deb
"""
_ROOT_DISK = "sqfstar -quiet -no-progress -noI -noD -noF -noX disk >&2 && exec cat disk"
_MODULES_DISK = (
    'mkdir -p root/lib/modules && tar -x -C root/lib/modules && depmod -b root "$1" '
    "&& mksquashfs root/lib/modules disk -quiet -no-progress -comp lz4 -all-root >&2 && exec cat disk"
)


def base_reference(guest: Guest, machine: Architecture) -> str:
    """The image of guests of one kernel, for a machine of that architecture."""
    mechanism = {one: Path(__file__).with_name(one).read_bytes() for one in (*images.MECHANISM, "guest.py", "guest_image.py")}
    made_of = {**images.sources(FOLDERS), **mechanism, "for": f"{guest.name} on {machine.name}".encode()}
    return f"{REPOSITORY}-{guest.arch}-{guest.kernel}:{images.digest(made_of)}"


def reference(guest: Guest, machine: Architecture) -> str:
    """The image of a kind of guest, with its snapshot."""
    base = base_reference(guest, machine)
    return f"{base.rpartition(':')[0]}:{guest.key(base)}"


def build(
    engine: Engine, hosts: Sequence[Architecture], guests: Iterable[Guest], machine: Architecture, progress: Progress = silent
) -> tuple[images.HostImage, ...]:
    """The host images of some architectures, which are given back, and the images of some guests: those that are not there are
    built, hosts' and guests' at the same time. Raises :class:`ImageError`."""
    missing = [one for one in dict.fromkeys(guests) if not engine.image_exists(reference(one, machine))]
    if not missing:
        return images.build(engine, hosts, progress)
    from testbed.rootfs import Workbench  # late: a check that finds every image has no use for it

    bench = Workbench()
    with ThreadPoolExecutor(2) as workers:
        try:
            work = workers.submit(_build_guests, engine, bench, missing, machine, progress)
            ready = images.build(engine, hosts, progress, bench=bench)
            work.result()
        except BaseException:  # also Ctrl-C: what still runs would keep the pool, and so everybody, waiting
            bench.stop()
            raise
    return ready


def _build_guests(engine: Engine, bench: Workbench, missing: Sequence[Guest], machine: Architecture, progress: Progress) -> None:
    for guest in missing:
        base = base_reference(guest, machine)
        if not engine.image_exists(base):
            others = (base_reference(replace(guest, kernel=one), machine) for one in KERNELS)
            sibling = next((one for one in others if engine.image_exists(one)), None)
            if sibling:
                _derive_base(engine, bench, guest, base, sibling, progress)
            else:
                _build_base(engine, bench, guest, machine, base, progress)
        _build_snapshot(engine, bench, guest, base, reference(guest, machine), progress)


def default(machine: Architecture) -> Guest:
    """The guest that is built along with the host images: what `kind: vm` alone is, on one network."""
    return Guest("s390x", DEFAULT_KERNEL, MEMORY, 1, "tcg" if machine.name != "s390x" else "kvm")


def stale(labels: Mapping[str, Mapping[str, str]], machine: Architecture) -> list[str]:
    """Of images, given with their labels, the guests' ones that this version of testbed does not use."""
    ours = [one for one in labels if one.startswith(f"{REPOSITORY}-")]
    kinds = {one.rpartition(":")[0] for one in ours}
    current = set()
    for kind in kinds:
        arch, _, kernel = kind.removeprefix(f"{REPOSITORY}-").partition("-")
        if arch in MODELS:
            current.add(base_reference(Guest(arch, kernel, 0, 0, "tcg"), machine))
    return sorted(one for one in ours if one not in current and labels[one].get(BASE) not in current)


def remove_leftovers(engine: Engine) -> None:
    """Remove the containers of snapshots whose maker was killed."""
    for one in engine.containers(f"{ROLE}={SNAPSHOT}"):
        engine.remove_container(one.id)


# --- the image of a kernel -----------------------------------------------------------------------------------------


def _build_base(engine: Engine, bench: Workbench, guest: Guest, machine: Architecture, base: str, progress: Progress) -> None:
    def step(what: str) -> None:
        progress(guest.name, what)

    with ThreadPoolExecutor(2) as workers:
        try:
            disk = workers.submit(_root_disk, bench, guest.model, step)
            kernel = workers.submit(_kernel, bench, guest, step)
            pieces = _base(bench, guest.model, machine, step, lambda: {"root.sqfs": disk.result(), **kernel.result()})
            changes = [f'ENTRYPOINT ["{RUNNER}"]', "LABEL testbed=image", f"LABEL {BASE}={base}"]
            images.import_pieces(engine, pieces, base, platform=f"linux/{machine.name}", changes=changes)
        except BaseException:
            bench.stop()
            raise
    step("done")


def _derive_base(engine: Engine, bench: Workbench, guest: Guest, base: str, sibling: str, progress: Progress) -> None:
    """The image of a kernel out of that of another one for the same architecture, which differs in the kernel alone."""
    from testbed.rootfs import tar_of

    files = _kernel(bench, guest, lambda what: progress(guest.name, what))
    spec = ContainerSpec(name=f"testbed-base-{uuid4().hex[:12]}", image=sibling, argv=["none"], labels={ROLE: SNAPSHOT})
    container = engine.create_container(spec)
    try:
        engine.put_archive(container, DIRECTORY, tar_of(files))
        try:
            engine.commit(container, base, changes=[f"LABEL {BASE}={base}", "CMD []"])
        except EngineError as error:
            raise images.no_room(f"keeping {base}: {error.message}", error) from error
    finally:
        engine.remove_container(container)
    progress(guest.name, "done")


def _base(
    bench: Workbench, model: Model, machine: Architecture, step: Callable[[str], None], files: Callable[[], Mapping[str, bytes]]
) -> Generator[bytes]:
    """The tar of a guest's container: QEMU with its libraries, the runner, and the guest's ``files``."""
    from testbed import rootfs

    recipe, epoch = _recipe(), rootfs.Recipe.of(images.sources()).epoch
    keep = re.compile("|".join(translate(one) for one in recipe["keep"]))
    argv = rootfs.unpacking([model.package], recipe["suite"], machine)
    with bench.tool("unpacking QEMU", argv) as tool:
        step("unpacking QEMU")
        runner = rootfs.compiled(bench, images.sources(FOLDERS), "vm", machine)
        with tarfile.open(fileobj=tool.output, mode="r|", bufsize=rootfs.PIECE) as tar:
            for member in tar:
                if (
                    member.isdir()
                    or keep.match(member.name) is None
                    or (member.name.startswith("./usr/bin/") and model.program not in member.name)
                ):
                    continue
                if not member.isreg():
                    yield rootfs.entry_header(member.name, member.type, member.mode, epoch, target=member.linkname)
                    continue
                content = rootfs.content_of(tar, member)
                if member.name == f"./usr/bin/{model.program}":
                    content = spare_lowcore(content)
                yield from rootfs.file_entry(member.name, content, member.mode, epoch)
    for name in ("tmp", "run/testbed", "proc", "sys", "dev", "etc"):
        yield rootfs.entry_header(f"./{name}", tarfile.DIRTYPE, 0o755, epoch)
    for name, content in runner.items():
        yield from rootfs.file_entry(f"{rootfs.OWN_PROGRAMS}/{name}", content, 0o755, epoch)
    for name, content in files().items():
        yield from rootfs.file_entry(f".{DIRECTORY}/{name}", content, 0o644, epoch)
    yield bytes(2 * tarfile.BLOCKSIZE)


# cpu_unmap_lowcore() of QEMU's target/s390x: cpu_physical_memory_unmap(lowcore, sizeof(LowCore), 1, sizeof(LowCore)), for amd64.
_UNMAP_LOWCORE = bytes.fromhex("b900200000ba01000000be00200000e9")
_UNMAP_WRITTEN = bytes.fromhex("b900040000ba01000000be00200000e9")


def spare_lowcore(program: bytes) -> bytes:
    """QEMU's s390x emulator as it tells what an interrupt has written: the first 1 KiB of the lowcore, not all 8 KiB.

    The kernel leaves each interrupt and system call by an instruction at 0x400 of the lowcore, whose translation QEMU
    throws away when it counts that as written: it then translates it anew hundreds of times for every program that starts. All that
    an interrupt writes is below 0x200 (machine checks write higher: no code is there). A program in which this place
    is not found exactly once stays as it is, and is slower.
    """
    return program.replace(_UNMAP_LOWCORE, _UNMAP_WRITTEN) if program.count(_UNMAP_LOWCORE) == 1 else program


def _root_disk(bench: Workbench, model: Model, step: Callable[[str], None]) -> bytes:
    """The host image's file system, with our programs for the guest's architecture, as a disk that cannot be written."""
    from testbed import rootfs

    pieces = rootfs.root_file_system(bench, images.sources(), model.architecture, model.architecture, step)
    whole = b"".join(pieces)
    with bench.tool("making the guest's disk", ["sh", "-c", _ROOT_DISK], stdin=whole) as tool:
        return tool.output.read()


def _kernel(bench: Workbench, guest: Guest, step: Callable[[str], None]) -> dict[str, bytes]:
    """The kernel, what it loads before it has a disk, the disk with its modules, and its release."""
    from testbed import rootfs

    model, recipe = guest.model, _recipe()
    step("fetching the kernel")
    mirror = rootfs.apt_sources(guest.kernel.removesuffix("-backports"))
    argv = ["sh", "-c", _KERNEL, "sh", model.architecture.name, guest.kernel, model.kernel_package, *mirror]
    with (
        bench.tool(f"fetching the kernel {guest.kernel}", argv) as tool,
        tarfile.open(fileobj=tool.output, mode="r|", bufsize=rootfs.PIECE) as tar,
    ):
        files = dict(_files_of(tar))
    kernel = next((content for path, content in files.items() if PurePosixPath(path).name.startswith("vmlinuz-")), None)
    release = next((found[1] for path in files if (found := re.search(r"/lib/modules/([^/]+)/", path))), "")
    if kernel is None or not release:
        raise ImageError(f"the package of the kernel {guest.kernel} for {guest.arch} holds no kernel")
    modules = {
        path.rpartition(f"/lib/modules/{release}/")[2]: content for path, content in files.items() if f"/lib/modules/{release}/" in path
    }
    step("packing its modules")
    guest_init = rootfs.compiled(bench, images.sources(FOLDERS), "guest", model.architecture)["guest"]
    chosen = _modules_disk_content(modules, recipe["modules"])
    disk_argv = ["sh", "-c", _MODULES_DISK, "sh", release]
    packed = rootfs.tar_of({f"{release}/{path}": content for path, content in chosen.items()})
    with bench.tool("making the disk of kernel modules", disk_argv, stdin=packed) as tool:
        disk = tool.output.read()
    return {
        "kernel": kernel,
        "initrd": initramfs(guest_init, boot_modules(modules, recipe["boot"])),
        "modules.sqfs": disk,
        "release": f"{release}\n".encode(),
    }


def _files_of(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    from testbed.rootfs import content_of

    for member in tar:
        if member.isreg() and ("/modules/" in member.name or "vmlinuz-" in member.name):
            yield member.name, content_of(tar, member)


def _modules_disk_content(modules: Mapping[str, bytes], patterns: Sequence[str]) -> dict[str, bytes]:
    """The modules of ``patterns`` with those that they need, and the kernel's own lists, which depmod reads."""
    by_name = _by_name(modules)
    wanted = [name for name, path in by_name.items() if any(fnmatch(path, one) for one in patterns)]
    chosen = {path: content for path, content in modules.items() if PurePosixPath(path).name.startswith("modules.")}
    for name in _with_dependencies(wanted, by_name, modules):
        path = by_name[name]
        chosen[path.partition(".ko")[0] + ".ko"] = _plain(path, modules[path])
    return chosen


def boot_modules(modules: Mapping[str, bytes], names: Sequence[str]) -> list[tuple[str, bytes]]:
    """(name, content) of the modules called ``names`` and of those they need, in an order in which they can be loaded.

    What the kernel has built in is left out; a name that is not known to it at all as well, as architectures differ.
    """
    by_name = _by_name(modules)
    order = _with_dependencies([name for name in names if name in by_name], by_name, modules)
    return [(name, _plain(by_name[name], modules[by_name[name]])) for name in order]


def _by_name(modules: Mapping[str, bytes]) -> dict[str, str]:
    return {PurePosixPath(path).name.partition(".ko")[0].replace("-", "_"): path for path in sorted(modules) if ".ko" in path}


def _with_dependencies(names: Sequence[str], by_name: Mapping[str, str], modules: Mapping[str, bytes]) -> list[str]:
    order: dict[str, None] = {}

    def add(name: str) -> None:
        if name in order or name not in by_name:  # built in
            return
        for needed in _dependencies(_plain(by_name[name], modules[by_name[name]])):
            add(needed)
        order[name] = None

    for name in names:
        add(name)
    return list(order)


def _dependencies(module: bytes) -> list[str]:
    """The names after ``depends=`` in a module's .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [one.replace("-", "_") for one in found[1].decode().split(",") if one] if found else []


def _plain(path: str, content: bytes) -> bytes:
    return lzma.decompress(content) if path.endswith(".xz") else content


def initramfs(init: bytes, modules: Sequence[tuple[str, bytes]]) -> bytes:
    """The guest's first file system, a cpio archive (newc: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst)."""
    archive = io.BytesIO()
    entries = [("dev", 0o040755, b""), ("modules", 0o040755, b""), ("init", 0o100755, init)]
    entries += [(f"modules/{index:02}-{name}.ko", 0o100644, content) for index, (name, content) in enumerate(modules)]
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        links = 2 if mode & 0o040000 else 1
        fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        archive.write(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        archive.write(bytes(-archive.tell() % 4) + content)
        archive.write(bytes(-archive.tell() % 4))
    return archive.getvalue()


def _recipe() -> dict[str, Any]:
    raw: dict[str, Any] = tomllib.loads(images.sources(FOLDERS)["vm/recipe.toml"].decode())
    return raw


# --- the snapshot ----------------------------------------------------------------------------------------------------


def _build_snapshot(engine: Engine, bench: Workbench, guest: Guest, base: str, target: str, progress: Progress) -> None:
    """Boot a guest once, and keep it as it is when it answers."""
    progress(guest.name, "booting, to make its snapshot")
    spec = ContainerSpec(
        name=f"testbed-snapshot-{uuid4().hex[:12]}",
        image=base,
        argv=guest.runner_arguments("save"),
        labels={ROLE: SNAPSHOT},
        capabilities=["NET_ADMIN"],
        devices=guest.devices,
    )
    container = engine.create_container(spec)
    bench.when_stopped(lambda: engine.kill(container))
    try:
        engine.start(container)
        patience_s = TCG_S if guest.accelerator == "tcg" else KVM_S
        code = engine.wait(container, timeout_s=patience_s)
        if code != 0:
            how = f"it was not done in {patience_s:.0f} s" if code is None else f"exit code {code}"
            said = engine.written(container, stream=STDERR).decode(errors="backslashreplace").strip().splitlines()[-12:]
            quoted = "\n".join(f"  | {line}" for line in said)
            raise GuestFailed(
                f"the snapshot of {guest.name} could not be made ({how}):\n{quoted}", hint=_hint(quoted), accelerator=guest.accelerator
            )
        progress(guest.name, "saving its snapshot")
        try:
            engine.commit(container, target, changes=["CMD []"])
        except EngineError as error:
            raise images.no_room(f"keeping the snapshot of {guest.name}: {error.message}", error) from error
    finally:
        engine.remove_container(container)
    progress(guest.name, "done")


def _hint(said: str) -> str:
    if "No space left" in said:
        return "a snapshot is as large as the guest's memory; 'docker system df' shows what takes space where the engine keeps its data"
    return "its console is above"
