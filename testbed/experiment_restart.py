"""What experiments with a server that is killed share: it, its client, and what is left of it."""

from __future__ import annotations

from testbed.experiment import CellRun
from testbed.experiment_stage import Player, Stage

NO_KERNEL = "the states are the kernel's, and an emulated host has the machine's: a native host shows the same"
FIN_TIMEOUT, TW_REUSE, TW_BUCKETS = "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_max_tw_buckets"
PINNED = {
    FIN_TIMEOUT: 60,
    TW_REUSE: 2,
    TW_BUCKETS: 4096,
    "net.ipv4.tcp_timestamps": 1,
    "net.ipv4.tcp_orphan_retries": 0,
    # A slow host acknowledges a FIN so late that it comes twice. Its second ACK meets no socket any more, and the RST that answers
    # would end TIME_WAIT (RFC 1337).
    "net.ipv4.tcp_rfc1337": 1,
    "net.core.somaxconn": 128,
}
# On their way to another state, within a round trip.
PASSING = {"ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "LAST_ACK", "CLOSING"}


def start_server(stage: Stage, *, reuse: bool) -> Player:
    """The server that will be killed: a process of its own."""
    old = stage.on("server", "old")
    old.do("s = socket.socket()")
    old.do(f"s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, {int(reuse)})")
    old.do(f"s.bind(('', {stage.port})); s.listen(8); s.settimeout(20)")
    return old


def connect(stage: Stage) -> None:
    stage.on("client").do("c = socket.socket(); c.settimeout(20)")
    stage.on("client").do(f"c.connect(({stage.addresses['server']!r}, {stage.port}))")


def kill(stage: Stage) -> None:
    """Ctrl-C: SIGINT to the server alone, and wait until it is gone."""
    stage.on("server").interrupt("old")


def settle(stage: Stage) -> None:
    """Wait until the server's host has nothing of the port that is on its way to another state."""
    stage.wait(lambda: not PASSING & set(stage.states("server", port=stage.port)), "the server's sockets to come to rest")


def bind_again(stage: Stage, *, reuse: bool) -> str:
    """What the next server gets from bind."""
    new = stage.on("server")
    new.do("n = socket.socket()")
    new.do(f"n.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, {int(reuse)})")
    return new.outcome(f"n.bind(('', {stage.port}))")


def left(stage: Stage) -> str:
    """What the old server left on its host."""
    return ", ".join(stage.states("server", port=stage.port)) or "nothing"


def listens(stage: Stage) -> bool:
    return any(one["port"] == stage.port and one["state"] == "LISTEN" for one in stage.sockets("server"))


def old_is_gone(run: CellRun) -> str:
    return "the old server was not killed" if run.seen["listens still"] else ""
