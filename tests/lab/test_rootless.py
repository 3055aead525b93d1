"""Users who are in the engine's group and not root can do everything but the setup, and share labs with all who are.

Whoever is not root runs all tests without root; as root, these become another user.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import lock as locks
from testbed.engine import Engine
from testbed.lab import read_parts
from testbed.process import run_local, wait_until
from tests.lab.other_user import OtherUser, group_of, only_root, other_user
from tests.lab.support import LIMIT_S, Labs, run_testbed, status
from tests.lab.test_images import BUILD, alive, descendants

pytestmark = only_root

ALL_KINDS = """
networks:
  lan:
  outside: {external: true}
hosts:
  native: {networks: [lan, outside], sysctls: {net.core.somaxconn: 7}}
  emulated: {kind: emulated, networks: [lan]}
  vm: {kind: vm, networks: [lan]}
"""
CHECKOUT = Path(__file__).parents[2]
SMALL = "networks:\n  lan:\nhosts:\n  a:\n"


@pytest.fixture(scope="module")
def other(engine: Engine) -> Iterator[OtherUser]:
    assert engine.socket, "these tests are about an engine of this machine"
    with other_user([group_of(engine.socket)]) as user:
        yield user


def theirs(other: OtherUser, path: Path) -> Path:
    """A file of a test's where they can read it."""
    copy = other.home / path.name
    copy.write_bytes(path.read_bytes())
    return copy


