"""The `testbed` command: thin. It reads arguments, calls one function, prints what that gives.

Exit codes: 0 done and held; 1 a check failed; 2 the user's input is wrong; 3 the lab or the engine broke; 130 Ctrl-C.
`exec` and `shell` leave with the remote command's own code.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import click

from testbed.errors import InputError, TestbedError, TopologyError, UnknownName, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
INTERRUPTED = 130
PLAIN_WIDTH = 110


class Verbs(click.Group):
    """The verbs in the order in which one meets them, and the nearest one for a slip of the keyboard."""

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002  # click calls it so
        return list(self.commands)

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(context, args[0]) is None and not args[0].startswith("-"):
            hint = f"verbs: {', '.join(self.list_commands(context))}"
            raise InputError(f"there is no verb '{args[0]}'{did_you_mean(args[0], self.list_commands(context))}", hint=hint)
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:
            # Whoever read our output has seen enough. click would make that exit code 1, which means something else here.
            from testbed.terminal import nobody_reads

            nobody_reads()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="testbed", prog_name="testbed")
def testbed() -> None:
    """Client and server socket code on several real hosts of both byte orders.

    \b
    A first lab:
      testbed up cross-endian          little- and big-endian hosts on one network
      testbed exchange                 let them talk, and see the bytes on the wire
      testbed exec big-a uname -m      run something on a host
      testbed down cross-endian        remove it all

    A HOST is a host's name, or LAB/HOST where several labs have one of that name.
    """


# Labs


@testbed.command()
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
    with engine() as its_engine, Progress(errors_console(), total=len(topology.hosts)) as progress:
        outcome = bringing_up.up(its_engine, topology, progress=progress)
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


@testbed.command()
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
        known = {*labs.read_parts(its_engine), *lock.interrupted()}
        chosen = sorted(known) if everything else [lab_name(lab or "")]
        for one in chosen:
            if one not in known:
                raise UnknownName("lab", one, known)
            removed = labs.down(its_engine, one)
            click.echo(f"lab {one} is down: {len(removed.hosts)} hosts, {len(removed.networks)} networks removed")
        if everything and not chosen:
            click.echo("there is no lab")


@testbed.command()
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


# Hosts


@testbed.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
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


@testbed.command()
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
        sys.exit(interactive(its_engine, there, ["sh"]))


@testbed.command()
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


@testbed.command()
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


@testbed.command()
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


@testbed.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
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


# The main job


@testbed.command()
@click.argument("lab", required=False)
@click.option("--host-order", is_flag=True, help="Let the client forget htonl() and htons(), to see what happens then.")
@click.option("--integer", type=click.IntRange(0, 2**32 - 1), default=0x01020304, show_default="0x01020304", help="The integer to send.")
@click.option("--text", default="hello", show_default=True, help="The text to send.")
@AS_JSON
def exchange(lab: str | None, host_order: bool, integer: int, text: str, as_json: bool) -> None:
    """Let a C client and a C server on different hosts exchange an integer and a text, in all combinations of byte order.

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
            report.print_next(out, there.name, host_order=host_order, command=own_name())
    if not main_job.all_hold(results):
        sys.exit(1)


# Files


@testbed.command()
@click.argument("files", nargs=-1, required=True)
@AS_JSON
def validate(files: tuple[str, ...], as_json: bool) -> None:
    """Check topology files, without an engine.

    \b
    Example:
      testbed validate my-lab.yaml
    """
    from testbed.arguments import load

    results: list[dict[str, Any]] = []
    for file in files:
        try:
            topology = load(file)
        except InputError as error:
            place = {"line": error.line, "column": error.column} if isinstance(error, TopologyError) else {"line": 0, "column": 0}
            results.append({"file": file, "ok": False, **place, "error": error.message, "hint": error.hint})
            if not as_json:
                complain(error)
        else:
            results.append({"file": file, "ok": True, "hosts": len(topology.hosts), "networks": len(topology.networks)})
            if not as_json:
                click.echo(f"{file}: right: hosts: {len(topology.hosts)}, networks: {len(topology.networks)}")
    if as_json:
        print_json(results)
    if not all(one["ok"] for one in results):
        sys.exit(InputError.exit_code)


@testbed.command()
def schema() -> None:
    """Print the JSON Schema of topology files, for editors.

    \b
    Example:
      testbed schema > topology.schema.json
    """
    from testbed.topology_file import json_schema

    print_json(json_schema())


@testbed.command()
@click.argument("file")
@click.option("--format", "form", default="mermaid", show_default=True, help="mermaid or dot.")
@AS_JSON
def graph(file: str, form: str, as_json: bool) -> None:
    """Draw a topology, as the text of a Mermaid or Graphviz diagram.

    \b
    Example:
      testbed graph routed --format dot | dot -Tsvg > routed.svg
    """
    from testbed import graph as drawing
    from testbed.arguments import load

    topology = load(file)
    if as_json:
        print_json(drawing.as_json(topology))
    else:
        click.echo(drawing.draw(topology, form), nl=False)


