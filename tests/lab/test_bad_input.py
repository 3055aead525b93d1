"""Whatever is wrong with the file, the arguments or the machine: one clear error, the right exit code, nothing left behind.

A disk that fills while an image is built: tests/lab/test_images.py and tests/unit/test_images.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed import images, topology_file, up
from testbed.architecture import Architecture
from testbed.engine import Engine
from testbed.errors import EngineError
from testbed.images import HostImage
from testbed.process import Result, run_local
from tests.lab.other_user import copied, only_root, other_user
from tests.lab.support import COMMAND, LIMIT_S, Labs, run_testbed

PAIR = "networks:\n  lan:\nhosts:\n  client:\n  server:\n"
EMULATED_HOST = "networks:\n  lan:\nhosts:\n  big: {kind: emulated}\n"


def one_error(done: Result, code: int, *words: str) -> None:
    """Exactly one error on standard error, with these words, nothing on standard output, and this exit code."""
    said = done.error_text
    assert "Traceback" not in said
    assert [line.startswith("testbed: ") for line in said.splitlines()].count(True) == 1, said
    for word in words:
        assert word in said
    assert done.text == ""
    assert done.exit_code == code, said


def host(settings: str, network: str = "") -> str:
    return f"networks:\n  lan: {network}\nhosts:\n  a: {settings}\n"


FILES: dict[str, tuple[str, int, list[str]]] = {
    "not YAML": ("hosts: [", 2, ["not YAML"]),
    "bytes that are no text": ("hosts: \x01", 2, []),
    "nothing": ("", 2, []),
    "not a mapping": ("- lan\n", 2, []),
    "an unknown key": (host("{sysctl: {net.core.somaxconn: 8}}"), 2, [":4:7: ", "'sysctl'", "did you mean 'sysctls'?"]),
    "a wrong type": (host("{forwarding: perhaps}"), 2, [":4:19: ", "perhaps"]),
    "two hosts with one name": ("networks:\n  lan:\nhosts:\n  a:\n  a:\n", 2, [":5:3: ", "'a'"]),
    "two hosts with one name by count": ("networks:\n  lan:\nhosts:\n  a: {count: 2}\n  a-2:\n", 2, ["a-2"]),
    "two hosts with one address": (
        "networks:\n  lan: {subnet: 10.92.0.0/24}\nhosts:\n  a: {networks: {lan: 10.92.0.5}}\n  b: {networks: {lan: 10.92.0.5}}\n",
        2,
        ["host 'a' has 10.92.0.5 on network 'lan' already"],
    ),
    "an address outside its subnet": (
        host("{networks: {lan: 10.93.0.5}}", "{subnet: 10.92.0.0/24}"),
        2,
        ["10.93.0.5 is not in 10.92.0.0/24"],
    ),
    "the gateway's address": (host("{networks: {lan: 10.92.0.1}}", "{subnet: 10.92.0.0/24}"), 2, ["10.92.0.1 is the gateway"]),
    "the broadcast address": (
        host("{networks: {lan: 10.92.0.255}}", "{subnet: 10.92.0.0/24}"),
        2,
        ["10.92.0.255 is the broadcast address of 10.92.0.0/24"],
    ),
    "overlapping subnets": (
        "networks:\n  one: {subnet: 10.92.0.0/16}\n  two: {subnet: 10.92.4.0/24}\nhosts:\n  a: {networks: [one, two]}\n",
        2,
        [":3:17: ", "10.92.4.0/24 overlaps 10.92.0.0/16 of network 'one'"],
    ),
    "an unknown network": (host("{networks: [lam]}"), 2, ["no network 'lam', did you mean 'lan'?"]),
    "a sysctl near a known one": (
        host("{sysctls: {net.core.somaxcon: 8}}"),
        2,
        ["net.core.somaxcon", "did you mean 'net.core.somaxconn'?"],
    ),
    "a sysctl that the kernel lacks": (
        host("{sysctls: {net.ipv4.no_such_thing_anywhere: 1}}"),
        2,
        ["host 'a': sysctl net.ipv4.no_such_thing_anywhere = 1", "no such sysctl"],
    ),
    "a malformed value": (host("{sysctls: {net.core.somaxconn: many}}"), 2, [":4:", "'many' cannot be the value of 'net.core.somaxconn'"]),
    "a value out of the kernel's range": (
        host("{sysctls: {net.ipv4.tcp_syn_retries: 1000}}"),
        2,
        ["host 'a': sysctl net.ipv4.tcp_syn_retries = 1000: the kernel refuses the value"],
    ),
    "a value that no number holds": (
        host("{sysctls: {net.core.somaxconn: 99999999999999999999}}"),
        2,
        ["host 'a': sysctl net.core.somaxconn = 99999999999999999999"],
    ),
    "a sysctl of the whole machine": (host("{sysctls: {net.core.netdev_max_backlog: 5}}"), 2, ["not per network namespace", "kind: vm"]),
    "a sysctl of another part of the kernel": (host("{sysctls: {vm.swappiness: 5}}"), 2, ["not per namespace", "kind: vm"]),
    "an unknown architecture": (host("{arch: s390}"), 2, ["s390", "s390x"]),
    "another machine's architecture": (host("{arch: s390x}"), 2, ["host 'a': a native host cannot be s390x", "kind: emulated"]),
    "no host by count": (host("{count: 0}"), 2, [":4:14: ", "0"]),
    "a million hosts": (host("{count: 1000000}"), 2, [":4:14: ", "1000000"]),
    "a name that Docker refuses": ("networks:\n  lan:\nhosts:\n  -a!:\n", 2, ["'-a!' is not a host name"]),
    "a name that is too long": (f"networks:\n  lan:\nhosts:\n  {'a' * 64}:\n", 2, ["64 characters"]),
    "a source that is not there": (host("{files: {/etc/x: {source: ./missing}}}"), 2, ["missing"]),
    "a program that is not there": (host("{command: [no-such-program], ready: {listening: 1}}"), 3, ["host 'a': its command"]),
    "a command that is never ready": (
        host("{command: [sh, -c, 'echo hopeless; sleep 100'], ready: {listening: 1, timeout_s: 0.5}}"),
        3,
        ["host 'a' ready: TCP port 1 listened on: not within 0.5 s", "| hopeless", "timeout_s"],
    ),
    "a route to where it is": (
        host("{routes: [{to: default, via: 10.93.0.77}]}", "{subnet: 10.92.0.0/24}"),
        2,
        ["10.93.0.77"],
    ),
    "too little memory for anything": (host("{memory: 1M}"), 2, ["6 MiB"]),
}


@pytest.mark.parametrize(("text", "code", "words"), FILES.values(), ids=FILES)
def test_what_is_wrong_in_a_file_is_one_error_and_leaves_nothing(labs: Labs, text: str, code: int, words: list[str]) -> None:
    file = labs.file(text)
    one_error(run_testbed("up", file), code, *words)
    assert labs.left(file) == []


@pytest.mark.parametrize("verb", ["up", "validate", "graph", "status", "down"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, verb: str) -> None:
    one_error(run_testbed(verb, tmp_path / "missing.yaml"), 2, "missing.yaml")


@pytest.mark.parametrize(
    ("file", "words"),
    [("pairr", "did you mean 'pair'?"), (".", "."), ("/proc/self/mem", "/proc/self/mem"), ("/bin/true", "/bin/true")],
)
def test_what_is_no_topology_is_named(file: str, words: str) -> None:
    one_error(run_testbed("up", file), 2, words)


def test_a_labs_name_is_checked(labs: Labs) -> None:
    one_error(run_testbed("up", labs.file(PAIR), "--name", "My_Lab"), 2, "'My_Lab' is not a name, did you mean 'my-lab'?")


def test_the_subnet_of_another_lab_is_refused_by_its_name(labs: Labs) -> None:
    first = labs.file(host("", "{subnet: 10.94.7.0/24}"))
    run_testbed("up", first).check()
    second = labs.file(host("", "{subnet: 10.94.0.0/20}"))
    one_error(run_testbed("up", second), 2, "10.94.0.0/20 overlaps 10.94.7.0/24", f"network 'lan' of lab '{first.stem}'")
    assert labs.left(second) == []


@pytest.mark.parametrize("again", range(3))
def test_what_many_hosts_had_begun_is_undone_at_once(labs: Labs, again: int) -> None:
    """The switch is plugging others in while one fails. Nothing may wait for an answer that never comes (a minute)."""
    file = labs.file(
        "networks:\n  lan:\nhosts:\n  first: {count: 4}\n  bad: {sysctls: {net.ipv4.tcp_syn_retries: 1000}}\n  last: {count: 8}\n"
    )
    done = run_testbed("up", file)
    assert done.exit_code == 2
    assert "host 'bad': sysctl" in done.error_text
    assert done.duration_s < 40
    assert labs.left(file) == []


# The engine


@pytest.mark.parametrize("verb", ["up", "status", "down", "exec", "images"])
def test_an_engine_that_does_not_run_is_said_to_every_verb(labs: Labs, verb: str) -> None:
    file = labs.file(PAIR)
    arguments = {"up": [str(file)], "down": [file.stem], "exec": ["client", "true"]}
    done = run_testbed(verb, *arguments.get(verb, []), environment={"DOCKER_HOST": "unix:///nonexistent"})
    one_error(done, 3, "no Docker engine answers at unix:///nonexistent", "make setup")
    assert labs.left(file) == []


def test_an_engine_address_that_is_none_is_named(labs: Labs) -> None:
    one_error(run_testbed("up", labs.file(PAIR), environment={"DOCKER_HOST": "nowhere://x"}), 3, "nowhere://x")


@only_root
def test_no_permission_on_the_engines_socket_is_said_with_the_way_out(labs: Labs) -> None:
    file = labs.file(PAIR)
    with other_user() as nobody:
        (nobody.home / "lab.yaml").write_text(PAIR)
        one_error(nobody.testbed("up", "lab.yaml", "--name", file.stem), 3, "permission denied", "usermod -aG docker")
    assert labs.left(file) == []


# Images


def test_an_archive_that_cannot_be_reached_is_named(labs: Labs, tmp_path: Path) -> None:
    """Other sources make another image, which is nowhere yet."""
    place = copied(tmp_path / "checkout")
    source = place / "images" / "programs" / "net.c"
    source.write_text(source.read_text() + f"\n/* {labs.file(PAIR).stem} */\n")
    file = labs.file(PAIR)
    variables = {**os.environ, "TESTBED_DEBIAN_MIRROR": "http://127.0.0.1:9/"}
    done = run_local([*COMMAND, "up", str(file)], directory=place, environment=variables, timeout_s=LIMIT_S)
    one_error(done, 3, "http://127.0.0.1:9/", "TESTBED_DEBIAN_MIRROR")
    assert labs.left(file) == []


def test_an_image_that_vanishes_before_its_hosts_are_made_leaves_nothing(
    engine: Engine, labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def promise(store: Engine, wanted: list[Architecture], progress: images.Progress) -> list[HostImage]:
        return [HostImage(one, one, f"testbed/host-{one.name}:gone") for one in wanted]

    monkeypatch.setattr(images, "build", promise)
    file = labs.file(PAIR)
    with pytest.raises(EngineError, match=r"No such image: testbed/host-.*:gone"):
        up.up(engine, topology_file.load(file))
    assert labs.left(file) == []


def test_an_image_that_vanishes_after_the_switch_was_made_leaves_nothing(
    engine: Engine, labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = images.build

    def lose_the_emulated(store: Engine, wanted: list[Architecture], progress: images.Progress) -> list[HostImage]:
        machine, emulated = build(store, wanted, progress)
        return [machine, HostImage(emulated.architecture, emulated.machine, "testbed/host-s390x:gone")]

    monkeypatch.setattr(images, "build", lose_the_emulated)
    file = labs.file("networks:\n  lan:\nhosts:\n  a: {count: 3}\n  big: {kind: emulated}\n")
    with pytest.raises(EngineError, match="No such image: testbed/host-s390x:gone"):
        up.up(engine, topology_file.load(file))
    assert labs.left(file) == []


# The machine


def without_binfmt(change: str, file: Path) -> Result:
    """`up` of a file in a mount namespace of its own after a change of what is mounted, so that nobody else is without."""
    script = f'mount --make-rprivate / && {change} && exec "$@"'
    return run_local(["unshare", "--mount", "sh", "-c", script, "sh", *COMMAND, "up", str(file)], timeout_s=LIMIT_S)


@pytest.mark.parametrize("text", [EMULATED_HOST, PAIR])
def test_without_binfmt_only_emulated_hosts_are_refused(labs: Labs, text: str) -> None:
    file = labs.file(text)
    done = without_binfmt("umount /proc/sys/fs/binfmt_misc", file)
    if text == PAIR:
        assert done.exit_code == 0, done.error_text
    else:
        one_error(done, 3, "binfmt_misc is not mounted", "make setup")
        assert labs.left(file) == []


def test_an_emulator_without_its_registration_is_named(labs: Labs) -> None:
    file = labs.file(EMULATED_HOST)
    done = without_binfmt("mount -t tmpfs none /proc/sys/fs/binfmt_misc && echo enabled >/proc/sys/fs/binfmt_misc/status", file)
    one_error(done, 3, "no emulator is registered with binfmt_misc for s390x", "make setup")
    assert labs.left(file) == []