@pytest.mark.long
def test_everything_that_is_done_with_a_lab(other: OtherUser, labs: Labs) -> None:
    file = theirs(other, labs.file(ALL_KINDS))
    lab = file.stem
    other.testbed("up", file).check()
    assert {host: row["state"].split()[0] for host, row in status(lab).items()} == dict.fromkeys(["native", "emulated", "vm"], "running")
    assert other.testbed("exec", f"{lab}/native", "sysctl", "-n", "net.core.somaxconn").check().text == "7\n"
    for host in ("native", "emulated", "vm"):
        (other.home / "there").write_text(host)
        other.testbed("put", "there", f"{lab}/{host}:/tmp/").check()
        other.testbed("get", f"{lab}/{host}:/tmp/there", "back").check()
        assert (other.home / "back").read_text() == host
    assert len(json.loads(other.testbed("exchange", lab, "--json").check().text)["exchanges"]) == 6
    capture = other.python("-m", "testbed", "capture", "-n", "lan", "--count", "2", "--write", "trace.pcap", f"{lab}/native", "icmp")
    with subprocess.Popen(capture, cwd=other.home, env=other.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as captured:
        ping = ["exec", f"{lab}/vm", "ping", "-c", "1", "native"]
        wait_until(lambda: other.testbed(*ping).check() and captured.poll() is not None, timeout_s=LIMIT_S, what="two packets")
    assert captured.returncode == 0
    assert (other.home / "trace.pcap").stat().st_uid == other.home.stat().st_uid
    assert other.testbed("up", file).check().text.startswith(f"lab {lab} is up already")
    other.testbed("down", lab).check()
    assert labs.left(file) == []


def test_a_lab_is_one_lab_whoever_brought_it_up(other: OtherUser, labs: Labs) -> None:
    file = labs.file(SMALL)
    run_testbed("up", file).check()
    assert other.testbed("exec", f"{file.stem}/a", "hostname").check().text == "a\n"
    other.testbed("down", file.stem).check()
    assert labs.left(file) == []


TESTS = """
import pytest

@pytest.mark.topology("LAB.yaml", hosts=["a"])
def test_theirs(lab, host):
    lab.host("a").run(["sh", "-c", "echo theirs >/tmp/file; nft add table ip theirs"]).check()
    assert host.file("/tmp/file").content == b"theirs\\n"

@pytest.mark.topology("LAB.yaml")
def test_the_next(lab):
    assert lab.host("a").run(["nft", "list", "tables"]).check().text == ""
    assert lab.host("a").run(["ls", "/tmp"]).check().text == ""
"""


def test_tests_that_run_in_labs(other: OtherUser, engine: Engine, labs: Labs) -> None:
    file = theirs(other, labs.file(SMALL))
    (other.home / "test_theirs.py").write_text(TESTS.replace("LAB", file.stem))
    done = other.run(other.python("-m", "pytest", "-p", "no:cacheprovider", "test_theirs.py"))
    assert "2 passed" in done.text, done.text
    assert [one for one in read_parts(engine) if one.startswith(file.stem)] == []


def test_the_doctor_finds_nothing_wrong(other: OtherUser) -> None:
    findings = json.loads(other.testbed("doctor", "--json").text)["findings"]
    assert [one for one in findings if not one["ok"]] == []


# Locks

HOLD = """
import os, sys
from testbed.engine import Engine
from testbed.lock import lock
with lock(sys.argv[1], Engine().socket) as held:
    held.at_work()
    print("held", flush=True)
    input()
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("first", ["root", pytest.param("the other", marks=pytest.mark.long)])
def test_two_users_do_not_change_one_lab_at_once_and_know_of_each_others_death(
    other: OtherUser, engine: Engine, labs: Labs, first: str
) -> None:
    file = labs.file(SMALL)
    argv = other.python("-c", HOLD, file.stem) if first == "the other" else [sys.executable, "-c", HOLD, file.stem]
    environment = other.environment if first == "the other" else None

    def second(*arguments: str | Path) -> tuple[int, str]:
        done = run_testbed(*arguments) if first == "the other" else other.testbed(*arguments)
        return done.exit_code, done.error_text

    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        code, said = second("up", theirs(other, file))
        assert code == 3
        assert f"another testbed command is bringing lab '{file.stem}' up or down" in said
        holder.communicate(b"\n")
    assert file.stem in locks.interrupted(engine.socket)
    assert second("down", file.stem) == (0, "")
    assert file.stem not in locks.interrupted(engine.socket)


# Images

DIGEST = """
import hashlib
from testbed import architecture, images, rootfs
build = rootfs.root_file_system(rootfs.Workbench(), images.sources(), architecture.EMULATED, architecture.of_machine())
whole = hashlib.sha256()
for piece in build: whole.update(piece)
print(whole.hexdigest())
"""


# The same, built together with the machine's own, out of which its tools then come.
DIGEST_TOGETHER = """
import hashlib
from testbed import architecture, images
class Digests:
    def image_exists(self, reference): return False
    def import_image(self, tar, reference, *, platform, changes):
        whole = hashlib.sha256()
        while piece := tar.read(1 << 20): whole.update(piece)
        if platform == f"linux/{architecture.EMULATED.name}": print(whole.hexdigest())
images.build(Digests(), [architecture.of_machine(), architecture.EMULATED])
"""


@pytest.mark.long
def test_two_builds_give_the_same_bytes_with_root_and_without_together_and_alone(other: OtherUser) -> None:
    with ThreadPoolExecutor(2) as workers:
        ours = workers.submit(run_local, [sys.executable, "-c", DIGEST_TOGETHER], directory=CHECKOUT, timeout_s=LIMIT_S)
        digest = other.run(other.python("-c", DIGEST)).check().text
        assert ours.result().check().text == digest
    assert len(digest) == 2 * hashlib.sha256().digest_size + 1


@pytest.mark.long
def test_a_build_without_root_that_is_killed_leaves_nothing(other: OtherUser) -> None:
    before = sorted(other.home.iterdir())
    with subprocess.Popen(other.python("-c", BUILD), stdout=subprocess.PIPE, text=True, env=other.environment, cwd=other.home) as build:
        assert build.stdout
        assert any(line.strip() == "extracting archives" for line in build.stdout)
        family = descendants(build.pid)
        build.kill()
    assert len(family) > 3
    wait_until(lambda: not any(alive(*one) for one in family), timeout_s=5, what="all that the build started is gone")
    assert sorted(other.home.iterdir()) == before