# The machine


@testbed.group(cls=Verbs, invoke_without_command=True)
@click.pass_context
@AS_JSON
def images(context: click.Context, as_json: bool) -> None:
    """List the images that hosts are made from; build or remove them. `up` builds what it needs by itself.

    \b
    Examples:
      testbed images
      testbed images build
      testbed images prune             remove those of other versions of testbed
    """
    if context.invoked_subcommand:
        return
    from testbed import images as host_images
    from testbed.arguments import engine

    with engine() as its_engine:
        wanted, present, old = host_images.wanted_by(its_engine), its_engine.list_images(), host_images.stale(its_engine)
    rows = [{"architecture": one.architecture.name, "reference": one.reference, "present": one.reference in present} for one in wanted]
    if as_json:
        print_json({"images": rows, "stale": old})
        return
    for row in rows:
        click.echo(f"{row['reference']}  {'there' if row['present'] else 'missing: testbed images build'}")
    for reference in old:
        click.echo(f"{reference}  of another version: testbed images prune")


@images.command()
def build() -> None:
    """Build the images that are missing, for the machine's own architecture and for s390x.

    \b
    Example:
      testbed images build
    """
    from testbed import images as host_images
    from testbed.arguments import engine
    from testbed.progress import Progress

    with engine() as its_engine, Progress(errors_console()) as progress:
        wanted = host_images.wanted_by(its_engine)
        host_images.build(its_engine, [one.architecture for one in wanted], progress)
    for one in wanted:
        click.echo(f"{one.reference}  there")


@images.command()
def prune() -> None:
    """Remove the images of other versions of testbed.

    \b
    Example:
      testbed images prune
    """
    from testbed import images as host_images
    from testbed.arguments import engine

    with engine() as its_engine:
        for reference in host_images.remove_stale(its_engine):
            click.echo(f"{reference}  removed")


@images.command()
def remove() -> None:
    """Remove all host images; no lab may be up.

    \b
    Example:
      testbed down --all && testbed images remove
    """
    from testbed.arguments import engine

    with engine() as its_engine:
        for reference in its_engine.list_images():
            its_engine.remove_image(reference)
            click.echo(f"{reference}  removed")


@testbed.command()
@AS_JSON
def doctor(as_json: bool) -> None:
    """Check everything that testbed needs of this machine, and say how to mend what is wrong.

    Exit code 3 when something is.

    \b
    Example:
      testbed doctor
    """
    from testbed import doctor as checks
    from testbed.arguments import engine
    from testbed.engine import EngineInfo
    from testbed.machine import read_machine
    from testbed.up import taken

    answer: EngineInfo | TestbedError
    subnets, directory = [], "/var/lib/docker"
    try:
        with engine() as its_engine:
            answer, subnets = its_engine.info(), taken(its_engine, "")
            directory = answer.data_directory
    except TestbedError as error:
        answer = error
    findings = checks.examine(read_machine(data_directory=directory), answer, subnets)
    if as_json:
        print_json(checks.as_json(findings))
    else:
        click.echo("\n".join(checks.as_lines(findings)))
    if not checks.all_ok(findings):
        sys.exit(TestbedError.exit_code)


# What the verbs share


def print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2, default=str))


def own_name() -> str:
    """How one calls this command here: by name where the shell finds it, else by its path."""
    return "testbed" if shutil.which("testbed") else os.path.relpath(sys.argv[0])


def console() -> Console:
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> NoReturn:
            raise BrokenPipeError  # as every other output does; rich would leave with exit code 1

    # Where nobody looks at a terminal nothing is to be cut or folded to its width.
    return Output(highlight=False) if sys.stdout.isatty() else Output(highlight=False, width=PLAIN_WIDTH)


def errors_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def complain(error: TestbedError) -> None:
    click.echo(f"testbed: {error}", err=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: every error of ours becomes a message and an exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _as_interrupt)
    _open_missing_streams()
    sys.exit(_run(lambda: testbed.main(args=arguments, prog_name="testbed", standalone_mode=False)))


def _as_interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _run(verb: Callable[[], object]) -> int:
    try:
        verb()
    except TestbedError as error:
        complain(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return InputError.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("testbed: interrupted", err=True)
        return INTERRUPTED
    except OSError as error:
        # Mostly our own output: a full disk.
        click.echo(f"testbed: {': '.join(str(part) for part in (error.filename, error.strerror or error) if part)}", err=True)
        return TestbedError.exit_code
    return 0


def _open_missing_streams() -> None:
    """Standard streams that were closed are /dev/null: else the next file or socket to be opened would be one of them."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # open for as long as this process lives
