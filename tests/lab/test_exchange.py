"""The main job between real hosts of both byte orders and of every kind."""

from __future__ import annotations

import json
import platform
import time
from collections import Counter
from itertools import product

import pytest

from testbed import shipped
from testbed.errors import InputError
from testbed.exchange import Exchanges, all_hold, exchange
from testbed.lab import Lab
from tests.lab.support import Labs, run_testbed, status, topology

CROSS_ENDIAN = shipped.find("cross-endian").read_text()
TEXT = "Grüße aus \\ dem Labor\n"
PAIRS = [
    ("native", "native"),
    ("native", "emulated"),
    ("native", "vm"),
    ("emulated", "native"),
    ("vm", "native"),
    ("emulated", "vm"),
    ("vm", "emulated"),
]


# Two native hosts, an emulated one and a vm.
pytestmark = topology(CROSS_ENDIAN)


def outcomes(results: Exchanges) -> dict[tuple[str, str], str]:
    """Verdicts by the kinds of client and server."""
    return {(one.observation.client.kind, one.observation.server.kind): one.verdict.outcome for one in results.exchanges}


def test_every_pair_of_kinds_holds_on_different_hosts_each_with_its_kernel(lab: Lab) -> None:
    results = exchange(lab, integer=0xDEADBEEF, text=TEXT)
    assert list(outcomes(results).items()) == [(pair, "HOLDS") for pair in PAIRS]
    assert len(results.exchanges) == len(PAIRS)
    assert results.missing == ()
    kernels = {name: (row["kernel_of"], row["kernel"]) for name, row in status(lab.name).items()}
    assert kernels["big-vm"][0] == "its own"
    assert kernels["big-vm"][1].endswith("-s390x")
    assert kernels["little-a"] == kernels["big-a"] == ("the machine's", platform.release())
    for one in results.exchanges:
        seen = one.observation
        assert seen.client.host != seen.server.host
        assert seen.wire == bytes.fromhex("deadbeef") + len(TEXT.encode()).to_bytes(2, "big") + TEXT.encode()
        assert seen.client_told.bytes_("memory") == (0xDEADBEEF).to_bytes(4, seen.client.byte_order)
        assert seen.server_told.bytes_("memory") == (0xDEADBEEF).to_bytes(4, seen.server.byte_order)
        for party in (seen.client, seen.server):
            assert (party.kernel_of, party.kernel) == kernels[party.host]


def test_a_client_that_forgets_htonl_is_refuted_where_it_is_little_endian(lab: Lab) -> None:
    results = exchange(lab, host_order=True)
    assert outcomes(results) == {pair: "REFUTED" if pair[0] == "native" else "HOLDS" for pair in PAIRS}
    wires = {one.observation.client.byte_order: one.observation.wire for one in results.exchanges}
    assert wires["little"] == bytes.fromhex("04030201 0500") + b"hello"
    assert wires["big"] == bytes.fromhex("01020304 0005") + b"hello"


def test_a_long_text_comes_whole_in_many_segments(lab: Lab) -> None:
    text = "0123456789" * 6000
    results = exchange(lab, text=text)
    assert all_hold(results)
    assert {len(one.observation.wire or b"") for one in results.exchanges} == {6 + len(text)}


@pytest.mark.parametrize("pair", [("native", "emulated"), ("native", "vm")])
def test_a_port_that_is_taken_makes_that_exchange_inconclusive_and_no_other(lab: Lab, pair: tuple[str, str]) -> None:
    taken = PAIRS.index(pair)
    first = exchange(lab).exchanges[taken].observation
    server = lab.host(first.server.host)
    with server.start(["exchange-server", str(first.port)]) as other:
        other.wait_for_line("^listening")
        results = exchange(lab)
    assert outcomes(results) == dict.fromkeys(PAIRS, "HOLDS") | {pair: "INCONCLUSIVE"}
    assert "EADDRINUSE" in results.exchanges[taken].verdict.reason


@pytest.mark.parametrize("cut_off", [pytest.param("big-a", marks=pytest.mark.long), "big-vm"])
def test_a_client_whose_packets_do_not_arrive_is_inconclusive(lab: Lab, cut_off: str) -> None:
    with lab.switch as switch:
        port = lab.port(cut_off, "lan")
        switch.run(["ip", "link", "set", port, "down"]).check()
        try:
            begin = time.monotonic()
            results = exchange(lab, timeout_s=8)
            assert time.monotonic() - begin < 60
        finally:
            switch.run(["ip", "link", "set", port, "up"]).check()
    kind = lab.hosts[cut_off].kind
    assert outcomes(results) == {pair: "INCONCLUSIVE" if kind in pair else "HOLDS" for pair in PAIRS}


