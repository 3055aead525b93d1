"""What arguments of the command line mean: a file, a lab, a host, a path on a host, a variable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.engine import Engine
from testbed.errors import InputError, UnknownName
from testbed.host import Host
from testbed.lab import Lab, Parts, read_parts

if TYPE_CHECKING:
    from testbed.topology import Topology


@contextmanager
def engine() -> Iterator[Engine]:
    found = Engine()
    try:
        yield found
    finally:
        found.close()


def load(file: str, name: str | None = None) -> Topology:
    """The topology of a file, or of one that comes with testbed when there is no file of that name."""
    # Late: pydantic takes long to load, and most verbs read no topology.
    from testbed import shipped, topology_file
    from testbed.topology_values import read_name

    topology = topology_file.load(shipped.find(file))
    return topology if name is None else topology.model_copy(update={"name": read_name(name)})


def lab_name(lab_or_file: str) -> str:
    """A lab's name, or that of the lab that a topology file makes, whatever else is wrong in the file by now."""
    if not lab_or_file.endswith((".yaml", ".yml")):
        return lab_or_file
    from testbed import topology_yaml
    from testbed.topology_values import slug

    path = Path(lab_or_file)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError):
        return load(lab_or_file).name  # which says what is wrong
    root = topology_yaml.read(text, file=lab_or_file).value
    name = root.get("name") if isinstance(root, dict) else None
    return str(name.value) if name and name.value else slug(path.stem)


@contextmanager
def lab_called(its_engine: Engine, lab: str | None) -> Iterator[Lab]:
    """The lab of that name or file, or the only one there is."""
    labs = read_parts(its_engine)
    if lab is None:
        if len(labs) != 1:
            hint = f"one of: {', '.join(labs)}" if labs else "bring one up: testbed up cross-endian"
            raise InputError(f"there are {len(labs)} labs; which one?" if labs else "there is no lab", hint=hint)
        lab = next(iter(labs))
    name = lab_name(lab)
    if name not in labs:
        raise UnknownName("lab", name, labs)
    with Lab(its_engine, labs[name]) as found:
        yield found


@contextmanager
def lab_of(its_engine: Engine, host: str) -> Iterator[tuple[Lab, str]]:
    """The lab that a HOST argument means, and the host's name in it."""
    parts, name = _place(read_parts(its_engine), host)
    with Lab(its_engine, parts) as lab:
        yield lab, name


@contextmanager
def host_called(its_engine: Engine, host: str) -> Iterator[Host]:
    """The host that a HOST argument means: NAME, or LAB/NAME."""
    with lab_of(its_engine, host) as (lab, name):
        yield lab.host(name)


def _place(labs: dict[str, Parts], host: str) -> tuple[Parts, str]:
    lab, _, name = host.rpartition("/")
    if lab:
        if lab not in labs:
            raise UnknownName("lab", lab, labs)
        if name not in labs[lab].hosts:
            raise UnknownName(f"host of lab '{lab}'", name, labs[lab].hosts)
        return labs[lab], name
    having = [one for one, parts in labs.items() if name in parts.hosts]
    if not having:
        raise UnknownName("host", name, {known for parts in labs.values() for known in parts.hosts})
    if len(having) > 1:
        raise InputError(f"several labs have a host '{name}'", hint=f"one of: {', '.join(f'{one}/{name}' for one in having)}")
    return labs[having[0]], name


def only_network(lab: Lab, host: str, how: str = "--network") -> str:
    """The one network of a host. Raises :class:`InputError` when it is not on one, which says ``how`` to choose."""
    networks = [str(link["network"]) for link in lab.settings[host]["links"]]
    if len(networks) != 1:
        raise InputError(f"host '{host}' is on {len(networks)} networks; which one?", hint=f"{how}, one of: {', '.join(networks)}")
    return networks[0]


def split_remote(remote: str) -> tuple[str, str]:
    """HOST:PATH as its two parts."""
    host, colon, path = remote.partition(":")
    if not (host and colon and path):
        raise InputError(f"'{remote}' is not HOST:PATH", hint="for example server:/etc/hosts")
    return host, path


def with_a_name(path: Path) -> Path:
    """The path with a name at its end, which `.` and `..` do not have."""
    return path.resolve() if path.name in ("", "..") else path


def assignments(variables: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a mapping."""
    for one in variables:
        if "=" not in one:
            raise InputError(f"'{one}' is not NAME=VALUE", hint="for example -e LANG=C")
    return dict(one.split("=", 1) for one in variables)
