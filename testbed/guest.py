"""A QEMU guest that is a host: what it is made of, QEMU's command line, and what its runner is told. Pure.

The runner (images/vm/runner.c) adds what differs between booting, saving and restoring. A snapshot can only be restored by
the same QEMU with the same command line, so what stands here is part of its name (:meth:`Guest.key`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.architecture import ARCHITECTURES, Architecture

# File descriptors that the runner hands to QEMU, and where it keeps things: images/vm/runner.c.
AGENT_FD, MONITOR_FD, TAPS_FD = 100, 101, 102
DIRECTORY = "/vm"
FILES = f"{DIRECTORY}/files.tar"
CONNECT = "/usr/lib/testbed/connect"
RUNNER = "/usr/lib/testbed/runner"

MOST_NETWORKS = 16
MEMORY = 128 << 20  # bytes, where the topology names none
TRANSLATED_MB = 128  # of translated code that QEMU keeps, at most; its default is a quarter of the machine's memory
TUN, KVM = "/dev/net/tun", "/dev/kvm"

KERNELS = ("bookworm", "bookworm-backports", "trixie")  # Debian's suites that a kernel may be from
DEFAULT_KERNEL = KERNELS[0]
UNHARDENED = "mitigations=off randomize_kstack_offset=off init_on_alloc=0 hardened_usercopy=off audit=0 apparmor=0 selinux=0"


@dataclass(frozen=True)
class Model:
    """What QEMU's guests of one architecture have in common. ``bus`` is the ending of its virtio devices' names."""

    architecture: Architecture
    program: str
    package: str
    machine: str
    bus: str
    console: tuple[str, ...]
    kernel_arguments: str
    kernel_package: str
    network_options: str = ""
    processors: str = "1"


MODELS = {
    "s390x": Model(
        ARCHITECTURES["s390x"],
        program="qemu-system-s390x",
        package="qemu-system-s390x",
        machine="s390-ccw-virtio",
        bus="ccw",
        console=("-device", "sclpconsole,chardev=console"),
        kernel_arguments="",
        kernel_package="linux-image-s390x",
        # One, and room for another: where there is none, QEMU makes loads and stores of atomic instructions (CF_PARALLEL in
        # accel/tcg). But its own threads set the bits of virtio-ccw's interrupts in the words that the guest clears them in, and of
        # what was lost so nobody hears again: of packets that wait in a queue, say.
        processors="1,maxcpus=2",
    ),
    "amd64": Model(
        ARCHITECTURES["amd64"],
        program="qemu-system-x86_64",
        package="qemu-system-x86",
        machine="pc,usb=off,vmport=off",
        bus="pci",
        console=("-serial", "chardev:console"),
        # On a busy machine an emulated timer's interrupts come too late for the kernel to believe in them.
        kernel_arguments="console=ttyS0 no_timer_check ",
        kernel_package="linux-image-cloud-amd64",
        network_options="romfile=,",  # nobody boots from the network
    ),
}


@dataclass(frozen=True)
class Guest:
    """A kind of guest, one snapshot for each: ``kernel`` is the Debian suite that its kernel is from, ``memory`` in bytes,
    ``networks`` how many devices it has, ``accelerator`` tcg or kvm."""

    arch: str
    kernel: str
    memory: int
    networks: int
    accelerator: str

    @property
    def model(self) -> Model:
        return MODELS[self.arch]

    @property
    def memory_mb(self) -> int:
        return self.memory >> 20

    @property
    def name(self) -> str:
        return f"vm-{self.arch}-{self.kernel}"

    def key(self, base: str) -> str:
        """The tag of its snapshot's image, made of the ``base`` image's reference and everything that QEMU is told."""
        told = "\0".join((base, str(self.memory_mb), *self.qemu_arguments()))
        return f"{hashlib.sha256(told.encode()).hexdigest()[:12]}-{self.networks}x{self.memory_mb}M-{self.accelerator}"

    def qemu_arguments(self) -> list[str]:
        """QEMU's command line, without what the runner adds: the guest's memory, called ``ram``, and the snapshot to read."""
        model = self.model
        tcg = self.accelerator == "tcg"
        arguments = [
            f"/usr/bin/{model.program}",
            *("-M", f"{model.machine},memory-backend=ram"),
            *("-accel", f"tcg,tb-size={TRANSLATED_MB}" if tcg else "kvm"),
            *("-cpu", "max" if tcg else "host,arch-capabilities=off,vmx=off,svm=off"),
            *("-m", f"{self.memory_mb}M", "-smp", model.processors, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", f"{DIRECTORY}/kernel", "-initrd", f"{DIRECTORY}/initrd"),
            # Without address randomisation: translated code is found again by its address, so with it every program that
            # starts is translated anew. Without what hardens a kernel against its users, too: it costs a fifth of a program's
            # start under emulation, and guards nothing here. A panic ends the guest, and so the host.
            *("-append", f"{model.kernel_arguments}panic=-1 quiet loglevel=4 nr_cpus=1 norandmaps {UNHARDENED}"),
            # For a second QEMU would announce the address that the snapshot's network card had (RARP), which is no host's.
            *("-global", "migration.announce-rounds=0"),
            *("-chardev", "file,id=console,path=/proc/self/fd/2", *model.console),
        ]
        for disk in ("root", "modules"):
            arguments += ["-drive", f"file={DIRECTORY}/{disk}.sqfs,if=none,id={disk},format=raw,readonly=on"]
            arguments += ["-device", f"virtio-blk-{model.bus},drive={disk},serial={disk}"]
        arguments += ["-device", f"virtio-serial-{model.bus}", "-chardev", f"socket,id=agent,fd={AGENT_FD}"]
        for port, fd in (("stdout", 1), ("stderr", 2)):
            arguments += ["-chardev", f"file,id={port},path=/proc/self/fd/{fd}"]
        for port in ("agent", "stdout", "stderr"):
            arguments += ["-device", f"virtserialport,chardev={port},name={port}"]
        arguments += ["-object", "rng-random,id=random,filename=/dev/urandom", "-device", f"virtio-rng-{model.bus},rng=random"]
        for index in range(self.networks):
            arguments += ["-netdev", f"tap,id=net{index},fd={TAPS_FD + index}"]
            arguments += ["-device", f"virtio-net-{model.bus},netdev=net{index},{model.network_options}mac=02:00:00:00:00:{index:02x}"]
        return [*arguments, "-chardev", f"socket,id=monitor,fd={MONITOR_FD}", "-mon", "chardev=monitor,mode=control"]

    def runner_arguments(self, mode: str, init: Sequence[str] = ()) -> list[str]:
        """The runner's arguments: ``mode`` is save or run, ``init`` what init is told on the guest."""
        qemu = self.qemu_arguments()
        return [mode, str(self.memory_mb), str(self.networks), str(len(qemu)), *qemu, *init]

    @property
    def devices(self) -> list[str]:
        """What of the machine's devices its container needs."""
        return [TUN, *([KVM] if self.accelerator == "kvm" else [])]
