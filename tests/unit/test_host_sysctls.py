"""The sysctls of a running host, with programs that say what a kernel would."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from testbed.errors import InputError, LabError, UnknownName
from testbed.host_sysctls import Sysctls, name_of, path_of, reason_of, value_of
from testbed.process import Result


class Kernel:
    """/proc/sys of a host: what is read, and what a write is answered with."""

    def __init__(self, refuses: str = "", becomes: str | None = None) -> None:
        self.files = {
            "/proc/sys/net/core/somaxconn": "4096\n",
            "/proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
            "/proc/sys/net/ipv4/tcp_fastopen_key": "00000000-00000000-00000000-00000000\n",
            "/proc/sys/net/ipv4/tcp_congestion_control": "cubic\n",
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter": "0\n",
            "/proc/sys/kernel/msgmax": "8192\n",
        }
        self.refuses = refuses
        self.becomes = becomes

    def __call__(self, argv: Sequence[str]) -> Result:
        def ended(code: int, out: str = "", error: str = "") -> Result:
            return Result(tuple(argv), code, out.encode(), error.encode(), 0.0)

        match argv:
            case ["sysctl", "net.ipv4"]:
                return ended(0, "net.ipv4.cipso_cache_enable = 1\nnet.ipv4.fwmark_reflect = 0\n")
            case ["sysctl", "net.ipv4.route.flush"]:
                return ended(0)
            case ["sysctl", "net.ipv6.conf.all.stable_secret"]:
                return ended(1)
            case ["sysctl", "net.ipv6.conf.eth0.stable_secret" as name]:
                return ended(1, "", f'sysctl: reading key "{name}": Input/output error\n')
            case ["sysctl", name] if path_of(name) in self.files:
                return ended(0, f"{name} = {self.files[path_of(name)]}")
            case ["sysctl", "-w", assignment]:
                name, _, value = assignment.partition("=")
                path = path_of(name)
                if self.refuses:
                    return ended(1, "", f'sysctl: setting key "{name}": {self.refuses}\n')
                if path not in self.files:
                    return ended(1, "", f"sysctl: cannot stat {path}: No such file or directory\n")
                self.files[path] = f"{value if self.becomes is None else self.becomes}\n"
                return ended(0, f"{name} = {value}\n")
            case ["sysctl", name]:
                return ended(1, "", f"sysctl: cannot stat {path_of(name)}: No such file or directory\n")
            case ["test", "-f", path]:
                return ended(0 if path in self.files else 1)
            case ["find", *_]:
                return ended(0, "".join(f"{path.removeprefix('/proc/sys/')}\n" for path in self.files))
        raise AssertionError(argv)


def sysctls(kernel: Kernel, *, own_kernel: bool = False) -> Sysctls:
    return Sysctls(kernel, "server", own_kernel=own_kernel)


def test_values_are_numbers_and_texts() -> None:
    its = sysctls(Kernel())
    assert its["net.core.somaxconn"] == 4096
    assert its["net.ipv4.tcp_rmem"] == "4096 131072 6291456"
    assert its["net.ipv4.tcp_fastopen_key"] == "00000000-00000000-00000000-00000000"
    assert its["net.ipv4.conf.eth0/1.rp_filter"] == its["net/ipv4/conf/eth0.1/rp_filter"] == 0
    assert (value_of("-1\n"), value_of("007\n"), value_of("\n")) == (-1, "007", "")


def test_names_are_those_of_sysctl() -> None:
    its = sysctls(Kernel())
    assert "net.core.somaxconn" in its
    assert "net/core/somaxconn" in its
    assert "net.core.nonsense" not in its
    assert 7 not in its
    assert list(its)[:2] == ["kernel.msgmax", "net.core.somaxconn"]
    assert all(one in its for one in its)
    assert path_of("net.ipv4.conf.eth0/1.rp_filter") == "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
    assert path_of("net/ipv4/conf/eth0.1/rp_filter") == "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
    assert name_of("net/ipv4/conf/eth0.1/rp_filter") == "net.ipv4.conf.eth0/1.rp_filter"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "net..core", "net/../../etc/passwd", "net.core.somaxconn\n", "a b", "-x"])
def test_what_is_no_name_reaches_no_file(name: str) -> None:
    with pytest.raises(InputError, match="is not the name of a sysctl"):
        sysctls(Kernel())[name]


def test_one_that_was_set_reads_so() -> None:
    its = sysctls(Kernel())
    its["net.core.somaxconn"] = 4
    assert its["net.core.somaxconn"] == 4
    its["net.ipv4.tcp_rmem"] = [1000, 2000, 3000]
    assert its["net.ipv4.tcp_rmem"] == "1000 2000 3000"
    its["net.core.somaxconn"] = "5"
    assert its["net.core.somaxconn"] == 5


def test_an_unknown_one_offers_the_nearest() -> None:
    its = sysctls(Kernel())
    with pytest.raises(UnknownName, match=r"no sysctl of host server is called 'net.core.somaxcon', did you mean 'net.core.somaxconn'"):
        its["net.core.somaxcon"]
    with pytest.raises(InputError, match=r"there is no sysctl 'net.core.somaxcon', did you mean 'net.core.somaxconn'"):
        its["net.core.somaxcon"] = 4
    with pytest.raises(UnknownName, match=r"no sysctl of host server is called 'net.ipv4.tcp_syncookies'"):
        its["net.ipv4.tcp_syncookies"] = 0  # which exists, and not in this kernel


def test_what_cannot_be_read_says_why() -> None:
    its = sysctls(Kernel())
    with pytest.raises(InputError, match=r"'net.ipv4' is no sysctl, but a group of them"):
        its["net.ipv4"]
    for name, why in (("ipv4.route.flush", "$"), ("ipv6.conf.all.stable_secret", "$"), ("ipv6.conf.eth0.stable_secret", ": EIO$")):
        with pytest.raises(LabError, match=f"sysctl net.{name} of host server has no value that can be read{why}"):
            its[f"net.{name}"]


@pytest.mark.parametrize(
    ("name", "value", "words", "hint"),
    [
        ("net.ipv4.tcp_mem", [1, 2, 3], "not per network namespace: setting it would change the whole machine", "kind: vm"),
        ("net.core.somaxconn", "many", "'many' cannot be the value of 'net.core.somaxconn'", "a whole number"),
        ("vm.swappiness", 5, "not per namespace", "kind: vm"),
        ("kernel.msgmax", 5, "of a container can be set only when it is made", "in the topology"),
    ],
)
def test_what_a_container_cannot_have_is_refused_before_it_is_tried(name: str, value: str | int | list[int], words: str, hint: str) -> None:
    kernel = Kernel(refuses="it was tried")
    with pytest.raises(InputError, match=words) as caught:
        sysctls(kernel)[name] = value
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("says", "own_kernel", "words", "hint"),
    [
        ("Invalid argument", False, "somaxconn = 4: the kernel refuses the value", "ip-sysctl.rst"),
        ("Permission denied", False, "not per network namespace", "kind: vm"),
        ("Read-only file system", False, "not per network namespace", "kind: vm"),
        ("Operation not permitted", True, "host server's kernel does not let anybody set it", "ip-sysctl.rst"),
        ("Cannot allocate memory", False, "the kernel did not take it: ENOMEM", ""),
        ("No such file or directory", False, "the kernel has no such sysctl", "sysctl -a"),
    ],
)
def test_what_the_kernel_refuses_is_said_in_words(says: str, own_kernel: bool, words: str, hint: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        sysctls(Kernel(refuses=says), own_kernel=own_kernel)["net.core.somaxconn"] = 4
    assert hint in caught.value.hint


def test_a_value_may_be_the_name_of_what_the_kernel_has_not() -> None:
    with pytest.raises(InputError, match="tcp_congestion_control = vegas: the kernel has nothing of that name") as caught:
        sysctls(Kernel(refuses="No such file or directory"))["net.ipv4.tcp_congestion_control"] = "vegas"
    assert "tcp_available_congestion_control" in caught.value.hint


def test_a_value_that_the_kernel_changes_is_an_error() -> None:
    with pytest.raises(InputError, match="somaxconn = 4: the kernel made it 7"):
        sysctls(Kernel(becomes="7"))["net.core.somaxconn"] = 4


def test_a_vm_may_set_what_is_its_kernels() -> None:
    its = sysctls(Kernel(), own_kernel=True)
    its["kernel.msgmax"] = 4096
    assert its["kernel.msgmax"] == 4096


def test_the_reason_of_a_complaint() -> None:
    assert reason_of('sysctl: setting key "x": Invalid argument\n') == "EINVAL"
    assert reason_of("something else\n") == "something else"
    assert reason_of('sysctl: permission denied on key "x"\n') == "EACCES"
    assert reason_of("") == ""


class Counting(Kernel):
    """The same, and sysctl(8) with several names or values at once; ``calls`` are those."""

    def __init__(self, becomes: str | None = None) -> None:
        super().__init__(becomes=becomes)
        self.calls: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str]) -> Result:
        self.calls.append(argv)
        options, words = (argv[:2], argv[2:]) if argv[1] == "-w" else (argv[:1], argv[1:])
        if argv[0] != "sysctl" or len(words) < 2:
            return super().__call__(argv)
        each = [super(Counting, self).__call__([*options, word]) for word in words]
        code = max(one.exit_code for one in each)
        return Result(tuple(argv), code, b"".join(one.stdout for one in each), b"".join(one.stderr for one in each), 0.0)


def test_several_are_asked_and_set_at_once() -> None:
    kernel = Counting()
    host = Sysctls(kernel, "a", own_kernel=True)
    host.set_several({"net.core.somaxconn": 4, "net.ipv4.tcp_rmem": "1 2 3"})
    assert host.several(["net.core.somaxconn", "net.ipv4.tcp_rmem"]) == {"net.core.somaxconn": 4, "net.ipv4.tcp_rmem": "1 2 3"}
    assert [call[1] for call in kernel.calls] == ["-w", "net.core.somaxconn", "net.core.somaxconn"]
    assert host.several([]) == {}
    host.set_several({})
    assert len(kernel.calls) == 3


def test_of_several_the_one_that_is_wrong_is_named() -> None:
    host = Sysctls(Counting(), "a", own_kernel=True)
    with pytest.raises(UnknownName, match=r"net\.core\.nosuch"):
        host.several(["net.core.somaxconn", "net.core.nosuch"])
    with pytest.raises(UnknownName, match=r"net\.core\.nosuch"):
        host.set_several({"net.core.somaxconn": 4, "net.core.nosuch": 1})
    with pytest.raises(InputError, match=r"net\.core\.somaxconn = 4: the kernel made it 9"):
        Sysctls(Counting(becomes="9"), "a", own_kernel=True).set_several({"net.core.somaxconn": 4, "kernel.msgmax": 9})
