"""What is seen of one cell while it goes on: packets in the lab's switch, sockets of its hosts after each step, what firewalls drop.

It must not disturb. The packets are seen in the switch, outside the hosts; the sockets are asked of the kernel (ss), which costs some
milliseconds after each step and touches no counter and no queue. What cannot be seen is noted, and is no problem of the cell.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from testbed.api import Lab
from testbed.capture import Capture, capture
from testbed.errors import TestbedError
from testbed.experiment_stage import NOTED, TABLE, Stage
from testbed.traffic import MOST_EVENTS, Drop, Key, Look, Traffic, events_of, undecided

DIRECTIONS = {"prerouting": "in", "postrouting": "out"}


class Watch:
    """The watching of one cell; made by :func:`watching`."""

    def __init__(self, lab: Lab, stage: Stage) -> None:
        self._lab = lab
        self._stage = stage
        self._looks: list[Look] = []
        self._counted: dict[tuple[str, str], dict[Key, int]] = {}  # at the last look, by role and hook
        self.dropped: list[Drop] = []
        self._notes: dict[str, None] = {}
        self._capture: Capture | None = None
        self._begin_s = 0.0
        self._old: dict[str, set[tuple[object, ...]]] = {}  # sockets that cells before this one have left, such as in TIME_WAIT

    def begin(self, running: Capture) -> None:
        """The capture listens, and the cell begins."""
        self._capture = running
        self._begin_s = time.time() - self._stage.elapsed_s
        self._old = {role: {_which(one) for one in self._stage.sockets(role)} for role in self._stage.hosts}

    def look(self) -> None:
        """How it is now: sockets where they have changed, and what firewalls have dropped since the last look."""
        at_s = round(self._stage.elapsed_s, 4)
        sockets = {}
        try:
            for role in self._stage.walls:
                self._see_drops(role, at_s)
            for role in self._stage.hosts:
                sockets[role] = [row for row in self._stage.sockets(role) if _which(row) not in self._old.get(role, ())]
        except TestbedError as error:
            self._notes[f"not all could be seen: {error.message}"] = None
            return
        if not self._looks or self._looks[-1].sockets != sockets:
            self._looks.append(Look(at_s, len(self._stage.steps), sockets))

    @property
    def notes(self) -> list[str]:
        """What is not known."""
        return list(self._notes)

    def traffic(self, ahead_s: float) -> Traffic:
        """All of it, after the capture's end. ``ahead_s``: the switch's clock before this machine's."""
        assert self._capture is not None
        roles = {address: role for role, address in self._stage.addresses.items()}
        events = events_of(self._capture.packets(), roles, self.dropped, begin_s=self._begin_s + ahead_s)
        for role in self._stage.hosts:
            if missing := undecided(events, self.dropped, role):
                self._notes[f"of {missing} packets that the firewall of the {role} dropped is not known which they are"] = None
        return Traffic(events[:MOST_EVENTS], self._looks, max(0, len(events) - MOST_EVENTS), tuple(self._notes))

    def _see_drops(self, role: str, at_s: float) -> None:
        shown = self._stage.hosts[role].run(["nft", "-j", "list", "table", "ip", TABLE])
        if shown.exit_code:  # it is being taken away
            return
        for one in json.loads(shown.text)["nftables"]:
            if "set" not in one or not one["set"]["name"].startswith(NOTED):
                continue
            protocol, hook = one["set"]["name"].removeprefix(NOTED).split("_")
            elements = [element["elem"] for element in one["set"].get("elem", [])]
            counted: dict[Key, int] = {tuple(element["val"]["concat"]): element["counter"]["packets"] for element in elements}
            before = self._counted.get((role, hook), {})
            self._counted[role, hook] = counted
            for key, number in counted.items():
                # A firewall that was put in the place of another counts from 0.
                more = number - before.get(key, 0) if number >= before.get(key, 0) else number
                if more:
                    self.dropped.append(Drop(at_s, role, DIRECTIONS[hook], protocol, key, more))


def _which(row: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells a socket from others."""
    return row["protocol"], row["port"], row["peer"]


@contextmanager
def watching(lab: Lab, stage: Stage, network: str, found: dict[str, Any]) -> Iterator[None]:
    """Watch what is done in the block, and put it into ``found`` as it stands in a record. Never raises: what breaks here is a note."""
    running = lab.running
    watch = Watch(lab, stage)
    hosts = " or ".join(f"host {address}" for address in stage.addresses.values())
    with ExitStack() as stack:
        try:
            switch = running.own_switch
            ahead_s = 0.0 if running.engine.local else float(switch.run(["date", "+%s.%N"]).check().text) - time.time()
            seen = stack.enter_context(capture(switch, running.bridge(network), filter=hosts))
            watch.begin(seen)
        except TestbedError as error:
            found.update(Traffic(notes=(f"not watched: {error.message}",)).as_json())
            yield
            return
        stage.looks = watch.look
        try:
            yield
            watch.look()
        finally:
            stage.looks = None
            try:
                stack.close()
                found.update(watch.traffic(ahead_s).as_json())
            except TestbedError as error:
                found.update(Traffic(notes=(f"not watched: {error.message}",)).as_json())
