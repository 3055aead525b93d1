"""Whether a program is right on both byte orders, for Python programs and tests: as `testbed endian` does it.

def test_my_protocol() -> None:
    assert_same(server="server.c common.c", client="client.c hello")
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from testbed.endian_program import read
from testbed.endian_report import print_outcome, verdict
from testbed.endian_run import REPEAT, TIMEOUT_S, Outcome, Plan, Progress, endian
from testbed.errors import CheckFailed, InputError

WIDTH = 110


def plan(
    *,
    server: str,
    client: str,
    files: Sequence[Path | str] = (),
    cflags: str = "",
    vm: bool = False,
    ipv6: bool = False,
    repeat: int = REPEAT,
    timeout_s: float = TIMEOUT_S,
) -> Plan:
    """What is to be run. ``server`` and ``client`` are C files and arguments, or a command, as for a shell; the server is reached by the
    name `server`. ``files`` are put where they run, ``cflags`` are for the compiler. With ``vm`` the big-endian hosts have kernels of their
    own, with ``ipv6`` names lead to IPv6 addresses. Each pair runs ``repeat`` times, at least twice, for ``timeout_s`` seconds at most.

    Raises :class:`InputError` for what makes no sense."""
    if repeat < 2:
        raise InputError(f"{repeat} runs of each pair are too few", hint="what varies from run to run shows in two or more")
    try:
        flags = tuple(shlex.split(cflags))
    except ValueError as error:
        raise InputError(f"--cflags '{cflags}': {error}", hint="quote it as for a shell") from None
    programs = {"client": read("client", client), "server": read("server", server)}
    return Plan(programs, tuple(map(Path, files)), flags, vm, ipv6, repeat, timeout_s)  # type: ignore[arg-type]


def run(what: Plan, progress: Progress = lambda *_: None) -> Outcome:
    """Run it on all four pairs of byte orders, in a lab of its own."""
    return endian(what, progress=progress)


def assert_same(
    *,
    server: str,
    client: str,
    files: Sequence[Path | str] = (),
    cflags: str = "",
    vm: bool = False,
    ipv6: bool = False,
    repeat: int = REPEAT,
    timeout_s: float = TIMEOUT_S,
) -> Outcome:
    """Run a client and a server on all four pairs of byte orders, and raise :class:`CheckFailed` with the findings if there are any, or
    when nothing was sent; :class:`InputError` when the program does not work at all. Arguments as for :func:`plan`."""
    outcome = endian(plan(server=server, client=client, files=files, cflags=cflags, vm=vm, ipv6=ipv6, repeat=repeat, timeout_s=timeout_s))
    if (what := verdict(outcome)) == "NO FINDING":
        return outcome
    raise (InputError if what == "FAILED" else CheckFailed)(text_of(outcome))


def text_of(outcome: Outcome) -> str:
    """What `testbed endian` shows, without colour."""
    console = Console(width=WIDTH, color_system=None, highlight=False)
    with console.capture() as captured:
        print_outcome(console, outcome)
    return captured.get()
