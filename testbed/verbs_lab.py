"""Verbs about a whole lab: up, down, status, and the main job."""

from __future__ import annotations

import sys

import click

from testbed.errors import InputError, UnknownName
from testbed.verbs import AS_JSON, console, own_name, print_json


@click.command()
@click.argument("file")
@click.option("--name", metavar="LAB", help="The lab's name; by default the topology's.")
@click.option("--quiet", "-q", is_flag=True, help="Say nothing when all goes well.")
def up(file: str, name: str | None, quiet: bool) -> None:
    """Bring a lab up, or change it to what FILE says now.

    FILE is a topology file, or the name of a topology that comes with testbed. All or nothing: when anything
    fails, what was done is undone. A lab that is right already is left alone.

    \b
    Example:
      testbed up topologies/star.yaml
    """
    from testbed import up as bringing_up
    from testbed.arguments import engine, load
    from testbed.progress import Progress

    topology = load(file, name)
    with engine() as its_engine, Progress(total=len(topology.hosts)) as progress:
        outcome = bringing_up.up(its_engine, topology, progress=progress)
    for one in outcome.warnings:
        click.echo(f"testbed: warning: {one}", err=True)
    if quiet:
        return
    if outcome.difference.nothing:
        click.echo(f"lab {topology.name} is up already, as {file} says: nothing to do")
        return
    if outcome.difference.kept_hosts or outcome.difference.changed_hosts or outcome.difference.gone_hosts:
        for line in outcome.difference.lines():
            click.echo(line)
    hosts, networks = len(topology.hosts), len(topology.networks)
    click.echo(f"lab {topology.name} is up: hosts: {hosts}, networks: {networks}, {outcome.duration_s:.1f} s")


@click.command()
@click.argument("lab", required=False)
@click.option("--all", "everything", is_flag=True, help="Every lab that there is.")
def down(lab: str | None, everything: bool) -> None:
    """Remove a lab, whatever state it is in: its hosts, networks and all that is on them.

    LAB is a lab's name or its topology file.

    \b
    Examples:
      testbed down star
      testbed down --all
    """
    from testbed import lab as labs
    from testbed import lock
    from testbed.arguments import engine, lab_name

    if (lab is None) != everything:
        raise InputError("which lab is to be removed?", hint="testbed down LAB, or testbed down --all; testbed status lists them")
    with engine() as its_engine:
        known = {*labs.read_parts(its_engine), *lock.interrupted(its_engine.socket)}
        chosen = sorted(known) if everything else [lab_name(lab or "")]
        for one in chosen:
            if one not in known:
                raise UnknownName("lab", one, known)
            removed = labs.down(its_engine, one)
            click.echo(f"lab {one} is down: {len(removed.hosts)} hosts, {len(removed.networks)} networks removed")
        if everything and not chosen:
            click.echo("there is no lab")


@click.command()
@click.argument("lab")
@click.argument("hosts", metavar="[HOST]...", nargs=-1)
def reset(lab: str, hosts: tuple[str, ...]) -> None:
    """Make the hosts of a lab, or some of them, what they were when it came up.

    Processes, sockets, counters, firewall, queueing disciplines, sysctls and files are as the topology says. In place:
    20 milliseconds a host, half a second for a vm.

    \b
    Examples:
      testbed reset cross-endian
      testbed reset cross-endian little-a big-a
    """
    import time

    from testbed import reset as resetting
    from testbed.arguments import engine, lab_called

    with engine() as its_engine, lab_called(its_engine, lab) as there:
        begin = time.monotonic()
        resetting.reset(there, hosts or None)
        click.echo(f"lab {there.name}: hosts made new: {len(hosts or there.hosts)}, {time.monotonic() - begin:.2f} s")


@click.command()
@click.argument("lab", required=False)
@AS_JSON
def status(lab: str | None, as_json: bool) -> None:
    """Show the hosts of a lab, or of all labs: kind, architecture, byte order, whose kernel, addresses, state.

    \b
    Example:
      testbed status cross-endian --json
    """
    from testbed import lab as labs
    from testbed.arguments import engine, lab_name

    with engine() as its_engine:
        rows = labs.status(its_engine, None if lab is None else lab_name(lab))
    if as_json:
        print_json([row.as_json() for row in rows])
    elif rows:
        from testbed import report

        report.print_hosts(console(), rows)
    else:
        click.echo("there is no lab; bring one up: testbed up pair")


@click.command()
@click.argument("lab", required=False)
@click.option("--host-order", is_flag=True, help="Let the client forget htonl() and htons(), to see what happens then.")
@click.option("--integer", type=click.IntRange(0, 2**32 - 1), default=0x01020304, show_default="0x01020304", help="The integer to send.")
@click.option("--text", default="hello", show_default=True, help="The text to send.")
@AS_JSON
def exchange(lab: str | None, host_order: bool, integer: int, text: str, as_json: bool) -> None:
    """Let a C client and a C server on different hosts exchange an integer and a text, for every two kinds of host.

    Shows what the client had in memory, the bytes on the wire (from a capture), what the server read, and the verdict.
    Exit code 1 when a verdict is not HOLDS.

    \b
    Examples:
      testbed exchange cross-endian
      testbed exchange --host-order
    """
    from testbed import exchange as main_job
    from testbed import lab as labs
    from testbed import report
    from testbed.arguments import engine, lab_called

    with engine() as its_engine, lab_called(its_engine, lab) as there:
        results = main_job.exchange(there, host_order=host_order, integer=integer, text=text)
        if as_json:
            print_json(main_job.as_json(results))
        else:
            out = console()
            report.print_hosts(out, labs.status(its_engine, there.name))
            report.print_exchanges(out, results)
            one = results.exchanges[-1].observation.client.host  # a vm where there is one: the last kind shown
            report.print_next(out, there.name, host_order=host_order, host=one, command=own_name())
    if not main_job.all_hold(results):
        sys.exit(1)
