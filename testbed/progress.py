"""What is being done now, for whoever waits: one moving line on a terminal, plain lines elsewhere, on standard error."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.status import Status  # a terminal's only: it takes a tenth of a short command's time to import

# A command that is over sooner says nothing.
PATIENCE_S = 1.0


class Progress:
    """A context manager that is called with (what, step), from any thread; ``total`` is the number of things expected to be "ready"."""

    def __init__(self, *, total: int = 0, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._total = total
        self._ready = 0
        self._last_line = time.monotonic()
        self._lock = threading.Lock()
        self._status: Status | None = None

    def __call__(self, what: str, step: str) -> None:
        with self._lock:
            counted = step == "ready"
            self._ready += counted
            so_far = f"{self._ready} of {self._total} hosts ready, " if self._total and (counted or self._ready) else ""
            if self._status:
                self._status.update(f"{so_far}{what}: {step}")
                return
            # Without a terminal every line stays, so there are few: each step of what is slow, not each of many hosts.
            now = time.monotonic()
            slow = not counted and what.startswith("host-")
            if slow or now - self._last_line > PATIENCE_S:
                self._last_line = now
                print(f"{so_far}{what}: {step}\n", end="", file=self._out, flush=True)  # at once, as others write there too

    def __enter__(self) -> Progress:
        if self._out.isatty():
            from rich.console import Console

            self._status = Console(file=self._out).status("")
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._status:
            self._status.stop()
