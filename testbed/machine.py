"""What is found on this machine, read and not judged; nothing is changed by looking."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed import architecture as architectures
from testbed import kvm
from testbed.architecture import EMULATED
from testbed.errors import LabError
from testbed.process import search_path

BINFMT = Path("proc/sys/fs/binfmt_misc")

# Each line prints its word when that works in a network namespace that is made for it and goes with it.
PROBE = """
echo namespaces
ip link add name probe type bridge && echo bridge
ip link add name probe1 type veth peer name probe2 && echo veth
{ nft list tables || iptables-nft -S; } >/dev/null && echo nf_tables
ip link set lo up; tc qdisc add dev lo root netem delay 1ms && echo netem
"""


@dataclass(frozen=True)
class Machine:
    """What was read from this machine, unjudged. None: it is not there, or may not be read.

    ``status`` is /proc/self/status, ``meminfo`` /proc/meminfo; ``features`` are the words of :data:`PROBE` that worked;
    ``disk_free`` is in bytes, where the engine keeps its data.
    """

    python: tuple[int, int, int]
    architecture: str
    root: bool
    status: str
    meminfo: str
    binfmt_status: str | None
    binfmt_entry: str | None
    features: frozenset[str] | None
    ipv6: bool
    bridge_firewall: str | None
    somaxconn: str | None
    tools: frozenset[str]
    disk_free: int | None
    tun: bool
    kvm: bool
    kvm_failure: str


def tools_for(architecture: str) -> dict[str, str]:
    """The commands that are needed on a machine of this architecture (Debian's name for it), and what for."""
    compilers = {
        architectures.ARCHITECTURES[name].compiler: f"compiles the C programs of {name} hosts"
        for name in (architecture, EMULATED.name)
        if name in architectures.ARCHITECTURES
    }
    return {
        "mmdebstrap": "makes the host images",
        "make": "builds the C programs",
        "sqfstar": "makes the disks of guests",
        "depmod": "lists the kernel modules of guests",
        **compilers,
        "ip": "part of iproute2",
    }


def read_machine(
    *, data_directory: str = "/var/lib/docker", root: Path = Path("/"), probe: Callable[[], frozenset[str] | None] | None = None
) -> Machine:
    """Look at this machine. ``root`` is where its files are found, ``probe`` says which kernel features work."""
    architecture = architecture_name()
    return Machine(
        python=sys.version_info[:3],
        architecture=architecture,
        root=os.geteuid() == 0,
        status=text_of(root / "proc/self/status") or "",
        meminfo=text_of(root / "proc/meminfo") or "",
        binfmt_status=text_of(root / BINFMT / "status"),
        binfmt_entry=text_of(root / BINFMT / "qemu-s390x"),
        features=(probe or probe_kernel)(),
        ipv6=(root / "proc/net/if_inet6").exists(),
        bridge_firewall=_stripped(root / "proc/sys/net/bridge/bridge-nf-call-iptables"),
        somaxconn=_stripped(root / "proc/sys/net/core/somaxconn"),
        tools=frozenset(tool for tool in tools_for(architecture) if shutil.which(tool, path=search_path())),
        disk_free=_disk_free(root / data_directory.lstrip("/")),
        tun=(root / "dev/net/tun").exists(),
        kvm=kvm.creates(),
        kvm_failure=kvm.failure(),
    )


def probe_kernel() -> frozenset[str] | None:
    """What this kernel can do, tried in a network namespace of its own; None when this user may not make one."""
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = ["unshare", *user, "--net", "sh", "-c", PROBE]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=30, env={"PATH": search_path()}, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if tried.stderr.startswith("unshare: "):
        return None
    return frozenset(tried.stdout.split())


def architecture_name() -> str:
    """Debian's name for this machine's architecture; uname's when testbed does not know it."""
    try:
        return architectures.of_machine().name
    except LabError:
        return platform.machine()


def text_of(path: Path) -> str | None:
    """The content of a file; None when it is not there or may not be read."""
    try:
        return path.read_text()
    except OSError:
        return None


def _stripped(path: Path) -> str | None:
    text = text_of(path)
    return None if text is None else text.strip()


def _disk_free(path: Path) -> int | None:
    """Free bytes in the file system of ``path``, or of where it would be made."""
    for directory in (path, *path.parents):
        try:
            return shutil.disk_usage(directory).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
