"""Packages of a host beside its image: how they are written, what apt and pip say when they refuse, and the layer that comes of them."""

from __future__ import annotations

import io
import sys
import tarfile

import pytest

from testbed import derived, packages
from testbed.architecture import ARCHITECTURES
from testbed.derived import Derived
from testbed.errors import ImageError, InputError
from testbed.guest import Guest
from testbed.package_names import Extras, read_packages, read_requirements
from testbed.packages import debian_refusal, merged_status, not_done, pip_refusal, python_of
from testbed.pip_fetch import Refused, is_pure, missing, platforms, refusal
from testbed.topology import Topology

LONG = "long/" * 18 + "xx"  # with what stands before it, more than a tar's header has room for
AMD64, S390X = ARCHITECTURES["amd64"], ARCHITECTURES["s390x"]
STATUS = """Package: python3.11-minimal
Status: install ok installed
Version: 3.11.2-6

Package: tcpdump
Status: install ok installed
Version: 4.99.3-1

"""


@pytest.mark.parametrize("value", ["iperf3", ["iperf3", "libcoap3-bin=4.3.1-1"], ["g++", "zlib1g=1:1.2.13.dfsg-1~deb12u1"]])
def test_names_of_debian_packages_are_taken(value: str | list[str]) -> None:
    assert read_packages(value) == tuple(sorted([value] if isinstance(value, str) else value))


@pytest.mark.parametrize(
    "value", ["Iperf", "iperf3 && reboot", "--purge", ["a b"], [7], {"a": 1}, ["x=1", "x"], "./x.deb", "$(x)", "iperf3\n"]
)
def test_what_is_no_name_of_a_debian_package_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        read_packages(value)


@pytest.mark.parametrize("value", ["scapy", "scapy==2.5.0", "a-b.c[extra,other]>=1,<2", "x ~= 1.2", "x==1.*"])
def test_requirements_of_pip_are_taken(value: str) -> None:
    assert read_requirements(value) == (value.replace(" ", ""),)


@pytest.mark.parametrize(
    "value", ["scapy=2.5", "--index-url=x", "git+https://x", "./here", "x @ file:///y", "x; python_version<'3'", "", "x\n", ["x", "x==1"]]
)
def test_what_is_no_requirement_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        read_requirements(value)


def test_a_host_has_packages_in_any_order_and_defaults_give_them() -> None:
    one = Topology.build(
        {"name": "x", "networks": {"lan": {}}, "hosts": {"a": {"packages": ["b0", "a0"], "pip": "scapy == 2.5.0"}, "b": {}}}
    )
    assert one.host("a").extras == Extras(("a0", "b0"), ("scapy==2.5.0",))
    assert not one.host("b").extras


# Images


def test_the_same_wish_is_the_same_image_and_any_other_is_another() -> None:
    same = [Derived(Extras(("a", "b")), AMD64, AMD64).reference, Derived(Extras(("a", "b")), AMD64, AMD64).reference]
    others = {
        Derived(Extras(("a",)), AMD64, AMD64).reference,
        Derived(Extras(("a",), ("b",)), AMD64, AMD64).reference,
        Derived(Extras((), ("a", "b")), AMD64, AMD64).reference,
        Derived(Extras(("a", "b")), S390X, AMD64).reference,
    }
    assert len(set(same)) == 1
    assert len(others | set(same)) == 5


def test_a_guest_with_packages_has_a_disk_and_a_snapshot_of_its_own_and_is_otherwise_the_same() -> None:
    guest = Guest("s390x", "bookworm", 128 << 20, 1, "tcg")
    one = Derived(Extras(("iperf3",)), S390X, AMD64, guest)
    assert one.packaged.qemu_arguments() == guest.qemu_arguments()
    assert one.made != one.base
    assert one.made.rpartition(":")[0] == one.base.rpartition(":")[0]
    assert one.reference not in (one.made, one.base)


# apt


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("E: Unable to locate package iperf\n", "there is no package 'iperf' in Debian bookworm for s390x, did you mean 'iperf3'?"),
        ("E: Version '9' for 'iperf3' was not found\n", "has no version 9 of package 'iperf3'"),
        ("E: Package 'mta' has no installation candidate\n", "package 'mta' is a mere name"),
        (" a : Depends: b but it is not installable\nE: Unable to correct problems\n", "cannot be together.*\n.*a : Depends: b"),
    ],
)
def test_what_apt_says_is_the_users_mistake_in_plain_words(log: str, words: str) -> None:
    error = debian_refusal(log, ["iperf3", "zsh"], "bookworm", "s390x")
    assert isinstance(error, InputError)
    with pytest.raises(InputError, match=f"(?s){words.replace('?', '.')}"):
        raise error
    assert error.hint


def test_an_archive_that_does_not_answer_is_nobodys_mistake() -> None:
    assert isinstance(debian_refusal("E: Failed to fetch http://x/y.deb", [], "bookworm", "amd64"), ImageError)


def test_new_packages_are_in_the_list_of_a_host_and_take_the_place_of_older_ones() -> None:
    merged = merged_status(STATUS, {"tcpdump": "Package: tcpdump\nVersion: 5\n", "iperf3": "Package: iperf3\nVersion: 3\n"})
    assert merged.count("Package: tcpdump\n") == 1
    assert "Package: iperf3\nStatus: install ok installed\nVersion: 3\n" in merged
    assert "4.99" not in merged
    assert merged.endswith("\n\n")
    assert python_of(merged) == "3.11"


