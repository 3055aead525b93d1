"""Verbs about one host: exec, shell, logs, put, get, capture."""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePosixPath

import click

from testbed.verbs import AS_JSON, print_json


@click.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--user", "-u", metavar="USER", help="Whose name or number it runs under; by default root.")
@click.option("--directory", "-w", metavar="DIR", help="Where it runs; by default /.")
@click.option("--env", "-e", "variables", multiple=True, metavar="NAME=VALUE", help="An environment variable; may be repeated.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End it, with all that it started, after this time.",
)
def exec_(
    host: str, command: tuple[str, ...], user: str | None, directory: str | None, variables: tuple[str, ...], timeout_s: float | None
) -> None:
    """Run COMMAND on a host: no shell, standard input and both outputs passed through byte by byte.

    The exit code is the command's own (128 + n when signal n ended it). Ctrl-C goes to the command.

    \b
    Examples:
      testbed exec server ss -ltn
      echo hello | testbed exec pair/server nc -l 8001
    """
    from testbed.arguments import assignments, engine, host_called
    from testbed.terminal import attached

    with engine() as its_engine, host_called(its_engine, host) as there:
        sys.exit(attached(there, command, user=user, directory=directory, environment=assignments(variables), timeout_s=timeout_s))


@click.command()
@click.argument("host")
def shell(host: str) -> None:
    """Open a shell on a host.

    \b
    Example:
      testbed shell big-a
    """
    from testbed.arguments import engine, host_called
    from testbed.terminal import interactive

    with engine() as its_engine, host_called(its_engine, host) as there:
        sys.exit(interactive(there, ["sh"]))


@click.command()
@click.argument("host")
@click.option("--follow", "-f", is_flag=True, help="Go on until the host ends, or Ctrl-C.")
@AS_JSON
def logs(host: str, follow: bool, as_json: bool) -> None:
    """Show what a host's own command (`command:` in the file) wrote, and what its first process said.

    With --json an object a line: the stream, and a piece of its text.

    \b
    Example:
      testbed logs server --follow
    """
    from testbed.arguments import engine, host_called
    from testbed.engine import STDOUT

    with engine() as its_engine, host_called(its_engine, host) as there:
        for stream, data in its_engine.output(there.container, follow=follow):
            if as_json:
                name, text = "stdout" if stream == STDOUT else "stderr", data.decode(errors="backslashreplace")
                click.echo(json.dumps({"stream": name, "text": text}))
                continue
            out = sys.stdout.buffer if stream == STDOUT else sys.stderr.buffer
            out.write(data)
            out.flush()


@click.command()
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("remote", metavar="HOST:PATH")
def put(local: Path, remote: str) -> None:
    """Copy a file or directory to a host. A PATH that is a directory there, or ends in /, gets it under its own name.

    \b
    Example:
      testbed put ./server.py big-a:/root/
    """
    from testbed.arguments import engine, host_called, split_remote, with_a_name

    host, path = split_remote(remote)
    with engine() as its_engine, host_called(its_engine, host) as there:
        if not path.endswith("/") and there.run(["test", "-d", path]).exit_code == 0:
            path += "/"
        there.put(with_a_name(local), path)


@click.command()
@click.argument("remote", metavar="HOST:PATH")
@click.argument("local", type=click.Path(path_type=Path), default=Path())
def get(remote: str, local: Path) -> None:
    """Copy a file or directory from a host. LOCAL is by default the current directory; a directory gets it under its own name.

    \b
    Example:
      testbed get server:/var/log/server.log .
    """
    from testbed.arguments import engine, host_called, split_remote

    host, path = split_remote(remote)
    with engine() as its_engine, host_called(its_engine, host) as there:
        there.get(path, local / PurePosixPath(path).name if local.is_dir() else local)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("host")
@click.argument("filter_", metavar="[FILTER]...", nargs=-1, type=click.UNPROCESSED)
@click.option("--network", "-n", metavar="NETWORK", help="Which of the host's networks, where it is on several.")
@click.option(
    "--write",
    "-w",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a pcap file (- is standard output) instead of a line a packet.",
)
@click.option("--count", "-c", type=click.IntRange(min=1), metavar="N", help="Stop after N packets.")
@click.option("--seconds", "-s", "duration_s", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Stop after S seconds.")
@AS_JSON
def capture(
    host: str,
    filter_: tuple[str, ...],
    network: str | None,
    file: Path | None,
    count: int | None,
    duration_s: float | None,
    as_json: bool,
) -> None:
    """Capture what a host sends and receives, at its port of the lab's switch: from outside, so the host does not notice.

    FILTER is tcpdump's (pcap-filter(7)). Ends with Ctrl-C, or as the options say. With --json the TCP segments and UDP
    datagrams are printed at the end.

    \b
    Examples:
      testbed capture server tcp port 8001
      testbed capture --write trace.pcap --seconds 10 server
    """
    from testbed import capture as capturing
    from testbed import wire
    from testbed.arguments import engine, lab_of, only_network

    with engine() as its_engine, lab_of(its_engine, host) as (lab, name), lab.switch as switch:
        device = lab.port(name, network or only_network(lab, name))
        wanted = " ".join(filter_)
        if not as_json:
            capturing.show(switch, device, wanted, file=file, count=count, duration_s=duration_s)
            return
        with capturing.capture(switch, device, filter=wanted, count=count) as running, capturing.ctrl_c_ends():
            running.wait(timeout_s=duration_s)
        print_json(wire.as_json(running.packets()))
