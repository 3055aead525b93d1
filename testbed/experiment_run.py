"""Experiments on real hosts: a lab for each kind of host, hosts made new before each experiment, records saved before they are judged."""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.api import Lab
from testbed.architecture import ARCHITECTURES, of_machine
from testbed.errors import InputError, TestbedError, did_you_mean
from testbed.experiment import Cell, CellRun, Experiment, Facts, KindOfHost, Record, Scalar
from testbed.experiment_stage import PATIENCE_S, Stage
from testbed.experiment_watch import watching
from testbed.guest import DEFAULT_KERNEL, KERNELS, MODELS
from testbed.json_text import json_text
from testbed.topology import Host as HostSpec
from testbed.topology import Network, Topology

NETWORK = "lan"
# Below the range that a kernel takes clients' ports from, so that no client ever sits on a server's.
FIRST_PORT, LAST_PORT = 20_000, 32_000
RECORDS = Path("testbed-records")
_pythons: dict[str, str] = {}
"""The version of Python in an image, by its reference, which is a digest."""


@dataclass(frozen=True)
class On:
    """The kind of host that an experiment's subjects are; of a vm its architecture (Debian's name) and the suite of its kernel."""

    kind: KindOfHost
    arch: str = ""
    kernel: str = ""

    @classmethod
    def named(cls, name: str, kernel: str | None = None) -> On:
        """``native``, ``emulated``, ``vm`` (which is ``vm-s390x``), ``vm-amd64``. Raises :class:`InputError`."""
        guests = {f"vm-{arch}": arch for arch in MODELS}
        guests["vm"] = "s390x"
        if name in guests:
            if kernel is not None and kernel not in KERNELS:
                raise InputError(f"there is no kernel '{kernel}'{did_you_mean(kernel, KERNELS)}", hint=f"one of: {', '.join(KERNELS)}")
            return cls("vm", guests[name], kernel or DEFAULT_KERNEL)
        if kernel is not None:
            raise InputError(f"a host of kind {name} has no kernel of its own to choose", hint="--kernel is for --on vm-s390x and vm-amd64")
        if name == "native":
            return cls("native")
        if name == "emulated":
            return cls("emulated")
        known = ["native", "emulated", *guests]
        raise InputError(f"there is no kind of host '{name}'{did_you_mean(name, known)}", hint=f"one of: {', '.join(known)}")

    @property
    def slug(self) -> str:
        """Its name, for a file and for a lab."""
        return "-".join(part for part in (self.kind, self.arch, self.kernel) if part)

    def __str__(self) -> str:
        return self.kind if self.kind != "vm" else f"vm {self.arch}, kernel {self.kernel}"

    def host(self) -> HostSpec:
        if self.kind == "vm":
            return HostSpec.model_validate({"kind": "vm", "arch": self.arch, "kernel": self.kernel, "networks": {NETWORK: {}}})
        return HostSpec(kind=self.kind, networks=[NETWORK])


def why_not(experiment: Experiment, on: On) -> str:
    """Why an experiment does not run on that kind of host; nothing when it does."""
    return "" if on.kind in experiment.kinds else experiment.refused[on.kind]


def topology(name: str, experiments: Iterable[Experiment], on: On) -> Topology:
    """Hosts for all of them, which have the same subjects."""
    subjects = {role for one in experiments for role in one.subjects}
    others = {role for one in experiments for role in one.others}
    hosts = {role: HostSpec(networks=[NETWORK]) for role in sorted(others - subjects)}
    hosts |= {role: on.host() for role in sorted(subjects)}
    return Topology(name=name, networks={NETWORK: Network()}, hosts=hosts)


def run(
    experiment: Experiment,
    lab: Lab,
    on: On,
    *,
    parameters: Mapping[str, Scalar] | None = None,
    sysctls: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
    saw: Callable[[int, int], None] = lambda *_: None,
    watch: bool = True,
) -> Record:
    """Run an experiment in a lab that has its hosts; gives what was observed, not yet judged.

    ``sysctls`` are the user's: on the subjects, after those of the experiment and of the cell, so they win. ``patience_s`` seconds
    are waited for what does not come. What goes wrong in a cell is that cell's problem, and the others are still tried.
    ``saw(done, of)`` is called after each cell. Without ``watch`` the record has no packets.
    Raises :class:`InputError` when this kind of host cannot show it, or has not such a sysctl.
    """
    if reason := why_not(experiment, on):
        raise InputError(f"experiment {experiment.name} does not run on {on}: {reason}")
    chosen = dict(parameters if parameters is not None else experiment.with_values({}))
    begun, clock = datetime.now(UTC), time.monotonic()
    lab.reset(experiment.hosts)
    stage = Stage({role: lab.host(role) for role in experiment.hosts}, chosen, network=NETWORK, patience_s=patience_s)
    hosts, facts = _facts(lab, experiment, chosen)
    _pin(stage, experiment, sysctls or {})
    cells, seen = experiment.cells(chosen), []
    if unpinned := {name for cell in cells for name in cell.sysctls} - set(experiment.sysctls):
        hint = "each cell would leave its value to the next; name them in the experiment's sysctls"
        raise InputError(f"experiment {experiment.name} changes {', '.join(sorted(unpinned))} without pinning it", hint=hint)
    names = [cell.name for cell in cells]
    watched = names.index(experiment.watched) if experiment.watched in names else 0
    there: Mapping[str, int | str] = {}
    for number, cell in enumerate(cells):
        if number and experiment.reset_each_cell:
            stage.close()
            lab.reset(experiment.hosts)
            _pin(stage, experiment, sysctls or {})
            there = {}
        wanted, pinned = _sysctls(experiment, cell, sysctls or {}), {**experiment.sysctls, **(sysctls or {})}
        changed = [name for name, value in wanted.items() if value != {**pinned, **there}[name]]
        port = FIRST_PORT + number % (LAST_PORT - FIRST_PORT)
        here = lab if watch and number == watched and len(experiment.hosts) > 1 else None
        seen.append(_run_cell(experiment, stage, cell, port, sysctls or {}, changed, here))
        there = wanted
        saw(number + 1, len(cells))
    _close(stage)
    return Record(
        experiment=experiment.name,
        facts=facts,
        cells=seen,
        set_by_user=dict(sysctls or {}),
        hosts=hosts,
        versions=_versions(lab, experiment),
        begun=begun.isoformat(timespec="seconds"),
        duration_s=round(time.monotonic() - clock, 3),
    )


