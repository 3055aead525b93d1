"""What a failed test's lab tells, in pytest's report of it: on the terminal, as files, and in the JUnit file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.evidence import Evidence
from testbed.pytest_labs import RunningLab

PROPERTY = "testbed-evidence"
MOST_OF_A_TEXT = 16 * 1024  # characters of each file in the JUnit file, the last ones
LONGEST_NAME = 150


def add_evidence(report: pytest.TestReport, running: RunningLab, base: Path) -> list[tuple[str, object]]:
    """Ask the lab, write files into a directory of this test's own under ``base``, and name them in the report. Gives the properties
    that were added."""
    name = f"testbed: lab {running.name}"
    try:
        evidence = running.gather(directory_for(base, report.nodeid))
    except TestbedError as error:
        report.sections.append((name, f"the lab tells nothing: {error}"))
        return []
    report.sections.append((name, evidence.summary))
    properties = properties_of(evidence)
    report.user_properties += properties
    return properties


def directory_for(base: Path, nodeid: str) -> Path:
    """A new directory named after a test."""
    name = re.sub(r"[^\w.\[\]-]+", "-", nodeid)[-LONGEST_NAME:].strip("-")
    number, path = 1, base / name
    while path.exists():
        number += 1
        path = base / f"{name}-{number}"
    return path


def properties_of(evidence: Evidence) -> list[tuple[str, object]]:
    """The directory, and every file with its content, or how many packets it has."""
    properties: list[tuple[str, object]] = [(PROPERTY, str(evidence.directory))]
    properties += [(f"{PROPERTY}/{name}", text[-MOST_OF_A_TEXT:]) for name, text in evidence.texts.items()]
    properties += [(f"{PROPERTY}/{name}", f"{saved.packets} packets") for name, saved in evidence.pcaps.items()]
    return properties


def lines_of(ending: Mapping[str, Any]) -> list[str]:
    """What is said at the end of a run about the labs of one process."""
    lines = list(ending["notes"])
    for name, hosts in ending["kept"]:
        lines += [f"lab {name} is up, with hosts {', '.join(hosts)}", f"  testbed shell {name}/{hosts[0]}", f"  testbed down {name}"]
    return lines
