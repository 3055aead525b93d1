"""Whether this machine's processor runs guests (KVM), so that they need not be emulated."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from testbed.guest import KVM
from testbed.lock import own_directory

_CREATE_VM = 0xAE01  # KVM_CREATE_VM of the kernel's Documentation/virt/kvm/api.rst
_FAILED = "kvm-failed"


def works() -> bool:
    """There is KVM, it makes a virtual machine, and none of ours has failed on it so far.

    A machine that is virtual itself may have KVM and yet run no guest to its end: only a trial tells.
    """
    return creates() and not _note().exists()


def creates() -> bool:
    """KVM is there and makes a virtual machine."""
    try:
        device = os.open(KVM, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.close(fcntl.ioctl(device, _CREATE_VM, 0))
    except OSError:
        return False
    finally:
        os.close(device)
    return True


def failure() -> str:
    """How a guest of ours failed on it, or nothing. Removing the file that this names makes the next `up` try again."""
    note = _note()
    return f"{note.read_text().strip()} (noted in {note})" if note.exists() else ""


def give_up(reason: str) -> None:
    """Note that a guest failed on it, for all that comes until the machine starts anew or the note is removed."""
    _note().write_text(f"{reason}\n")


def _note() -> Path:
    return own_directory() / _FAILED
