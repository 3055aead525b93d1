"""testinfra on the hosts of a lab: ``testinfra.get_host("testbed://LAB/HOST")``, ``pytest --hosts='testbed://LAB/*'``.

Importing this module makes ``testbed://`` known to testinfra, which has no entry points for that. The pytest plugin imports it;
a program of one's own writes ``import testbed.testinfra_backend``. A host that one has already goes through :func:`as_testinfra`.

A command goes the way of ``Host.run``: one connection a host, kept for as long as the process lives.
"""

from __future__ import annotations

import atexit
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import testinfra.backend
import testinfra.host
from testinfra.backend.base import BaseBackend, CommandResult

from testbed.errors import DeadlineExceeded, InputError, LabError, UnknownName, listing

if TYPE_CHECKING:  # late otherwise: every run of pytest loads this module, and few talk to an engine
    from testbed.engine import Engine
    from testbed.host import Host
    from testbed.lab import Parts

SCHEME = "testbed"
TIMEOUT_S = 60.0
EXAMPLE = "testbed://LAB/HOST, or testbed://LAB/* for all hosts of a lab"
BRING_UP = "`testbed up FILE` brings a lab up"


@dataclass(frozen=True)
class Address:
    """What follows ``testbed://``: [USER@]LAB/HOST. Lab and host may be patterns, as of file names."""

    lab: str
    host: str
    user: str | None = None

    @classmethod
    def of(cls, text: str) -> Address:
        """Raises :class:`InputError` when it is not of that form."""
        user, _, place = text.rpartition("@")
        lab, _, host = place.partition("/")
        if not lab or not host or "/" in host:
            raise InputError(f"'testbed://{text}' names no host", hint=EXAMPLE)
        return cls(lab, host, user or None)

    def __str__(self) -> str:
        return f"{self.user}@{self.lab}/{self.host}" if self.user else f"{self.lab}/{self.host}"


class _AsUser(str):
    """A command with whom it is to run under, on its way through testinfra, which knows commands as texts."""

    user: str

    def __new__(cls, command: str, user: str) -> _AsUser:
        made = super().__new__(cls, command)
        made.user = user
        return made


class TestbedBackend(BaseBackend):  # type: ignore[misc] # testinfra is not typed
    """One host. ``timeout`` is the most that a command may take, in seconds, 60 by default.

    Hosts have no sudo and need none: commands run as root, and under the user that ``sudo_user``, ``host.sudo(USER)`` or
    the address names, without a password.
    """

    __test__ = False
    NAME = SCHEME

    def __init__(
        self,
        name: str,
        sudo: bool = False,
        sudo_user: str | None = None,
        timeout: str | float | None = None,
        over: Host | None = None,
        **_: Any,  # what testinfra gives to every backend: ssh_config and others
    ) -> None:
        self.address = Address.of(name)
        self.timeout_s = _seconds(timeout)
        self._over = over
        if over is None:
            CONNECTIONS.to(self.address)  # a name that is wrong is told here, and not at the first command
        super().__init__(f"{self.address.lab}/{self.address.host}", sudo, sudo_user)

    @classmethod
    def get_hosts(cls, host: str, **_: Any) -> list[str]:
        """The addresses of all hosts that a pattern means. Raises :class:`UnknownName` when there is none."""
        wanted = Address.of(host)
        return [str(Address(lab, name, wanted.user)) for lab, name in matching(wanted, CONNECTIONS.labs())]

    def get_encoding(self) -> str:
        return "UTF-8"  # hosts have no locale; testinfra would start a Python there to ask

    def get_sudo_command(self, command: str, sudo_user: str | None) -> str:
        # Of nested ones the innermost is who runs it; those around it only ask for that.
        return command if isinstance(command, _AsUser) else _AsUser(command, sudo_user or "root")

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run a shell's command line; words in ``args`` are quoted into it.

        Raises :class:`DeadlineExceeded` when it takes too long, :class:`LabError` when the host is gone.
        """
        line = self.get_command(command, *args)
        user = line.user if isinstance(line, _AsUser) else self.address.user

        def on(host: Host) -> CommandResult:
            result = host.run(["sh", "-c", str(line)], user=user, timeout_s=self.timeout_s)
            return self.result(result.exit_code, line.encode(), result.stdout, result.stderr)

        return on(self._over) if self._over else CONNECTIONS.try_on(self.address, on)


class Connections:
    """The hosts that this process talks to through testinfra, whose objects outlive a lab: a host that was made anew is found anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._hosts: dict[tuple[str, str], Host] = {}

    def labs(self) -> dict[str, Parts]:
        """What there is now. Raises :class:`EngineError`."""
        from testbed.engine import Engine
        from testbed.lab import read_parts

        with self._lock:
            if self._engine is None:
                self._engine = Engine()
                atexit.register(self.close)
        return read_parts(self._engine)

    def to(self, address: Address) -> Host:
        """The host of an address. Raises :class:`UnknownName`."""
        with self._lock:
            known = self._hosts.get((address.lab, address.host))
        return known or self._found(address)

    def try_on(self, address: Address, work: Callable[[Host], CommandResult]) -> CommandResult:
        """``work`` on a host; once more when that turns out to have been replaced, and all that was done there is gone with it."""
        host = self.to(address)
        try:
            return work(host)
        except DeadlineExceeded:
            raise
        except LabError:
            successor = self._found(address)
            if successor is host:
                raise
        return work(successor)

    def _found(self, address: Address) -> Host:
        """The host as it is now: the same object as long as it is the same container."""
        from testbed.lab import make_host

        labs = self.labs()
        found = matching(address, labs)
        if len(found) > 1:
            hint = f"testinfra.get_hosts(['testbed://{address}']) gives them all"
            raise InputError(f"'testbed://{address}' means {len(found)} hosts", hint=hint)
        ((lab, name),) = found
        parts = labs[lab]
        container = parts.hosts[name].id
        with self._lock:
            assert self._engine
            old = self._hosts.get((address.lab, address.host))
            if old is not None and old.container == container:
                return old
            new = make_host(self._engine, lab, name, container, parts.settings[name])
            self._hosts[address.lab, address.host] = new
        if old is not None:
            old.close()
        return new

    def close(self) -> None:
        """End all connections; the next command makes new ones."""
        with self._lock:
            hosts, self._hosts = self._hosts, {}
            engine, self._engine = self._engine, None
        for host in hosts.values():
            host.close()
        if engine is not None:
            engine.close()


