"""Every claim, on native hosts: the verdict that is known, every number as predicted, and a report with the packets.

`make experiments` has the other kinds.
"""

from __future__ import annotations

import json

import pytest

from testbed import experiment_find as finding
from testbed.drawing import overlapping
from testbed.experiment import Judgement, Record
from testbed.experiment_report import ladder_of, report, watched
from testbed.experiment_results import Saved

REFUTED = {"A1", "A3", "A4", "C2", "C3", "D1", "D2", "D3", "E3"}


# Of many cells, or with waits of the kernel's: `make experiments` has them too.
LONG = {
    "accept-queue", "datagram-is-not", "fin-timeout", "full-queue", "handshake-states", "restart", "stream-is-reliable", "syn-backlog",
    "time-wait-side",
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] if name in LONG else []) for name in finding.known()])
def test_a_claim_is_judged_as_it_is_known_to_be(on_native, name: str) -> None:  # type: ignore[no-untyped-def]
    experiment = finding.known()[name]
    record, judgement = on_native(experiment)
    assert isinstance(record, Record)
    assert isinstance(judgement, Judgement)
    assert judgement.verdict.outcome == ("REFUTED" if experiment.id in REFUTED else "HOLDS"), judgement.verdict.reason
    assert [one for one in judgement.comparisons if not one.matches] == []
    assert judgement.passed
    json.dumps(record.as_json())
    html = report([Saved("r.json", record)], {name: experiment}, made="Now.")
    assert ("Time runs down" in html) == (len(experiment.hosts) > 1)
    if len(experiment.hosts) > 1:
        found = watched(record)
        assert found is not None
        assert found[1].events
        assert found[1].notes == ()
        ladder = ladder_of(experiment, record)
        assert ladder is not None
        assert overlapping(ladder[1]) == []