def test_what_package_scripts_would_have_made_and_was_not_made_here_is_said() -> None:
    scripts = {
        "a": "adduser --system a\nchown a /var/lib/a\n",
        "b": "update-alternatives --install x\nuseradd $B\n",
        "c": "ldconfig\n",
        "d": "update-alternatives --install /usr/bin/d d /usr/bin/e 10\n",
    }
    assert not_done(scripts) == ["a: owners of files", "b: users and alternatives"]


def test_a_layer_lays_nothing_over_the_links_into_usr_and_leaves_manuals_out() -> None:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as tar:
        for name, kind in (("root", tarfile.DIRTYPE), ("root/lib", tarfile.SYMTYPE), ("root/usr", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "usr/lib" if kind == tarfile.SYMTYPE else ""
            tar.addfile(member)
        for name in ("root/usr/bin/x", "root/usr/share/man/man1/x.1", "root/usr/share/doc/x/y", "about/x", f"root/usr/{LONG}"):
            member = tarfile.TarInfo(name)
            member.uid = 7
            tar.addfile(member)
        member = tarfile.TarInfo("root/usr/bin/y")
        member.type, member.linkname = tarfile.LNKTYPE, "./root/usr/bin/x"
        tar.addfile(member)
    laid = io.BytesIO()
    with tarfile.open(fileobj=laid, mode="w") as tar:
        packages.add(tar, found.getvalue(), set())
    laid.seek(0)
    with tarfile.open(fileobj=laid) as tar:
        assert [(one.name, one.linkname, one.uid) for one in tar] == [
            ("usr/bin/x", "", 0),
            (f"usr/{LONG}", "", 0),
            ("usr/bin/y", "usr/bin/x", 0),
        ]


# pip

NOT_THERE = """ERROR: Could not find a version that satisfies the requirement nothing-such (from versions: none)
ERROR: No matching distribution found for nothing-such
"""
NO_VERSION = """ERROR: Could not find a version that satisfies the requirement scapy==9 (from versions: 2.4.5, 2.5.0)
ERROR: No matching distribution found for scapy==9
"""
OTHER_PYTHON = """ERROR: Ignored the following versions that require a different python version: 3.0 Requires-Python >=3.12
ERROR: Could not find a version that satisfies the requirement new==3.0 (from versions: 1.0)
ERROR: No matching distribution found for new==3.0
"""
FROM_OTHER = "ERROR: No matching distribution found for needed>=2 (from wanted==1)\n"


def test_what_pip_finds_nothing_for_is_known() -> None:
    assert [missing(one) for one in (NOT_THERE, NO_VERSION, FROM_OTHER, "error")] == ["nothing-such", "scapy==9", "needed>=2", ""]


@pytest.mark.parametrize(
    ("said", "package", "words"),
    [
        (NOT_THERE, "nothing-such", "there is no Python package 'nothing-such'"),
        (NO_VERSION, "scapy==9", "there is no version of a Python package that is 'scapy==9'"),
        (OTHER_PYTHON, "new==3.0", "'new==3.0' is not for Python 3.11"),
        ("ERROR: ResolutionImpossible: for help", "", "cannot be together"),
        ("NewConnectionError('x')\nERROR: No matching distribution found for x\n", "x", "does not answer"),
        ("/usr/bin/python3: No module named pip", "", "has no pip"),
        ("error: subprocess-exited-with-error", "x", "'x' has no wheel and could not be built"),
    ],
)
def test_what_pip_says_becomes_plain_words(said: str, package: str, words: str) -> None:
    refused = refusal(said, package).said
    error = pip_refusal(refused["error"], refused["package"], refused["detail"], S390X, "3.11")
    assert words in error.message
    assert error.hint


def test_a_package_with_compiled_parts_is_named() -> None:
    said = Refused("compiled", "numpy 1.0", "numpy-1.0-cp311-cp311-linux_x86_64.whl").said
    error = pip_refusal(said["error"], said["package"], said["detail"], S390X, "3.11")
    assert "'numpy 1.0' has compiled parts, and no wheel for s390x" in error.message


def test_a_wheel_is_for_every_architecture_when_its_name_says_so() -> None:
    assert is_pure("scapy-2.5.0-py2.py3-none-any.whl")
    assert not is_pure("x-1-cp311-cp311-linux_x86_64.whl")
    assert "manylinux_2_17_s390x" in platforms("s390x")
    assert "manylinux_2_37_s390x" not in platforms("s390x")  # of a newer glibc than hosts have


def test_each_derived_image_tells_what_it_has() -> None:
    one = Derived(Extras(("iperf3",)), AMD64, AMD64)
    made = packages.Layer(b"", ("iperf3 3.12-1",), ('x: "users"',))
    changes = derived.changes(one, made)
    assert f'LABEL testbed.base="{one.base}"' in changes
    assert 'LABEL testbed.packages="iperf3 3.12-1"' in changes
    assert r'LABEL testbed.left-out="x: \"users\""' in changes


# A virtual environment where tools have a place of their own


def test_the_python_of_an_environment_in_tmp_is_the_one_that_it_was_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/tmp/environment")
    assert packages._interpreter() == f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    assert "own/pip/__main__.py" in packages._own_pip()
    monkeypatch.setattr(sys, "base_prefix", "/tmp/python")
    assert packages._interpreter() == ""


def test_the_python_of_an_environment_elsewhere_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/me/environment")
    assert packages._interpreter() == sys.executable