@pytest.mark.parametrize("gone", [pytest.param("big-a", marks=pytest.mark.long), "big-vm"])
def test_a_host_that_is_gone_is_inconclusive_and_the_others_hold(labs: Labs, gone: str) -> None:
    file = labs.shipped("cross-endian")
    run_testbed("up", file).check()
    with labs.lab(file) as lab:
        labs.engine.kill(lab.host(gone).container)
        kind = lab.host(gone).kind
        begin = time.monotonic()
        results = exchange(lab)
        assert time.monotonic() - begin < 60
    assert outcomes(results) == {pair: "INCONCLUSIVE" if kind in pair else "HOLDS" for pair in PAIRS}
    kernels = {
        party.kernel for one in results.exchanges for party in (one.observation.client, one.observation.server) if party.host == gone
    }
    assert kernels == ({"unknown"} if kind == "vm" else {platform.release()})


def test_two_hosts_of_each_byte_order_make_the_four_combinations(labs: Labs) -> None:
    text = "networks: {lan: }\nhosts: {little: {count: 2}, big: {count: 2, kind: emulated}}\n"
    with labs.up(text) as lab:
        results = exchange(lab)
    assert outcomes(results) == dict.fromkeys([*product(("native", "emulated"), repeat=2)], "HOLDS")
    assert len(results.exchanges) == 4
    assert results.missing == ()


def test_hosts_of_one_byte_order_say_which_combinations_are_missing(labs: Labs) -> None:
    with labs.up(shipped.find("pair").read_text()) as lab:
        results = exchange(lab)
    assert outcomes(results) == {("native", "native"): "HOLDS"}
    assert [one.reason for one in results.missing] == ["the lab has no big-endian host on a network"] * 3


def test_a_lab_of_one_host_is_the_users_error(labs: Labs) -> None:
    with labs.up("networks: {lan: }\nhosts: {alone: }\n") as lab, pytest.raises(InputError, match="no two hosts"):
        exchange(lab)


def test_through_a_router_and_over_ipv6_it_holds_as_well(labs: Labs) -> None:
    routed = """
networks: {left: , right: }
hosts:
  a: {networks: [left], routes: [{to: right, via: router}]}
  router: {networks: [left, right], forwarding: true, kind: emulated}
  z: {networks: [right], routes: [{to: left, via: router}]}
"""
    with labs.up(routed) as lab:
        results = exchange(lab)
        pairs = {(one.observation.client.host, one.observation.server.host): one.verdict.outcome for one in results.exchanges}
    assert pairs == {("a", "z"): "HOLDS", ("a", "router"): "HOLDS", ("router", "a"): "HOLDS"}
    with labs.up(shipped.find("dual-stack").read_text()) as lab:
        assert all_hold(exchange(lab))


def test_the_command_shows_the_result_and_its_exit_code_is_the_verdict(lab: Lab) -> None:
    good = run_testbed("exchange", lab.name).check().text
    assert good.count(": HOLDS") == 7
    assert good.count("on the wire      01 02 03 04 | 00 05 | 68 65 6c 6c 6f") == 7
    assert f"the machine's {platform.release()} to its own {lab.host('big-vm').run(['uname', '-r']).check().text}" in good
    assert f"shell {lab.name}/big-vm " in good
    bad = run_testbed("exchange", lab.name, "--host-order")
    assert bad.exit_code == 1
    assert bad.text.count(": REFUTED") == 3
    data = json.loads(run_testbed("exchange", lab.name, "--json").check().stdout)
    assert [one["verdict"] for one in data["exchanges"]] == ["HOLDS"] * 7


# A switch sees the processes of the whole machine: its own are those in its network namespace.
OWN_PROCESSES = """
own=$(readlink /proc/self/ns/net | tr -dc 0-9)
cat $(find /proc/[0-9]*/ns -maxdepth 1 -name net -lname "*$own*" 2>/dev/null | sed s,ns/net,comm,) 2>/dev/null; true
"""


def test_nothing_of_an_exchange_is_left_on_hosts_or_switch(lab: Lab) -> None:
    with lab.switch as switch:

        def running() -> dict[str, Counter[str]]:
            shown = {host.name: host.run(["sh", "-c", OWN_PROCESSES]).check().text for host in (*lab.hosts.values(), switch)}
            # A thread of a guest's kernel is named for what it happens to work at.
            return {name: Counter(one for one in text.split() if not one.startswith("kworker/")) for name, text in shown.items()}

        before = running()
        # The lab's traffic is recorded for all of its tests: what would be left is seen where something is.
        assert before["switch"]["tcpdump"] == 1, before
        exchange(lab)
        assert running() == before
