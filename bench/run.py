"""What the README promises about speed, measured: `make bench`.

Machines differ and are noisy, so two things are compared run by run in turn, and the median of the ratios counts.
Figures go to build/bench.json (or --output). Exit code 1 when a figure misses its target.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from testbed import guest_image, observe, shipped, topology_file
from testbed.architecture import of_machine
from testbed.engine import ContainerSpec, Engine
from testbed.host import Host
from testbed.images import wanted_by
from testbed.lab import Lab, container_name, down, parts_of
from testbed.process import run_local, wait_until
from testbed.reset import reset
from testbed.topology import Topology
from testbed.up import up

ROOT = Path(__file__).resolve().parent.parent
TESTBED = Path(sys.executable).with_name("testbed")
HOSTS = 30


@dataclass(frozen=True)
class Figure:
    """One measured thing. ``samples`` in ``unit``; ``target`` is the most that ``value``, their median, may be."""

    name: str
    unit: str
    samples: tuple[float, ...]
    target: float | None = None

    @property
    def value(self) -> float:
        return statistics.median(self.samples)

    @property
    def held(self) -> bool:
        return self.target is None or self.value <= self.target

    def line(self) -> str:
        spread = f"{min(self.samples):.3g} .. {max(self.samples):.3g}, n = {len(self.samples)}"
        verdict = "" if self.target is None else f"   at most {self.target:g}: {'held' if self.held else 'MISSED'}"
        return f"{self.name:64} {self.value:8.3g} {self.unit:5} ({spread}){verdict}"


def seconds(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def command(*argv: str | Path) -> float:
    """How long a whole process takes, in seconds; it must succeed."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody's installed command compiles its modules each time
    words = [str(word) for word in argv]
    return seconds(lambda: run_local(words, timeout_s=600, directory=ROOT).check())


def images(runs: int) -> list[Figure]:
    """Both images from nothing, and the check that they are there."""
    engine = Engine()
    cold = []
    for _ in range(runs):
        for one in wanted_by(engine):
            engine.remove_image(one.reference)
        cold.append(command(TESTBED, "images", "build"))
    warm = [command(TESTBED, "images", "build") for _ in range(5)]
    engine.close()
    return [Figure("images of both architectures, cold", "s", tuple(cold), 60), Figure("images, warm check", "s", tuple(warm), 0.5)]


def against_compose(runs: int) -> list[Figure]:
    """`testbed up` and `down` of 30 hosts on one network beside docker-compose with the same 30, in turn."""
    compose = shutil.which("docker-compose")
    if compose is None:
        raise SystemExit("bench: docker-compose is not on this machine; make bench installs it")
    with tempfile.TemporaryDirectory(prefix="testbed-bench") as folder:
        topology, other = Path(folder) / "bench-thirty.yaml", Path(folder) / "docker-compose.yml"
        topology.write_text(f"networks:\n  lan:\nhosts:\n  h:\n    count: {HOSTS}\n")
        engine = Engine()
        image = wanted_by(engine)[0].reference
        engine.close()
        other.write_text(
            f'version: "3"\nservices:\n  h:\n    image: {image}\n    scale: {HOSTS}\nnetworks:\n  default:\n    internal: true\n'
        )
        times: dict[str, list[float]] = {"up": [], "down": [], "compose up": [], "compose down": []}
        for number in range(runs + 1):
            ours = [command(TESTBED, "up", "--quiet", topology), command(TESTBED, "down", topology.stem)]
            theirs = [command(compose, "-f", other, "up", "-d"), command(compose, "-f", other, "down")]
            if number:  # the first round warms both up
                for name, value in zip(times, (*ours, *theirs), strict=True):
                    times[name].append(value)
    ratios = {what: tuple(a / b for a, b in zip(times[what], times[f"compose {what}"], strict=True)) for what in ("up", "down")}
    return [
        *(Figure(f"{name}, {HOSTS} hosts", "s", tuple(values)) for name, values in times.items()),
        Figure(f"up of {HOSTS} hosts, ratio to docker-compose", "", ratios["up"], 0.85),
        Figure(f"down of {HOSTS} hosts, ratio to docker-compose", "", ratios["down"], 0.6),
    ]


def main_job(runs: int) -> list[Figure]:
    """From nothing but the images to the table on the screen: `testbed up cross-endian` and `testbed exchange`."""
    samples = []
    for _ in range(runs):
        samples.append(command(TESTBED, "up", "cross-endian") + command(TESTBED, "exchange", "cross-endian"))
        command(TESTBED, "down", "cross-endian")
    return [Figure("up + main job + table, cross-endian", "s", tuple(samples), 6)]


