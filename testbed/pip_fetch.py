"""Packages of the Python Package Index for a host of any architecture, put together on this machine.

Run by itself (:mod:`testbed.packages`), in a place that goes away with it, with what is wanted as JSON; writes a tar: the packages
below ``root``, and ``said.json``. Wheels are taken as they are. What has none is built here, and good for every architecture if
nothing in it was compiled. Nothing of it runs on a host.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SITE = "usr/local/lib/python{version}/dist-packages"  # where Debian's Python looks for what did not come with Debian
GLIBC = range(36, 16, -1)  # 2.36 is that of Debian 12; a wheel for an older one is right there too
LAST_LINES = 8
NETWORK = re.compile(
    r"NewConnectionError|ConnectionError|ConnectTimeout|ReadTimeout|name resolution|ProxyError|SSLError|Network is unreach"
)
MISSING = re.compile(r"No matching distribution found for ([^\n]+?)(?: \(from [^\n]*\))?$", re.MULTILINE)
VERSIONS = re.compile(r"\(from versions: ([^)]*)\)")
OTHER_PYTHON = re.compile(
    r"Ignored the following versions that require a different python version: ([^\n]+)|requires a different Python: ([^\n]+)"
)


class Refused(Exception):
    """``kind``: unknown, python, compiled, build, network, conflict or no-pip; the others say more."""

    def __init__(self, kind: str, package: str = "", detail: str = "") -> None:
        super().__init__(kind)
        self.said = {"error": kind, "package": package, "detail": detail}


def platforms(machine: str) -> list[str]:
    """The platforms whose wheels run on a host, by uname's word for it."""
    older = ["manylinux2014", *(["manylinux2010", "manylinux1"] if machine == "x86_64" else []), "linux"]
    return [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"{one}_{machine}" for one in older]


def is_pure(wheel: str) -> bool:
    """Whether a wheel, by the name of its file (PEP 427), is for every architecture."""
    return wheel.removesuffix(".whl").rsplit("-", 1)[-1] == "any"


def missing(said: str) -> str:
    """The requirement that pip found nothing for; empty when it failed of something else."""
    found = MISSING.search(said)
    return found[1].strip() if found else ""


def refusal(said: str, package: str) -> Refused:
    """Why pip did not do it, out of what it wrote."""
    tail = "\n".join([line for line in said.strip().splitlines() if line.strip()][-LAST_LINES:])
    if NETWORK.search(said):
        return Refused("network", package, tail)
    if "No module named pip" in said:
        return Refused("no-pip", package, tail)
    if "ResolutionImpossible" in said:
        return Refused("conflict", package, tail)
    if package and missing(said):
        versions = VERSIONS.search(said)
        known = "" if versions is None or versions[1] == "none" else versions[1]
        if other := OTHER_PYTHON.search(said):
            return Refused("python", package, other[1] or other[2])
        return Refused("unknown", package, known)
    if other := OTHER_PYTHON.search(said):
        return Refused("python", package, other[1] or other[2])
    return Refused("build", package, tail)


def pip(*arguments: str) -> tuple[bool, str]:
    argv = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, errors="backslashreplace", check=False)
    return done.returncode == 0, done.stdout + done.stderr


def fetch(requirements: Sequence[str], machine: str, python: str, place: Path) -> list[str]:
    """Put the packages and what they need below ``place``/root; gives their names with versions. Raises :class:`Refused`."""
    wheels, built, root = place / "wheels", place / "built", place / "root"
    for one in (wheels, built):
        one.mkdir()
    site = root / SITE.format(version=python)
    host = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
    host += [f"--platform={one}" for one in platforms(machine)]
    online = ["--retries=1", "--timeout=15"]
    tried: set[str] = set()
    while True:
        done, said = pip("download", *online, *host, f"--dest={wheels}", f"--find-links={built}", *requirements)
        if done:
            break
        without = missing(said)
        if not without or without in tried:
            raise refusal(said, without)
        tried.add(without)
        _build(without, online, built)
    files = [str(one) for one in sorted(wheels.glob("*.whl"))]
    done, said = pip("install", "--no-index", "--no-deps", "--no-compile", "--no-warn-script-location", *host, f"--target={site}", *files)
    if not done:
        raise refusal(said, "")
    _scripts(site, root / "usr/local/bin")
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        # Its bytecode is the same for all architectures, and an emulated host takes seconds to make it.
        how = ["-q", "-s", str(root), "-p", "/", "--invalidation-mode", "unchecked-hash"]
        subprocess.run([sys.executable, "-m", "compileall", *how, str(site)], stdout=subprocess.DEVNULL, check=False)
    return [" ".join(Path(one).name.split("-")[:2]) for one in files]


def _build(requirement: str, online: Sequence[str], into: Path) -> None:
    """Make a wheel of a package that has none. One that was compiled is of no use to a host of another architecture."""
    before = set(into.iterdir())
    done, said = pip("wheel", *online, "--no-deps", f"--wheel-dir={into}", requirement)
    if not done:
        raise refusal(said, requirement)
    for one in set(into.iterdir()) - before:
        if not is_pure(one.name):
            raise Refused("compiled", " ".join(one.name.split("-")[:2]), one.name)


def _scripts(site: Path, into: Path) -> None:
    """Commands belong where a host looks for them, and are for its Python, not for this one."""
    if not (site / "bin").is_dir():
        return
    into.mkdir(parents=True)
    for one in (site / "bin").iterdir():
        first, _, rest = one.read_bytes().partition(b"\n")
        wrapped = first == b"#!/bin/sh" and rest.startswith(b"'''exec'")  # where this Python's path is too long for the kernel
        if wrapped or (first.startswith(b"#!") and b"python" in first):
            one.write_bytes(b"#!/usr/bin/python3\n" + (rest.split(b"\n", 2)[2] if wrapped else rest))
        one.rename(into / one.name)
        (into / one.name).chmod(0o755)
    (site / "bin").rmdir()


def main() -> None:
    wanted: dict[str, Any] = json.loads(sys.argv[1])
    place = Path.cwd()
    try:
        said: dict[str, Any] = {"versions": fetch(wanted["requirements"], wanted["machine"], wanted["python"], place)}
    except Refused as refused:
        said = refused.said
    (place / "said.json").write_text(json.dumps(said))
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
        tar.add(place / "said.json", "said.json")
        if (place / "root").is_dir():
            tar.add(place / "root", "root")


if __name__ == "__main__":
    main()
