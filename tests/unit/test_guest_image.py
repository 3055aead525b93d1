"""The images of guests: what they are called, what is packed into them, and what becomes of a snapshot that fails."""

from __future__ import annotations

import io
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import guest_image as module
from testbed import images
from testbed.architecture import ARCHITECTURES
from testbed.engine import Engine
from testbed.errors import EngineError, GuestFailed, ImageError
from testbed.guest import Guest
from testbed.guest_image import base_reference, boot_modules, build, initramfs, reference, remove_leftovers, spare_lowcore, stale
from tests.fake_engine import FakeEngine

AMD64, ARM64 = ARCHITECTURES["amd64"], ARCHITECTURES["arm64"]
GUEST = Guest("s390x", "bookworm", 128 << 20, 1, "tcg")


# --- what they are called


def test_a_base_is_named_after_its_kernel_and_a_snapshot_after_its_base_too() -> None:
    base, whole = base_reference(GUEST, AMD64), reference(GUEST, AMD64)
    assert base.startswith("testbed/vm-s390x-bookworm:")
    assert whole == f"testbed/vm-s390x-bookworm:{GUEST.key(base)}"
    assert reference(replace(GUEST, kernel="bookworm-backports"), AMD64).startswith("testbed/vm-s390x-bookworm-backports:")


@pytest.mark.parametrize("other", [{"memory": 1 << 30}, {"networks": 5}, {"accelerator": "kvm"}], ids=str)
def test_guests_of_one_kernel_share_a_base(other: dict[str, object]) -> None:
    one: Guest = replace(GUEST, **other)  # type: ignore[arg-type]
    assert base_reference(one, AMD64) == base_reference(GUEST, AMD64)
    assert reference(one, AMD64) != reference(GUEST, AMD64)


def test_another_kernel_architecture_or_machine_is_another_base() -> None:
    digests = {
        base_reference(one, machine).rpartition(":")[2]
        for one, machine in (
            (GUEST, AMD64),
            (replace(GUEST, kernel="trixie"), AMD64),
            (replace(GUEST, arch="amd64"), AMD64),
            (GUEST, ARM64),
        )
    }
    assert len(digests) == 4


@pytest.mark.parametrize("path", ["vm/runner.c", "guest/guest.c", "agent/agent.c", "init/init.c", "host/recipe.toml", "Makefile"])
def test_a_change_of_any_source_is_another_base_and_another_snapshot(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, there = reference(GUEST, AMD64), dict(images.sources(module.FOLDERS))
    assert path in there
    monkeypatch.setattr(images, "sources", lambda folders: {**there, path: there[path] + b"\n"})
    after = reference(GUEST, AMD64)
    assert after != before
    assert after == reference(GUEST, AMD64)


@pytest.mark.parametrize("name", ["rootfs.py", "guest.py", "guest_image.py"])
def test_a_change_of_how_they_are_made_or_run_is_another_base(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = base_reference(GUEST, AMD64), Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"\n" if path.name == name else b""))
    assert base_reference(GUEST, AMD64) != before


def test_images_of_guests_that_no_source_of_today_makes_are_stale_and_nobody_else_s() -> None:
    base, whole = base_reference(GUEST, AMD64), reference(GUEST, AMD64)
    other = base_reference(replace(GUEST, arch="amd64", kernel="bookworm-backports"), AMD64)
    old = "testbed/vm-s390x-bookworm:000000000000"
    labels = {
        base: base,
        whole: base,
        other: other,
        old: old,
        f"{old}-1x128M-tcg": old,
        "testbed/vm-riscv64-sid:222": "testbed/vm-riscv64-sid:222",
        "testbed/vm-s390x-bookworm:333": "",
        "testbed/host-s390x:444": "",
        "my/vm-s390x-bookworm:555": "",
    }
    assert stale({one: {module.BASE: base} for one, base in labels.items()}, AMD64) == [
        "testbed/vm-riscv64-sid:222",
        old,
        f"{old}-1x128M-tcg",
        "testbed/vm-s390x-bookworm:333",
    ]


