"""`up` killed with SIGKILL, at moments spread over its whole length: nothing stays for longer than the next `down` takes."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from testbed.engine import Engine
from testbed.process import run_local, wait_until
from tests.lab.support import Labs, machine_state, run_testbed, started, status

pytestmark = pytest.mark.alone
MOMENTS = 20
# Routed and external networks, routes, files and a condition: every step that an `up` can be in.
SLOW = """
networks:
  left:
  right: {external: true}
hosts:
  router: {networks: [left, right], forwarding: true}
  client: {count: 3, networks: [left], routes: [{to: right, via: router}], files: {/etc/motd: hello}}
  server:
    networks: [right]
    command: sh -c 'sleep infinity | listener 8001'
    ready: {listening: 8001}
"""


def moments(duration_s: float, number: int, seed: int) -> list[float]:
    """One random moment in each of ``number`` equal parts of the duration, so that all of it is tried."""
    chance = random.Random(seed)
    return [(part + chance.random()) * duration_s / number for part in range(number)]


def processes() -> set[str]:
    """The command lines that have to do with labs: of hosts, and of the tools that build images."""
    shown = run_local(["ps", "-eo", "args"]).text.splitlines()
    return {line for line in shown if line.startswith(("/usr/lib/testbed", "/usr/bin/qemu-system", "mmdebstrap", "tcpdump"))}


def kill_up_after(file: Path, moment_s: float) -> None:
    with started("up", file) as up:
        try:
            up.wait(timeout=moment_s)
        except subprocess.TimeoutExpired:
            up.send_signal(signal.SIGKILL)
        up.communicate()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("text", "seed"), [("cross-endian", 1), ("slow", 2)])
def test_killed_at_any_moment_down_leaves_nothing_and_the_next_up_works(engine: Engine, labs: Labs, text: str, seed: int) -> None:
    file = labs.shipped(text) if text != "slow" else labs.file(SLOW)
    begin = time.monotonic()
    run_testbed("up", file).check()
    duration_s = time.monotonic() - begin
    hosts = set(status(file.stem))
    run_testbed("down", file).check()
    before, running = machine_state(), processes()
    for number, moment_s in enumerate(moments(duration_s, MOMENTS // 2, seed)):
        kill_up_after(file, moment_s)
        if number % 2:  # every other time the next `up` finds what was left
            run_testbed("up", file).check()
            rows = status(file.stem)
            assert set(rows) == hosts
            assert {row["state"].partition(" ")[0] for row in rows.values()} == {"running"}
            with labs.lab(file) as lab:
                for host in lab.hosts.values():
                    for other in hosts:
                        assert host.run(["getent", "hosts", other]).exit_code == 0, f"{host.name} does not know {other}"
        run_testbed("down", file.stem)  # an error when nothing was made yet
        assert labs.left(file) == [], f"killed after {moment_s:.2f} s"
        wait_until(lambda: processes() <= running, timeout_s=10, what="the end of the lab's processes")
        assert machine_state() == before, f"killed after {moment_s:.2f} s"
    run_testbed("up", file).check()


@pytest.mark.timeout(300)
def test_a_change_that_is_killed_is_carried_out_by_the_next_up(engine: Engine, labs: Labs) -> None:
    text = "networks:\n  lan:\nhosts:\n  stays:\n  changes: {count: 3, environment: {A: '1'}}\n"
    file = labs.file(text)
    run_testbed("up", file).check()
    begin = time.monotonic()
    file.write_text(text.replace("'1'", "'2'"))
    run_testbed("up", file).check()
    duration_s = time.monotonic() - begin
    for number, moment_s in enumerate(moments(duration_s, 5, seed=3)):
        wanted = str(number + 3)
        file.write_text(text.replace("'1'", f"'{wanted}'"))
        kill_up_after(file, moment_s)
        run_testbed("up", file).check()
        assert {row["state"] for row in status(file.stem).values()} == {"running"}
        with labs.lab(file) as lab:
            for name in ("changes-1", "changes-2", "changes-3"):
                assert lab.host(name).run(["printenv", "A"]).text == f"{wanted}\n"
                assert lab.host("stays").run(["ping", "-c", "1", name]).exit_code == 0
    run_testbed("down", file).check()
    assert labs.left(file) == []
