"""Packages that a host has beside those of its image: Debian's and PyPI's, as they are written in a topology file. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from testbed.errors import InputError
from testbed.topology_values import shown

# Debian Policy 5.6.1 and 5.6.12: a package's name, and after an equals sign a version.
PACKAGE_PATTERN = r"^[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+:~-]+)?$"
# PEP 508 without URLs and markers: a name, extras, and conditions on the version.
_VERSION = r"\s*(===|==|!=|~=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*"
REQUIREMENT_PATTERN = rf"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\s*\[[A-Za-z0-9._, -]+\])?({_VERSION}(,{_VERSION})*)?$"
MOST_PACKAGES = 200


@dataclass(frozen=True)
class Extras:
    """What a host has beside its image: Debian ``packages`` (``name`` or ``name=version``) and ``pip`` requirements, sorted."""

    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.packages or self.pip)

    @property
    def words(self) -> str:
        return ", ".join((*self.packages, *self.pip))


def read_packages(value: object) -> tuple[str, ...]:
    """Debian packages: a list, or one. Raises :class:`InputError`."""
    hint = "packages: [iperf3, libcoap3-bin=4.3.1-1], names of Debian packages, with a version or without"
    return _read(value, PACKAGE_PATTERN, "a Debian package's name", hint)


def read_requirements(value: object) -> tuple[str, ...]:
    """Packages of the Python Package Index with conditions on their versions. Raises :class:`InputError`."""
    hint = "pip: [scapy==2.5.0], a name with a version or without; a file or an address is not taken"
    return tuple(sorted(re.sub(r"\s+", "", one) for one in _read(value, REQUIREMENT_PATTERN, "a requirement of pip", hint)))


def _read(value: object, pattern: str, what: str, hint: str) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise InputError(f"{shown(value)} is not a list", hint=hint)
    if len(listed) > MOST_PACKAGES:
        raise InputError(f"there are {len(listed)} packages", hint=f"at most {MOST_PACKAGES}")
    for one in listed:
        if not isinstance(one, str) or re.fullmatch(pattern, one) is None:
            raise InputError(f"{shown(one)} is not {what}", hint=hint)
    names = [re.split(r"[=<>!~\[\s]", one, maxsplit=1)[0] for one in listed]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InputError(f"{shown(name)} is there twice", hint="each package once")
    return tuple(sorted(listed))