# --- what is packed into them


def kernel_module(*needs: str) -> bytes:
    return b"\x7fELF" + b"license=GPL\0depends=" + ",".join(needs).encode() + b"\0retpoline=Y\0"


MODULES = {
    "kernel/drivers/net/virtio_net.ko": kernel_module("net_failover", "virtio", "virtio_ring"),
    "kernel/drivers/net/net_failover.ko": kernel_module("failover"),
    "kernel/net/core/failover.ko.xz": lzma.compress(kernel_module()),
    "kernel/drivers/virtio/virtio-ring.ko.xz": lzma.compress(kernel_module("virtio")),
    "kernel/drivers/virtio/virtio.ko": kernel_module(),
    "kernel/fs/overlayfs/overlay.ko": kernel_module("no_such_module"),
    "modules.builtin": b"kernel/fs/squashfs/squashfs.ko\n",
    "modules.order": b"",
}


def test_modules_come_after_those_that_they_need_and_once() -> None:
    names = [name for name, _ in boot_modules(MODULES, ["virtio_net", "virtio", "overlay"])]
    assert sorted(names) == ["failover", "net_failover", "overlay", "virtio", "virtio_net", "virtio_ring"]
    place = {name: index for index, name in enumerate(names)}
    for one, needed in (
        ("virtio_net", "net_failover"),
        ("net_failover", "failover"),
        ("virtio_net", "virtio_ring"),
        ("virtio_ring", "virtio"),
    ):
        assert place[needed] < place[one]


def test_what_is_built_in_or_unknown_is_left_out() -> None:
    assert boot_modules(MODULES, ["squashfs", "virtio_pci"]) == []
    assert [name for name, _ in boot_modules(MODULES, ["overlay"])] == ["overlay"]


def test_a_dash_in_a_files_name_is_an_underscore_in_the_modules() -> None:
    assert [name for name, _ in boot_modules(MODULES, ["virtio_ring"])] == ["virtio", "virtio_ring"]


def test_compressed_modules_are_unpacked() -> None:
    assert dict(boot_modules(MODULES, ["virtio_net"]))["failover"] == kernel_module()


def test_the_disk_of_modules_has_what_is_wanted_what_that_needs_and_the_kernels_lists() -> None:
    chosen = module._modules_disk_content(MODULES, ["kernel/drivers/net/virtio*", "kernel/sound/*"])
    assert set(chosen) == {
        *("kernel/drivers/net/virtio_net.ko", "kernel/drivers/net/net_failover.ko", "kernel/net/core/failover.ko"),
        *("kernel/drivers/virtio/virtio-ring.ko", "kernel/drivers/virtio/virtio.ko", "modules.builtin", "modules.order"),
    }
    assert chosen["kernel/net/core/failover.ko"] == kernel_module()


def test_only_the_kernel_and_its_modules_are_taken_from_its_package() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in ("./boot/vmlinuz-6.1", "./boot/System.map-6.1", "./lib/modules/6.1/kernel/a.ko", "./usr/share/doc/linux/README"):
            member = tarfile.TarInfo(path)
            member.size = len(path)
            tar.addfile(member, io.BytesIO(path.encode()))
    packed.seek(0)
    with tarfile.open(fileobj=packed, mode="r|") as tar:
        assert dict(module._files_of(tar)) == {path: path.encode() for path in ("./boot/vmlinuz-6.1", "./lib/modules/6.1/kernel/a.ko")}


