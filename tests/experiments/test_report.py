"""Records with packets, of real hosts: what was sent, what was lost, the states of both ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from testbed import experiment_find as finding
from testbed import experiment_run as running
from testbed.experiment import CellRun, Record
from testbed.experiment_report import watched
from testbed.ladder import states
from testbed.traffic import Traffic

ALL = {one.id: one for one in finding.known().values()}


def traffic_of(record: Record) -> tuple[CellRun, Traffic]:
    found = watched(record)
    assert found is not None
    assert found[1].notes == ()
    return found


@pytest.mark.long
def test_a_handshake_that_is_held_up_is_in_the_record_as_it_was(on_native, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    record, judgement = on_native(ALL["C4"])
    assert judgement.passed
    record = running.load(running.save(record, tmp_path, running.On.named("native")))
    _, traffic = traffic_of(record)
    flags = [(one.sender, one.flags, one.lost) for one in traffic.events]
    # The held ACK is dropped on its way out; the SYN-ACK comes again, and may do so while the firewall is still there.
    assert flags[:2] == [("client", "SYN", ""), ("server", "SYN ACK", "")]
    assert ("client", "ACK", "out") in flags
    assert flags[-1] == ("client", "ACK", "")
    assert [(one.sequence, one.acknowledged) for one in traffic.events[:2]] == [(0, None), (0, 1)]
    held = flags.index(("client", "ACK", "out"))
    assert traffic.events[held].sequence == 1
    seen = [(states(look.sockets["client"]), states(look.sockets["server"])) for look in traffic.looks]
    assert (["ESTABLISHED"], ["LISTEN", "SYN_RECV"]) in seen
    assert seen[-1] == (["ESTABLISHED"], ["LISTEN, 1 waits", "ESTABLISHED"])


@pytest.mark.long
def test_what_a_firewall_drops_on_its_way_in_is_marked(on_native) -> None:  # type: ignore[no-untyped-def]
    record, _ = on_native(ALL["B1"], {"bytes": "20000"})
    run, traffic = traffic_of(record)
    lost = [one for one in traffic.events if one.lost]
    assert traffic.left_out == 0
    assert len(lost) == run.seen["packets dropped"]
    assert {(one.receiver, one.lost) for one in lost} == {("server", "in")}
    assert {one.sequence for one in lost if one.size} <= {one.sequence for one in traffic.events if one.size and not one.lost}


@pytest.mark.long
def test_lost_datagrams_are_those_that_did_not_arrive(on_native) -> None:  # type: ignore[no-untyped-def]
    record, _ = on_native(replace(ALL["B2"], watched="loss"))
    run, traffic = traffic_of(record)
    assert [index for index, one in enumerate(traffic.events) if not one.lost] == run.seen["arrived"]


def test_a_restarted_server_is_seen_in_all_its_states(on_native) -> None:  # type: ignore[no-untyped-def]
    record, _ = on_native(ALL["D1"])
    _, traffic = traffic_of(record)
    of_server = [line for look in traffic.looks for line in states(look.sockets["server"])]
    assert [one for one in ("LISTEN", "ESTABLISHED", "FIN_WAIT2", "TIME_WAIT") if one not in of_server] == []


@pytest.mark.long
def test_only_one_cell_is_watched_and_it_changes_no_number(on_native) -> None:  # type: ignore[no-untyped-def]
    record, judgement = on_native(ALL["E3"])
    assert judgement.passed
    assert [bool(run.traffic) for run in record.cells] == [True, False, False]
    other, _ = on_native(replace(ALL["E3"], watched="1000 bytes each"))
    assert [run.seen for run in other.cells] == [run.seen for run in record.cells]


def test_a_provocation_that_breaks_has_its_packets_all_the_same(on_native) -> None:  # type: ignore[no-untyped-def]
    record, judgement = on_native(ALL["C4"], {"hold": "no"})
    assert judgement.verdict.outcome == "INCONCLUSIVE"
    _, traffic = traffic_of(record)
    assert [one.flags for one in traffic.events if not one.lost][:3] == ["SYN", "SYN ACK", "ACK"]


def test_what_one_host_does_alone_has_no_packets(on_native) -> None:  # type: ignore[no-untyped-def]
    record, _ = on_native(ALL["A6"])
    assert watched(record) is None
