"""One run of tests in labs, in one process: made when the first test wants a lab."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from testbed import pytest_marker, pytest_report
from testbed.errors import TestbedError
from testbed.pytest_labs import Labs, NoLab, Provider, removal_note
from testbed.pytest_provider import EngineLabs

WITHOUT_TESTINFRA = (
    "the fixture 'host' is testinfra's, and testinfra is not installed\n"
    "  install pytest-testinfra, or use the fixture lab: lab.host(NAME) is a testbed.Host"
)
make_provider: Callable[..., Provider] = EngineLabs  # tests of the plugin itself put other ones here


@dataclass
class Run:
    """The labs of this process and what is to be done with them."""

    labs: Labs
    evidence: Path
    keep: bool
    taken_by: str = ""  # the node id of the last test for which a lab was taken

    @classmethod
    def begin(cls, config: pytest.Config, temporary: Path) -> Run:
        """As the options say. Nothing is asked of the engine yet."""
        keep = bool(config.getoption("testbed_keep"))
        provider = make_provider(keep=keep, record=bool(config.getini("testbed_record")))
        worker: dict[str, Any] = getattr(config, "workerinput", {})
        name = "-".join([str(worker.get("testrunuid") or uuid.uuid4().hex)[:6], *([worker["workerid"]] if worker else [])])
        chosen = config.getoption("testbed_evidence")
        evidence = config.invocation_params.dir / chosen if chosen else temporary / "testbed-evidence"
        return cls(Labs(provider, name, _most_labs(config)), evidence, keep)

    def take(self, wanted: object) -> object:
        """The lab for the test that is being set up. ``wanted`` is what pytest has as the fixture's parameter."""
        if wanted is None:
            pytest.fail(without_marker("lab"), pytrace=False)
        if not isinstance(wanted, pytest_marker.Wanted):
            pytest.fail("the fixture 'lab' takes its topology from @pytest.mark.topology(...), not from parametrize", pytrace=False)
        self.taken_by = current_test()
        return self.labs.take(wanted).lab

    def host(self, name: str) -> object:
        """A host of the lab that was taken, as testinfra's."""
        running = self.labs.current
        assert running is not None, "the lab is taken first"
        if find_spec("testinfra") is None:
            pytest.fail(WITHOUT_TESTINFRA, pytrace=False)
        return running.host(name)

    def complete(self, report: pytest.TestReport, item: pytest.Item, error: BaseException | None) -> None:
        """Put into the report of a failure what the lab tells, or why there is none."""
        if isinstance(error, NoLab):
            report.longrepr = error.cause.words_for(item.nodeid)
            return
        running = self.labs.current
        if running is None or not self._in_a_lab(item):
            return
        properties = pytest_report.add_evidence(report, running, self.evidence)
        item.user_properties += properties  # the report of the teardown, from which the JUnit file takes them, is made later
        if self.keep:
            item.session.shouldfail = f"--testbed-keep: lab {running.name} is left as {item.nodeid} left it"

    def end(self) -> dict[str, Any]:
        """Take the labs down, or keep them; gives what is to be said of it, as plain data."""
        kept = [(one.name, list(one.hosts)) for one in self.labs.end(keep=self.keep)]
        return {"notes": self.labs.notes, "kept": kept}

    def _in_a_lab(self, item: pytest.Item) -> bool:
        names = getattr(item, "fixturenames", ())
        uses = pytest_marker.OUR_LAB in names or pytest_marker.OUR_HOST in names or self.taken_by == item.nodeid
        return uses and pytest_marker.wanted(item) is not None


def after_a_crash() -> dict[str, Any]:
    """A process of this run has died, perhaps one with labs: remove what is nobody's. Gives what :meth:`Run.end` does."""
    try:
        removed = make_provider(keep=False, record=False).remove_abandoned()
    except TestbedError:
        removed = []  # it may have had no labs, and then there need be no engine
    return {"notes": [removal_note(name) for name in removed], "kept": []}


def current_test() -> str:
    """The node id of the test that runs, as pytest tells everybody: "NODEID (setup)"."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]


def without_marker(fixture: str) -> str:
    """The error for a fixture that is used in a test without a marker."""
    return (
        f"the fixture '{fixture}' needs a topology, and this test has no marker that names one\n"
        f'  put @pytest.mark.topology("pair") on the test or its class, or pytestmark = pytest.mark.topology("pair") into its module'
    )


def _most_labs(config: pytest.Config) -> int:
    text = str(config.getini("testbed_labs_most"))
    if not text.isdecimal() or int(text) < 1:
        raise pytest.UsageError(f"testbed_labs_most is '{text}', and it is to be a number from 1")
    return int(text)
