"""Family C, the end: what accept gives, and what shows the connections that wait for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from testbed import pictures_of_queues
from testbed.experiment import Cell, CellRun, Claim, Experiment, Facts, Parameter, Prediction, Scalar, Seen, Value, Verdict
from testbed.experiment_listener import NO_KERNEL, PINNED, connect, half_open, hold_acks, listen, waiting
from testbed.experiment_stage import Stage

# C6


def accepts(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [Cell("two clients, the first one's ACK held up"), Cell("nobody there"), Cell("data before accept"), Cell("reset before accept")]


def provoke_accept(stage: Stage, cell: Cell) -> None:
    listen(stage, 8)
    if cell.name == "nobody there":
        return
    if cell.name.startswith("two"):
        if stage.parameters["hold"]:
            hold_acks(stage)
        for number, held in ((1, True), (2, False)):
            connect(stage, held=held)
            stage.wait(lambda number=number: waiting(stage) + half_open(stage) == number, f"client {number} to arrive")  # type: ignore[misc]
        stage.wait(lambda: waiting(stage) == (1 if stage.parameters["hold"] else 2), "the second client to be complete")
        if stage.parameters["hold"]:
            stage.open("client")
            stage.wait(lambda: waiting(stage) == 2, "the first client to be complete as well")
        return
    connect(stage)
    stage.wait(lambda: waiting(stage) == 1, "the client to arrive")
    if cell.name == "data before accept":
        stage.on("client").do("c.send(b'early')")
        stage.wait(lambda: stage.waits_to_be_read("server") == 5, "the data to arrive")
    else:
        stage.on("client").do("c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('=ii', 1, 0)); c.close()")
        stage.wait(lambda: stage.states("server", port=stage.port) == [], "the connection to be reset")


def observe_accept(stage: Stage, cell: Cell) -> Seen:
    server = stage.on("server")
    if cell.name == "nobody there":
        return {"accept": server.outcome("s.accept()")}
    if cell.name.startswith("two"):
        ports = stage.on("client").do("[c.getsockname()[1] for c in clients]")
        return {"order of accept": [ports.index(server.do("(a := s.accept())[1][1]")) + 1 for _ in range(2)]}
    seen: dict[str, Value] = {"accept": server.outcome("a, _ = s.accept()")}
    server.do("def read(): global data; data = a.recv(10)")
    return {**seen, "recv": server.outcome("read()"), "data": server.do("globals().get('data', b'').decode()")}


def predict_accept(_: Facts, run: CellRun) -> Mapping[str, Value]:
    if run.cell == "nobody there":
        return {"accept": "EAGAIN"}
    if run.cell.startswith("two"):
        return {"order of accept": [2, 1]}
    if run.cell == "data before accept":
        return {"accept": "ok", "recv": "ok", "data": "early"}
    return {"accept": "ok", "recv": "ECONNRESET", "data": ""}


def judge_accept(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    by_name = {run.cell: run.seen for run in runs}
    order, nobody = by_name["two clients, the first one's ACK held up"]["order of accept"], by_name["nobody there"]["accept"]
    if nobody == "ok" or order != [2, 1]:
        return Verdict("REFUTED", f"accepted in the order {order}; with nobody there: {nobody}")
    return Verdict("HOLDS", "the one that came first and completed last is accepted last")


ACCEPT = Experiment(
    id="C6",
    name="accept-order",
    claim=Claim(
        "accept takes the first of the complete connections, and blocks when there is none.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 4.6",
    ),
    linux="Holds: first is who completed first, not who sent its SYN first. Data may wait in it, and it may have been reset already.",
    prediction=Prediction(
        "2, 1; EAGAIN where it would block; early data is there; of a connection that was reset accept is told nothing, recv is",
        ("net/ipv4/inet_connection_sock.c: inet_csk_accept, inet_csk_reqsk_queue_add", "accept(2)"),
        predict_accept,
    ),
    cells=accepts,
    provoke=provoke_accept,
    observe=observe_accept,
    judge=judge_accept,
    others=("client",),
    picture=pictures_of_queues.accept_order,
    refused={"emulated": NO_KERNEL},
    parameters={"hold": Parameter(True, "whether the first client's ACK is held up")},
    sysctls=PINNED,
)

# C7


def provoke_listing(stage: Stage, _: Cell) -> None:
    listen(stage, int(stage.parameters["b"]))
    for number in range(1, int(stage.parameters["clients"]) + 1):
        connect(stage)
        stage.wait(lambda number=number: waiting(stage) == number, f"client {number} to be in the accept queue")  # type: ignore[misc]


def observe_listing(stage: Stage, _: Cell) -> Seen:
    host = stage.hosts["server"]
    netstat = host.run(["netstat", "-l", "-t", "-n"]).check(where="the server").text
    found = re.search(rf"^tcp\s+(\d+)\s+(\d+)\s+\S+:{stage.port}\s", netstat, re.MULTILINE)
    (listening,) = host.sockets(stage.port, state="LISTEN")
    children = host.sockets(stage.port, state="ESTABLISHED")
    return {
        "ss Recv-Q": listening.receive_queue,
        "ss Send-Q": listening.send_queue,
        "netstat Recv-Q": int(found[1]) if found else None,
        "netstat Send-Q": int(found[2]) if found else None,
        "connections not accepted": len(children),
        "of them somebody's": sum(bool(one.owners) for one in children),
    }


def judge_listing(facts: Facts, runs: Sequence[CellRun]) -> Verdict:
    (run,) = runs
    if run.seen["netstat Recv-Q"] == run.seen["ss Recv-Q"] == facts.parameters["clients"]:
        return Verdict("HOLDS", "Recv-Q of a listening socket is the length of its accept queue")
    return Verdict("REFUTED", f"netstat says {run.seen['netstat Recv-Q']}, ss {run.seen['ss Recv-Q']}")


LISTING = Experiment(
    id="C7",
    name="netstat",
    claim=Claim("netstat shows the connections that wait.", "netstat(8); ss(8)"),
    linux="Holds. Only ss shows the limit, as Send-Q; netstat has 0 there. Connections that nobody accepted belong to no process.",
    prediction=Prediction(
        "Recv-Q: the accept queue's length; Send-Q: min(backlog, somaxconn) by ss, 0 by netstat",
        ("net/ipv4/tcp_diag.c: tcp_diag_get_info", "net/ipv4/tcp_ipv4.c: get_tcp4_sock"),
        lambda facts, run: {
            "ss Recv-Q": facts.parameters["clients"],
            "ss Send-Q": min(int(facts.parameters["b"]), run.sysctl("net.core.somaxconn")),
            "netstat Recv-Q": facts.parameters["clients"],
            "netstat Send-Q": 0,
            "connections not accepted": facts.parameters["clients"],
            "of them somebody's": 0,
        },
    ),
    provoke=provoke_listing,
    observe=observe_listing,
    judge=judge_listing,
    others=("client",),
    refused={"emulated": NO_KERNEL},
    parameters={"b": Parameter(5, "the backlog", least=1, most=512), "clients": Parameter(2, "how many clients wait", least=1, most=512)},
    sysctls=PINNED,
)

EXPERIMENTS = (ACCEPT, LISTING)
