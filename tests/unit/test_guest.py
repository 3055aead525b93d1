"""What QEMU is told, and which snapshot that makes it one of."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest

from testbed import guest as module
from testbed import images
from testbed.guest import AGENT_FD, KVM, MODELS, MONITOR_FD, TAPS_FD, TUN, Guest
from testbed.topology_parts import KernelName

S390X = Guest("s390x", "bookworm", 128 << 20, 1, "tcg")
AMD64 = Guest("amd64", "bookworm", 128 << 20, 1, "kvm")
KINDS = pytest.mark.parametrize("guest", [S390X, AMD64, replace(S390X, networks=0), replace(AMD64, networks=16)], ids=str)
BASE = "testbed/vm-s390x-bookworm:0123456789ab"


def values(guest: Guest, option: str) -> list[str]:
    """What follows an option of QEMU's, each time it is there."""
    arguments = guest.qemu_arguments()
    return [after for one, after in pairwise(arguments) if one == option]


def properties(value: str) -> dict[str, str]:
    """driver,a=b,c=d"""
    head, *rest = value.split(",")
    return {"": head, **dict(one.split("=", 1) for one in rest)}


def test_the_kernels_that_a_file_may_name_are_those_that_there_are() -> None:
    assert get_args(KernelName) == module.KERNELS


# --- QEMU's command line


def test_the_runner_and_qemus_command_line_agree_on_descriptors_and_places() -> None:
    runner = (images.directory() / "vm" / "runner.c").read_text()
    assert f"AGENT_FD = {AGENT_FD}, QMP_FD, TAPS_FD, NETWORKS_MOST = {module.MOST_NETWORKS}" in runner
    assert (MONITOR_FD, TAPS_FD) == (AGENT_FD + 1, AGENT_FD + 2)
    assert f'#define DIRECTORY "{module.DIRECTORY}"' in runner
    assert f"{module.DIRECTORY}/files.tar" == module.FILES
    assert '#define FILES DIRECTORY "/files.tar"' in runner


@KINDS
def test_the_agents_port_and_the_monitor_are_descriptors_that_the_runner_gives(guest: Guest) -> None:
    chardevs = {properties(one)["id"]: properties(one) for one in values(guest, "-chardev")}
    assert chardevs["agent"] == {"": "socket", "id": "agent", "fd": "100"}
    assert chardevs["monitor"] == {"": "socket", "id": "monitor", "fd": "101"}
    assert values(guest, "-mon") == ["chardev=monitor,mode=control"]
    assert [chardevs[one]["path"] for one in ("console", "stdout", "stderr")] == [f"/proc/self/fd/{fd}" for fd in (2, 1, 2)]
    ports = [properties(one) for one in values(guest, "-device") if one.startswith("virtserialport")]
    assert [(one["name"], one["chardev"]) for one in ports] == [(name, name) for name in ("agent", "stdout", "stderr")]


@pytest.mark.parametrize("networks", [0, 1, 3, 16])
@pytest.mark.parametrize("guest", [S390X, AMD64], ids=["s390x", "amd64"])
def test_there_is_a_device_for_each_network_with_the_descriptor_of_its_tap(guest: Guest, networks: int) -> None:
    guest = replace(guest, networks=networks)
    assert values(guest, "-netdev") == [f"tap,id=net{index},fd={102 + index}" for index in range(networks)]
    cards = [properties(one) for one in values(guest, "-device") if one.startswith("virtio-net")]
    assert [one["netdev"] for one in cards] == [f"net{index}" for index in range(networks)]
    assert len({one["mac"] for one in cards}) == networks
    assert all(re.fullmatch("02(:[0-9a-f]{2}){5}", one["mac"]) for one in cards)


@KINDS
def test_every_name_stands_for_one_thing_and_what_is_named_is_there(guest: Guest) -> None:
    named = [
        properties(one)["id"] for option in ("-chardev", "-drive", "-netdev", "-object") for one in map(_with_head, values(guest, option))
    ]
    assert len(set(named)) == len(named)
    used = [re.findall(r"(?:chardev|drive|netdev|rng)[=:](\w+)", one) for one in guest.qemu_arguments() if "id=" not in one]
    assert {one for found in used for one in found} == set(named)


def _with_head(value: str) -> str:
    return f"drive,{value}" if re.match(r"\w+=", value) else value


