"""The verb that runs a user's client and server, or a script alone, on both byte orders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from testbed.errors import CheckFailed, InputError
from testbed.verbs import AS_JSON, console, print_json

NOTHING_KNOWN = 4  # an exit code of its own: neither a pass nor a finding
FILE: Any = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.option("--server", metavar="PROGRAM", help="The server: C files and arguments, or a command.")
@click.option("--client", metavar="PROGRAM", help="The client, likewise. It finds the server by the name `server`.")
@click.option("--script", metavar="SCRIPT", help="A program alone, in place of both: a .py, .sh or C file and arguments, or a command.")
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="Put it where the programs run; of two executables of one name, the one for each host. May be repeated.",
)
@click.option("--input", type=FILE, metavar="FILE", help="What the client, or the script, reads from its standard input.")
@click.option("--package", "packages", multiple=True, metavar="NAME", help="A Debian package that hosts have; may be repeated.")
@click.option("--pip", multiple=True, metavar="NAME", help="A Python package that hosts have, such as scapy==2.5.0; may be repeated.")
@click.option("--cflags", default="", show_default=False, metavar="FLAGS", help="Flags for the compiler, such as '-Iinclude -lm'.")
@click.option("--vm", is_flag=True, help="Big-endian hosts with a big-endian kernel of their own, not only big-endian programs.")
@click.option("--ipv6", is_flag=True, help="The names `server` and `client` lead to IPv6 addresses.")
@click.option("--repeat", type=click.IntRange(2, 100), default=3, metavar="N", help="Runs of each pair, to learn what varies.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="For each run. 10, and 30 with --vm, when it is not given.",
)
@click.option("--dissect", metavar="PROTOCOL", help="Names of fields: those of Wireshark, which reads the packets as this protocol.")
@click.option("--fields", type=FILE, metavar="FILE", help="Names of fields: a description of the messages.")
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Keep the packets there, a pcap file for each pair."
)
@click.option("--html", type=FILE, metavar="FILE", help="Write the result there too, as a page.")
@AS_JSON
def endian(keep: Path | None, html: Path | None, as_json: bool, **options: Any) -> None:
    """Run a client and a server on all four pairs of byte orders, and show which bytes that they send differ, and why.

    PROGRAM is one or more C files, compiled for each host, and the program's arguments; or a command that the hosts have, such as
    python3. A SCRIPT runs on a host of either byte order, with another one (`server`) that takes whatever it sends, to whatever address and
    port, and answers nothing.

    Exit code 0: no finding; 1: findings; 4: nothing was sent, or nothing that could be compared, so nothing is known.

    \b
    Examples:
      testbed endian --server server.c --client 'client.c common.c hello'
      testbed endian --server 'python3 server.py' --client 'python3 client.py' --file server.py --file client.py
      testbed endian --package iperf3 --server 'iperf3 -s -1' --client 'iperf3 -c server -n 1M'
      testbed endian --pip scapy==2.5.0 --script send_coap.py
    """
    from testbed import endian as on_both_orders
    from testbed import endian_report as report
    from testbed.endian_run import keep_packets, write
    from testbed.progress import Progress

    plan = on_both_orders.plan(**{name: value for name, value in options.items() if value is not None})
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        outcome = on_both_orders.run(plan, progress)
    if keep is not None:
        keep_packets(outcome, keep)
    if html is not None:
        from testbed.endian_page import page

        write(html, page(outcome).encode())
    if as_json:
        print_json(report.as_json(outcome))
    else:
        report.print_outcome(console(), outcome)
    codes = {"NO FINDING": 0, "FINDINGS": CheckFailed.exit_code, "FAILED": InputError.exit_code}
    sys.exit(codes.get(report.verdict(outcome), NOTHING_KNOWN))
