"""Family D, the first half: a server that is started again, and SO_REUSEADDR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed import pictures_of_endings
from testbed.experiment import Cell, CellRun, Claim, Experiment, Facts, Prediction, Scalar, Seen, Value, Verdict
from testbed.experiment_restart import NO_KERNEL, PINNED, bind_again, connect, kill, left, listens, old_is_gone, settle, start_server
from testbed.experiment_stage import Stage

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
    if situation == "never accepted":
        stage.wait(lambda: stage.states("server", port=stage.port) == ["ESTABLISHED"], "the client to be in the accept queue")
    else:
        old.do("a = s.accept()[0]")
    if situation == "unread client data":
        client.do("c.send(b'unread')")
        stage.wait(lambda: stage.waits_to_be_read("server") == 6, "the data to arrive")
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

EXPERIMENTS = (RESTART, REUSE)
