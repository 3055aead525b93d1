"""Family D, the second half: how long FIN_WAIT2 and TIME_WAIT last, and at which side TIME_WAIT is."""

from __future__ import annotations

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
from testbed.experiment_restart import (
    FIN_TIMEOUT,
    NO_KERNEL,
    PASSING,
    PINNED,
    TW_BUCKETS,
    TW_REUSE,
    bind_again,
    connect,
    kill,
    left,
    listens,
    old_is_gone,
    start_server,
)
from testbed.experiment_stage import TICK_S, Stage

# D3

NOT_EARLY = "it is never early; bind is tried again and again, on a machine that may be busy"
READ_LATE = "it is read some time after the kill, on a machine that may be busy"
STATES = ("FIN_WAIT2", "TIME_WAIT")
TIME_WAIT_S = 60  # TCP_TIMEWAIT_LEN of include/net/tcp.h
# A new socket each time: one that was bound is.
TRY = """
def try_it():
    global n
    n = socket.socket()
    try:
        n.bind(('', {port}))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"
"""


def waits(given: Mapping[str, Scalar]) -> Sequence[Cell]:
    if "state" in given:
        return [Cell(str(given["state"]), {"state": given["state"]})]
    cells = [Cell(f"FIN_WAIT2, fin_timeout={s}", {"state": "FIN_WAIT2"}, {FIN_TIMEOUT: s}) for s in (3, 6)]
    # Not less: should the client's FIN take longer than that, there was nothing left to go into TIME_WAIT.
    cells += [Cell(f"TIME_WAIT, fin_timeout={s}", {"state": "TIME_WAIT"}, {FIN_TIMEOUT: s}) for s in (5, 60)]
    cells += [Cell("TIME_WAIT, tw_reuse=1", {"state": "TIME_WAIT"}, {TW_REUSE: 1})]
    return [*cells, Cell("TIME_WAIT, max_tw_buckets=0", {"state": "TIME_WAIT"}, {TW_BUCKETS: 0})]


def provoke_wait(stage: Stage, cell: Cell) -> None:
    old, client = start_server(stage, reuse=False), stage.on("client")
    connect(stage)
    old.do("a = s.accept()[0]")
    if cell.values["state"] == "FIN_WAIT2":
        # By the host's own clock and in one step: on a vm of a busy machine all of FIN_WAIT2 may pass between two.
        server = stage.on("server")
        server.do(TRY.format(port=stage.port))
        server.do("began = time.monotonic(); interrupt('old'); at_first = try_it()")
        return
    # The server closes first and the client at once after it: so it is never long in FIN_WAIT2, which may be short.
    client.do("import threading; threading.Thread(target=lambda: (c.recv(1), c.close()), daemon=True).start()")
    kill(stage)
    stage.wait(lambda: stage.states("client", peer_port=stage.port) == [], "the client's socket to be over")


def observe_wait(stage: Stage, cell: Cell) -> Seen:
    if cell.values["state"] == "FIN_WAIT2":
        server = stage.on("server")
        at_first = server.do("at_first")
        after_s = stage.wait(lambda: server.look("try_it() == 'ok' and time.monotonic() - began"), "bind to succeed")
        return {"bind at first": at_first, "bind succeeds after s": round(after_s, 2), "listens still": listens(stage)}
    found = [one for one in stage.hosts["server"].sockets(stage.port) if one.state == "TIME_WAIT"]
    lasts = [one.timer.expires_s for one in found if one.timer is not None]
    return {"left": left(stage), "lasts s": max(lasts, default=0), "bind": bind_again(stage, reuse=False), "listens still": listens(stage)}


def predict_wait(_: Facts, run: CellRun) -> Mapping[str, Value | Expected]:
    if run.values["state"] == "FIN_WAIT2":
        fin = run.sysctl(FIN_TIMEOUT)
        return {"bind at first": "EADDRINUSE", "bind succeeds after s": between(fin - TICK_S, fin + 3, reason=NOT_EARLY)}
    if not run.sysctl(TW_BUCKETS):
        return {"left": "nothing", "lasts s": 0, "bind": "ok"}
    return {"left": "TIME_WAIT", "lasts s": between(TIME_WAIT_S - 15, TIME_WAIT_S, reason=READ_LATE), "bind": "EADDRINUSE"}


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
    watched="TIME_WAIT, fin_timeout=5",
    refused={"emulated": NO_KERNEL},
    parameters={"state": Parameter(None, f"what the old server leaves: {', '.join(STATES)}", usual=STATES[0], choices=STATES)},
    sysctls=PINNED,
)

# D4

CLOSING = {
    "client": ("c.close()", "a.recv(1); a.close()"),
    "server": ("c.recv(1); c.close()", "a.close()"),
    "client, by RST": ("c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('=ii', 1, 0)); c.close()", "a.close()"),
}


PORT_RANGE = "net.ipv4.ip_local_port_range"
PORTS = 8
OLD_S = 2  # a TIME_WAIT as old as this is given to another connection where tcp_tw_reuse allows it: older than one second


