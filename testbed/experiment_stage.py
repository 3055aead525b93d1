"""What an experiment acts on: hosts, with a player on each, and firewalls that drop exactly what they are told to.

A player is one Python process on a host. It holds the sockets, and does what it is told, statement by statement, in the words of
Python's socket module: what an experiment did can be read in its record. It is told through its standard input, so nothing of
this is on the network or in the host's counters.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from testbed.errors import LabError
from testbed.host import Host
from testbed.process import wait_until
from testbed.running import Process
from testbed.traffic import WORDS, set_of_dropped

T = TypeVar("T")
PATIENCE_S = 30.0  # for what takes milliseconds, also on a machine that has other work
TABLE, NOTED = "testbed", "dropped_"

# SIGINT as a C program has it: it ends the process, and its sockets are closed by the kernel. Little is imported, as each module
# takes its time on an emulated processor; a step imports what else it needs.
PROGRAM = """
import errno, fcntl, json, os, signal, socket, struct, sys

signal.signal(signal.SIGINT, signal.SIG_DFL)
errno.errorcode[errno.EOPNOTSUPP] = "EOPNOTSUPP"  # which has two names
given = dict(globals())
names = dict(given)

def close(value):
    if isinstance(value, socket.socket):
        value.close()
    elif isinstance(value, (list, tuple)):
        for one in value:
            close(one)

def forget():
    for value in list(names.values()):
        close(value)
    names.clear()
    names.update(given)

def plain(value):
    return value.hex() if isinstance(value, bytes) else repr(value)

def do(code):
    try:
        expression = compile(code, "step", "eval")
    except SyntaxError:
        return exec(compile(code, "step", "exec"), names)
    return eval(expression, names)

for line in sys.stdin:
    code = json.loads(line)
    try:
        text = json.dumps({"value": forget() if code is None else do(code)}, default=plain)
    except OSError as error:
        text = json.dumps({"errno": errno.errorcode.get(error.errno, str(error))})
    except Exception as error:
        text = json.dumps({"broke": f"{type(error).__name__}: {error}"})
    print(text, flush=True)
