"""Watching a cell, without hosts: what firewalls drop is counted once, and what cannot be seen is a note."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from testbed.errors import LabError
from testbed.experiment_stage import Stage, noting
from testbed.experiment_watch import Watch
from testbed.traffic import Drop, Key


class FakeHost:
    """Has no sockets, and a firewall that has dropped what ``counted`` says, by key."""

    kind = "native"

    def __init__(self) -> None:
        self.counted: dict[Key, int] = {}
        self.gone = False
        self.addresses = {"lan": ["10.77.0.2"]}

    def sockets(self) -> list[Any]:
        if self.gone:
            raise LabError("the host is gone")
        return []

    def run(self, _: object) -> Any:
        elements = [{"elem": {"val": {"concat": list(key)}, "counter": {"packets": number}}} for key, number in self.counted.items()]
        data = {"nftables": [{"table": {}}, {"set": {"name": "dropped_tcp_prerouting", "elem": elements}}]}
        return SimpleNamespace(exit_code=0, text=json.dumps(data))


def watch_of(host: FakeHost) -> tuple[Watch, Stage]:
    stage = Stage({"server": host}, {})  # type: ignore[dict-item]
    stage.walls.add("server")
    return Watch(None, stage), stage  # type: ignore[arg-type]


def numbers(watch: Watch) -> list[int]:
    return [one.number for one in watch.dropped]


KEY, OTHER = (1, 2, 3, 4), (5, 6, 7, 8)


def test_what_is_dropped_is_counted_once() -> None:
    host = FakeHost()
    watch, _ = watch_of(host)
    for host.counted in ({}, {KEY: 1}, {KEY: 1}, {KEY: 3, OTHER: 1}):
        watch.look()
    assert numbers(watch) == [1, 2, 1]
    assert isinstance(first := watch.dropped[0], Drop)
    assert (first.role, first.direction, first.protocol, first.key) == ("server", "in", "tcp", KEY)


def test_a_firewall_in_the_place_of_another_counts_anew() -> None:
    host = FakeHost()
    watch, _ = watch_of(host)
    for host.counted in ({KEY: 3}, {KEY: 1}, {}, {KEY: 1}):
        watch.look()
    assert numbers(watch) == [3, 1, 1]


def test_a_host_that_is_gone_is_a_note_and_no_failure() -> None:
    host = FakeHost()
    watch, _ = watch_of(host)
    host.gone = True
    watch.look()
    watch.look()
    assert watch.notes == ["not all could be seen: the host is gone"]


def test_a_firewall_notes_only_what_is_tcp_or_udp() -> None:
    assert noting("prerouting", "icmp type 3") == []
    known, chain = noting("postrouting", "udp dport 9 numgen inc mod 3 == 2")
    assert known.startswith("set dropped_udp_postrouting { typeof ")
    assert "priority -151; udp dport 9 numgen inc mod 3 == 2 add @dropped_udp_postrouting" in chain
    assert "drop;" not in chain
