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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from testbed import shipped, topology_file
from testbed.engine import Engine
from testbed.images import wanted_by
from testbed.lab import Lab, container_name, down, parts_of
from testbed.process import run_local
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


def reach(runs: int) -> list[Figure]:
    """`run(["true"])` on a native and an emulated host beside `docker exec`, in turn."""
    engine = Engine()
    topology = topology_file.load(shipped.find("cross-endian")).model_copy(update={"name": "bench-reach"})
    figures = []
    try:
        up(engine, topology)
        with Lab(engine, parts_of(engine, topology.name)) as lab:
            for kind, name in (("native", "little-a"), ("emulated", "big-a")):
                host, container = lab.host(name), container_name(lab.name, name)
                true = partial(host.run, ["true"])
                true().check()
                ours, theirs = [], []
                for number in range(20 * runs):
                    ours.append(1000 * seconds(true))
                    if number % 4 == 0:
                        theirs.append(1000 * command("docker", "exec", container, "true"))
                figures += [Figure(f'run(["true"]), {kind}', "ms", tuple(ours)), Figure(f"docker exec true, {kind}", "ms", tuple(theirs))]
    finally:
        down(engine, topology.name)
        engine.close()
    return figures


PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "images": lambda runs: images(min(runs, 3)),
    "compose": against_compose,
    "main-job": main_job,
    "reach": reach,
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
