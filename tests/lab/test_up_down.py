"""A lab comes up whole or not at all, changes by the difference, and goes without a trace."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed import shipped
from testbed.engine import Engine
from testbed.lab import container_name, parts_of
from testbed.process import run_local, wait_until
from tests.lab.support import Labs, ids, machine_state, run_testbed, started, status

SMALL = {"pair", "cross-endian"}
PAIR = "networks:\n  lan:\nhosts:\n  client:\n  server:\n"


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in SMALL else [pytest.mark.long]) for name in shipped.names()])
def test_every_shipped_topology_comes_up_and_goes_down(engine: Engine, labs: Labs, name: str) -> None:
    file = labs.shipped(name)
    up = run_testbed("up", file)
    assert up.exit_code == 0, up.error_text
    assert f"lab {file.stem} is up: hosts: " in up.text
    hosts = status(file.stem)
    assert hosts
    for host in hosts.values():
        assert host["state"] == ("running (restored, tcg)" if host["kind"] == "vm" else "running")
    with labs.lab(file) as lab:
        for one in lab.hosts.values():
            for other in lab.hosts:
                assert one.run(["ping", "-c", "1", "-W", "5", other]).exit_code == 0, f"{one.name} does not reach {other}"
    down = run_testbed("down", file.stem)
    assert down.exit_code == 0, down.error_text
    assert labs.left(file) == []


def test_a_second_up_does_nothing(engine: Engine, labs: Labs) -> None:
    file = labs.file(PAIR)
    run_testbed("up", file).check()
    before = ids(engine, file.stem)
    again = run_testbed("up", file).check()
    assert "nothing to do" in again.text
    assert ids(engine, file.stem) == before


def test_a_changed_file_changes_only_the_difference_and_says_which(engine: Engine, labs: Labs) -> None:
    file = labs.file("networks:\n  lan:\nhosts:\n  client:\n  server:\n  old:\n")
    run_testbed("up", file).check()
    before, addresses = ids(engine, file.stem), {name: row["addresses"] for name, row in status(file.stem).items()}
    file.write_text("networks:\n  lan:\nhosts:\n  client:\n  server: {sysctls: {net.core.somaxconn: 8}}\n  new:\n")
    said = run_testbed("up", file).check().text
    assert "host new: new" in said
    assert "host old: no longer in the file" in said
    assert "host server: changed: sysctls: net.core.somaxconn none -> 8" in said
    assert "client" not in said
    after = ids(engine, file.stem)
    assert set(after) == {"client", "server", "new"}
    assert after["client"] == before["client"]
    assert after["server"] != before["server"]
    now = {name: row["addresses"] for name, row in status(file.stem).items()}
    assert now["client"] == addresses["client"]
    assert now["server"] == addresses["server"], "a changed host keeps its address"
    with labs.lab(file) as lab:
        assert lab.host("client").run(["ping", "-c", "1", "new"]).exit_code == 0, "a host that stayed knows the new one"
        assert lab.host("client").run(["ping", "-c", "1", "-W", "1", "old"]).exit_code != 0
        assert lab.host("server").run(["cat", "/proc/sys/net/core/somaxconn"]).text == "8\n"


@pytest.mark.long
def test_a_changed_network_changes_its_hosts_and_no_others(engine: Engine, labs: Labs) -> None:
    text = "networks:\n  a:\n  b: {mtu: 1500}\nhosts:\n  on-a: {networks: [a]}\n  on-b: {networks: [b]}\n  on-both: {networks: [a, b]}\n"
    file = labs.file(text)
    run_testbed("up", file).check()
    before = ids(engine, file.stem)
    file.write_text(text.replace("1500", "1400"))
    said = run_testbed("up", file).check().text
    assert "network b: changed: mtu 1500 -> 1400" in said
    after = ids(engine, file.stem)
    assert after["on-a"] == before["on-a"]
    assert after["on-b"] != before["on-b"]
    with labs.lab(file) as lab:
        assert "mtu 1400" in lab.host("on-both").run(["ip", "link", "show", "eth1"]).text
        for host in ("on-a", "on-b"):
            assert lab.host(host).run(["ping", "-c", "1", "on-both"]).exit_code == 0


def test_a_failed_change_leaves_the_lab_as_it_was(engine: Engine, labs: Labs) -> None:
    slow = "command: [sh, -c, 'sleep 2; exec echo-server 8001'], ready: {listening: 8001}"
    file = labs.file(PAIR.replace("  server:\n", f"  server: {{{slow}}}\n"))
    run_testbed("up", file).check()
    before = ids(engine, file.stem)
    file.write_text(
        "networks:\n  lan: {mtu: 1400}\n  more:\nhosts:\n  client:\n    networks: [lan]\n"
        "  server: {networks: [lan], sysctls: {net.ipv4.tcp_fin_timeout: 5}}\n"
        "  broken: {networks: [more], command: [no-such-program], ready: {listening: 1}}\n"
    )
    failed = run_testbed("up", file)
    assert failed.exit_code == 3
    assert "host 'broken': its command" in failed.error_text
    assert ids(engine, file.stem) == before
    assert set(parts_of(engine, file.stem).networks) == {"lan"}
    assert {row["state"] for row in status(file.stem).values()} == {"running"}
    with labs.lab(file) as lab:
        assert lab.host("server").is_listening(8001), "a host that was stopped is ready again"
        assert lab.host("client").run(["ping", "-c", "1", "server"]).exit_code == 0
        assert "mtu 1500" in lab.host("client").run(["ip", "link", "show", "eth0"]).text


@pytest.mark.alone
def test_a_failed_up_leaves_nothing(labs: Labs) -> None:
    file = labs.file(
        "networks:\n  lan:\n  out: {external: true}\nhosts:\n  good: {count: 5, networks: [lan, out]}\n"
        "  bad: {networks: [lan], command: [sh, -c, 'echo cannot go on >&2; exit 7'], ready: {listening: 8001}}\n"
    )
    before = machine_state()
    failed = run_testbed("up", file)
    assert failed.exit_code == 3
    assert "host 'bad': its command ended with exit code 7 before it was ready" in failed.error_text
    assert "cannot go on" in failed.error_text
    assert labs.left(file) == []
    assert machine_state() == before


@pytest.mark.alone
def test_the_machine_is_as_before_afterwards(labs: Labs) -> None:
    before = machine_state()
    for name in ("dual-stack", "routed"):
        file = labs.shipped(name)
        run_testbed("up", file).check()
        run_testbed("down", file).check()
    assert machine_state() == before


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_up_rolls_back(engine: Engine, labs: Labs, number: signal.Signals) -> None:
    file = labs.file("networks:\n  lan:\nhosts:\n  h: {count: 12}\n")
    with started("up", file) as up:
        wait_until(lambda: len(parts_of(engine, file.stem).hosts) >= 3, timeout_s=60, what="three hosts")
        up.send_signal(number)
        _, errors = up.communicate(timeout=60)
    assert up.returncode == 130
    assert b"interrupted" in errors
    assert b"Traceback" not in errors
    assert labs.left(file) == []


def test_two_labs_at_the_same_time_do_not_touch_each_other(labs: Labs) -> None:
    files = [labs.file(PAIR), labs.file(PAIR)]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda file: run_testbed("up", file), files))
    assert [one.exit_code for one in results] == [0, 0], [one.error_text for one in results]
    subnets = [labs.lab(file).segments["lan"].subnet for file in files]
    assert not subnets[0].overlaps(subnets[1])
    with labs.lab(files[0]) as one, labs.lab(files[1]) as other:
        (target,) = other.host("server").addresses["lan"]
        assert one.host("client").run(["ping", "-c", "1", "-W", "1", str(target)]).exit_code != 0, "labs are apart"
        run_testbed("down", files[0].stem).check()
        assert other.host("client").run(["ping", "-c", "1", "server"]).exit_code == 0


def test_one_lab_is_not_brought_up_twice_at_once(labs: Labs) -> None:
    file = labs.file("networks:\n  lan:\nhosts:\n  h: {count: 6}\n")
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: run_testbed("up", file), range(2)))
    # Either the second one came too early and says so, or it came late enough to find nothing to do.
    assert sorted(one.exit_code for one in results) in ([0, 0], [0, 3]), [one.error_text for one in results]
    assert len(status(file.stem)) == 6


def test_a_subnet_conflict_names_the_other_lab_and_network(labs: Labs) -> None:
    first = labs.file("networks:\n  blue: {subnet: 10.91.4.0/24}\nhosts:\n  a:\n")
    run_testbed("up", first).check()
    for subnet in ("10.91.4.0/24", "10.91.0.0/16", "10.91.4.128/25"):
        second = labs.file(f"networks:\n  red: {{subnet: {subnet}}}\nhosts:\n  a:\n")
        refused = run_testbed("up", second)
        assert refused.exit_code == 2
        assert f"network 'red': its subnet {subnet} overlaps 10.91.4.0/24" in refused.error_text
        assert f"network 'blue' of lab '{first.stem}'" in refused.error_text
        assert labs.left(second) == []


def test_a_subnet_that_the_machine_reaches_is_refused(labs: Labs) -> None:
    routes = json.loads(run_local(["ip", "-json", "-4", "route"]).check().text)
    connected = next(one["dst"] for one in routes if "/" in one["dst"] and not one["dev"].startswith(("br-", "docker")))
    file = labs.file(f"networks:\n  lan: {{subnet: {connected}}}\nhosts:\n  a:\n")
    refused = run_testbed("up", file)
    assert refused.exit_code == 2
    assert "overlaps" in refused.error_text
    assert labs.left(file) == []


@pytest.mark.alone
@pytest.mark.usefixtures("alone")
def test_down_of_all_leaves_no_lab(engine: Engine, labs: Labs) -> None:
    files = [labs.file(PAIR), labs.file(PAIR)]
    for file in files:
        run_testbed("up", "--quiet", file).check()
    run_testbed("down", "--all").check()
    assert [labs.left(file) for file in files] == [[], []]
    assert run_testbed("status", "--json").check().text == "[]\n"


def test_down_of_no_lab_is_an_error_that_lists_them(labs: Labs) -> None:
    file = labs.file(PAIR)
    run_testbed("up", file).check()
    refused = run_testbed("down", f"{file.stem}x")
    assert refused.exit_code == 2
    assert file.stem in refused.error_text


@pytest.fixture(scope="module")
def mended_again(module_labs: Labs) -> Path:
    """The file of a lab that these tests break in turns."""
    return module_labs.file(PAIR)


@pytest.mark.parametrize(
    ("what", "broken"),
    [
        ("kill {host}", "client"),
        ("restart -t 0 {host}", "client"),
        ("kill {switch}", "client"),
        ("restart -t 0 {switch}", "client"),
        ("rm -f {switch}", "client"),
        ("rm -f {host}", None),
    ],
)
def test_what_breaks_is_seen_and_the_next_up_mends_it(labs: Labs, mended_again: Path, what: str, broken: str | None) -> None:
    file = mended_again
    run_testbed("up", file).check()
    words = what.format(host=container_name(file.stem, "client"), switch=container_name(file.stem)).split()
    run_local(["docker", *words]).check()
    if broken:
        assert status(file.stem)[broken]["state"] != "running"
    else:
        assert "client" not in status(file.stem)
    mended = run_testbed("up", file).check()
    assert "host client: " in mended.text
    assert {row["state"] for row in status(file.stem).values()} == {"running"}
    with labs.lab(file) as lab:
        assert lab.host("client").run(["ping", "-c", "1", "server"]).exit_code == 0
        assert lab.host("server").run(["ping", "-c", "1", "client"]).exit_code == 0