CONNECTIONS = Connections()


def matching(address: Address, labs: Mapping[str, Parts]) -> list[tuple[str, str]]:
    """The (lab, host) that an address means among ``labs``. Raises :class:`UnknownName` with the names there are."""
    chosen = [lab for lab in labs if fnmatchcase(lab, address.lab)]
    if not chosen:
        raise _unknown("lab", address.lab, list(labs))
    hosts = {lab: list(labs[lab].hosts) for lab in chosen}
    found = [(lab, name) for lab in chosen for name in hosts[lab] if fnmatchcase(name, address.host)]
    if not found:
        where = f"lab '{chosen[0]}'" if len(chosen) == 1 else f"the labs {', '.join(chosen)}"
        raise _unknown(f"host of {where}", address.host, [name for lab in chosen for name in hosts[lab]])
    return found


def _unknown(what: str, name: str, known: list[str]) -> UnknownName:
    error = UnknownName(what, name, known)
    error.hint = f"{listing(what, sorted(known))}; {BRING_UP}"
    return error


def _seconds(timeout: str | float | None) -> float:
    try:
        seconds = TIMEOUT_S if timeout is None else float(timeout)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise InputError(f"'{timeout}' is no time", hint="seconds, as in testbed://LAB/HOST?timeout=300")
    return seconds


def as_testinfra(host: Host) -> testinfra.host.Host:
    """testinfra's view of a host, through its own connection."""
    backend = TestbedBackend(f"{host.lab}/{host.name}", over=host)
    made = testinfra.host.Host(backend)
    backend.set_host(made)
    return made


def register() -> None:
    """Make ``testbed://`` known to testinfra; again is fine."""
    if SCHEME in testinfra.backend.BACKENDS:
        return
    testinfra.backend.BACKENDS[SCHEME] = f"{__name__}.{TestbedBackend.__name__}"
    known = testinfra.backend.parse_hostspec

    def parse_hostspec(hostspec: str) -> tuple[str, dict[str, Any]]:
        """testinfra's own takes the host from before the first slash, and loses what follows: here that is the host's name."""
        host, options = known(hostspec)
        if options.get("connection") == SCHEME:
            host += urllib.parse.urlsplit(hostspec).path
        return host, options

    testinfra.backend.parse_hostspec = parse_hostspec


register()