@contextmanager
def cross_endian(name: str) -> Iterator[tuple[Engine, Lab]]:
    """A lab of hosts of all kinds, up under a name of the bench's own."""
    engine = Engine()
    topology = topology_file.load(shipped.find("cross-endian")).model_copy(update={"name": name})
    try:
        up(engine, topology)
        with Lab(engine, parts_of(engine, name)) as lab:
            yield engine, lab
    finally:
        down(engine, name)
        engine.close()


def reach(runs: int) -> list[Figure]:
    """`run(["true"])` on a host of each kind beside `docker exec` into its container, in turn."""
    figures = []
    with cross_endian("bench-reach") as (_, lab):
        for kind, name, target in (("native", "little-a", 5), ("emulated", "big-a", 15), ("vm", "big-vm", 15)):
            host, container = lab.host(name), container_name(lab.name, name)
            true = partial(host.run, ["true"])
            true().check()
            ours, theirs = [], []
            for number in range(20 * runs):
                ours.append(1000 * seconds(true))
                if number % 4 == 0 and kind != "vm":  # which has nothing but QEMU in its container
                    theirs.append(1000 * command("docker", "exec", container, "true"))
            figures.append(Figure(f'run(["true"]), {kind}', "ms", tuple(ours), target))
            figures += [Figure(f"docker exec true, {kind}", "ms", tuple(theirs))] if theirs else []
    return figures


def guests(runs: int) -> list[Figure]:
    """What a host with a kernel of its own costs more than a native one, in turn; booted and not restored; ten of them."""
    engine = Engine()
    labs = {
        kind: Topology.build({"name": f"bench-{kind}", "networks": {"lan": {}}, "hosts": {"h": {"kind": kind}}})
        for kind in ("native", "vm")
    }
    ten = Topology.build({"name": "bench-ten", "networks": {"lan": {}}, "hosts": {f"h{n}": {"kind": "vm"} for n in range(10)}})
    times: dict[str, list[float]] = {kind: [] for kind in labs}
    resident, all_ten = [], []
    try:
        for number in range(runs + 1):
            for kind, topology in labs.items():
                took = up(engine, topology).duration_s
                if number:  # the first round warms both up
                    times[kind].append(took)
                    resident += [_resident_mb(engine, topology.name, "h")] if kind == "vm" and engine.local else []
                down(engine, topology.name)
        for _ in range(min(runs, 3)):
            all_ten.append(up(engine, ten).duration_s)
            down(engine, ten.name)
        booted = [_boot(engine) for _ in range(min(runs, 3))]
    finally:
        for topology in (*labs.values(), ten):
            down(engine, topology.name)
        engine.close()
    more = tuple(vm - native for vm, native in zip(times["vm"], times["native"], strict=True))
    return [
        *(Figure(f"up of one {kind} host", "s", tuple(values)) for kind, values in times.items()),
        Figure("ready later than a native host, vm s390x", "s", more, 0.4),
        Figure("booted instead of restored, vm s390x", "s", tuple(booted), 6),
        *([Figure("resident memory of QEMU after up, vm s390x", "MB", tuple(resident), 110)] if resident else []),
        Figure("up of ten vm hosts", "s", tuple(all_ten)),
    ]


