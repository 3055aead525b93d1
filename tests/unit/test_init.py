"""The first process of hosts, compiled for this machine, in namespaces of its own: what a guest is told that a container is not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from testbed import images
from testbed.process import run_local

LIMIT_S = 30
MAC, MTU = "02:42:0a:05:00:02", "1400"
# A host's own network, name and files, without a host; $1 is where its files are.
NAMESPACES = """
mount -t tmpfs none /run && mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/hostname" /etc/hostname &&
ip link add eth0 type veth peer name other && ip link set other up && ip link set lo up && shift && exec "$@"
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("init")
    run_local(["make", "-s", "-C", str(images.directory()), "init", f"OUT={out}"]).check()
    return out / "init"


class Init:
    """Init with these arguments; ``without`` are capabilities that it shall not have, ``before`` is a command that becomes it."""

    def __init__(self, program: Path, directory: Path, *arguments: str, without: str = "", before: Sequence[str] = ()) -> None:
        self.directory = directory
        for name in ("hosts", "hostname"):
            (directory / name).write_text("as before\n")
        drop = ["setpriv", f"--bounding-set={without}"] if without else []
        self.process = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", NAMESPACES, "sh", directory, *before, *drop, program, *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )

    def until_ready(self) -> list[str]:
        """What it says until it is."""
        assert self.process.stderr
        said = []
        for line in self.process.stderr:
            said.append(line.strip())
            if said[-1] == "init: ready":
                return said
        raise AssertionError(f"it ended: {said}")

    def end(self) -> tuple[int, list[str]]:
        """Its exit code when it ends by itself, and what it said."""
        _, said = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, said.splitlines()

    def inside(self, *argv: str) -> str:
        """The output of a command where init is."""
        return run_local(["nsenter", "--target", str(self.process.pid), "--net", "--uts", "--", *argv]).check().text

    def device(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.inside("ip", "-json", "address", "show", "dev", "eth0"))[0]
        return found

    def ipv6_disabled(self, device: str) -> str:
        return self.inside("cat", f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").strip()

    def __enter__(self) -> Init:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)
        assert self.process.stderr
        self.process.stderr.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where the files are that init writes; nothing of the machine's has changed at the end."""
    before = [Path(one).read_bytes() for one in ("/etc/hosts", "/etc/hostname")]
    yield tmp_path
    assert [Path(one).read_bytes() for one in ("/etc/hosts", "/etc/hostname")] == before


# --- what it is told wrongly


@pytest.mark.parametrize(
    "arguments",
    [
        ["--hostname"],
        ["--clock"],
        ["--seed"],
        ["--hosts"],
        ["--link"],
        ["--link", "eth0"],
        ["--link", "eth0", MAC],
        ["--address", "eth0"],
        ["--sysctl", "net.core.somaxconn"],
        ["--unknown", "x"],
        ["x"],
        ["--"],
    ],
    ids=" ".join,
)
def test_what_it_does_not_understand_ends_it_before_anything_is_done(program: Path, place: Path, arguments: list[str]) -> None:
    with Init(program, place, "--hostname", "changed", "--hosts", "changed", *arguments) as init:
        code, said = init.end()
    assert code == 2
    assert said[0] == f"init: {arguments[0]}: unknown, or its value is missing or malformed"
    assert said[1].startswith("init: usage: init --from-input | --wait | [--own CAPABILITIES] [--environment NAME=VALUE]...")
    assert [(place / name).read_text() for name in ("hosts", "hostname")] == ["as before\n"] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clock", "yesterday"], "init: clock: EINVAL"),
        (["--clock", "1767323045"], "init: clock: EINVAL"),
        (["--clock", ""], "init: clock: EINVAL"),
        (["--clock", "1767323045.5"], "init: clock: EINVAL"),
        (["--clock", "1767323045.678901234x"], "init: clock: EINVAL"),
        (["--seed", "0g"], "init: seed: EINVAL"),
        (["--seed", "abc"], "init: seed: EINVAL"),
        (["--hostname", "x" * 65], "init: hostname: EINVAL"),
        (["--link", "eth0", "02:42:0a:05:00", MTU], f"init: link eth0 02:42:0a:05:00 {MTU}: EINVAL"),
        (["--link", "eth0", "nonsense", MTU], f"init: link eth0 nonsense {MTU}: EINVAL"),
        (["--link", "eth0", MAC, "70000"], f"init: link eth0 {MAC} 70000: EINVAL"),
        (["--link", "eth0", MAC, "many"], f"init: link eth0 {MAC} many: EINVAL"),
        (["--link", "eth0", "01:00:5e:00:00:01", MTU], f"init: link eth0 01:00:5e:00:00:01 {MTU}: EADDRNOTAVAIL"),
    ],
    ids=str,
)
def test_what_cannot_be_set_ends_it_with_one_line_that_says_which(program: Path, place: Path, arguments: list[str], said: str) -> None:
    # Without what it takes to set a clock or seed a generator: those are the machine's.
    with Init(program, place, *arguments, without="-sys_time,-sys_admin" if arguments[0] in ("--clock", "--seed") else "") as init:
        assert init.end() == (1, [said])


