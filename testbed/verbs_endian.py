"""The verb that runs a user's client and server on both byte orders."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from testbed.errors import CheckFailed, InputError
from testbed.verbs import AS_JSON, console, print_json

NOTHING_SENT = 4  # an exit code of its own: neither a pass nor a finding


@click.command(context_settings={"show_default": True})
@click.option("--server", required=True, metavar="PROGRAM", help="The server: C files and arguments, or a command.")
@click.option("--client", required=True, metavar="PROGRAM", help="The client, likewise. It finds the server by the name `server`.")
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Put it where the programs run; may be repeated.",
)
@click.option("--cflags", default="", show_default=False, metavar="FLAGS", help="Flags for the compiler, such as '-Iinclude -lm'.")
@click.option("--vm", is_flag=True, help="Big-endian hosts with a big-endian kernel of their own, not only big-endian programs.")
@click.option("--ipv6", is_flag=True, help="The names `server` and `client` lead to IPv6 addresses.")
@click.option("--repeat", type=click.IntRange(2, 100), default=3, metavar="N", help="Runs of each pair, to learn what varies.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0, min_open=True), default=10.0, metavar="SECONDS", help="For each run.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Keep the packets there, a pcap file for each pair."
)
@AS_JSON
def endian(
    server: str,
    client: str,
    files: tuple[Path, ...],
    cflags: str,
    vm: bool,
    ipv6: bool,
    repeat: int,
    timeout_s: float,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Run a client and a server on all four pairs of byte orders, and show which bytes that they send differ, and why.

    PROGRAM is one or more C files, compiled for each host, and the program's arguments; or a command that the hosts have, such as
    python3. Exit code 0: no finding; 1: findings; 4: nothing was sent, so nothing is known.

    \b
    Examples:
      testbed endian --server server.c --client 'client.c common.c hello'
      testbed endian --server 'python3 server.py' --client 'python3 client.py' --file server.py --file client.py
    """
    from testbed import endian as on_both_orders
    from testbed import endian_report as report
    from testbed.endian_run import keep_packets
    from testbed.progress import Progress

    plan = on_both_orders.plan(
        server=server, client=client, files=files, cflags=cflags, vm=vm, ipv6=ipv6, repeat=repeat, timeout_s=timeout_s
    )
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        outcome = on_both_orders.run(plan, progress)
    if keep is not None:
        keep_packets(outcome, keep)
    if as_json:
        print_json(report.as_json(outcome))
    else:
        report.print_outcome(console(), outcome)
    codes = {"FINDINGS": CheckFailed.exit_code, "FAILED": InputError.exit_code, "NOTHING SENT": NOTHING_SENT}
    if code := codes.get(report.verdict(outcome)):
        sys.exit(code)
