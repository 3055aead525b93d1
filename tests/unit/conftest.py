"""An engine of the test's own, where one is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from testbed.engine import Engine
from tests.fake_engine import FakeEngine

# The same examples in every run, and no deadline: how long one takes is the machine's.
settings.register_profile("testbed", derandomize=True, deadline=None, database=None)
settings.load_profile("testbed")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "engine.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def engine(fake: FakeEngine) -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()
