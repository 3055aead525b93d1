"""An engine of the test's own, where one is needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.engine import Engine
from tests.fake_engine import FakeEngine


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
