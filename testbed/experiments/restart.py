"""Family D: a server that is restarted, SO_REUSEADDR, FIN_WAIT2 and TIME_WAIT."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence

from testbed import pictures_of_endings
from testbed.experiment import (
    Cell,
    CellRun,
    Claim,
    Expected,
    Experiment,
    Facts,
    Parameter,
    Prediction,
    Scalar,
    Seen,
    Value,
    Verdict,
    between,
)
from testbed.experiment_stage import Player, Stage

NO_KERNEL = "the states are the kernel's, and an emulated host has the machine's: a native host shows the same"
FIN_TIMEOUT, TW_REUSE, TW_BUCKETS = "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_tw_reuse", "net.ipv4.tcp_max_tw_buckets"
PINNED = {
    FIN_TIMEOUT: 60,
    TW_REUSE: 2,
    TW_BUCKETS: 4096,
    "net.ipv4.tcp_timestamps": 1,
    "net.ipv4.tcp_orphan_retries": 0,
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
    """Ctrl-C: SIGINT to the server alone, and wait until it is gone. Its container, and so the kernel's memory of it, stays."""
    old = stage.on("server", "old")
    old.process.send_signal(signal.SIGINT)
    old.process.wait()


def settle(stage: Stage) -> None:
    """Wait until the server's host has nothing of the port that is on its way to another state."""
    stage.wait(lambda: not PASSING & set(stage.states("server", port=stage.port)), "the server's sockets to come to rest")


def bind_again(stage: Stage, *, reuse: bool) -> str:
    """What the next server gets from bind."""
    new = stage.on("server", "new")
    new.do("n = socket.socket()")
    new.do(f"n.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, {int(reuse)})")
    return new.outcome(f"n.bind(('', {stage.port}))")


def left(stage: Stage) -> str:
    """What the old server left on its host."""
    return ", ".join(stage.states("server", port=stage.port)) or "nothing"


def old_is_gone(run: CellRun) -> str:
    return "the old server was not killed" if run.seen["listens still"] else ""


def listens(stage: Stage) -> bool:
    return bool(stage.hosts["server"].sockets(stage.port, state="LISTEN"))


# D1

LEFT = {
    "accepted, no unread data": "FIN_WAIT2",
    "then the client closes": "TIME_WAIT",
    "unread client data": "nothing",
    "never accepted": "nothing",
    "client closed first": "nothing",
    "client writes after the kill": "nothing",
}


