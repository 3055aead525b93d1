"""Labs for experiments that are only pretended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testbed.experiment_lanes import Lanes


class NoLabs(Lanes):
    """As many labs as are wanted, with nothing in them."""

    def __enter__(self) -> NoLabs:
        return self

    @contextmanager
    def lab(self, *_: Any) -> Iterator[Any]:
        yield None
