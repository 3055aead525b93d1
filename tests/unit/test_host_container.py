"""The pure parts of carrying out a change: a host's container, its /etc/hosts, and what an error of its first process means."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from typing import Any

import pytest

from testbed.change import Change
from testbed.errors import EngineError, InputError, LabError
from testbed.guest import FILES, Guest
from testbed.host_container import files_archive, host_spec, hosts_file, tar, why_init_ended, why_not_started
from testbed.lab import bridge_name


def settings(**changed: Any) -> dict[str, Any]:
    link = {"network": "lan", "device": "eth0", "port": "a.0", "mac": "02:42:0a:05:00:02", "mtu": 1500, "addresses": ["10.5.0.2/24"]}
    plain: dict[str, Any] = {
        "kind": "native", "arch": "amd64", "image": "image:1", "guest": None, "links": [link], "sysctls": {}, "routes": [],
        "environment": {}, "files": {}, "external": False,
        "memory": None, "cpus": None, "capabilities": ["NET_ADMIN"], "command": None, "ready": None,
    }  # fmt: skip
    return {**plain, **changed}


@pytest.mark.parametrize(
    ("said", "kind", "message", "hint"),
    [
        ("sysctl net.x: EINVAL", InputError, "host 'a': sysctl net.x = 5: the kernel refuses the value", "ip-sysctl.rst"),
        ("sysctl net.x: ERANGE", InputError, "host 'a': sysctl net.x = 5: the value is out of range", "ip-sysctl.rst"),
        (
            "sysctl net.x: ENOENT",
            InputError,
            "host 'a': sysctl net.x = 5: the kernel has no such sysctl in a network namespace",
            "kind: vm",
        ),
        ("sysctl net.x: EACCES", InputError, "host 'a': sysctl net.x = 5: it is not per network namespace", "kind: vm"),
        ("sysctl net.x: EROFS", InputError, "host 'a': sysctl net.x = 5: it is not per network namespace", "kind: vm"),
        ("sysctl net.x: EPERM", InputError, "host 'a': sysctl net.x = 5: the kernel does not let a container set it", "kind: vm"),
        (
            "sysctl net.x: wrote '5', reads '4'",
            InputError,
            "host 'a': sysctl net.x = 5: the kernel did not take it: wrote '5', reads '4'",
            "",
        ),
        ("address 10.5.0.2/24 on eth0: ENODEV", LabError, "host 'a': address 10.5.0.2/24 on eth0: ENODEV", ""),
        ("route default via 10.9.0.1: ENETUNREACH", LabError, "host 'a': route default via 10.9.0.1: ENETUNREACH", ""),
    ],
)
def test_what_init_could_not_set_is_told_in_the_files_terms(said: str, kind: type[Exception], message: str, hint: str) -> None:
    error = why_init_ended("a", f"init: {said}\n".encode(), settings(sysctls={"net.x": "5"}))
    assert type(error) is kind
    assert error.message.startswith(message)
    assert hint in error.hint


@pytest.mark.parametrize(("wrote", "words"), [(b"", "wrote nothing"), (b"init: waiting\nKilled\n", "| Killed"), (b"\xff\n", "| \\xff")])
def test_an_end_without_a_reason_quotes_what_there_is(wrote: bytes, words: str) -> None:
    error = why_init_ended("a", wrote, settings())
    assert error.exit_code == 3
    assert "host 'a' ended before it was ready" in error.message
    assert words in error.message


def test_a_sysctl_that_the_engine_could_not_set_is_the_files_error() -> None:
    runc = EngineError("the Docker engine refused: OCI runtime: write /proc/sys/kernel/msgmax: invalid argument: unknown", status=500)
    error = why_not_started("a", runc, settings(sysctls={"kernel.msgmax": "-1"}))
    assert isinstance(error, InputError)
    assert error.message == "host 'a': sysctl kernel.msgmax = -1: the kernel refuses the value"
    other = EngineError("the Docker engine refused: no space left on device", status=500)
    assert why_not_started("a", other, settings()) is other


def test_a_hosts_file_has_what_every_machine_has_and_the_nearest_addresses() -> None:
    far = {"network": "far", "device": "eth1", "port": "b.1", "mac": "x", "mtu": 1500, "addresses": ["10.6.0.3/24", "fd00::3/64"]}
    near = {"network": "lan", "device": "eth0", "port": "b.0", "mac": "x", "mtu": 1500, "addresses": ["10.5.0.3/24"]}
    text = hosts_file(settings(), {"a": settings(), "b": settings(links=[far, near]), "c": settings(links=[far])})
    lines = text.splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[6:] == ["10.5.0.2\ta", "10.5.0.3\tb", "10.6.0.3\tc", "fd00::3\tc"]
    assert text.endswith("\n")


def test_a_hosts_container_is_what_its_settings_say() -> None:
    wanted = settings(sysctls={"net.core.somaxconn": "8", "kernel.msgmax": "4096"}, memory=64 << 20, cpus=0.5, environment={"A": "b"})
    spec = host_spec("lab", "a", wanted, {"a": wanted})
    assert (spec.name, spec.hostname, spec.image, spec.network) == ("testbed.lab.a", "a", "image:1", None)
    assert spec.sysctls == {"kernel.msgmax": "4096"}, "the network's are set by init"
    assert list(spec.argv)[:2] == ["--own", "1,5,8,18,21"], "what its commands do not get"
    assert list(spec.argv)[2:6] == ["--hosts", hosts_file(wanted, {"a": wanted}), "--sysctl", "net.core.somaxconn=8"]
    assert "kernel.msgmax=4096" not in spec.argv
    assert (spec.memory, spec.cpus, spec.environment) == (64 << 20, 0.5, {"A": "b"})
    assert spec.capabilities == ["DAC_OVERRIDE", "KILL", "NET_ADMIN", "SETPCAP", "SYS_ADMIN", "SYS_CHROOT"]
    given = settings(capabilities=["KILL", "NET_ADMIN", "SYS_ADMIN"])
    assert list(host_spec("lab", "a", given, {}).argv)[:2] == ["--own", "1,8,18"], "what its file gives them they do get"
    assert spec.labels["testbed.lab"] == "lab"
    assert spec.pid_mode is None
    assert host_spec("lab", "a", settings(external=True), {}).network is None


def test_files_are_packed_with_their_modes_below_the_root() -> None:
    packed = tar({"/etc/x.conf": b"text"}, {"/etc/x.conf": ["digest", 0o640]})
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode, member.uid, member.size) == ("etc/x.conf", 0o640, 0, 4)


# --- hosts with a kernel of their own

GUEST = {"arch": "s390x", "kernel": "bookworm", "memory": 256 << 20, "networks": 1, "accelerator": "tcg"}


def vm(**changed: Any) -> dict[str, Any]:
    return settings(**{"kind": "vm", "arch": "s390x", "guest": GUEST, **changed})


def test_the_container_of_a_guest_runs_the_guest_and_init_on_it() -> None:
    wanted = vm(sysctls={"net.core.somaxconn": "8", "kernel.msgmax": "4096"}, memory=256 << 20, cpus=0.5, environment={"A": "b"})
    spec = host_spec("lab", "a", wanted, {"a": wanted})
    mode, memory, networks, count, *rest = spec.argv
    assert (mode, memory, networks) == ("run", "256", "1")
    assert rest[: int(count)] == Guest(**GUEST).qemu_arguments()  # type: ignore[arg-type]
    assert rest[int(count) :] == [
        *("--hosts", hosts_file(wanted, {"a": wanted}), "--link", "eth0", "02:42:0a:05:00:02", "1500"),
        *("--sysctl", "net.core.somaxconn=8", "--sysctl", "kernel.msgmax=4096", "--address", "eth0", "10.5.0.2/24"),
    ]
    assert spec.sysctls == {}, "the guest's kernel has them all"
    assert spec.memory is None, "it is the guest's"
    assert (spec.cpus, spec.environment, spec.hostname, spec.capabilities) == (0.5, {"A": "b"}, "a", ["NET_ADMIN"])
    assert spec.devices == ["/dev/net/tun"]
    with_kvm = vm(guest={**GUEST, "accelerator": "kvm"})
    assert host_spec("lab", "a", with_kvm, {"a": with_kvm}).devices == ["/dev/net/tun", "/dev/kvm"]
    assert host_spec("lab", "a", settings(), {}).devices == ()


def test_the_files_of_a_guest_are_one_file_of_its_container() -> None:
    with_files = {"files": {"/etc/x.conf": ["digest", 0o640]}}
    packed = files_archive({"/etc/x.conf": b"text"}, vm(**with_files))
    with tarfile.open(fileobj=io.BytesIO(packed)) as outer:
        (whole,) = outer.getmembers()
        assert (f"/{whole.name}", whole.mode) == (FILES, 0o600)
        content = outer.extractfile(whole)
        assert content
        with tarfile.open(fileobj=content) as inner:
            (member,) = inner.getmembers()
            assert (member.name, member.mode, member.size) == ("etc/x.conf", 0o640, 4)
    with tarfile.open(fileobj=io.BytesIO(files_archive({"/etc/x.conf": b"text"}, settings(**with_files)))) as plain:
        assert plain.getnames() == ["etc/x.conf"]


@pytest.mark.parametrize("reason", ["ENOENT", "EACCES", "EROFS", "EPERM"])
def test_a_sysctl_that_a_guests_own_kernel_does_not_take_is_not_sent_to_a_kernel_of_its_own(reason: str) -> None:
    error = why_init_ended("a", f"init: sysctl net.x: {reason}\n".encode(), vm(sysctls={"net.x": "5"}))
    assert isinstance(error, InputError)
    assert error.message.startswith("host 'a': sysctl net.x = 5: bookworm's kernel ")
    assert "namespace" not in error.message
    assert "container" not in error.message
    assert "kind: vm" not in error.hint
    assert error.hint


def test_a_value_that_a_guest_reads_back_otherwise_is_told_as_it_is() -> None:
    error = why_init_ended("a", b"init: sysctl net.x: wrote '{}', reads '4'\n", vm(sysctls={"net.x": "{}"}))
    assert error.message == "host 'a': sysctl net.x = {}: the kernel did not take it: wrote '{}', reads '4'"


@pytest.mark.parametrize("said", ["link eth0 02:42:0a:05:00:02 99999: EINVAL", "clock: EINVAL", "hostname: EPERM"])
def test_what_init_on_a_guest_could_not_do_is_quoted(said: str) -> None:
    error = why_init_ended("a", f"vm: restored 6.1\ninit: {said}\nvm: init ended on the guest\n".encode(), vm())
    assert type(error) is LabError
    assert f"init: {said}" in error.message


def test_the_device_between_a_guest_and_its_network_has_another_mac_than_the_guest() -> None:
    asked: list[str] = []

    class Recording(Change):
        def __init__(self) -> None:
            pass

        def _in_switch(self, *commands: str) -> None:
            asked.extend(commands)

    for wanted in (settings(), vm()):
        Recording()._plug(wanted, 4711)
    plain, outer = [dict(pairwise(one.split())) for one in asked]
    assert (plain["address"], outer["address"]) == ("02:42:0a:05:00:02", "0a:42:0a:05:00:02")
    assert int(outer["address"][:2], 16) & 0b11 == 0b10, "locally administered, one station's"
    assert [(one["name"], one["netns"], one["master"]) for one in (plain, outer)] == [("eth0", "4711", bridge_name("lan"))] * 2


def test_a_host_with_a_way_out_gets_the_machines_resolver_unless_the_file_gives_it_one() -> None:
    def names(archive: bytes) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(archive)) as read:
            return {one.name: read.extractfile(one).read() for one in read.getmembers()}  # type: ignore[union-attr]

    resolver = b"nameserver 192.0.2.1\n"
    assert names(files_archive({}, settings(external=True), resolver)) == {"etc/resolv.conf": resolver}
    assert names(files_archive({}, settings(external=False), resolver)) == {}
    own = settings(external=True, files={"/etc/resolv.conf": ["digest", 0o600]})
    assert names(files_archive({"/etc/resolv.conf": b"own"}, own, resolver)) == {"etc/resolv.conf": b"own"}
