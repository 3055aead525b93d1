"""Whether a program is right on both byte orders, for Python programs and tests: as `testbed endian` does it.

def test_my_protocol() -> None:
    assert_same(server="server.c common.c", client="client.c hello")
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from rich.console import Console

from testbed.endian_binaries import placed
from testbed.endian_fields import load
from testbed.endian_judge import NAMELESS
from testbed.endian_messages import Role
from testbed.endian_program import Program, read, read_script
from testbed.endian_report import print_outcome, verdict
from testbed.endian_run import REPEAT, TIMEOUT_OF_VM_S, TIMEOUT_S, Outcome, Plan, Progress, endian
from testbed.errors import CheckFailed, InputError
from testbed.package_names import read_packages, read_requirements

WIDTH = 110


class Options(TypedDict, total=False):
    """What is to be run.

    ``server`` and ``client`` are C files and arguments, or a command, as for a shell; the server is reached by the name `server`. In
    their place a ``script`` runs alone, with nobody to answer. ``files`` are put where they run, ``cflags`` are for the compiler,
    ``packages`` of Debian and those of ``pip`` are on both hosts. The client, or the script, reads the file ``input`` as its standard
    input. With ``vm`` the big-endian hosts have kernels of their own, with ``ipv6`` names lead to IPv6 addresses. Each pair runs
    ``repeat`` times, at least twice, for ``timeout_s`` seconds at most: 10, with ``vm`` 30. ``fields`` is a file that describes messages;
    or ``dissect`` is a protocol whose fields Wireshark knows.
    """

    server: str
    client: str
    script: str
    files: Sequence[Path | str]
    cflags: str
    packages: Sequence[str]
    pip: Sequence[str]
    input: Path | str | None
    vm: bool
    ipv6: bool
    repeat: int
    timeout_s: float
    fields: Path | str | None
    dissect: str


def plan(**options: Unpack[Options]) -> Plan:
    """What is to be run, out of :class:`Options`. Raises :class:`InputError` for what makes no sense."""
    repeat, cflags = options.get("repeat", REPEAT), options.get("cflags", "")
    if repeat < 2:
        raise InputError(f"{repeat} runs of each pair are too few", hint="what varies from run to run shows in two or more")
    try:
        flags = tuple(shlex.split(cflags))
    except ValueError as error:
        raise InputError(f"--cflags '{cflags}': {error}", hint="quote it as for a shell") from None
    programs, own_files = _programs(options)
    fields, protocol = options.get("fields"), options.get("dissect", "")
    given = options.get("input")
    if fields is not None and protocol:
        raise InputError("names of fields come from a description or from a dissector", hint="--fields or --dissect")
    if not re.fullmatch(r"([A-Za-z0-9_.-]+)?", protocol):
        raise InputError(f"--dissect '{protocol}' is no protocol's name", hint="as in Wireshark's display filters, such as coap")
    vm = options.get("vm", False)
    return Plan(
        programs=programs,
        files=(*own_files, *map(Path, options.get("files", ()))),
        flags=flags,
        vm=vm,
        ipv6=options.get("ipv6", False),
        repeat=repeat,
        timeout_s=options.get("timeout_s", TIMEOUT_OF_VM_S if vm else TIMEOUT_S),
        packages=read_packages(list(options.get("packages", ()))),
        pip=read_requirements(list(options.get("pip", ()))),
        input=None if given is None else Path(given),
        names=NAMELESS if fields is None else load(Path(fields)),
        protocol=protocol,
    )


def _programs(options: Options) -> tuple[dict[Role, Program], tuple[Path, ...]]:
    if "script" in options:
        if "server" in options or "client" in options:
            raise InputError("a script runs alone, without a server and a client", hint="--script, or --server and --client")
        program, files = read_script(options["script"])
        return {"client": program}, files
    roles: tuple[Role, Role] = ("client", "server")
    missing = [role for role in roles if role not in options]
    if missing:
        raise InputError(f"there is no {' and no '.join(missing)}", hint="--server and --client; or --script for a program alone")
    given = [Path(one) for one in options.get("files", ())]
    programs: dict[Role, Program] = {}
    own_files: list[Path] = []
    for role in roles:
        programs[role], more = placed(read(role, options[role]), given)
        own_files += more
    return programs, tuple(own_files)


def run(what: Plan, progress: Progress = lambda *_: None) -> Outcome:
    """Run it on all four pairs of byte orders, or alone on both, in a lab of its own."""
    return endian(what, progress=progress)


def assert_same(**options: Unpack[Options]) -> Outcome:
    """Run a client and a server on all four pairs of byte orders, or a script on both, and raise :class:`CheckFailed` with the findings if
    there are any, or when nothing was sent or could be compared; :class:`InputError` when the program does not work at all. See
    :class:`Options`."""
    outcome = run(plan(**options))
    if (what := verdict(outcome)) == "NO FINDING":
        return outcome
    raise (InputError if what == "FAILED" else CheckFailed)(text_of(outcome))


def text_of(outcome: Outcome) -> str:
    """What `testbed endian` shows, without colour."""
    console = Console(width=WIDTH, color_system=None, highlight=False)
    with console.capture() as captured:
        print_outcome(console, outcome)
    return captured.get()