def test_a_link_that_is_not_there_is_named(program: Path, place: Path) -> None:
    with Init(program, place, "--link", "eth7", MAC, MTU) as init:
        code, (line,) = init.end()
    assert code == 1
    assert "eth7" in line


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["--clock", "1767323045.678901234"], "-sys_time"),
        (["--seed", "00" * 32], "-sys_admin"),
        (["--hostname", "other"], "-sys_admin"),
        (["--link", "eth0", MAC, MTU], "-net_admin"),
    ],
    ids=str,
)
def test_what_it_may_not_set_ends_it(program: Path, place: Path, arguments: list[str], without: str) -> None:
    with Init(program, place, *arguments, without=without) as init:
        code, (line,) = init.end()
    assert (code, line.rsplit(": ", 1)[1]) == (1, "EPERM")
    assert line.startswith(f"init: {arguments[0].removeprefix('--')}")


# --- what a guest becomes


def test_a_link_gets_its_mac_and_mtu_and_no_ipv6(program: Path, place: Path) -> None:
    with Init(program, place, "--link", "eth0", MAC, MTU, "--address", "eth0", "10.5.0.2/24") as init:
        assert init.until_ready() == ["init: ready"], "it waits for nobody to put the device in"
        device = init.device()
        assert (device["address"], device["mtu"]) == (MAC, int(MTU))
        assert [(one["local"], one["prefixlen"]) for one in device["addr_info"]] == [("10.5.0.2", 24)], "no link-local one of IPv6"
        assert "UP" in device["flags"]
        assert (init.ipv6_disabled("eth0"), init.ipv6_disabled("lo")) == ("1", "0")


def test_a_link_with_an_ipv6_address_has_ipv6(program: Path, place: Path) -> None:
    with Init(program, place, "--link", "eth0", MAC, MTU, "--address", "eth0", "10.5.0.2/24", "--address", "eth0", "fd00:5::2/64") as init:
        init.until_ready()
        assert {"10.5.0.2", "fd00:5::2"} <= {one["local"] for one in init.device()["addr_info"]}
        assert init.ipv6_disabled("eth0") == "0"


def test_devices_that_a_guests_kernel_found_in_another_order_get_their_names(program: Path, place: Path) -> None:
    found = ("02:00:00:00:00:02", "02:00:00:00:00:00", "02:00:00:00:00:01")
    links = [part for index in range(3) for part in ("--link", f"eth{index}", f"02:42:0a:05:00:0{index}", MTU)]
    devices = "; ".join(f"ip link add eth{i} type veth peer name far{i}; ip link set eth{i} address {mac}" for i, mac in enumerate(found))
    script = f'ip link delete eth0; {devices}; for i in 0 1 2; do ip link set eth$i alias found-as-$i; done; exec "$@"'
    with Init(program, place, *links, before=["sh", "-c", script, "sh"]) as init:
        init.until_ready()
        seen = {
            one["ifname"]: (one["ifalias"], one["address"][-1])
            for one in json.loads(init.inside("ip", "-json", "link"))
            if one["ifname"].startswith("eth")
        }
    assert seen == {"eth0": ("found-as-1", "0"), "eth1": ("found-as-2", "1"), "eth2": ("found-as-0", "2")}


def test_a_link_without_an_address_stays_down(program: Path, place: Path) -> None:
    with Init(program, place, "--link", "eth0", MAC, MTU) as init:
        init.until_ready()
        assert (init.device()["address"], "UP" in init.device()["flags"]) == (MAC, False)
        assert init.ipv6_disabled("eth0") == "1"


def test_a_sysctl_of_a_link_is_set_when_the_link_is_as_it_shall_be(program: Path, place: Path) -> None:
    sysctls = ["--sysctl", "net.ipv4.conf.eth0.rp_filter=2", "--sysctl", "net.core.somaxconn=77"]
    with Init(program, place, *sysctls, "--link", "eth0", MAC, MTU, "--address", "eth0", "10.5.0.2/24") as init:
        init.until_ready()
        assert init.inside("cat", "/proc/sys/net/ipv4/conf/eth0/rp_filter", "/proc/sys/net/core/somaxconn").split() == ["2", "77"]


def test_its_name_and_its_hosts_are_written(program: Path, place: Path) -> None:
    with Init(program, place, "--hostname", "server-1", "--hosts", "127.0.0.1\tlocalhost\n10.5.0.3\tb\n") as init:
        assert init.until_ready() == ["init: ready"]
        assert init.inside("uname", "-n") == "server-1\n"
        assert (place / "hostname").read_text() == "server-1\n"
        assert (place / "hosts").read_text() == "127.0.0.1\tlocalhost\n10.5.0.3\tb\n"


def test_without_links_of_its_own_it_waits_until_they_are_put_in(program: Path, place: Path) -> None:
    with Init(program, place, "--address", "eth1", "10.5.0.2/24") as init:
        assert init.process.stderr
        assert init.process.stderr.readline() == "init: waiting\n"
        init.inside("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "other1")
        assert init.until_ready() == ["init: ready"]


def test_sigterm_ends_it_with_0(program: Path, place: Path) -> None:
    with Init(program, place) as init:
        init.until_ready()
        init.process.terminate()
        assert init.end() == (0, [])
