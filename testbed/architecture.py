"""Everything that differs by processor architecture, in one table."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

from testbed.errors import LabError

ByteOrder = Literal["little", "big"]


@dataclass(frozen=True)
class Architecture:
    """One architecture under Debian's name; ``machine`` is what ``uname -m`` prints, ``triplet`` GNU's name."""

    name: str
    byte_order: ByteOrder
    machine: str
    triplet: str

    @property
    def compiler(self) -> str:
        """Debian's (cross) compiler for it, which may be asked for on a machine of any architecture."""
        return f"{self.triplet}-gcc"


ARCHITECTURES = {
    one.name: one
    for one in (
        Architecture("amd64", "little", "x86_64", "x86_64-linux-gnu"),
        Architecture("arm64", "little", "aarch64", "aarch64-linux-gnu"),
        Architecture("s390x", "big", "s390x", "s390x-linux-gnu"),
    )
}
EMULATED = ARCHITECTURES["s390x"]


def of_machine(machine: str = "") -> Architecture:
    """The architecture called ``machine`` by uname (this machine's own by default)."""
    machine = machine or platform.machine()
    for one in ARCHITECTURES.values():
        if machine in (one.machine, one.name):
            return one
    known = ", ".join(one.machine for one in ARCHITECTURES.values())
    raise LabError(f"this machine is a {machine}, and testbed has no host image for that", hint=f"it has images for: {known}")
