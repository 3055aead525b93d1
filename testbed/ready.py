"""When a host is ready, as its topology file says."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable

from testbed.engine import Engine
from testbed.errors import DeadlineExceeded, LabError
from testbed.host import Host
from testbed.host_container import tail, text
from testbed.plan import Settings
from testbed.process import wait_until

_COMMAND_ENDED = re.compile(rb"init: command (.*)")


def wait_until_ready(
    engine: Engine, host: Host, settings: Settings, *, since: float | None = None, cancelled: threading.Event | None = None
) -> None:
    """Wait for a host's ``ready``, if it has any, in its output since a time (seconds since 1970) or since ever.

    Raises :class:`LabError` when its command ends before, or its time is up, with the end of its output.
    """
    ready = settings["ready"]
    if not ready:
        return
    name, timeout_s = host.name, ready["timeout_s"]

    def written() -> bytes:
        return engine.written(host.container, since=since)

    if "log" in ready:
        condition: Callable[[], bool] = lambda: bool(re.search(ready["log"].encode(), written()))  # noqa: E731
        what = f"host '{name}' ready: '{ready['log']}' in the output of its command"
    elif "listening" in ready:
        condition = lambda: host.is_listening(ready["listening"])  # noqa: E731
        what = f"host '{name}' ready: TCP port {ready['listening']} listened on"
    else:
        condition = lambda: host.run(ready["command"], timeout_s=timeout_s).exit_code == 0  # noqa: E731
        what = f"host '{name}' ready: exit code 0 from '{' '.join(ready['command'])}'"

    def ready_or_over() -> bool:
        if cancelled is not None and cancelled.is_set():
            raise LabError(f"host '{name}' was given up")
        wrote = written()  # before the condition: the command may bring it about with its last act
        if condition():
            return True
        ended = _COMMAND_ENDED.search(wrote)
        # A daemon leaves with 0 and goes on in the background.
        if ended and text(ended[1]) != "ended with exit code 0":
            raise LabError(f"host '{name}': its command {text(ended[1])} before it was ready{tail(wrote)}")
        return False

    try:
        wait_until(ready_or_over, timeout_s=timeout_s, what=what)
    except DeadlineExceeded as error:
        more_time = "`ready: {timeout_s: ...}` gives it more time"
        raise LabError(f"{error.message}{tail(written())}", hint=more_time) from None
