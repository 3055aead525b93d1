"""One lab for all tests of a module: experiments make its hosts new before they begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from testbed import experiment_find as finding
from testbed import experiment_run as running
from testbed.experiment import Experiment, Judgement, Record, judge
from testbed.experiment_lanes import Lanes

Try = Callable[..., tuple[Record, Judgement]]


@pytest.fixture(scope="module")
def on_native() -> Iterator[Try]:
    """Run an experiment on native hosts, and judge it."""
    on = running.On.named("native")
    with Lanes([(one, on) for one in finding.known().values()]) as lanes:

        def attempt(
            experiment: Experiment, parameters: Mapping[str, str] | None = None, patience_s: float = 30.0
        ) -> tuple[Record, Judgement]:
            chosen = experiment.with_values(parameters or {})
            with lanes.lab(experiment, on) as lab:
                record = running.run(experiment, lab, on, parameters=chosen, patience_s=patience_s)
            return record, judge(experiment, record)

        yield attempt
