"""The engine, which must be there, and labs that go away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.engine import Engine
from tests.lab.support import Labs


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The Docker engine. Without one the tests fail: nothing here is worth anything without real hosts."""
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def labs(engine: Engine, tmp_path: Path) -> Iterator[Labs]:
    labs = Labs(engine, tmp_path)
    yield labs
    labs.remove()
