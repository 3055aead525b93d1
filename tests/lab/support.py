"""What the tests with real hosts share: labs with names of their own, the command as a process, the machine before and after."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from testbed import shipped, topology_file
from testbed.engine import Engine
from testbed.host import Host
from testbed.lab import Lab, down, parts_of
from testbed.process import Result, run_local, search_path

COMMAND = (sys.executable, "-m", "testbed")
WARM_COMMAND = Path(__file__).with_name("warm_command.py")
_SERVERS: list[subprocess.Popen[bytes]] = []
LIMIT_S = 120


def run_testbed(
    *arguments: str | Path, stdin: bytes = b"", environment: dict[str, str] | None = None, timeout_s: float = LIMIT_S
) -> Result:
    """The command, run to its end without a terminal."""
    variables = {**os.environ, **(environment or {})}
    return run_local([*warm_command(), "testbed", *map(str, arguments)], stdin=stdin, timeout_s=timeout_s, environment=variables)


@cache
def warm_command() -> Sequence[str]:
    """What stands before a command; the server behind it ends with this process."""
    name = f"testbed-tests-{os.getpid()}"
    server = subprocess.Popen(
        [sys.executable, "-P", WARM_COMMAND, "serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert server.stdout
    assert server.stdout.readline() == b"listening\n"
    _SERVERS.append(server)
    return (sys.executable, "-I", "-S", str(WARM_COMMAND), name)


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running; killed at the end if it still does."""
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def topology(text: str) -> pytest.MarkDecorator:
    """The marker for tests in a lab of this topology file's text, which they leave as it is: one lab for the whole module.

    A relative ``source:`` is looked for beside this file.
    """
    return pytest.mark.topology(topology_file.parse(text, name="tests", directory=Path(__file__).parent), reset="module")


def needs_guest(item: pytest.Item) -> bool:
    """Whether a test runs on a host with a kernel of its own: one called so, or all hosts of a file that has a lab for this."""
    callspec = getattr(item, "callspec", None)
    return "everything" in getattr(item, "fixturenames", ()) or (callspec is not None and callspec.params.get("host") in ("guest", "vm"))


class Labs:
    """Labs under names that nobody else has, removed at the end."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.names: list[str] = []

    def file(self, text: str, name: str = "") -> Path:
        """A topology file. Its stem, a name of its own unless given, is the lab's."""
        name = name or f"t{uuid.uuid4().hex[:8]}"
        self.names.append(name)
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return path

    def shipped(self, name: str) -> Path:
        """A topology that comes with testbed, as a file of this test's."""
        return self.file(shipped.find(name).read_text())

    def up(self, text: str) -> Lab:
        """A lab from the text of a topology file, up."""
        path = self.file(text)
        run_testbed("up", path).check()
        return self.lab(path)

    def lab(self, path: Path) -> Lab:
        """The lab of a file, as it is now."""
        return Lab(self.engine, parts_of(self.engine, path.stem))

    def left(self, path: Path) -> list[str]:
        """Everything that the engine has of a lab."""
        parts = parts_of(self.engine, path.stem)
        return [one.name for one in parts.containers] + [one.name for one in parts.networks.values()]

    def remove(self) -> None:
        for name in self.names:
            down(self.engine, name)


def status(lab: str) -> dict[str, dict[str, Any]]:
    """`testbed status LAB --json`, by host."""
    return {row["host"]: row for row in json.loads(run_testbed("status", lab, "--json").check().text)}


def ids(engine: Engine, lab: str) -> dict[str, str]:
    """host -> id of its container."""
    return {name: one.id for name, one in parts_of(engine, lab).hosts.items()}


def machine_state() -> dict[str, str]:
    """What a lab must leave as it was: links, addresses, routes, firewall and the sysctls of the machine's network."""
    state = {name: _output(argv) for name, argv in _LOOKS.items()}
    # Counters go on, and so does time.
    state["firewall"] = re.sub(r"\[\d+:\d+\]|^#.*$", "", state["firewall"], flags=re.MULTILINE)
    return state


_LOOKS: dict[str, Sequence[str]] = {
    "links": ("ip", "-oneline", "link"),
    "addresses": ("ip", "-oneline", "address"),
    "routes": ("ip", "route", "show", "table", "all"),
    "routes6": ("ip", "-6", "route", "show", "table", "all"),
    "firewall": ("iptables-save",),
    "sysctls": ("sh", "-c", "sysctl -a 2>/dev/null | grep '^net[.]' | grep -v -e random -e stat_refresh -e nf_conntrack_count -e dir-data"),
    "mounts": ("findmnt", "--noheadings", "--list", "--output", "TARGET"),
}


def _output(argv: Sequence[str]) -> str:
    return run_local(argv, environment={**os.environ, "PATH": search_path()}).text


def qemu_of(engine: Engine, host: Host) -> int:
    """The process on this machine that is the guest of a vm host: the only child of its container's first process."""
    runner = engine.inspect(host.container).pid
    (pid,) = Path(f"/proc/{runner}/task/{runner}/children").read_text().split()
    return int(pid)
