"""Verbs that need no lab: topology files, host images, the machine."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import click

from testbed.errors import InputError, TestbedError, TopologyError
from testbed.verbs import AS_JSON, Verbs, complain, print_json


@click.command()
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


@click.command()
def schema() -> None:
    """Print the JSON Schema of topology files, for editors.

    \b
    Example:
      testbed schema > topology.schema.json
    """
    from testbed.topology_file import json_schema

    print_json(json_schema())


@click.command()
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


@click.group(cls=Verbs, invoke_without_command=True)
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
    from testbed import derived, guest_image
    from testbed import images as host_images
    from testbed.architecture import of_machine
    from testbed.arguments import engine

    with engine() as its_engine:
        present, machine = its_engine.labels_of_images(), of_machine(its_engine.machine)
        guest = guest_image.default(machine)
        wanted = [(one.name, one.architecture.name, one.reference) for one in host_images.wanted_by(its_engine)]
        wanted.append((guest.name, guest.arch, guest_image.reference(guest, machine)))
        old = [*host_images.stale(its_engine), *guest_image.stale(present, machine), *derived.stale(its_engine, machine)]
        with_packages = [one for one in derived.present(its_engine) if one.reference not in old]
    rows = [
        {"name": name, "architecture": architecture, "reference": reference, "present": reference in present}
        for name, architecture, reference in wanted
    ]
    if as_json:
        print_json({"images": rows, "derived": [vars(one) for one in with_packages], "stale": old})
        return
    for row in rows:
        click.echo(f"{row['reference']}  {'there' if row['present'] else 'missing: testbed images build'}")
    for one in with_packages:
        click.echo(f"{one.reference}  with {one.wanted}" + (f" (not made: {one.left_out})" if one.left_out else ""))
    for reference in old:
        click.echo(f"{reference}  of another version: testbed images prune")


@images.command()
def build() -> None:
    """Build the images that are missing: of hosts of the machine's own architecture and of s390x, and of the s390x guest.

    Other guests are made when a lab first has one.

    \b
    Example:
      testbed images build
    """
    from testbed import guest_image
    from testbed import images as host_images
    from testbed.architecture import of_machine
    from testbed.arguments import engine
    from testbed.progress import Progress

    with engine() as its_engine, Progress() as progress:
        wanted, machine = host_images.wanted_by(its_engine), of_machine(its_engine.machine)
        guest = guest_image.default(machine)
        guest_image.build(its_engine, [one.architecture for one in wanted], [guest], machine, progress)
    for reference in (*(one.reference for one in wanted), guest_image.reference(guest, machine)):
        click.echo(f"{reference}  there")


@images.command()
@click.option("--packages", is_flag=True, help="Also the images with packages of their own that no lab has: `up` makes them anew.")
def prune(packages: bool) -> None:
    """Remove the images of other versions of testbed.

    \b
    Examples:
      testbed images prune
      testbed images prune --packages  take the newest packages the next time
    """
    from testbed import derived, guest_image
    from testbed import images as host_images
    from testbed.architecture import of_machine
    from testbed.arguments import engine

    with engine() as its_engine:
        guest_image.remove_leftovers(its_engine)
        machine = of_machine(its_engine.machine)
        others = [*guest_image.stale(its_engine.labels_of_images(), machine), *derived.stale(its_engine, machine)]
        others += derived.unused(its_engine) if packages else []
        for reference in dict.fromkeys(others):
            its_engine.remove_image(reference)
        for reference in (*dict.fromkeys(others), *host_images.remove_stale(its_engine)):
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


@click.command()
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


@click.command()
@click.option("--check", is_flag=True, help="Only say what is missing; exit code 1 when something is.")
def setup(check: bool) -> NoReturn:
    """Install what labs need of this machine and is not there, as root.

    That is a Docker engine, the tools that host images are made with, and emulation of s390x. What is there stays as it is.

    \b
    Examples:
      testbed setup --check
      sudo testbed setup
    """
    from testbed import shipped

    script = shipped.folder("setup") / "setup.sh"
    # The script needs a Python before there is any of its own, and prints the command for root.
    environment = {**os.environ, "PYTHON": sys.executable, "SETUP_AS_ROOT": shipped.as_root("setup")}
    os.execvpe("bash", ["bash", str(script), *(["--check"] if check else []), "machine"], environment)
