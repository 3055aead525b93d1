"""Bringing a lab up: what it is to be, what there is, and the difference carried out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import derived, guest_image, kvm
from testbed.architecture import EMULATED, Architecture, of_machine
from testbed.change import Change, Progress, silent
from testbed.derived import Derived
from testbed.doctor import binfmt_problem
from testbed.engine import Engine
from testbed.errors import GuestFailed, InputError, LabError, SubnetTaken
from testbed.guest import Guest
from testbed.lab import LAB, NETWORK, RUN, existing, parts_of, settle
from testbed.lock import lock
from testbed.network import Taken, machine_routes
from testbed.plan import Difference, architecture_of, compare, guest_of, make_plan
from testbed.process import Deadline
from testbed.runs import Run
from testbed.shipped import setup_command

if TYPE_CHECKING:
    from testbed.topology import Topology  # types alone: pydantic takes long to load

SUBNET_S = 10.0  # for labs that come up at the same time to agree on who has which subnet


@dataclass(frozen=True)
class Outcome:
    """What `up` did: the difference it carried out (``nothing`` when the lab was right already), and how long it took,
    and what of it went otherwise than it should, and yet well."""

    difference: Difference
    duration_s: float
    warnings: tuple[str, ...] = ()


def up(engine: Engine, topology: Topology, *, progress: Progress = silent, new: bool = False, run: Run | None = None) -> Outcome:
    """Make the lab of this name what the topology says. Raises TestbedError, and leaves what was there before.

    With ``new`` a lab of this name that is there already is somebody's, and an :class:`InputError`; what an interrupted
    `up` left is nobody's. The lab of a ``run`` is there for as long as that process is: whoever comes later may remove it.
    """
    begin = time.monotonic()
    files = read_files(topology)
    machine = of_machine(engine.machine)
    containers = [one for one in topology.hosts.values() if one.kind != "vm"]
    # The machine's own first: the switch needs it whatever the hosts are.
    wanted = dict.fromkeys((machine, *(architecture_of(one, machine) for one in containers)))
    if EMULATED in wanted and machine != EMULATED and engine.local and (problem := binfmt_problem()):
        raise LabError(problem, hint=f"run: {setup_command()}")
    with lock(topology.name, engine.socket) as held:
        if new and not held.interrupted and parts_of(engine, topology.name):
            raise InputError(
                f"lab '{topology.name}' is up already",
                hint=f"give this one another name, use that one, or remove it: testbed down {topology.name}",
            )
        if held.interrupted:
            progress(topology.name, "the last up was interrupted: waiting for the engine")
            settle(engine, topology.name)
        by_architecture, guests, references = build_images(engine, topology, list(wanted), machine, progress)
        patience = Deadline(SUBNET_S)
        warnings: tuple[str, ...] = ()
        labels = {RUN: str(run)} if run else {}
        while True:
            parts = parts_of(engine, topology.name)
            there = existing(engine, parts, interrupted=held.interrupted)
            others = taken(engine, topology.name)
            plan = make_plan(topology, machine=machine, images=references, guests=guests, taken=others, existing=there, files=files)
            difference = compare(there, plan)
            try:
                if not difference.nothing or parts.retired or not there.switch:
                    change = Change(engine, parts, there, plan, difference, files, by_architecture[machine.name], progress, labels=labels)
                    change.carry_out(held)
                    warnings = tuple(change.warnings)
                break
            except SubnetTaken:
                # Somebody took the subnet since it was chosen, so choose again; a network that is being made is not listed yet.
                if patience.passed:
                    raise
        held.done()
    return Outcome(difference, time.monotonic() - begin, warnings)


def build_images(
    engine: Engine, topology: Topology, hosts: Sequence[Architecture], machine: Architecture, progress: Progress
) -> tuple[dict[str, str], dict[str, Guest], dict[str, str]]:
    """The host images of some architectures, by architecture; what each vm host is: on KVM where that runs guests, else emulated; and the
    image of each host. All of them are made."""

    def build(*, on_kvm: bool) -> tuple[dict[str, str], dict[str, Guest], dict[str, str]]:
        guests = {name: guest_of(one, machine, kvm=on_kvm) for name, one in topology.hosts.items() if one.kind == "vm"}
        made = guest_image.build(engine, hosts, guests.values(), machine, progress)
        by_architecture = {one.architecture.name: one.reference for one in made}
        references = {
            name: guest_image.reference(guests[name], machine) if name in guests else by_architecture[architecture_of(host, machine).name]
            for name, host in topology.hosts.items()
        }
        with_packages = {
            name: Derived(host.extras, architecture_of(host, machine), machine, guests.get(name))
            for name, host in topology.hosts.items()
            if host.extras
        }
        derived.build(engine, with_packages, progress)
        return by_architecture, guests, references | {name: one.reference for name, one in with_packages.items()}

    on_kvm = engine.local and any(one.kind == "vm" and architecture_of(one, machine) == machine for one in topology.hosts.values())
    if on_kvm and kvm.works():
        try:
            return build(on_kvm=True)
        except GuestFailed as error:
            if error.accelerator != "kvm":
                raise
            kvm.give_up(error.message.splitlines()[0])
            progress(topology.name, "KVM runs no guest on this machine, so guests are emulated")
    return build(on_kvm=False)


def taken(engine: Engine, lab: str) -> list[Taken]:
    """The subnets that this lab cannot have: those of other networks and of the machine's own routes."""
    others = [one for one in engine.networks() if one.labels.get(LAB) != lab]
    subnets = [Taken(subnet, _owner(one.name, one.labels)) for one in others for subnet in one.subnets]
    return subnets + (machine_routes() if engine.local else [])


def _owner(name: str, labels: Mapping[str, str]) -> str:
    return f"network '{labels[NETWORK]}' of lab '{labels[LAB]}'" if LAB in labels else f"Docker's network '{name}'"


def read_files(topology: Topology) -> dict[str, dict[str, bytes]]:
    """host -> path on it -> content. Raises :class:`InputError` for a source that cannot be read."""
    read: dict[str, dict[str, bytes]] = {}
    for name, host in topology.hosts.items():
        read[name] = {}
        for path, file in host.files.items():
            try:
                read[name][path] = Path(file.source).read_bytes() if file.source is not None else (file.content or "").encode()
            except OSError as error:
                raise InputError(f"host '{name}': {file.source} cannot be read: {error.strerror}") from error
    return read
