"""The checks of doctor, on recorded texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from testbed import doctor
from testbed.errors import EngineError
from testbed.machine import Machine, probe_kernel, read_machine, tools_for
from testbed.network import POOL, Taken

# /proc/sys/fs/binfmt_misc/qemu-s390x, as Debian 12 registers it, as it is without F, and switched off
WITH_F = """enabled
interpreter /usr/libexec/qemu-binfmt/s390x-binfmt-P
flags: POF
offset 0
magic 7f454c4602020100000000000000000000020016
mask fffffffffffffffcfffffffffffffffffffeffff
"""
WITHOUT_F = WITH_F.replace("flags: POF", "flags: PO")
WITHOUT_FLAGS = WITH_F.replace("flags: POF", "flags: ")
SWITCHED_OFF = WITH_F.replace("enabled", "disabled")

# /proc/self/status of a root shell on a machine without SYS_RESOURCE, and in a Docker container with default rights
STATUS = "Name:\tcat\nCapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000000\n"
STATUS_IN_CONTAINER = "Name:\tcat\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n"
MEMINFO = "MemTotal:       24683656 kB\nMemFree:        23389404 kB\nMemAvailable:   24234600 kB\n"

FINE = Machine(
    python=(3, 11, 7),
    architecture="amd64",
    root=True,
    status=STATUS,
    meminfo=MEMINFO,
    binfmt_status="enabled\n",
    binfmt_entry=WITH_F,
    features=frozenset({"namespaces", "bridge", "veth", "nf_tables"}),
    ipv6=True,
    bridge_firewall="1",
    somaxconn="4096",
    tools=frozenset(tools_for("amd64")),
    disk_free=80 * 10**9,
    tun=True,
    kvm=False,
    kvm_failure="",
)


@dataclass(frozen=True)
class FakeEngine:
    version: str = "20.10.24"
    api_version: str = "1.41"
    storage_driver: str = "overlay2"
    cgroup_version: str = "1"
    data_directory: str = "/var/lib/docker"
    address: str = "unix:///var/run/docker.sock"
    local: bool = True


def the(check: str, findings: list[doctor.Finding]) -> doctor.Finding:
    (one,) = [finding for finding in findings if finding.check == check]
    return one


def wrong(findings: list[doctor.Finding]) -> list[str]:
    return [one.check for one in findings if not one.ok]


def test_a_machine_with_everything_passes_every_check() -> None:
    findings = doctor.examine(FINE, FakeEngine())
    assert wrong(findings) == []
    assert doctor.all_ok(findings)
    assert all(not one.mend for one in findings)


# One thing is taken away; exactly that check fails, in these words.
FAULTS = [
    ({"python": (3, 9, 2)}, "Python", "3.9.2"),
    ({"architecture": "riscv64"}, "architecture", "riscv64"),
    ({"binfmt_status": None}, "s390x emulation", "not mounted"),
    ({"binfmt_status": "disabled\n"}, "s390x emulation", "disabled as a whole"),
    ({"binfmt_entry": None}, "s390x emulation", "no emulator is registered"),
    ({"binfmt_entry": WITHOUT_F}, "s390x emulation", "without the flag F (flags: PO)"),
    ({"binfmt_entry": WITHOUT_FLAGS}, "s390x emulation", "without the flag F (flags: none)"),
    ({"binfmt_entry": SWITCHED_OFF}, "s390x emulation", "is disabled"),
    ({"status": STATUS_IN_CONTAINER}, "capabilities", "NET_ADMIN, SYS_ADMIN"),
    ({"status": ""}, "capabilities", "NET_ADMIN"),
    ({"features": FINE.features - {"veth"} if FINE.features else None}, "veth pairs", "no host can be put on a network"),
    ({"features": FINE.features - {"bridge"} if FINE.features else None}, "bridges", "no network can be made"),
    ({"features": FINE.features - {"nf_tables"} if FINE.features else None}, "nf_tables", "firewall"),
    ({"ipv6": False}, "IPv6", "absent"),
    ({"somaxconn": None}, "sysctls", "cannot be read"),
    ({"tools": FINE.tools - {"mmdebstrap"}}, "mmdebstrap", "makes the host images"),
    ({"tools": FINE.tools - {"s390x-linux-gnu-gcc"}}, "s390x-linux-gnu-gcc", "compiles the C programs of s390x hosts"),
    ({"root": False, "features": None}, "rights to build", "lets nobody else make namespaces"),
    ({"disk_free": 10**9}, "disk", "1.0 GB free, 2.0 GB needed"),
    ({"meminfo": "MemAvailable:   100000 kB\n"}, "memory", "0.1 GB available"),
]


@pytest.mark.parametrize(("fault", "check", "words"), FAULTS, ids=[f"{check}: {words}" for _, check, words in FAULTS])
def test_each_fault_fails_its_own_check_and_says_how_to_mend_it(fault: dict[str, object], check: str, words: str) -> None:
    findings = doctor.examine(replace(FINE, **fault), FakeEngine())  # type: ignore[arg-type]
    assert wrong(findings) == [check]
    finding = the(check, findings)
    assert words in finding.found
    assert finding.mend


def test_an_engine_that_does_not_answer_is_told_in_its_own_words() -> None:
    error = EngineError("no Docker engine answers at unix:///x: permission denied", hint="sudo usermod -aG docker $USER")
    finding = the("engine", doctor.examine(FINE, error))
    assert (finding.ok, finding.found, finding.mend) == (False, error.message, error.hint)


def test_an_engine_too_old_is_named_with_its_version() -> None:
    finding = the("engine's API", doctor.examine(FINE, FakeEngine(api_version="1.40")))
    assert not finding.ok
    assert finding.found == "1.40"


def test_api_versions_are_compared_as_numbers() -> None:
    assert the("engine's API", doctor.examine(FINE, FakeEngine(api_version="1.100"))).ok


def test_a_remote_engine_is_not_judged_by_this_machines_kernel() -> None:
    bare = replace(FINE, binfmt_status=None, binfmt_entry=None, features=frozenset(), disk_free=0, status="")
    findings = doctor.examine(bare, FakeEngine(address="ssh://lab@far", local=False))
    assert wrong(findings) == []
    assert "ssh://lab@far" in the("s390x emulation", findings).found


def test_netem_is_told_and_not_required() -> None:
    assert "absent" in the("netem", doctor.examine(FINE, FakeEngine())).found
    with_netem = replace(FINE, features=frozenset({*(FINE.features or ()), "netem"}))
    assert the("netem", doctor.examine(with_netem, FakeEngine())).found == "there"


def test_features_that_this_user_may_not_try_are_not_called_there() -> None:
    finding = the("kernel features", doctor.examine(replace(FINE, features=None), FakeEngine()))
    assert finding.ok
    assert "not tried" in finding.found


def test_who_is_not_root_can_do_all_where_users_may_make_namespaces() -> None:
    findings = doctor.examine(replace(FINE, root=False), FakeEngine())
    assert wrong(findings) == []
    assert "host images can be built" in the("rights to build", findings).found


def test_programs_for_root_are_found_without_their_folders_in_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "depmod").touch(mode=0o755)
    monkeypatch.setattr("testbed.process.PROGRAMS_FOR_ROOT", (str(tmp_path),))
    monkeypatch.setenv("PATH", "/nowhere")
    assert read_machine(probe=frozenset).tools == {"depmod"}


def test_a_full_pool_of_addresses_names_who_has_it() -> None:
    finding = the("address space", doctor.examine(FINE, FakeEngine(), [Taken(ip_network("10.0.0.0/8"), "the network 'office'")]))
    assert not finding.ok
    assert "0 of 256" in finding.found
    assert "the network 'office'" in finding.found


def test_one_free_subnet_is_enough() -> None:
    *most, _ = POOL.subnets(new_prefix=24)
    finding = the("address space", doctor.examine(FINE, FakeEngine(), [Taken(subnet, "a lab") for subnet in most]))
    assert finding.ok
    assert "1 of 256" in finding.found


def test_an_s390x_machine_needs_no_emulation() -> None:
    native = replace(FINE, architecture="s390x", binfmt_status=None, binfmt_entry=None, tools=frozenset(tools_for("s390x")))
    assert wrong(doctor.examine(native, FakeEngine())) == []


def test_a_registration_is_read_with_its_interpreter_and_flags() -> None:
    assert doctor.parse_binfmt(WITH_F) == doctor.BinfmtEntry(True, "/usr/libexec/qemu-binfmt/s390x-binfmt-P", "POF")
    assert doctor.parse_binfmt(SWITCHED_OFF).enabled is False


def test_the_bounding_set_is_read_by_name() -> None:
    assert "SYS_RESOURCE" not in doctor.bounding_set(STATUS)
    assert len(doctor.bounding_set(STATUS)) == 40
    # What Docker grants by default (docs of `docker run --cap-add`).
    assert doctor.bounding_set(STATUS_IN_CONTAINER) == {
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    }  # fmt: skip


def test_the_lab_can_ask_for_the_emulation_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert "not mounted" in doctor.binfmt_problem(tmp_path)
    directory = tmp_path / "proc/sys/fs/binfmt_misc"
    directory.mkdir(parents=True)
    (directory / "status").write_text("enabled\n")
    assert "no emulator" in doctor.binfmt_problem(tmp_path)
    (directory / "qemu-s390x").write_text(WITH_F)
    assert doctor.binfmt_problem(tmp_path) == ""


def test_json_holds_every_finding() -> None:
    findings = doctor.examine(replace(FINE, ipv6=False), FakeEngine())
    data = doctor.as_json(findings)
    assert data["ok"] is False
    rows = data["findings"]
    assert isinstance(rows, list)
    assert [row["check"] for row in rows] == [one.check for one in findings]


def test_lines_show_what_is_wrong_with_its_mend_below() -> None:
    lines = doctor.as_lines(doctor.examine(replace(FINE, ipv6=False), FakeEngine()))
    at = next(number for number, line in enumerate(lines) if line.startswith("WRONG"))
    assert lines[at].split()[1] == "IPv6"
    assert lines[at + 1].strip() == "boot without ipv6.disable=1"
    assert lines[-1].startswith("1 of ")


def test_a_made_up_machine_is_read_as_it_is(tmp_path: Path) -> None:
    for name, text in {
        "proc/self/status": STATUS,
        "proc/meminfo": MEMINFO,
        "proc/sys/fs/binfmt_misc/status": "enabled\n",
        "proc/sys/net/core/somaxconn": "4096\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = read_machine(data_directory="/var/lib/docker", root=tmp_path, probe=lambda: None)
    assert machine.status == STATUS
    assert machine.binfmt_status == "enabled\n"
    assert machine.binfmt_entry is None
    assert machine.somaxconn == "4096"
    assert machine.ipv6 is False
    assert machine.bridge_firewall is None
    assert machine.disk_free is not None  # of the nearest directory that is there


def test_a_user_who_may_not_make_namespaces_is_told_apart_from_a_kernel_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert probe_kernel() is None
    unshare.write_text("#!/bin/sh\necho namespaces\necho 'RTNETLINK answers: Operation not supported' >&2\n")
    assert probe_kernel() == frozenset({"namespaces"})
