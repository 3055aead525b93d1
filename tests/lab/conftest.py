"""The engine, which must be there, and labs that go away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import testbed
from testbed.engine import Engine
from testbed.lab import Lab, read_parts
from tests.lab.support import Labs, needs_guest

# Files take their turn whole, several at a time: the longest begin first, so that none of them is left alone at the end. In a file the
# tests that need a guest come last: where these have a lab of their own, the guest costs nothing before.
LONGEST = ("test_vm_faults", "test_rootless", "test_vm_kernels", "test_pytest_plugin", "test_host", "test_endian")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = list(dict.fromkeys(item.path for item in items))
    files.sort(key=lambda path: LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST))
    places = {path: place for place, path in enumerate(files)}
    items.sort(key=lambda item: (places[item.path], needs_guest(item)))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The Docker engine. Without one the tests fail: nothing here is worth anything without real hosts."""
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def alone(engine: Engine) -> None:
    """For a test that removes every lab: on somebody's machine their labs count more. In CI there are none, and it runs."""
    others = sorted(read_parts(engine))
    if others and os.environ.get("CI") != "true":
        pytest.skip(f"this would remove labs that are up: {', '.join(others)}")
    assert not others, f"labs are up: {', '.join(others)}"


@pytest.fixture(scope="module")
def lab(lab: testbed.Lab) -> Lab:
    """The lab of a test's topology, as the modules behind the public API have it."""
    return lab.running


@pytest.fixture(scope="module")
def module_labs(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """Labs that the tests of a module share."""
    labs = Labs(engine, tmp_path_factory.mktemp("labs"))
    yield labs
    labs.remove()


@pytest.fixture
def labs(engine: Engine, tmp_path: Path) -> Iterator[Labs]:
    labs = Labs(engine, tmp_path)
    yield labs
    labs.remove()