def save(record: Record, directory: Path, on: On) -> Path:
    """Write a record to a file of its own. Raises :class:`InputError` when that cannot be."""
    stamp = re.sub(r"[-:]|\+.*", "", record.begun)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            path = directory / f"{record.experiment}.{on.slug}.{stamp}.{number}.json"
            try:
                with path.open("x") as file:
                    file.write(json_text(record.as_json()))
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise InputError(
            f"{directory}: the record cannot be written: {error.strerror or error}", hint="--records names another folder"
        ) from None
    raise InputError(f"{directory} is full of records of this very second")


def load(path: Path) -> Record:
    """A record that was saved. Raises :class:`InputError`."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        return Record.from_json(data)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", hint=error.hint) from None


# One cell


def _sysctls(experiment: Experiment, cell: Cell, by_user: Mapping[str, str]) -> dict[str, int | str]:
    """What the subjects are to have in a cell. The user's word counts most, then the cell's."""
    return {**experiment.sysctls, **cell.sysctls, **by_user}


def _run_cell(
    experiment: Experiment, stage: Stage, cell: Cell, port: int, by_user: Mapping[str, str], changed: Sequence[str], watch: Lab | None
) -> CellRun:
    """One cell; ``changed`` are the sysctls that the subjects do not have yet as this cell wants them. It is watched in the lab
    ``watch``, if any."""
    stage.begin(port)
    seen: Mapping[str, Any] = {}
    read_back: dict[str, int | str] = {}
    traffic: dict[str, Any] = {}
    problem = ""
    try:
        wanted = _sysctls(experiment, cell, by_user)
        for role in experiment.subjects:
            stage.hosts[role].sysctl.set_several({name: wanted[name] for name in changed})
        read_back = stage.hosts[experiment.subjects[0]].sysctl.several(wanted)
        with watching(watch, stage, NETWORK, traffic) if watch else nullcontext():
            experiment.provoke(stage, cell)
            seen = dict(experiment.observe(stage, cell))
        json.dumps(seen)  # or it could not be saved
    except InputError:
        raise  # what the user asked for makes no sense on this host, in no cell
    except TestbedError as error:
        problem = error.message
    except Exception as error:  # noqa: BLE001 # a mistake in an experiment, anybody's: this cell says nothing
        problem = f"{type(error).__name__}: {error}"
    run = CellRun(cell.name, cell.values, read_back, {} if problem else seen, problem, tuple(stage.steps), traffic)
    try:
        stage.clean()
    except TestbedError as error:
        _close(stage)
        run = replace(run, problem=run.problem or f"it could not be cleaned up: {error.message}")
    return run


def _pin(stage: Stage, experiment: Experiment, by_user: Mapping[str, str]) -> None:
    for role in experiment.hosts:
        mine = by_user if role in experiment.subjects else {}
        stage.hosts[role].sysctl.set_several({**experiment.sysctls, **mine})


def _close(stage: Stage) -> None:
    try:
        stage.close()
    except TestbedError:
        pass  # the host is gone, and with it what ran there; its cells say so


# Who took part


def _facts(lab: Lab, experiment: Experiment, parameters: Mapping[str, Scalar]) -> tuple[list[dict[str, Any]], Facts]:
    rows = {row.name: row for row in lab.status() if row.name in experiment.hosts}
    hosts = []
    for role in experiment.hosts:
        image = lab.running.settings[role]["image"]  # whose tag is a digest of all that it is made of, QEMU too
        hosts.append({**rows[role].as_json(), "subject": role in experiment.subjects, "image": image})
    subject = rows[experiment.subjects[0]]
    return hosts, Facts(subject.kind, subject.arch, ARCHITECTURES[subject.arch].byte_order, subject.kernel, subject.kernel_of, parameters)


def _versions(lab: Lab, experiment: Experiment) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("testbed")
    except PackageNotFoundError:  # a checkout that is not installed
        own = "unknown"
    info = lab.running.engine.info()
    found = {"testbed": own, "python": platform.python_version(), "engine": info.version, "machine": of_machine().name}
    for role in experiment.subjects:
        image = lab.running.settings[role]["image"]
        if image not in _pythons:
            _pythons[image] = lab.host(role).run(["python3", "-V"]).text.split()[-1]
        found[f"python on {role}"] = _pythons[image]
    return found