@KINDS
def test_disks_cannot_be_written_and_are_found_by_their_names(guest: Guest) -> None:
    disks = [properties(_with_head(one)) for one in values(guest, "-drive")]
    assert [(one["id"], one["file"], one["readonly"], one["format"]) for one in disks] == [
        (name, f"/vm/{name}.sqfs", "on", "raw") for name in ("root", "modules")
    ]
    devices = [properties(one) for one in values(guest, "-device") if one.startswith("virtio-blk")]
    assert [(one["drive"], one["serial"]) for one in devices] == [("root", "root"), ("modules", "modules")]


@pytest.mark.parametrize(
    ("guest", "accelerator", "processor"),
    [
        (S390X, "tcg,tb-size=128", "max"),
        (AMD64, "kvm", "host"),
        (replace(AMD64, accelerator="tcg"), "tcg,tb-size=128", "max"),
        (replace(S390X, accelerator="kvm"), "kvm", "host"),
    ],
)
def test_the_accelerator_decides_on_the_processor(guest: Guest, accelerator: str, processor: str) -> None:
    assert values(guest, "-accel") == [accelerator]
    assert [one.split(",")[0] for one in values(guest, "-cpu")] == [processor]
    assert guest.devices == ([TUN, KVM] if guest.accelerator == "kvm" else [TUN])


@pytest.mark.parametrize(
    ("guest", "program", "machine", "bus"),
    [(S390X, "qemu-system-s390x", "s390-ccw-virtio", "ccw"), (AMD64, "qemu-system-x86_64", "pc,usb=off,vmport=off", "pci")],
)
def test_a_machine_is_its_architectures_and_all_its_devices_are_on_its_bus(guest: Guest, program: str, machine: str, bus: str) -> None:
    assert guest.qemu_arguments()[0] == f"/usr/bin/{program}"
    assert values(guest, "-M") == [f"{machine},memory-backend=ram"]
    devices = [properties(one)[""] for one in values(guest, "-device")]
    assert {one.rsplit("-", 1)[1] for one in devices if one.startswith("virtio-")} == {bus}
    assert ("-serial" in guest.qemu_arguments()) == (guest.arch == "amd64")
    assert ("console=ttyS0" in values(guest, "-append")[0]) == (guest.arch == "amd64")


@KINDS
def test_a_panic_ends_the_guest_and_nothing_comes_that_was_not_asked_for(guest: Guest) -> None:
    assert "panic=-1" in values(guest, "-append")[0].split()
    assert {"-no-reboot", "-nodefaults", "-no-user-config"} <= set(guest.qemu_arguments())
    assert values(guest, "-m") == ["128M"]


def test_every_model_is_of_an_architecture_and_has_a_kernel() -> None:
    for arch, model in MODELS.items():
        assert model.architecture.name == arch
        assert model.kernel_package.startswith("linux-image-")


# --- the name of a snapshot


@pytest.mark.parametrize(
    "other",
    [
        replace(S390X, arch="amd64"),
        replace(S390X, memory=256 << 20),
        replace(S390X, networks=2),
        replace(S390X, networks=0),
        replace(S390X, accelerator="kvm"),
    ],
    ids=str,
)
def test_whatever_qemu_is_told_makes_another_snapshot(other: Guest) -> None:
    assert other.key(BASE) != S390X.key(BASE)
    assert other.key(BASE).split("-")[0] != S390X.key(BASE).split("-")[0], "by the digest, not only by the words after it"


def test_another_base_makes_another_snapshot_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    before = S390X.key(BASE)
    assert S390X.key(f"{BASE}0") != before
    assert replace(S390X).key(BASE) == before
    assert replace(S390X, memory=S390X.memory + 1).key(BASE) == before, "QEMU is told whole MB"
    assert replace(S390X, kernel="trixie").key(BASE) == before, "the kernel is in the base"
    monkeypatch.setattr(module, "TRANSLATED_MB", 64)
    assert S390X.key(BASE) != before


@KINDS
def test_the_name_is_one_that_an_engine_takes_and_says_what_it_is_of(guest: Guest) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}-\d+x128M-(tcg|kvm)", guest.key(BASE))
    assert f"-{guest.networks}x" in guest.key(BASE)


# --- what the runner is told


def test_the_runner_is_told_where_qemus_arguments_end_and_inits_begin() -> None:
    guest = replace(S390X, networks=3, memory=256 << 20)
    mode, memory, networks, count, *rest = guest.runner_arguments("run", ["--sysctl", "net.x=5"])
    assert (mode, memory, networks) == ("run", "256", "3")
    assert rest[: int(count)] == guest.qemu_arguments()
    assert rest[int(count) :] == ["--sysctl", "net.x=5"]
    assert guest.runner_arguments("save")[4:] == guest.qemu_arguments()
