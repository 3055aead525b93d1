"""The tables of sysctls against this machine's kernel, in a fresh network namespace (needs root)."""

import functools
import re

from testbed import sysctls
from testbed.process import run_local


@functools.cache
def in_a_namespace() -> dict[str, str]:
    """Name -> permissions of every net sysctl in a fresh network namespace. /proc/sys/net is that of whoever reads it."""
    found = run_local(["unshare", "--net", "find", "/proc/sys/net", "-type", "f", "-printf", "%P %m\n"]).check().text
    return {f"net.{path.replace('/', '.')}": mode for path, mode in (line.split() for line in found.splitlines())}


def general(name: str) -> str:
    return re.sub(r"^(net\.ipv[46]\.(?:conf|neigh))\.[^.]+\.", r"\1.*.", name)


def test_what_the_kernel_lets_a_namespace_write_is_never_refused() -> None:
    writable = [name for name, mode in in_a_namespace().items() if mode in ("600", "644")]
    assert len(writable) > 100
    for name in writable:
        assert sysctls.check_name(name) == name


def test_what_this_machines_kernel_lets_root_write_a_vm_may_have() -> None:
    found = run_local(["find", "/proc/sys", "-type", "f", "-perm", "-200", "-printf", "%P\n"]).check().text.split()
    names = {path.replace("/", ".") for path in found if "." not in path} - sysctls.ACTIONS - {"kernel.hostname", "kernel.domainname"}
    assert {"net.core.rmem_max", "net.ipv4.tcp_mem", "net.ipv4.neigh.default.gc_thresh1", "vm.swappiness"} < names
    for name in names:
        assert sysctls.check_name(name, own_kernel=True) == name


def test_what_the_kernel_only_shows_in_a_namespace_is_refused() -> None:
    wrong = {name for name, mode in in_a_namespace().items() if mode == "444" and general(name) in sysctls.SETTABLE}
    assert not wrong


def test_what_is_called_one_for_the_whole_machine_is_in_no_namespace() -> None:
    assert not {name for name, mode in in_a_namespace().items() if general(name) in sysctls.OF_MACHINE and mode != "444"}