def unpacked(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Modes and contents by path of a cpio archive (newc)."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        assert archive[at + 110 + name_size - 1] == 0
        data = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert len(archive) % 4 == 0
            return found
        found[name] = mode, archive[data : data + size]
        at = (data + size + 3) // 4 * 4


@pytest.mark.parametrize("size", range(5))
def test_an_initramfs_holds_init_and_the_modules_in_their_order(size: int) -> None:
    modules = [("virtio", b"v" * size), ("squashfs", b"s" * 1001)]
    assert unpacked(initramfs(b"i" * size, modules)) == {
        "dev": (0o040755, b""),
        "modules": (0o040755, b""),
        "init": (0o100755, b"i" * size),
        "modules/00-virtio.ko": (0o100644, b"v" * size),
        "modules/01-squashfs.ko": (0o100644, b"s" * 1001),
    }


def test_an_initramfs_without_modules_is_one() -> None:
    assert set(unpacked(initramfs(b"init", []))) == {"dev", "modules", "init"}


PLACE, MENDED = module._UNMAP_LOWCORE, module._UNMAP_WRITTEN


def test_the_place_where_an_interrupt_counts_as_8_kib_is_mended() -> None:
    assert spare_lowcore(b"before" + PLACE + b"after") == b"before" + MENDED + b"after"
    changed = [at for at, (one, other) in enumerate(zip(PLACE, MENDED, strict=True)) if one != other]
    assert (changed, PLACE[1:5], MENDED[1:5]) == ([2], (8192).to_bytes(4, "little"), (1024).to_bytes(4, "little"))


@pytest.mark.parametrize("program", [b"", b"another QEMU", PLACE + b"and again" + PLACE, PLACE[:-1]])
def test_a_program_in_which_it_is_not_found_exactly_once_stays_as_it_is(program: bytes) -> None:
    assert spare_lowcore(program) == program


# --- the snapshot


@pytest.fixture
def maker(fake: FakeEngine) -> FakeEngine:
    """An engine that has the base and makes the snapshot."""
    fake.answers |= {
        f"GET /images/{base_reference(GUEST, AMD64)}/json": (200, {"Id": "sha256:1"}),
        "POST /containers/create": (201, {"Id": "x"}),
        "POST /containers/x/start": (204, b""),
        "POST /containers/x/wait": (200, {"StatusCode": 0}),
        "POST /commit": (201, {"Id": "sha256:2"}),
        "DELETE /containers/x": (204, b""),
    }
    return fake


def test_a_snapshot_is_made_in_a_container_that_may_little_and_does_not_stay(maker: FakeEngine, engine: Engine) -> None:
    steps: list[tuple[str, str]] = []
    build(engine, [], [GUEST, GUEST], AMD64, lambda name, step: steps.append((name, step)))
    (made,) = [body for what, body in maker.asked if what == "POST /containers/create"]
    assert made["Image"] == base_reference(GUEST, AMD64)
    assert made["Cmd"] == GUEST.runner_arguments("save")
    assert made["HostConfig"]["CapAdd"] == ["NET_ADMIN"]
    assert [one["PathOnHost"] for one in made["HostConfig"]["Devices"]] == ["/dev/net/tun"]
    assert made["Labels"]["testbed.role"] == "snapshot"
    repository, _, tag = reference(GUEST, AMD64).rpartition(":")
    assert (maker.queries["POST /commit"]["repo"], maker.queries["POST /commit"]["tag"]) == (repository, tag)
    assert maker.was_asked("DELETE /containers/x") == 1
    assert steps[-1] == ("vm-s390x-bookworm", "done")


def test_what_is_there_is_not_made_again(maker: FakeEngine, engine: Engine) -> None:
    maker.answers[f"GET /images/{reference(GUEST, AMD64)}/json"] = (200, {"Id": "sha256:2"})
    build(engine, [], [GUEST], AMD64)
    assert maker.was_asked("POST /containers/create") == 0


def test_a_base_that_is_not_there_is_made_once_for_all_guests_of_its_kernel(
    maker: FakeEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, made = base_reference(GUEST, AMD64), []
    del maker.answers[f"GET /images/{base}/json"]

    def make(engine: Engine, bench: object, guest: Guest, machine: object, reference: str, progress: object) -> None:
        made.append(reference)
        maker.answers[f"GET /images/{reference}/json"] = (200, {"Id": "sha256:1"})

    monkeypatch.setattr(module, "_build_base", make)
    build(engine, [], [GUEST, replace(GUEST, networks=2)], AMD64)
    assert made == [base]
    assert maker.was_asked("POST /commit") == 2


def test_a_guest_that_does_not_come_up_is_an_error_with_its_console_and_leaves_nothing(maker: FakeEngine, engine: Engine) -> None:
    maker.answers["POST /containers/x/wait"] = (200, {"StatusCode": 1})
    maker.writes("x", *((2, b"line %d\n" % number) for number in range(20)), (1, b"of its output\n"), (2, b"Kernel panic \xff\n"))
    with pytest.raises(ImageError, match=r"the snapshot of vm-s390x-bookworm could not be made \(exit code 1\)") as caught:
        build(engine, [], [GUEST], AMD64)
    lines = caught.value.message.splitlines()[1:]
    assert lines == [*(f"  | line {number}" for number in range(9, 20)), "  | Kernel panic \\xff"]
    assert "console" in caught.value.hint
    assert maker.was_asked("POST /commit") == 0
    assert maker.was_asked("DELETE /containers/x") == 1


@pytest.mark.parametrize(("accelerator", "patience_s"), [("tcg", 150.0), ("kvm", 20.0)])
def test_a_guest_that_is_not_done_in_time_is_given_up_and_what_it_runs_on_is_named(
    maker: FakeEngine, engine: Engine, monkeypatch: pytest.MonkeyPatch, accelerator: str, patience_s: float
) -> None:
    waited: list[float] = []

    def wait(container: str, *, timeout_s: float) -> None:
        waited.append(timeout_s)

    monkeypatch.setattr(engine, "wait", wait)
    maker.writes("x", (2, b"booting\n"))
    with pytest.raises(GuestFailed, match=rf"it was not done in {patience_s:.0f} s\):\n  \| booting") as caught:
        build(engine, [], [replace(GUEST, accelerator=accelerator)], AMD64)
    assert (waited, caught.value.accelerator) == ([patience_s], accelerator)
    assert maker.was_asked("DELETE /containers/x") == 1


def test_a_disk_that_is_full_while_the_guest_is_saved_comes_with_a_way_out(maker: FakeEngine, engine: Engine) -> None:
    maker.answers["POST /containers/x/wait"] = (200, {"StatusCode": 1})
    maker.writes("x", (2, b'vm: QEMU did not save the guest: {"error": "write: No space left on device"}\n'))
    with pytest.raises(ImageError, match="No space left") as caught:
        build(engine, [], [GUEST], AMD64)
    assert "docker system df" in caught.value.hint
    assert "as large as the guest's memory" in caught.value.hint


def test_an_engine_without_room_for_the_snapshot_says_so_with_a_way_out(maker: FakeEngine, engine: Engine) -> None:
    maker.answers["POST /commit"] = (500, {"message": "write /vm/memory: no space left on device"})
    with pytest.raises(ImageError, match=r"keeping the snapshot of vm-s390x-bookworm: .* no space left") as caught:
        build(engine, [], [GUEST], AMD64)
    assert "docker system df" in caught.value.hint
    assert maker.was_asked("DELETE /containers/x") == 1


def test_a_container_that_cannot_be_started_does_not_stay(maker: FakeEngine, engine: Engine) -> None:
    maker.answers["POST /containers/x/start"] = (500, {"message": "error gathering device information: no such file /dev/net/tun"})
    with pytest.raises(EngineError, match="/dev/net/tun"):
        build(engine, [], [GUEST], AMD64)
    assert maker.was_asked("DELETE /containers/x") == 1


def test_what_a_killed_maker_left_is_removed_and_nothing_else(maker: FakeEngine, engine: Engine) -> None:
    left = {"Id": "x", "Names": ["/testbed-snapshot-1"], "Labels": {"testbed.role": "snapshot"}, "State": "running", "Status": "Up"}
    maker.answers["GET /containers/json"] = (200, [left])
    remove_leftovers(engine)
    assert '"testbed.role=snapshot"' in maker.queries["GET /containers/json"]["filters"]
    assert maker.was_asked("DELETE /containers/x") == 1
