"""What experiments with a listening socket share: it, its clients, and a look at its queues.

The look is taken by the player that holds the socket: no process is started for it, which on an emulated kernel takes longer than
a whole handshake.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.experiment import Expected, Facts, Value, one_of
from testbed.experiment_stage import Stage

# Clients whose handshake is to be held up have ports from here on, below those that a kernel gives to clients.
HELD, HELD_END = 15_000, 16_000
PINNED = {
    "net.core.somaxconn": 128,
    "net.ipv4.tcp_max_syn_backlog": 1024,
    "net.ipv4.tcp_syncookies": 1,
    "net.ipv4.tcp_abort_on_overflow": 0,
    "net.ipv4.tcp_synack_retries": 5,
    "net.ipv4.tcp_syn_retries": 6,
    # Else one connection that went well makes its client "proven", and one of the limits vanishes for it.
    "net.ipv4.tcp_no_metrics_save": 1,
}

NO_KERNEL = "the queues are the kernel's, and an emulated host has the machine's: a native host shows the same"
NEWER_LIMIT = (6, 14)  # "tcp: allow one more half-open request": > instead of >= in inet_csk_reqsk_queue_is_full

# tcpi_unacked and tcpi_sacked of a listening socket are the length of its accept queue and its limit (tcp_get_info);
# state 03 of /proc/net/tcp is SYN_RECV.
LOOK = """
def waiting():
    return struct.unpack("=II", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[24:32])

def half_open():
    port = ":%04X" % s.getsockname()[1]
    with open("/proc/net/tcp") as file:
        rows = [line.split() for line in file]
    return sum(row[1].endswith(port) and row[3] == "03" for row in rows)

def look():
    with open("/proc/net/netstat") as file:
        names, values = [line.split() for line in file if line.startswith("TcpExt:")]
    counted = dict(zip(names[1:], map(int, values[1:])))
    return [*waiting(), half_open(), *[counted[name] for name in ("ListenOverflows", "ListenDrops", "TCPReqQFullDoCookies")]]
"""


@dataclass(frozen=True)
class Look:
    """A listening socket at one moment: its accept queue and the limit of that, its half-open requests, and three counters of the host."""

    waiting: int
    limit: int
    half_open: int
    overflows: int
    drops: int
    cookies: int


def limit_of(backlog: int, somaxconn: int) -> int:
    """L: the backlog as the kernel takes it (inet_listen, __sys_listen): unsigned, and somaxconn at most."""
    return min(backlog % 2**32, somaxconn)


def half_open_limit(facts: Facts, limit: int) -> Value | Expected:
    """How many half-open requests a listening socket with limit L has at most (inet_csk_reqsk_queue_is_full)."""
    if facts.release >= NEWER_LIMIT:
        return limit + 1
    return one_of(limit, limit + 1, reason="kernels before 6.14 have L, unless the change was brought to them")


def listen(stage: Stage, backlog: int) -> None:
    """The server listens on the cell's port, with ``s``, which does not block."""
    server = stage.on("server")
    server.do(LOOK)
    server.do(f"s = socket.socket(); s.bind(('', {stage.port})); s.setblocking(False)")
    # By way of C: Python makes 0 of a negative backlog.
    server.do(f"import ctypes\nif ctypes.CDLL(None).listen(s.fileno(), {backlog}): raise OSError('listen')")
    stage.on("client").do("clients = []")


def connect(stage: Stage, *, held: bool = False) -> None:
    """One more client begins to connect, and does not wait; it is ``c``, and the last of ``clients``."""
    code = "c = socket.socket(); c.setblocking(False); clients.append(c)"
    if held:
        code += f"; c.bind(('', {HELD} + len(clients)))"
    stage.on("client").do(f"{code}; c.connect_ex(({stage.addresses['server']!r}, {stage.port}))")


def look(stage: Stage) -> Look:
    """How it is now."""
    return Look(*stage.on("server").look("look()"))


def waiting(stage: Stage) -> int:
    """The length of the accept queue."""
    return int(stage.on("server").look("waiting()[0]"))


def half_open(stage: Stage) -> int:
    """How many requests are half open."""
    return int(stage.on("server").look("half_open()"))


def hold_syn_acks(stage: Stage) -> None:
    """The clients with held ports do not get the server's answer, so their requests stay half open."""
    stage.drop("client", incoming=f"tcp sport {stage.port} tcp dport >= {HELD} tcp dport < {HELD_END}")


def hold_acks(stage: Stage, *, passed: int = 0) -> None:
    """The handshake's last ACK of the clients with held ports is dropped when it has left them: they think they are connected.

    That of the first ``passed`` clients is not.
    """
    held = f"tcp sport > {HELD + passed} tcp sport < {HELD_END}"
    stage.drop("client", outgoing=f"tcp dport {stage.port} {held} tcp flags & (syn|ack) == ack")