"""


class StepFailed(LabError):
    """A statement on a host raised something that is no answer of the kernel, or one that the experiment did not reckon with."""


class Player:
    """A process on a host that holds sockets and does what it is told."""

    def __init__(self, role: str, process: Process, note: Callable[[Mapping[str, Any]], None]) -> None:
        self.role = role
        self.process = process
        self._note = note

    def do(self, code: str) -> Any:
        """Run a statement or evaluate an expression there; gives the value, bytes in hexadecimal digits. Names stay until the cell is over.

        Raises :class:`StepFailed` for every exception, and :class:`LabError` when the process is gone.
        """
        answer = self._ask(code)
        if "errno" in answer:
            raise StepFailed(f"on the {self.role}, `{code.strip()}` gave {answer['errno']}")
        return answer["value"]

    def look(self, code: str) -> Any:
        """Evaluate an expression that changes nothing, which is not noted in the record: for conditions, asked again and again."""
        return self._ask(code, note=False)["value"]

    def outcome(self, code: str) -> str:
        """Run a statement whose success is the question: "ok", or the name of the error, as EINVAL."""
        return str(self._ask(code).get("errno", "ok"))

    def forget(self) -> None:
        """Close its sockets and forget its names."""
        self._ask(None)

    def _ask(self, code: str | None, *, note: bool = True) -> dict[str, Any]:
        began = time.monotonic()
        self.process.stdin.write(json.dumps(code).encode() + b"\n")
        line = self.process.stdout.readline(timeout_s=PATIENCE_S)
        if not line.endswith(b"\n"):
            raise StepFailed(
                f"the player on the {self.role} ended during `{code}`", hint=self.process.stderr.rest().decode(errors="replace")
            )
        answer: dict[str, Any] = json.loads(line)
        if code is not None and note:
            self._note({"on": self.role, "step": code.strip(), **answer, "took_s": round(time.monotonic() - began, 4)})
        if "broke" in answer:
            raise StepFailed(f"on the {self.role}, `{(code or 'close all').strip()}` broke: {answer['broke']}")
        return answer


class Stage:
    """The hosts of an experiment by role, a port nobody used before, and what was done so far in this cell.

    ``addresses`` are the hosts' own, on the one network. ``patience_s`` seconds are waited for what does not come. ``looks`` is called
    after each step, and before a firewall goes, where somebody watches this cell; then firewalls note what they drop.
    """

    def __init__(
        self, hosts: Mapping[str, Host], parameters: Mapping[str, Any], *, network: str = "lan", patience_s: float = PATIENCE_S
    ) -> None:
        self.hosts = hosts
        self.parameters = parameters
        self.patience_s = patience_s
        self.addresses = {role: str(host.addresses[network][0]) for role, host in hosts.items()}
        self.port = 0
        self.steps: list[Mapping[str, Any]] = []
        self._players: dict[tuple[str, str], Player] = {}
        self._began = time.monotonic()
        self.walls: set[str] = set()
        """Roles whose firewall drops something."""
        self.looks: Callable[[], None] | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since this cell began."""
        return time.monotonic() - self._began

    def on(self, role: str, name: str = "", *, before: Sequence[str] = ()) -> Player:
        """The player on a host; a second one under another ``name``. ``before`` stands before its command, as setpriv does.

        It is started at its first use; one that has ended is started anew.
        """
        player = self._players.get((role, name))
        if player is None or player.process.exit_code is not None:
            process = self.hosts[role].start([*before, "python3", "-I", "-S", "-c", PROGRAM])
            player = Player(role, process, self._note)
            self._players[role, name] = player
        return player

    def begin(self, port: int) -> None:
        """A new cell, on that port."""
        self.port = port
        self.steps = []
        self._began = time.monotonic()

    def clean(self) -> None:
        """Remove firewalls, and close what the players hold: the servers' before the clients', so that the servers see nothing of that."""
        for role in list(self.walls):
            self.open(role)
        for (_, _), player in sorted(self._players.items(), reverse=True):
            if player.process.exit_code is None:
                player.forget()

    def close(self) -> None:
        """End the players."""
        for player in self._players.values():
            player.process.close()
        self._players.clear()
        self.walls.clear()

    def drop(self, role: str, *, incoming: str = "", outgoing: str = "") -> None:
        """Let a host's firewall drop what matches a rule of nft(8), such as ``tcp dport 8001 tcp flags syn``, on its way in or out.

        One that is there is replaced. What comes in is dropped before routing, and what goes out after it, so that its sender does
        not notice.
        """
        self._look()
        rules = [(hook, rule) for hook, rule in (("prerouting", incoming), ("postrouting", outgoing)) if rule]
        chains = [f"chain {hook} {{ type filter hook {hook} priority -150; {rule} counter drop; }}" for hook, rule in rules]
        notes = [part for hook, rule in rules for part in noting(hook, rule)] if self.looks else []
        lines = [f"table ip {TABLE} {{}}", f"delete table ip {TABLE}", f"table ip {TABLE} {{", *notes, *chains, "}", ""]
        text = "\n".join(lines)
        self.hosts[role].run(["nft", "-f", "-"], stdin=text.encode()).check(where=f"the {role}")
        self.walls.add(role)
        self._note({"on": role, "drops": " ".join(chains)})

    def dropped(self, role: str) -> int:
        """How many packets the firewall of a host has dropped since it is there."""
        text = self.hosts[role].run(["nft", "-j", "list", "table", "ip", TABLE]).check(where=f"the {role}").text
        rules = [one["rule"]["expr"] for one in json.loads(text)["nftables"] if "rule" in one]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)

    def open(self, role: str) -> None:
        """Take a host's firewall away."""
        self._look()
        self.hosts[role].run(["nft", "delete", "table", "ip", TABLE]).check(where=f"the {role}")
        self.walls.discard(role)
        self._note({"on": role, "drops": ""})

    def states(self, role: str, *, peer_port: int | None = None, port: int | None = None) -> list[str]:
        """The states of a host's TCP sockets of the cell's port, without that of the listening one: sorted."""
        found = self.hosts[role].sockets(port, peer_port=peer_port, protocol="tcp")
        return sorted(one.state for one in found if one.state != "LISTEN")

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """The first true value of ``condition``. Raises :class:`DeadlineExceeded`, which makes the cell inconclusive."""
        found = wait_until(condition, timeout_s=self.patience_s, what=what)
        self._look()
        return found

    def _note(self, step: Mapping[str, Any]) -> None:
        self.steps.append({"at_s": round(self.elapsed_s, 4), **step})
        self._look()

    def _look(self) -> None:
        if self.looks is not None:
            self.looks()


def noting(hook: str, rule: str) -> list[str]:
    """A set, and a chain before that of the rule, which notes what the rule drops and lets it pass. A rule that counts packets (numgen)
    counts in both the same."""
    protocol = next((one for one in WORDS if rule.startswith(f"{one} ")), None)
    if protocol is None:
        return []
    known, note = set_of_dropped(f"{NOTED}{protocol}_{hook}", protocol)
    return [known, f"chain note_{hook} {{ type filter hook {hook} priority -151; {rule} {note}; }}"]
