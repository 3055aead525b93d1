"""Hosts with packages of their own, of every kind: made once, used again, and refused in plain words."""

from __future__ import annotations

import re

import pytest

from testbed import derived
from testbed.architecture import of_machine
from testbed.engine import Engine
from tests.lab.support import Labs, ids, run_testbed, started

pytestmark = pytest.mark.long

WANTED = "inetutils-telnet, iperf3, scapy==2.5.0"
MAKING_S = 300  # three images, and a guest's snapshot, on a machine that has other things to do
ALL_KINDS = """
networks: {lan: }
defaults: {packages: [inetutils-telnet, iperf3], pip: [scapy==2.5.0]}
hosts: {native: , emulated: {kind: emulated}, guest: {kind: vm}, plain: {packages: [], pip: []}}
"""


@pytest.mark.timeout(2 * MAKING_S)
def test_hosts_of_every_kind_have_what_their_file_says_and_a_second_lab_has_the_same_images(labs: Labs, engine: Engine) -> None:
    path = labs.file(ALL_KINDS)
    run_testbed("up", path, timeout_s=MAKING_S).check()
    lab = labs.lab(path)
    for name in ("native", "emulated", "guest"):
        host = lab.host(name)
        assert host.run(["iperf3", "--version"]).check().text.startswith("iperf 3.")
        assert host.run(["python3", "-c", "import scapy; print(scapy.VERSION)"]).check().text.startswith("2.5.0")
        listed = host.run(["dpkg-query", "-W", "-f", "${Package} ${Status}\n", "iperf3", "tcpdump"]).check().text
        # What their scripts make when packages are configured: a link for one of several alternatives, a user.
        assert host.run(["readlink", "-e", "/bin/telnet"]).check().text == "/usr/bin/inetutils-telnet\n"
        assert host.run(["id", "-un"], user="iperf3").check().text == "iperf3\n"
        assert listed == "iperf3 install ok installed\ntcpdump install ok installed\n"
        assert host.run(["sh", "-c", "test -L /bin && test -L /lib && ls /bin/sh"]).exit_code == 0
    assert lab.host("plain").run(["sh", "-c", "command -v iperf3"]).exit_code != 0
    made = listed_with(WANTED, engine)
    labs.up(ALL_KINDS)
    assert listed_with(WANTED, engine) == made
    assert {re.sub(":.*", "", one.reference) for one in made} == {
        "testbed/derived-s390x",
        f"testbed/derived-{of_machine().name}",
        "testbed/vm-s390x-bookworm",
    }
    assert all(re.search(r"\biperf3 3\.\d+-", one.has) and "scapy 2.5.0" in one.has for one in made)


def listed_with(wanted: str, engine: Engine) -> list[derived.Present]:
    """The images made for packages that `testbed images` shows; others may be there from another version of testbed."""
    shown = run_testbed("images").check().text
    return [one for one in derived.present(engine) if f"{one.reference}  with {wanted}" in shown]


def test_packages_that_change_change_the_host(labs: Labs, engine: Engine) -> None:
    path = labs.file("networks: {lan: }\nhosts: {a: {packages: [iperf3]}, b: }\n")
    run_testbed("up", path).check()
    before = ids(engine, path.stem)
    path.write_text("networks: {lan: }\nhosts: {a: {packages: [socat]}, b: }\n")
    said = run_testbed("up", path).check().text
    after = ids(engine, path.stem)
    assert "host a: changed: " in said
    assert "packages" in said
    assert (before["a"] != after["a"], before["b"] == after["b"]) == (True, True)


def test_two_that_want_the_same_make_it_once(labs: Labs, engine: Engine) -> None:
    text = "networks: {lan: }\nhosts: {a: {packages: [ncat]}}\n"
    for one in [one.reference for one in derived.present(engine) if one.wanted == "ncat"]:
        engine.remove_image(one)
    files = [labs.file(text), labs.file(text)]
    with started("up", files[0]) as first, started("up", files[1]) as second:
        said = [process.communicate(timeout=150)[1].decode() for process in (first, second)]
        assert [process.returncode for process in (first, second)] == [0, 0], said
    assert sum("fetching Debian packages" in one for one in said) == 1


@pytest.mark.parametrize(
    ("what", "words", "hint"),
    [
        ("packages: [iperf33]", r"host 'a': there is no package 'iperf33' in Debian bookworm for \w+, did you mean 'iperf3'?", "archive"),
        ("packages: [iperf3=9]", "has no version 9 of package 'iperf3'", "leave the version out"),
        ("pip: [scapy==9.9]", "host 'a': there is no version of a Python package that is 'scapy==9.9'", "2.5.0"),
    ],
)
def test_what_is_not_to_be_had_is_the_users_mistake_and_nothing_is_left(
    labs: Labs, engine: Engine, what: str, words: str, hint: str
) -> None:
    path = labs.file(f"networks: {{lan: }}\nhosts: {{a: {{{what}}}}}\n")
    result = run_testbed("up", path)
    assert result.exit_code == 2
    assert re.search(words.replace("?", r"\?"), result.error_text), result.error_text
    assert hint in result.error_text
    assert labs.left(path) == []
    assert not [one for one in derived.present(engine) if one.wanted == what.partition("[")[2].rstrip("]")]


def test_a_package_without_a_wheel_and_with_compiled_parts_is_named(labs: Labs) -> None:
    path = labs.file("networks: {lan: }\nhosts: {a: {kind: emulated, pip: [netifaces==0.11.0]}}\n")
    result = run_testbed("up", path)
    assert result.exit_code in (2, 3)
    assert "netifaces" in result.error_text


def test_an_archive_that_does_not_answer_is_named(labs: Labs) -> None:
    path = labs.file("networks: {lan: }\nhosts: {a: {packages: [figlet]}}\n")
    result = run_testbed("up", path, environment={"TESTBED_DEBIAN_MIRROR": "http://127.0.0.1:9/debian"})
    assert result.exit_code == 3
    assert "http://127.0.0.1:9/debian" in result.error_text
