"""What an experiment acts on: hosts, with a player on each, and firewalls that drop exactly what they are told to.

A player is one Python process on a host. It holds the sockets, and does what it is told, statement by statement, in the words of
Python's socket module: what an experiment did can be read in its record. It is told through its standard input, so nothing of
this is on the network or in the host's counters. Of several on a host the first starts the others.
"""

from __future__ import annotations

import json
import time
from ast import literal_eval
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from testbed.errors import LabError, TestbedError
from testbed.host import Host
from testbed.process import wait_until
from testbed.running import Process
from testbed.traffic import WORDS, Row, row_of, rows_of_tables, set_of_dropped

T = TypeVar("T")
PATIENCE_S = 30.0  # for what takes milliseconds, also on a machine that has other work
ANSWER_S = 120.0  # for a player's answer. Nothing that it is told takes long, but its start does on a vm of a machine that is very busy
# Most comes at once; for what takes a timer, asking again and again would cost a vm more than all the rest.
OFTEN_S, SELDOM_S = 0.01, 0.25
TICK_S = 0.01  # of a kernel's timers, at least
TABLE, NOTED = "testbed", "dropped_"

# SIGINT as a C program has it: it ends the process, and its sockets are closed by the kernel. Little is imported, as each module
# takes its time on an emulated processor (json brings regular expressions, a fifth of all); a step imports what else it needs.
# Another player is a fork of this one, for the same reason: a hundred times faster than another Python.
PROGRAM = """
import _signal, errno, fcntl, os, socket, struct, sys, time

_signal.signal(_signal.SIGINT, _signal.SIG_DFL)
errno.errorcode[errno.EOPNOTSUPP] = "EOPNOTSUPP"  # which has two names

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
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value - value == 0:
        return value
    return value.hex() if isinstance(value, bytes) else repr(value)

def do(code):
    try:
        expression = compile(code, "step", "eval")
    except SyntaxError:
        return exec(compile(code, "step", "exec"), names)
    return eval(expression, names)

def answer(code):
    try:
        return {"value": plain(forget() if code is None else do(code))}
    except OSError as error:
        return {"errno": errno.errorcode.get(error.errno, str(error))}
    except Exception as error:
        return {"broke": f"{type(error).__name__}: {error}"}

def tables():
    texts = []
    for name in ("tcp", "tcp6", "udp", "udp6"):
        try:
            with open("/proc/net/" + name) as file:
                texts.append(name + "\\n" + file.read())
        except FileNotFoundError:
            pass
    return texts

forks = {}  # name -> process, what it reads, what it answers

def fork(name):
    orders, answers = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        forks.clear()
        forget()
        os.dup2(orders[0], 0)
        os.dup2(answers[1], 1)
        os.closerange(3, 1024)
        for line in open(0, closefd=False):
            os.write(1, ascii(answer(eval(line))).encode() + b"\\n")
        os._exit(0)
    os.close(orders[0])
    os.close(answers[1])
    forks[name] = pid, open(orders[1], "w", buffering=1), open(answers[0])

def ended(name):
    pid, orders, answers = forks.pop(name)
    orders.close()
    answers.close()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def interrupt(name):
    os.kill(forks[name][0], _signal.SIGINT)
    return ended(name)

def tell(name, code):
    if name not in forks and code is None:
        return ascii({"value": None})
    if name not in forks:
        fork(name)
    print(ascii(code), file=forks[name][1])
    return forks[name][2].readline() or ascii({"ended": ended(name)})

known = "__builtins__ errno fcntl os socket struct sys time interrupt tables".split()
given = {name: globals()[name] for name in known}
names = dict(given)
for line in sys.stdin:
    name, code = eval(line)
    print(tell(name, code).strip() if name else ascii(answer(code)), flush=True)
"""


class StepFailed(LabError):
    """A statement on a host raised something that is no answer of the kernel, or one that the experiment did not reckon with."""


class Player:
    """A process on a host that holds sockets and does what it is told. One with a ``name`` is a fork of the first player there, with
    none of its sockets, and is told by it."""

    def __init__(self, role: str, name: str, process: Process, note: Callable[[Mapping[str, Any]], None]) -> None:
        self.role = role
        self.name = name
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

    def interrupt(self, name: str) -> None:
        """Ctrl-C: SIGINT to the player of that name alone, and wait until it is gone. This is the first player of its host, which stays,
        and so does the host: with it the kernel's memory of what the other had."""
        self.do(f"interrupt({name!r})")

    def _ask(self, code: str | None, *, note: bool = True) -> dict[str, Any]:
        began = time.monotonic()
        self.process.stdin.write(ascii((self.name, code)).encode() + b"\n")
        try:
            line = self.process.stdout.readline(timeout_s=ANSWER_S)
        except TestbedError:
            self.process.close()  # else its answer, when it comes, would be taken for that to the next question
            raise
        answer: dict[str, Any] = literal_eval(line.decode()) if line.endswith(b"\n") else {"ended": None}
        if "ended" in answer:
            whose = f"the player{f' {self.name!r}' if self.name else ''} on the {self.role}"
            raise StepFailed(f"{whose} ended during `{code}`", hint="" if self.name else self._last_words())
        if code is not None and note:
            self._note({"on": self.role, "step": code.strip(), **answer, "took_s": round(time.monotonic() - began, 4)})
        if "broke" in answer:
            raise StepFailed(f"on the {self.role}, `{(code or 'close all').strip()}` broke: {answer['broke']}")
        return answer

    def _last_words(self) -> str:
        return self.process.stderr.rest().decode(errors="replace")


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

    def on(self, role: str, name: str = "") -> Player:
        """The player on a host; another one there under a ``name``.

        It is started at its first use; one that has ended is started anew.
        """
        first = self._players.get((role, ""))
        if first is None or first.process.exit_code is not None:
            process = self.hosts[role].start(["python3", "-I", "-S", "-c", PROGRAM])
            self._players = {key: one for key, one in self._players.items() if key[0] != role}
            first = self._players[role, ""] = Player(role, "", process, self._note)
        return self._players.setdefault((role, name), Player(role, name, first.process, self._note))

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

    def sockets(self, role: str) -> list[Row]:
        """All sockets of a host, TCP and UDP. A vm's are read by its player, since a program that starts on an emulated processor takes as
        long as fifty steps; those of the others by the machine's own ss, whatever byte order they have."""
        host = self.hosts[role]
        if host.kind != "vm":
            return [row_of(one) for one in host.sockets()]
        return rows_of_tables(self.on(role).look("tables()"))

    def states(self, role: str, *, peer_port: int | None = None, port: int | None = None) -> list[str]:
        """The states of a host's TCP sockets of the cell's port, without that of the listening one: sorted."""
        rows = [one for one in self.sockets(role) if one["protocol"] == "tcp" and one["state"] != "LISTEN"]
        return sorted(one["state"] for one in rows if port in (None, one["port"]) and peer_port in (None, one["peer"]))

    def waits_to_be_read(self, role: str) -> int:
        """How many bytes wait in the cell's established connections of a host."""
        return sum(one["receive_queue"] for one in self.sockets(role) if one["port"] == self.port and one["state"] == "ESTABLISHED")

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """The first true value of ``condition``, which is asked ever less often. Raises :class:`DeadlineExceeded`, which makes the cell
        inconclusive."""
        found = wait_until(condition, timeout_s=self.patience_s, what=what, every_s=OFTEN_S, at_least_every_s=SELDOM_S)
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