def _resident_mb(engine: Engine, lab: str, host: str) -> float:
    """VmRSS of the QEMU in a host's container: it is the first process's only child."""
    first = engine.inspect(parts_of(engine, lab).hosts[host].id).pid
    (qemu,) = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    line = next(line for line in Path(f"/proc/{qemu}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


def _boot(engine: Engine) -> float:
    """A guest from the image without a snapshot, from the container's start to the agent's answer."""
    machine = of_machine(engine.machine)
    guest = replace(guest_image.default(machine), networks=0)
    spec = ContainerSpec(
        name="testbed-bench-boot",
        image=guest_image.base_reference(guest, machine),
        argv=guest.runner_arguments("run"),
        labels={"testbed.role": "bench"},
        capabilities=["NET_ADMIN"],
        devices=guest.devices,
    )
    container = engine.create_container(spec)
    begin = time.monotonic()
    try:
        engine.start(container)
        for _, data in engine.output(container, follow=True):
            if b"vm: booted" in data:
                return time.monotonic() - begin
        raise SystemExit(f"bench: the guest did not boot: {engine.written(container)!r}")
    finally:
        engine.remove_container(container)


def resets(runs: int) -> list[Figure]:
    """A reset of hosts of each kind, one alone and four at once, beside taking them down and up again, in turn."""
    engine = Engine()
    figures = []
    try:
        for kind, target in (("native", 20), ("emulated", 20), ("vm", 700)):
            for count in (1, 4):
                hosts = {f"h{number}": {"kind": kind} for number in range(count)}
                topology = Topology.build({"name": f"bench-reset-{kind}-{count}", "networks": {"lan": {}}, "hosts": hosts})
                up(engine, topology)
                ours = []
                with Lab(engine, parts_of(engine, topology.name)) as lab:
                    for number in range(10 * runs + 1):
                        took = 1000 * seconds(partial(reset, lab)) / count
                        ours += [took] if number else []  # the first one makes the connections
                theirs = [1000 * seconds(partial(_again, engine, topology)) / count for _ in range(min(runs, 3))]
                down(engine, topology.name)
                of = "a host" if count == 1 else f"each of {count} hosts"
                figures += [Figure(f"reset of {of}, {kind}", "ms", tuple(ours), target)]
                figures += [Figure(f"down + up of {of}, {kind}", "ms", tuple(theirs))]
    finally:
        engine.close()
    return figures


def _again(engine: Engine, topology: Topology) -> None:
    down(engine, topology.name)
    up(engine, topology)


def links(runs: int) -> list[Figure]:
    """Round trips and throughput between hosts of each two kinds, and on a bare veth pair between the two native ones."""
    figures = []
    with cross_endian("bench-links") as (engine, lab):
        bare = _bare_pair(engine, lab, "little-a", "little-b")
        pairs = [("native to native", "little-a", "little-b"), ("native to emulated", "little-a", "big-a")]
        pairs += [("native to vm", "little-a", "big-vm"), ("emulated to vm", "big-a", "big-vm"), ("vm to native", "big-vm", "little-a")]
        samples: dict[str, tuple[list[float], list[float]]] = {}
        for _ in range(runs):
            for name, client, server in [("bare veth pair", "little-a", "little-b"), *pairs]:
                address = bare if name == "bare veth pair" else str(lab.host(server).addresses["lan"][0])
                trips, rates = samples.setdefault(name, ([], []))
                trips.append(_round_trip_ms(lab.host(client), address))
                rates.append(_megabytes_per_s(lab.host(client), lab.host(server), address))
    for name, (trips, rates) in samples.items():
        figures += [Figure(f"round trip, {name}", "ms", tuple(trips)), Figure(f"throughput of nc, {name}", "MB/s", tuple(rates))]
    return figures


def _bare_pair(engine: Engine, lab: Lab, one: str, other: str) -> str:
    """Join two hosts by a veth pair and nothing else; gives the address of the other's end."""
    pids = [engine.inspect(lab.host(name).container).pid for name in (one, other)]
    link = f"link add bare0 netns {pids[0]} type veth peer name bare0 netns {pids[1]}"
    lab.switch.run(["ip", "-batch", "-"], stdin=link.encode()).check()
    for number, name in enumerate((one, other), start=1):
        lab.host(name).run(["sh", "-c", f"ip addr add 192.0.2.{number}/24 dev bare0 && ip link set bare0 up"]).check()
    return "192.0.2.2"


def _round_trip_ms(client: Host, address: str) -> float:
    said = client.run(["ping", "-q", "-c", "50", "-i", "0.01", address]).check().text
    return float(said.rpartition(" = ")[2].split("/")[1])


def _megabytes_per_s(client: Host, server: Host, address: str) -> float:
    size = 100_000_000 if {client.kind, server.kind} == {"native"} else 20_000_000
    with server.start(["sh", "-c", "exec nc -l -N 28090 > /dev/null"]) as process:
        wait_until(lambda: 28090 in observe.listening_sockets(server.run), timeout_s=30, what="a listener")
        send = seconds(lambda: client.run(["sh", "-c", f"head -c {size} /dev/zero | nc -N {address} 28090"], timeout_s=300).check())
        process.wait(timeout_s=60)
    return size / send / 1e6


PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "images": lambda runs: images(min(runs, 3)),
    "compose": against_compose,
    "main-job": main_job,
    "reach": reach,
    "guests": guests,
    "resets": resets,
    "links": links,
}


def machine() -> dict[str, object]:
    engine = Engine()
    info = engine.info()
    engine.close()
    return {
        "cores": os.cpu_count(),
        "kernel": info.kernel,
        "engine": info.version,
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="what to measure; by default all")
    parser.add_argument("--runs", type=int, default=5, help="how often (default: 5)")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    chosen = parser.parse_args(arguments)
    about, figures = machine(), []
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    for part in chosen.parts or PARTS:
        for figure in PARTS[part](chosen.runs):
            print(figure.line(), flush=True)
            figures.append(figure)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    measured = [{**asdict(one), "value": one.value, "held": one.held} for one in figures]
    chosen.output.write_text(json.dumps({"machine": about, "figures": measured}, indent=2) + "\n")
    print(f"figures: {chosen.output}")
    return 0 if all(one.held for one in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
