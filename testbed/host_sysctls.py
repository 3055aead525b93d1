"""The sysctls of a host that runs: read, and set for as long as it runs."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from testbed import sysctls
from testbed.errors import InputError, LabError, UnknownName
from testbed.process import Result

ROOT = "/proc/sys/"
_DOTS_AND_SLASHES = str.maketrans("./", "/.")
_NAMES = {os.strerror(number): name for number, name in errno.errorcode.items()}

Run = Callable[[Sequence[str]], Result]


class Sysctls:
    """A host's sysctls by name, as sysctl(8) writes it: ``host.sysctl["net.ipv4.tcp_syncookies"] = 0``.

    A value that is a whole number is an int, any other a text with one blank between its parts. One that was set is read back.
    Iterating gives the names of all that there are. Until the host is made anew a value stays; ``lab.reset()`` puts back those of
    the topology.

    Reading raises :class:`UnknownName` for one that this host's kernel has not. Setting raises :class:`InputError` for one that the
    host cannot have of its own (not per namespace: it is the whole machine's) and for a value that the kernel does not take.
    """

    def __init__(self, run: Run, host: str, *, own_kernel: bool) -> None:
        self._run = run
        self._host = host
        self._own_kernel = own_kernel

    def __getitem__(self, name: str) -> int | str:
        found = self._read(name)
        if found is None:
            raise self._unknown(name)
        return found

    def __setitem__(self, name: str, value: str | int | bool | Sequence[int]) -> None:
        wanted = sysctls.check(name, value, own_kernel=self._own_kernel)
        if not self._own_kernel and not name.startswith("net."):
            message = f"host {self._host}: sysctl {name} of a container can be set only when it is made"
            raise InputError(message, hint="write it under the host's sysctls: in the topology")
        result = self._run(["sysctl", "-w", f"{name}={wanted}"])
        if result.exit_code != 0:
            reason = reason_of(result.error_text)
            if reason == "ENOENT" and name not in self:
                raise self._unknown(name)
            words, hint = sysctls.why_refused(name, reason, whose=f"host {self._host}" if self._own_kernel else "")
            raise InputError(f"host {self._host}: sysctl {name} = {wanted}: {words}", hint=hint)
        found = self._read(name)
        if found != value_of(wanted):
            raise InputError(f"host {self._host}: sysctl {name} = {wanted}: the kernel made it {found}")

    def several(self, names: Iterable[str]) -> dict[str, int | str]:
        """The values of these, asked at once: on a vm it is a program's start that takes time. Raises as reading one does."""
        keys = {name: name_of(path_of(name).removeprefix(ROOT)) for name in names}
        found: dict[str, list[str]] = {}
        for line in self._run(["sysctl", *keys.values()]).text.splitlines() if keys else ():
            key, _, value = line.partition(" = ")
            found.setdefault(key, []).append(value)
        # What is not there, or has several lines, is asked alone.
        return {name: value_of(found[key][0]) if len(found.get(key, ())) == 1 else self[name] for name, key in keys.items()}

    def set_several(self, values: Mapping[str, str | int]) -> None:
        """Set these at once, and read them back. Raises as setting one does; those before it are set then."""
        wanted = {name: sysctls.check(name, value, own_kernel=self._own_kernel) for name, value in values.items()}
        if not wanted:
            return
        done = self._run(["sysctl", "-w", *(f"{name}={value}" for name, value in wanted.items())]).exit_code == 0
        found = self.several(wanted) if done else {}
        for name, value in wanted.items():
            if name not in found or found[name] != value_of(value):
                self[name] = value  # which says what is the matter

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._run(["test", "-f", path_of(name)]).exit_code == 0

    def __iter__(self) -> Iterator[str]:
        found = self._run(["find", ROOT, "-type", "f", "-printf", "%P\\n"])
        return iter(sorted(name_of(line) for line in found.text.splitlines()))

    def _read(self, name: str) -> int | str | None:
        """The value of a sysctl, None when there is none of that name."""
        its = name_of(path_of(name).removeprefix(ROOT))
        result = self._run(["sysctl", its])
        lines, reason = result.text.splitlines(), reason_of(result.error_text)
        if reason == "ENOENT":
            return None
        if result.exit_code != 0 or not lines:
            raise LabError(f"sysctl {name} of host {self._host} has no value that can be read{f': {reason}' if reason else ''}")
        if not all(line.startswith(f"{its} = ") for line in lines):
            raise InputError(f"'{name}' is no sysctl, but a group of them", hint=f"one of those that begin with {its}.")
        return value_of(" ".join(line.removeprefix(f"{its} = ") for line in lines))

    def _unknown(self, name: str) -> UnknownName:
        known = list(self)
        near = get_close_matches(name, known, n=5, cutoff=0.8)
        beside = [one for one in known if one.rpartition(".")[0] == name.rpartition(".")[0]]
        return UnknownName(f"sysctl of host {self._host}", name, near or beside or known)


def path_of(name: str) -> str:
    """The file of a sysctl, by the rule of sysctl(8): the first separator decides. After a dot, dots separate and a slash stands
    for a dot (net.ipv4.conf.eth0/1.rp_filter is about eth0.1); after a slash it is a path."""
    if not re.fullmatch(r"\w[\w./:@-]*", name, flags=re.ASCII) or ".." in name or "//" in name:
        raise InputError(f"{name!r} is not the name of a sysctl", hint="names with dots, as sysctl prints them, like net.core.somaxconn")
    first = re.search("[./]", name)
    return ROOT + (name.translate(_DOTS_AND_SLASHES) if first and first[0] == "." else name)


def name_of(path: str) -> str:
    """The name of the sysctl whose file this is, below /proc/sys."""
    return path.translate(_DOTS_AND_SLASHES)


def value_of(text: str) -> int | str:
    """The value that a sysctl's file holds."""
    value = " ".join(text.split())
    # What begins with 0 is no number of a kind that one counts with: a mask, a key.
    return int(value) if re.fullmatch("-?[1-9][0-9]*|0", value) else value


def reason_of(complaint: str) -> str:
    """The errno's name for what sysctl(8) says that it stumbled over; its own words when there is none."""
    words = (complaint.strip().splitlines() or [""])[-1]
    if "permission denied on key" in words:
        return "EACCES"
    return _NAMES.get(words.rpartition(": ")[2], words)
