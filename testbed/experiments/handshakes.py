"""Family C, the second half: what becomes of a handshake, what its client sees, and what accept gives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from testbed import pictures_of_queues
from testbed.experiment import Cell, CellRun, Claim, Experiment, Facts, Parameter, Prediction, Scalar, Seen, Value, Verdict
from testbed.experiment_listener import PINNED, connect, hold_acks, listen, look
from testbed.experiment_stage import Stage

NO_KERNEL = "the queues are the kernel's, and an emulated host has the machine's: a native host shows the same"


def waiting(stage: Stage) -> int:
    return look(stage).waiting


def half_open(stage: Stage) -> int:
    return look(stage).half_open


# C4


def provoke_handshake(stage: Stage, _: Cell) -> None:
    listen(stage, 8)
    if stage.parameters["hold"]:
        hold_acks(stage)
    connect(stage, held=True)
    stage.wait(lambda: stage.states("client", peer_port=stage.port) == ["ESTABLISHED"], "the client to be connected")


def observe_handshake(stage: Stage, _: Cell) -> Seen:
    seen = {
        "client, ACK held": stage.states("client", peer_port=stage.port),
        "server, ACK held": stage.states("server", port=stage.port),
        "accept queue, ACK held": waiting(stage),
    }
    if stage.parameters["hold"]:
        stage.open("client")
    stage.wait(lambda: waiting(stage) == 1, "the connection to move into the accept queue")
    return {**seen, "server, then": stage.states("server", port=stage.port), "accept queue, then": waiting(stage)}


def was_held(run: CellRun) -> str:
    return "" if run.seen["server, ACK held"] == ["SYN_RECV"] else f"the server was {run.seen['server, ACK held']}: no ACK was held up"


def judge_handshake(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    (run,) = runs
    if run.seen["accept queue, ACK held"] == 0 and run.seen["server, then"] == ["ESTABLISHED"]:
        return Verdict("HOLDS", "while the ACK is held up the client is ESTABLISHED already, and the server SYN_RECV")
    return Verdict("REFUTED", f"the accept queue had {run.seen['accept queue, ACK held']} before the ACK came")


HANDSHAKE = Experiment(
    id="C4",
    name="handshake-states",
    claim=Claim(
        "A SYN makes an entry in state SYN_RCVD; the client's ACK makes it ESTABLISHED and moves it to the queue of complete connections.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 4.5; RFC 9293, section 3.5",
    ),
    linux="Holds, but for SYN cookies, which leave no entry. A lost ACK is made up for when the server repeats its SYN-ACK.",
    prediction=Prediction(
        "ACK held up: client ESTABLISHED, server SYN_RECV, accept queue empty; then ESTABLISHED, 1",
        ("net/ipv4/tcp_minisocks.c: tcp_check_req", "net/ipv4/inet_connection_sock.c: reqsk_timer_handler"),
        lambda _, __: {
            "client, ACK held": ["ESTABLISHED"],
            "server, ACK held": ["SYN_RECV"],
            "accept queue, ACK held": 0,
            "server, then": ["ESTABLISHED"],
            "accept queue, then": 1,
        },
    ),
    provoke=provoke_handshake,
    observe=observe_handshake,
    took_effect=was_held,
    judge=judge_handshake,
    others=("client",),
    refused={"emulated": NO_KERNEL},
    parameters={"hold": Parameter(True, "whether the ACK is held up")},
    sysctls=PINNED,
)

# C5

ABORT = "net.ipv4.tcp_abort_on_overflow"


def full_queues(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [
        Cell("a client too many", {"way": "one more"}),
        Cell("a client too many, abort_on_overflow=1", {"way": "one more"}, {ABORT: 1}),
        Cell("ACKs held up until the queue is full", {"way": "phantoms"}),
        Cell("ACKs held up until the queue is full, abort_on_overflow=1", {"way": "phantoms"}, {ABORT: 1}),
    ]


def provoke_full(stage: Stage, cell: Cell) -> None:
    """``one more``: b + 1 clients fill the queue, and one more comes. ``phantoms``: b clients, and b more whose ACKs come when there is
    one place only."""
    b = int(stage.parameters["b"])
    listen(stage, b)
    normal = b + 1 if cell.values["way"] == "one more" else b
    for number in range(1, normal + 1):
        connect(stage)
        stage.wait(lambda number=number: waiting(stage) == number, f"client {number} to be in the accept queue")  # type: ignore[misc]
    if cell.values["way"] == "phantoms":
        hold_acks(stage)
        for number in range(1, b + 1):
            connect(stage, held=True)
            stage.wait(lambda number=number: half_open(stage) == number, f"held client {number} to be half open")  # type: ignore[misc]
        # Each of them has its SYN-ACK, and thinks that it is connected.
        stage.wait(lambda: stage.states("client", peer_port=stage.port).count("ESTABLISHED") == 2 * b, "all clients to be connected")


def observe_full(stage: Stage, cell: Cell) -> Seen:
    b, host, client = int(stage.parameters["b"]), stage.hosts["server"], stage.on("client")
    if cell.values["way"] == "one more":
        before = look(stage)
        connect(stage)
        stage.wait(lambda: look(stage).overflows > before.overflows, "the server to refuse a SYN")
        seen: dict[str, Value] = {
            "the one more": [one for one in stage.states("client", peer_port=stage.port) if one != "ESTABLISHED"],
            "its error": client.do("c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)"),
        }
        stage.on("server").do("first = s.accept()[0]")
        stage.wait(lambda: waiting(stage) == b + 1, "the one more to come in, after an accept")
        return {**seen, "after an accept": stage.states("client", peer_port=stage.port)}
    before = look(stage)
    stage.open("client")
    refused = b - 1
    if host.sysctl[ABORT]:
        stage.wait(lambda: waiting(stage) == b + 1 and half_open(stage) == 0, "the server to refuse the ACKs")
    else:
        stage.wait(lambda: waiting(stage) == b + 1 and look(stage).overflows - before.overflows >= refused, "the server to refuse the ACKs")
    states = stage.states("client", peer_port=stage.port)
    errors = client.do("[c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for c in clients]")
    reset = client.do("errno.ECONNRESET")
    return {
        "clients that think they are connected": states.count("ESTABLISHED"),
        "clients that got ECONNRESET": errors.count(reset),
        "accept queue": waiting(stage),
        "half open": half_open(stage),
    }


def predict_full(facts: Facts, run: CellRun) -> Mapping[str, Value]:
    b = int(facts.parameters["b"])
    if run.values["way"] == "one more":
        return {"the one more": ["SYN_SENT"], "its error": 0, "after an accept": ["ESTABLISHED"] * (b + 2)}
    gone = b - 1 if run.sysctls.get(ABORT, 0) else 0
    return {
        "clients that think they are connected": 2 * b - gone,
        "clients that got ECONNRESET": gone,
        "accept queue": b + 1,
        "half open": b - 1 - gone,
    }


def judge_full(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    by_name = {run.cell: run.seen for run in runs}
    alone = by_name["a client too many"]
    if alone["the one more"] != ["SYN_SENT"] or alone["its error"]:
        return Verdict("REFUTED", f"a client too many is {alone['the one more']}, with error {alone['its error']}")
    late = by_name["ACKs held up until the queue is full"]
    known = late["accept queue"]
    return Verdict(
        "HOLDS",
        f"its SYN is dropped, and it tries again; but {late['clients that think they are connected']} think they are connected where the "
        f"server has {known}, if their ACKs come when the queue is full",
    )


FULL = Experiment(
    id="C5",
    name="full-queue",
    claim=Claim(
        "When the queues are full the server ignores a client's SYN, without a RST; the client tries again, and gets "
        "in when there is room.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 4.5",
    ),
    linux=(
        "Holds for SYNs, whatever tcp_abort_on_overflow is. That acts on the last ACK of a handshake that finds the queue full: with 0 the "
        "client thinks it is connected, to a server that knows nothing of it (a phantom), with 1 it is reset."
    ),
    prediction=Prediction(
        "one more: SYN_SENT, no error, gets in after an accept. b clients, then b whose ACKs were held up: b - 1 "
        "phantoms, or resets with abort=1",
        (
            "net/ipv4/tcp_input.c: tcp_conn_request, sk_acceptq_is_full",
            "net/ipv4/tcp_minisocks.c: tcp_check_req, listen_overflow",
            "Documentation/networking/ip-sysctl.rst: tcp_abort_on_overflow",
        ),
        predict_full,
    ),
    cells=full_queues,
    provoke=provoke_full,
    observe=observe_full,
    judge=judge_full,
    others=("client",),
    picture=pictures_of_queues.views,
    watched="ACKs held up until the queue is full",
    refused={"emulated": NO_KERNEL},
    parameters={"b": Parameter(3, "the backlog, 2 or more")},
    sysctls=PINNED,
)

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
        stage.wait(
            lambda: any(one.receive_queue == 5 for one in stage.hosts["server"].sockets(stage.port, state="ESTABLISHED")),
            "the data to arrive",
        )
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
    parameters={"b": Parameter(5, "the backlog"), "clients": Parameter(2, "how many clients wait")},
    sysctls=PINNED,
)

EXPERIMENTS = (HANDSHAKE, FULL, ACCEPT, LISTING)