def situations(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [
        Cell(f"{name}, {'with' if reuse else 'without'} reuse", {"situation": name, "reuse": reuse})
        for name in LEFT
        for reuse in (False, True)
    ]


def provoke_restart(stage: Stage, cell: Cell) -> None:
    situation, client = cell.values["situation"], stage.on("client")
    old = start_server(stage, reuse=bool(cell.values["reuse"]))
    connect(stage)
    host = stage.hosts["server"]
    if situation == "never accepted":
        stage.wait(lambda: host.listen_queue(stage.port).waiting == 1, "the client to be in the accept queue")
    else:
        old.do("a = s.accept()[0]")
    if situation == "unread client data":
        client.do("c.send(b'unread')")
        stage.wait(lambda: any(one.receive_queue == 6 for one in host.sockets(stage.port, state="ESTABLISHED")), "the data to arrive")
    if situation == "client closed first":
        client.do("c.close()")
        stage.wait(lambda: stage.states("server", port=stage.port) == ["CLOSE_WAIT"], "the client's FIN to arrive")
    kill(stage)
    settle(stage)
    if situation in ("then the client closes", "client writes after the kill"):
        stage.wait(lambda: stage.states("server", port=stage.port) == ["FIN_WAIT2"], "the server's FIN to be acknowledged")
        client.do("c.close()" if situation == "then the client closes" else "c.send(b'late')")
        stage.wait(lambda: stage.states("client", peer_port=stage.port) == [], "the client's socket to be over")
        settle(stage)


def observe_restart(stage: Stage, cell: Cell) -> Seen:
    seen = {"the old server left": left(stage), "listens still": listens(stage)}
    return {**seen, "bind": bind_again(stage, reuse=bool(cell.values["reuse"]))}


def predict_restart(_: Facts, run: CellRun) -> Mapping[str, Value]:
    there = LEFT[run.values["situation"]]
    blocked = there != "nothing" and not run.values["reuse"]
    return {"the old server left": there, "bind": "EADDRINUSE" if blocked else "ok"}


def judge_restart(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    blocked = [run for run in runs if run.seen["bind"] == "EADDRINUSE"]
    otherwise = [run for run in blocked if "TIME_WAIT" not in run.seen["the old server left"]]
    if not blocked:
        return Verdict("REFUTED", "the server can be restarted at once, whatever the client does")
    if otherwise:
        states = sorted({run.seen["the old server left"] for run in otherwise})
        return Verdict(
            "REFUTED", f"while the client is connected what is in the way is {', '.join(states)}; TIME_WAIT comes only when it closes"
        )
    return Verdict("HOLDS")


RESTART = Experiment(
    id="D1",
    name="restart",
    claim=Claim(
        "A server that is ended by Ctrl-C while a client is connected cannot be started again at once: its port is in TIME_WAIT. "
        "SO_REUSEADDR helps.",
        "a usual exercise of courses; Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 7.5",
    ),
    linux=(
        "It cannot be, but it is FIN_WAIT2 that is in the way, for as long as the client stays. TIME_WAIT comes when "
        "the client closes as well. "
        "Where the server's end meant a RST (unread data, never accepted) nothing is left, and it starts at once."
    ),
    prediction=Prediction(
        "bind: EADDRINUSE exactly where FIN_WAIT2 or TIME_WAIT is left and reuse is not set (by both servers)",
        (
            "net/ipv4/tcp.c: __tcp_close",
            "net/ipv4/inet_connection_sock.c: inet_csk_bind_conflict",
            "RFC 9293, section 3.6; RFC 2525, section 2.17",
        ),
        predict_restart,
    ),
    cells=situations,
    provoke=provoke_restart,
    observe=observe_restart,
    took_effect=old_is_gone,
    judge=judge_restart,
    others=("client",),
    picture=pictures_of_endings.restarts,
    watched="then the client closes, without reuse",
    refused={"emulated": NO_KERNEL},
    sysctls=PINNED,
)

# D2


def reuses(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    both = [(False, False), (False, True), (True, False), (True, True)]
    cells = [Cell(f"old {int(old)}, new {int(new)}", {"way": "restart", "old": old, "new": new}) for old, new in both]
    return [
        *cells,
        Cell("old 1, new 1, the old one listens", {"way": "live"}),
        Cell("both 1, both bound only", {"way": "bound"}),
        Cell("both 1, UDP", {"way": "udp"}),
    ]


def provoke_reuse(stage: Stage, cell: Cell) -> None:
    way = cell.values["way"]
    if way in ("restart", "live"):
        old = start_server(stage, reuse=bool(cell.values.get("old", True)))
        if way == "restart":
            connect(stage)
            old.do("a = s.accept()[0]")
            kill(stage)
            settle(stage)
        return
    server, kind = stage.on("server"), "SOCK_DGRAM" if way == "udp" else "SOCK_STREAM"
    for name in ("first", "second"):
        server.do(f"{name} = socket.socket(socket.AF_INET, socket.{kind}); {name}.settimeout(20)")
        server.do(f"{name}.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)")


def observe_reuse(stage: Stage, cell: Cell) -> Seen:
    way, server = cell.values["way"], stage.on("server")
    if way in ("restart", "live"):
        there = "LISTEN" if listens(stage) else left(stage)
        return {"there": there, "bind": bind_again(stage, reuse=bool(cell.values.get("new", True)))}
    binds = [server.outcome(f"{name}.bind(('', {stage.port}))") for name in ("first", "second")]
    if way == "bound":
        return {"binds": binds, "listens": [server.outcome("first.listen()"), server.outcome("second.listen()")]}
    client = stage.on("client")
    client.do("u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    for number in range(3):
        client.do(f"u.sendto(b'{number}', ({stage.addresses['server']!r}, {stage.port}))")
    got = server.do("[second.recv(10).decode() for _ in range(3)]")
    server.do("first.setblocking(False)")
    return {"binds": binds, "second got": got, "first": server.outcome("first.recv(10)")}


def predict_reuse(_: Facts, run: CellRun) -> Mapping[str, Value]:
    way = run.values["way"]
    if way == "live":
        return {"there": "LISTEN", "bind": "EADDRINUSE"}
    if way == "bound":
        return {"binds": ["ok", "ok"], "listens": ["ok", "EADDRINUSE"]}
    if way == "udp":
        return {"binds": ["ok", "ok"], "second got": ["0", "1", "2"], "first": "EAGAIN"}
    return {"there": "FIN_WAIT2", "bind": "ok" if run.values["old"] and run.values["new"] else "EADDRINUSE"}


def something_was_in_the_way(run: CellRun) -> str:
    return "" if run.seen.get("there") != "nothing" else "the old server left nothing that could be in the way"


def judge_reuse(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    binds = {run.cell: run.seen["bind"] for run in runs if run.values["way"] == "restart"}
    if binds["old 0, new 1"] == "ok":
        return Verdict("HOLDS")
    return Verdict("REFUTED", f"{binds['old 0, new 1']} where only the new server sets it; ok only where the old one had set it, too")


REUSE = Experiment(
    id="D2",
    name="reuseaddr",
    claim=Claim(
        "A server that sets SO_REUSEADDR before bind can be started although connections of the one before are still there.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 7.5",
    ),
    linux=(
        "Only if the one before had set it as well: its connections have inherited it. A socket that listens is always "
        "in the way. Of two UDP "
        "sockets the last one bound gets everything."
    ),
    prediction=Prediction(
        "ok if both have set it and none listens, else EADDRINUSE",
        ("net/ipv4/inet_connection_sock.c: inet_bind_conflict", "socket(7): SO_REUSEADDR", "net/ipv4/udp.c: udp4_lib_lookup2"),
        predict_reuse,
    ),
    cells=reuses,
    provoke=provoke_reuse,
    observe=observe_reuse,
    took_effect=something_was_in_the_way,
    judge=judge_reuse,
    others=("client",),
    picture=pictures_of_endings.reuses,
    watched="old 0, new 1",
    refused={"emulated": NO_KERNEL},
    sysctls=PINNED,
)

# D3

POLLED = "the clock is read after the kill, and bind tried again and again, on a machine that may be busy"
TIME_WAIT_S = 60  # TCP_TIMEWAIT_LEN of include/net/tcp.h


def waits(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    cells = [Cell(f"FIN_WAIT2, fin_timeout={s}", {"state": "FIN_WAIT2"}, {FIN_TIMEOUT: s}) for s in (3, 6)]
    cells += [Cell(f"TIME_WAIT, fin_timeout={s}", {"state": "TIME_WAIT"}, {FIN_TIMEOUT: s}) for s in (1, 60)]
    cells += [Cell("TIME_WAIT, tw_reuse=1", {"state": "TIME_WAIT"}, {TW_REUSE: 1})]
    return [*cells, Cell("TIME_WAIT, max_tw_buckets=0", {"state": "TIME_WAIT"}, {TW_BUCKETS: 0})]


def provoke_wait(stage: Stage, cell: Cell) -> None:
    old, client = start_server(stage, reuse=False), stage.on("client")
    stage.on("server", "new")
    connect(stage)
    old.do("a = s.accept()[0]")
    if cell.values["state"] == "FIN_WAIT2":
        kill(stage)
        return
    # The server closes first and the client at once after it: so it is never long in FIN_WAIT2, which may be short.
    client.do("import threading; threading.Thread(target=lambda: (c.recv(1), c.close()), daemon=True).start()")
    kill(stage)
    stage.wait(lambda: stage.states("client", peer_port=stage.port) == [], "the client's socket to be over")


def observe_wait(stage: Stage, cell: Cell) -> Seen:
    began = time.monotonic()
    if cell.values["state"] == "FIN_WAIT2":
        at_first = bind_again(stage, reuse=False)
        stage.wait(lambda: bind_again(stage, reuse=False) == "ok", "bind to succeed")
        return {"bind at first": at_first, "bind succeeds after s": round(time.monotonic() - began, 2), "listens still": listens(stage)}
    found = [one for one in stage.hosts["server"].sockets(stage.port) if one.state == "TIME_WAIT"]
    lasts = [one.timer.expires_s for one in found if one.timer is not None]
    return {"left": left(stage), "lasts s": max(lasts, default=0), "bind": bind_again(stage, reuse=False), "listens still": listens(stage)}


def predict_wait(_: Facts, run: CellRun) -> Mapping[str, Value | Expected]:
    if run.values["state"] == "FIN_WAIT2":
        fin = run.sysctl(FIN_TIMEOUT)
        return {"bind at first": "EADDRINUSE", "bind succeeds after s": between(fin - 2, fin + 3, reason=POLLED)}
    if not run.sysctl(TW_BUCKETS):
        return {"left": "nothing", "lasts s": 0, "bind": "ok"}
    return {"left": "TIME_WAIT", "lasts s": between(TIME_WAIT_S - 15, TIME_WAIT_S, reason=POLLED), "bind": "EADDRINUSE"}


def judge_wait(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    by_timeout = {run.sysctl(FIN_TIMEOUT): run.seen["lasts s"] for run in runs if run.cell.startswith("TIME_WAIT, fin_timeout")}
    lasting = [f"{lasts:.0f} s with {timeout}" for timeout, lasts in by_timeout.items() if lasts > timeout + 1]
    if lasting:
        return Verdict("REFUTED", f"tcp_fin_timeout is about FIN_WAIT2; TIME_WAIT still has {', '.join(lasting)}")
    return Verdict("HOLDS")


WAIT = Experiment(
    id="D3",
    name="fin-timeout",
    claim=Claim(
        "TIME_WAIT lasts as long as net.ipv4.tcp_fin_timeout says; tcp_tw_reuse lets a server start sooner.", "guides to tuning Linux"
    ),
    linux=(
        "FIN_WAIT2 does. TIME_WAIT lasts 60 s, which is compiled in. tcp_tw_reuse is for clients, and does not help bind; with "
        "tcp_max_tw_buckets=0 there is no TIME_WAIT at all."
    ),
    prediction=Prediction(
        "bind succeeds after tcp_fin_timeout seconds of FIN_WAIT2; TIME_WAIT: 60 s, EADDRINUSE",
        ("include/net/tcp.h: TCP_TIMEWAIT_LEN", "net/ipv4/tcp_minisocks.c: tcp_time_wait", "Documentation/networking/ip-sysctl.rst"),
        predict_wait,
    ),
    cells=waits,
    provoke=provoke_wait,
    observe=observe_wait,
    took_effect=old_is_gone,
    judge=judge_wait,
    others=("client",),
    picture=pictures_of_endings.waits,
    watched="TIME_WAIT, fin_timeout=1",
    refused={"emulated": NO_KERNEL},
    sysctls=PINNED,
)

# D4

CLOSING = {
    "client": ("c.close()", "a.recv(1); a.close()"),
    "server": ("c.recv(1); c.close()", "a.close()"),
    "client, by RST": ("c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('=ii', 1, 0)); c.close()", "a.close()"),
}


def closings(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    short = [Cell(f"short connections, closed by the {who}", {"who": who, "long": False}) for who in CLOSING]
    return [*short, Cell("one long connection, closed by the client", {"who": "client", "long": True})]


def provoke_closing(stage: Stage, cell: Cell) -> None:
    client, server, exchanges = stage.on("client"), stage.on("server"), int(stage.parameters["exchanges"])
    by_client, by_server = CLOSING[str(cell.values["who"])]
    server.do(f"s = socket.create_server(('', {stage.port})); s.settimeout(20)")
    talk = ("c.send(b'?')", "a.recv(1); a.send(b'!')", "c.recv(1)")
    for number in range(exchanges):
        if not cell.values["long"] or not number:
            client.do(f"c = socket.create_connection(({stage.addresses['server']!r}, {stage.port})); c.settimeout(20)")
            server.do("a = s.accept()[0]; a.settimeout(20)")
        client.do(talk[0])
        server.do(talk[1])
        client.do(talk[2])
        if not cell.values["long"] or number == exchanges - 1:
            first, then = (
                ((server, by_server), (client, by_client)) if cell.values["who"] == "server" else ((client, by_client), (server, by_server))
            )
            first[0].do(first[1])
            then[0].do(then[1])


def observe_closing(stage: Stage, _: Cell) -> Seen:
    def both() -> list[str]:
        return stage.states("client", peer_port=stage.port) + stage.states("server", port=stage.port)

    stage.wait(lambda: not (PASSING | {"FIN_WAIT2"}) & set(both()), "all connections to be over")
    return {
        "TIME_WAIT at the client": stage.states("client", peer_port=stage.port).count("TIME_WAIT"),
        "TIME_WAIT at the server": stage.states("server", port=stage.port).count("TIME_WAIT"),
    }


def predict_closing(facts: Facts, run: CellRun) -> Mapping[str, Value]:
    number = 1 if run.values["long"] else int(facts.parameters["exchanges"])
    who = run.values["who"]
    return {"TIME_WAIT at the client": number if who == "client" else 0, "TIME_WAIT at the server": number if who == "server" else 0}


def judge_closing(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    wrong = []
    for run in runs:
        client, server = run.seen["TIME_WAIT at the client"], run.seen["TIME_WAIT at the server"]
        if (run.values["who"] == "client" and (server or not client)) or (run.values["who"] == "server" and (client or not server)):
            wrong.append(f"{run.cell}: {client} at the client, {server} at the server")
    return Verdict("REFUTED", "; ".join(wrong)) if wrong else Verdict("HOLDS", "one for each connection, at the side that closed first")


CLOSED = Experiment(
    id="D4",
    name="time-wait-side",
    claim=Claim(
        "TIME_WAIT is at the side that closes first, one for each connection: many short connections leave many.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 2.7; RFC 9293, section 3.6",
    ),
    linux="Holds. A connection that is reset leaves none, and one long connection leaves one.",
    prediction=Prediction(
        "N connections: N at the side that closed first, 0 at the other; closed by RST: 0 and 0",
        ("RFC 9293, section 3.3.2: state machine", "net/ipv4/tcp_input.c: tcp_fin, tcp_rcv_state_process"),
        predict_closing,
    ),
    cells=closings,
    provoke=provoke_closing,
    observe=observe_closing,
    judge=judge_closing,
    others=("client",),
    refused={"emulated": NO_KERNEL},
    parameters={"exchanges": Parameter(5, "how many exchanges: a short connection each, or all over the long one")},
    sysctls=PINNED,
)

EXPERIMENTS = (RESTART, REUSE, WAIT, CLOSED)
