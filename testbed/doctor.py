"""Every prerequisite looked at: what was found, whether it is enough, and how to mend it.

The checks are pure functions of a :class:`Machine` and of what the engine says. What is good to know but not needed
is a finding that is ok.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from testbed import architecture as architectures
from testbed.architecture import EMULATED
from testbed.errors import TestbedError
from testbed.machine import BINFMT, Machine, architecture_name, text_of, tools_for
from testbed.network import FREE_PREFIX, POOL, Taken, overlapping
from testbed.shipped import as_root, setup_command
from testbed.topology_values import CAPABILITIES

LEAST_PYTHON = (3, 11)
LEAST_API = (1, 41)
LEAST_DISK = 2 * 10**9  # bytes, for images and the build of them
LEAST_MEMORY = 512 * 10**6  # bytes

# What a Docker engine needs to make hosts, and hosts to be useful; everything else in the bounding set is a bonus.
NEEDED_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
)


@dataclass(frozen=True)
class Finding:
    """One prerequisite. ``mend`` is empty when it is ``ok``."""

    check: str
    ok: bool
    found: str
    mend: str = ""


class Engine(Protocol):
    """What a Docker engine says of itself."""

    @property
    def version(self) -> str: ...
    @property
    def api_version(self) -> str: ...
    @property
    def storage_driver(self) -> str: ...
    @property
    def cgroup_version(self) -> str: ...
    @property
    def data_directory(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def local(self) -> bool: ...


@dataclass(frozen=True)
class BinfmtEntry:
    """One registration, as its file in binfmt_misc shows it."""

    enabled: bool
    interpreter: str
    flags: str


def parse_binfmt(text: str) -> BinfmtEntry:
    """Read a file such as /proc/sys/fs/binfmt_misc/qemu-s390x (bm_entry_show in the kernel's fs/binfmt_misc.c)."""
    lines = text.splitlines()
    values = dict(line.split(maxsplit=1) for line in lines if " " in line.strip())
    return BinfmtEntry("enabled" in lines, values.get("interpreter", ""), values.get("flags:", ""))


def judge_binfmt(status: str | None, entry: str | None, architecture: str) -> str:
    """Why programs of s390x would not run in a container here, or nothing. The texts are those of the files."""
    if architecture == EMULATED.name:
        return ""
    if status is None:
        return "binfmt_misc is not mounted on /proc/sys/fs/binfmt_misc"
    if status.strip() != "enabled":
        return "binfmt_misc is disabled as a whole"
    if entry is None:
        return "no emulator is registered with binfmt_misc for s390x (qemu-s390x)"
    registered = parse_binfmt(entry)
    if not registered.enabled:
        return "the registration of qemu-s390x with binfmt_misc is disabled"
    if "F" not in registered.flags:
        # Without it the kernel looks for the interpreter inside the container at each exec, and there is none.
        return f"qemu-s390x is registered with binfmt_misc without the flag F (flags: {registered.flags or 'none'})"
    return ""


def binfmt_problem(root: Path = Path("/")) -> str:
    """Why emulated s390x hosts cannot run on this machine, or nothing; the way out is setup."""
    directory = root / BINFMT
    return judge_binfmt(text_of(directory / "status"), text_of(directory / "qemu-s390x"), architecture_name())


def bounding_set(status: str) -> frozenset[str]:
    """The capabilities that this process and its children can have at most, from /proc/self/status."""
    for line in status.splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return frozenset(name for number, name in enumerate(CAPABILITIES[:-1]) if bits >> number & 1)
    return frozenset()


def examine(machine: Machine, engine: Engine | TestbedError, taken: Sequence[Taken] = ()) -> list[Finding]:
    """Every check. ``engine`` is what it says of itself, or the error of asking.

    ``taken`` are the subnets that the engine's networks and this machine's routes have.
    """
    findings = [_python(machine), _supported(machine), *_engine(engine)]
    if isinstance(engine, TestbedError) or engine.local:
        findings += [_emulation(machine), _capabilities(machine), *_kernel(machine), *_guests(machine), _disk(machine), _memory(machine)]
    else:
        # These would be facts about the wrong machine.
        where = f"the engine is on another machine ({engine.address}), which needs s390x registered with binfmt_misc, flag F"
        findings.append(Finding("s390x emulation", True, f"not looked at: {where}"))
    return [*findings, *_tools(machine), _addresses(taken)]


def _python(machine: Machine) -> Finding:
    least = ".".join(map(str, LEAST_PYTHON))
    found = ".".join(map(str, machine.python))
    return _finding("Python", machine.python[:2] >= LEAST_PYTHON, found, f"install Python {least} or newer, and testbed with it")


def _supported(machine: Machine) -> Finding:
    known = ", ".join(architectures.ARCHITECTURES)
    return _finding("architecture", machine.architecture in architectures.ARCHITECTURES, machine.architecture, f"use a machine of: {known}")


def _engine(engine: Engine | TestbedError) -> list[Finding]:
    if isinstance(engine, TestbedError):
        return [Finding("engine", False, engine.message, engine.hint or f"run: {setup_command()}")]
    api = tuple(int(part) for part in engine.api_version.split("."))
    least = ".".join(map(str, LEAST_API))
    driver = f"storage driver {engine.storage_driver}" + (
        ", which copies whole images: slow, and much disk" if engine.storage_driver == "vfs" else ""
    )
    return [
        Finding("engine", True, f"Docker {engine.version} at {engine.address}; {driver}; cgroup version {engine.cgroup_version}"),
        _finding("engine's API", api >= LEAST_API, engine.api_version, f"install a Docker engine with API {least} or newer (20.10 has it)"),
    ]


def _emulation(machine: Machine) -> Finding:
    problem = judge_binfmt(machine.binfmt_status, machine.binfmt_entry, machine.architecture)
    if problem:
        return Finding("s390x emulation", False, problem, f"run: {setup_command()}")
    if machine.binfmt_entry is None:
        return Finding("s390x emulation", True, "not needed: this machine is an s390x")
    entry = parse_binfmt(machine.binfmt_entry)
    return Finding("s390x emulation", True, f"registered with binfmt_misc, flags {entry.flags}, {entry.interpreter}")


def _capabilities(machine: Machine) -> Finding:
    has = bounding_set(machine.status)
    lacking = [name for name in NEEDED_CAPABILITIES if name not in has]
    if lacking:
        mend = "this process is confined (a container?): run on the machine itself, or allow these capabilities"
        return Finding("capabilities", False, f"not in the bounding set: {', '.join(lacking)}", mend)
    others = [name for name in CAPABILITIES[:-1] if name not in has]
    if others:
        return Finding(
            "capabilities",
            True,
            f"enough; not in the bounding set: {', '.join(others)} (so --privileged is refused; testbed needs none of it)",
        )
    return Finding("capabilities", True, "all in the bounding set")


# word of the probe, name of the check, what lacks without it, the kernel's name for it
_FEATURES = (
    ("namespaces", "network namespaces", "no host can have a network stack of its own", "CONFIG_NET_NS"),
    ("bridge", "bridges", "no network can be made", "CONFIG_BRIDGE"),
    ("veth", "veth pairs", "no host can be put on a network", "CONFIG_VETH"),
    ("nf_tables", "nf_tables", "no host can have firewall rules", "CONFIG_NF_TABLES"),
)


def _kernel(machine: Machine) -> list[Finding]:
    features = machine.features
    if features is None:
        findings = [Finding("kernel features", True, "not tried: only root may, and a lab will show it")]
    else:
        findings = [
            _finding(name, word in features, "there" if word in features else f"absent: {without}", f"boot a kernel with {option}")
            for word, name, without, option in _FEATURES
        ]
        netem = (
            "there" if "netem" in features else "absent in this kernel (sch_netem): no delay or loss on links of native and emulated hosts"
        )
        findings.append(Finding("netem", True, netem))
    findings.append(
        _finding("IPv6", machine.ipv6, "there" if machine.ipv6 else "absent: no network can have IPv6", "boot without ipv6.disable=1")
    )
    sysctls = machine.somaxconn is not None
    mend = "mount /proc without hiding /proc/sys"
    findings.append(_finding("sysctls", sysctls, "readable" if sysctls else "/proc/sys/net/core/somaxconn cannot be read", mend))
    passes = {None: "no (it is not loaded)", "0": "no"}.get(machine.bridge_firewall, "yes")
    findings.append(Finding("br_netfilter", True, f"bridged packets pass this machine's firewall: {passes}"))
    return findings


def _guests(machine: Machine) -> list[Finding]:
    """What hosts with a kernel of their own need, and what would make them faster."""
    tun = "there" if machine.tun else "/dev/net/tun is absent: no host with a kernel of its own (kind: vm) can be on a network"
    if not machine.kvm:
        found = "absent, or not for this user: hosts with a kernel of their own are emulated, which testbed is made for"
    elif machine.kvm_failure:
        found = f"there, but a guest failed on it, so guests are emulated: {machine.kvm_failure}"
    else:
        found = "there: it runs guests of this machine's own architecture"
    return [
        _finding("tun", machine.tun, tun, "boot a kernel with CONFIG_TUN, or load the module: modprobe tun"),
        Finding("KVM", True, found),
    ]


def _tools(machine: Machine) -> Iterable[Finding]:
    """Images are built on this machine, wherever the engine is."""
    if machine.root or machine.features is not None:
        how = "you are root" if machine.root else "you are not root, and may make user namespaces"
        yield Finding("rights to build", True, f"{how}: host images can be built")
    else:
        lack = "you are not root, and this machine lets nobody else make namespaces, in which host images are built"
        yield Finding("rights to build", False, lack, f"have root build them: {as_root('images build')}")
    for tool, purpose in tools_for(machine.architecture).items():
        there = tool in machine.tools
        yield _finding(tool, there, "there" if there else f"not on this machine: {purpose}", f"run: {setup_command()}")


def _addresses(taken: Sequence[Taken]) -> Finding:
    subnets = list(POOL.subnets(new_prefix=FREE_PREFIX))
    free = sum(overlapping(subnet, taken) is None for subnet in subnets)
    found = f"{free} of {len(subnets)} subnets of {POOL} are free"
    if free:
        return Finding("address space", True, found)
    holders = ", ".join(sorted({one.by for one in taken if overlapping(POOL, [one])})[:3])
    return Finding(
        "address space",
        False,
        f"{found}: taken by {holders}",
        "testbed down --all removes every lab; or name a `subnet` in the topology file",
    )


def _disk(machine: Machine) -> Finding:
    if machine.disk_free is None:
        return Finding("disk", True, "not known: the engine's data directory cannot be looked at by this user")
    mend = "make room where the engine keeps its data (docker system df shows what it holds)"
    return _finding("disk", machine.disk_free >= LEAST_DISK, f"{_size(machine.disk_free)} free, {_size(LEAST_DISK)} needed", mend)


def _memory(machine: Machine) -> Finding:
    available = next((int(line.split()[1]) * 1024 for line in machine.meminfo.splitlines() if line.startswith("MemAvailable:")), 0)
    return _finding(
        "memory",
        available >= LEAST_MEMORY,
        f"{_size(available)} available, {_size(LEAST_MEMORY)} needed",
        "end programs, or add memory or swap",
    )


def _finding(check: str, ok: bool, found: str, mend: str) -> Finding:
    return Finding(check, ok, found, "" if ok else mend)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def all_ok(findings: Iterable[Finding]) -> bool:
    return all(one.ok for one in findings)


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    """``{"ok": bool, "findings": [{"check", "ok", "found", "mend"}, ...]}``."""
    return {"ok": all_ok(findings), "findings": [asdict(one) for one in findings]}


def as_lines(findings: Sequence[Finding]) -> list[str]:
    """For people: a line for each finding, one more below what is wrong, and the sum at the end."""
    width = max((len(one.check) for one in findings), default=0)
    lines = []
    for one in findings:
        lines.append(f"{'ok   ' if one.ok else 'WRONG'}  {one.check:<{width}}  {one.found}")
        if one.mend:
            lines.append(f"{'':<{width + 9}}{one.mend}")
    wrong = sum(not one.ok for one in findings)
    lines.append(f"{wrong} of {len(findings)} checks failed" if wrong else f"all {len(findings)} checks are fine")
    return lines