def closings(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    few = {PORT_RANGE: f"40000 {40000 + PORTS - 1}"}
    return [
        *(Cell(f"short connections, closed by the {who}", {"who": who, "long": False}) for who in CLOSING),
        Cell("short connections, closed by both at once", {"who": "both", "long": False}),
        Cell("one long connection, closed by the client", {"who": "client", "long": True}),
        *(Cell(f"{PORTS} ports for clients, tw_reuse={reuse}", {"who": "ports"}, {**few, TW_REUSE: reuse}) for reuse in (0, 1)),
    ]


def provoke_both(stage: Stage) -> None:
    """Each side's FIN is dropped where it arrives, until both have sent theirs: then they cross."""
    client, server, number = stage.on("client"), stage.on("server"), int(stage.parameters["exchanges"])
    server.do(f"s = socket.create_server(('', {stage.port})); s.settimeout(20); theirs = []")
    client.do("mine = []")
    for _ in range(number):
        client.do(f"mine.append(socket.create_connection(({stage.addresses['server']!r}, {stage.port})))")
        server.do("theirs.append(s.accept()[0])")
    stage.drop("client", incoming=f"tcp sport {stage.port} tcp flags & fin == fin")
    stage.drop("server", incoming=f"tcp dport {stage.port} tcp flags & fin == fin")
    client.do("for one in mine: one.close()")
    server.do("for one in theirs: one.close()")
    waits = ["FIN_WAIT1"] * number
    stage.wait(lambda: stage.states("client", peer_port=stage.port) == waits, "the client to wait for an answer to its FINs")
    stage.wait(lambda: stage.states("server", port=stage.port) == waits, "the server to wait for an answer to its FINs")
    stage.open("client")
    stage.open("server")


def provoke_few_ports(stage: Stage) -> None:
    """The host in question is the client here, and closes first: all of its ports are in TIME_WAIT."""
    client, server, sysctl = stage.on("server"), stage.on("client"), stage.hosts["server"].sysctl
    # Else a slow host takes one that is a second old already while others are free.
    wanted, sysctl[TW_REUSE] = sysctl[TW_REUSE], 0
    server.do(f"s = socket.create_server(('', {stage.port})); s.settimeout(20)")
    client.do(f"def connect(): global c; c = socket.create_connection(({stage.addresses['client']!r}, {stage.port}))")
    for _ in range(PORTS):
        client.do("connect()")
        server.do("a = s.accept()[0]")
        client.do("c.close()")
        server.do("a.recv(1); a.close()")
    all_in = ["TIME_WAIT"] * PORTS
    stage.wait(lambda: stage.states("server", peer_port=stage.port) == all_in, "every port to be in TIME_WAIT")
    sysctl[TW_REUSE] = wanted


def observe_few_ports(stage: Stage) -> Seen:
    def old() -> bool:
        found = [one for one in stage.hosts["server"].sockets(peer_port=stage.port) if one.state == "TIME_WAIT"]
        return len(found) == PORTS and all(one.timer is not None and one.timer.expires_s <= TIME_WAIT_S - OLD_S for one in found)

    stage.wait(old, "every port to be in TIME_WAIT for two seconds")
    there = stage.states("server", peer_port=stage.port).count("TIME_WAIT")
    return {"TIME_WAIT at the client": there, f"connection {PORTS + 1}": stage.on("server").outcome("connect()")}


def provoke_closing(stage: Stage, cell: Cell) -> None:
    client, server, exchanges = stage.on("client"), stage.on("server"), int(stage.parameters["exchanges"])
    if cell.values["who"] == "both":
        provoke_both(stage)
        return
    if cell.values["who"] == "ports":
        provoke_few_ports(stage)
        return
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


def observe_closing(stage: Stage, cell: Cell) -> Seen:
    if cell.values["who"] == "ports":
        return observe_few_ports(stage)

    def both() -> list[str]:
        return stage.states("client", peer_port=stage.port) + stage.states("server", port=stage.port)

    stage.wait(lambda: not (PASSING | {"FIN_WAIT2"}) & set(both()), "all connections to be over")
    return {
        "TIME_WAIT at the client": stage.states("client", peer_port=stage.port).count("TIME_WAIT"),
        "TIME_WAIT at the server": stage.states("server", port=stage.port).count("TIME_WAIT"),
    }


def predict_closing(facts: Facts, run: CellRun) -> Mapping[str, Value]:
    who = run.values["who"]
    if who == "ports":
        return {"TIME_WAIT at the client": PORTS, f"connection {PORTS + 1}": "ok" if run.sysctl(TW_REUSE) == 1 else "EADDRNOTAVAIL"}
    number = 1 if run.values["long"] else int(facts.parameters["exchanges"])
    return {f"TIME_WAIT at the {side}": number if who in (side, "both") else 0 for side in ("client", "server")}


def judge_closing(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    wrong = []
    for run in runs:
        if run.values["who"] == "ports":
            continue
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
    linux=(
        "Holds. If both close at once both have one; a connection that is reset leaves none, and one long connection leaves one. A client "
        "whose ports are all in TIME_WAIT cannot connect, unless tcp_tw_reuse is 1: then to one that is older than a second."
    ),
    prediction=Prediction(
        "N connections: N at the side that closed first, 0 at the other; closed by both at once: N and N; by RST: 0 and 0. All ports in "
        "TIME_WAIT: EADDRNOTAVAIL, with tcp_tw_reuse=1 ok",
        (
            "RFC 9293, section 3.3.2: state machine; section 3.6, case 3",
            "net/ipv4/tcp_input.c: tcp_fin, tcp_rcv_state_process",
            "net/ipv4/inet_hashtables.c: __inet_hash_connect; net/ipv4/tcp_ipv4.c: tcp_twsk_unique",
        ),
        predict_closing,
    ),
    cells=closings,
    provoke=provoke_closing,
    observe=observe_closing,
    judge=judge_closing,
    others=("client",),
    refused={"emulated": NO_KERNEL},
    parameters={"exchanges": Parameter(5, "how many exchanges: a short connection each, or all over the long one", least=1, most=1000)},
    sysctls={**PINNED, PORT_RANGE: "32768 60999"},
)

EXPERIMENTS = (WAIT, CLOSED)
