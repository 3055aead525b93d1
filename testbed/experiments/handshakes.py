"""Family C, the second half: what becomes of a handshake, and what its client sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed import pictures_of_queues
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
from testbed.experiment_listener import (
    NO_KERNEL,
    PINNED,
    connect,
    half_open,
    half_open_limit,
    hold_acks,
    limit_of,
    listen,
    look,
    waiting,
)
from testbed.experiment_stage import TICK_S, Stage

# C4

COOKIES, SYNACK_RETRIES = "net.ipv4.tcp_syncookies", "net.ipv4.tcp_synack_retries"
CLOCK = "it is never early; the clock is read when it is noticed, on a machine that may be busy"


def seconds_with(retries: int) -> Expected:
    """How long so many retries take, each time twice as long as the one before, from 1 s on; one more would take longer than is allowed
    here."""
    lasts = 2 ** (retries + 1) - 1
    return between(lasts - TICK_S, 2 * lasts, reason=CLOCK)


def handshakes(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [
        Cell("the ACK held up", {"way": "held"}),
        Cell("the ACK held up, syncookies=2", {"way": "cookie"}, {COOKIES: 2}),
        *(Cell(f"no ACK ever, synack_retries={r}", {"way": "lost"}, {SYNACK_RETRIES: r}) for r in (1, 2)),
    ]


def provoke_handshake(stage: Stage, _: Cell) -> None:
    listen(stage, 8)
    if stage.parameters["hold"]:
        hold_acks(stage)
    stage.on("server").do("began = time.monotonic()")
    connect(stage, held=True)
    stage.wait(lambda: stage.states("client", peer_port=stage.port) == ["ESTABLISHED"], "the client to be connected")


def observe_handshake(stage: Stage, cell: Cell) -> Seen:
    if cell.values["way"] == "lost":
        at_first = stage.states("server", port=stage.port)
        after_s = stage.wait(lambda: stage.on("server").look("not half_open() and time.monotonic() - began"), "the server to give up")
        then = stage.states("server", port=stage.port)
        return {"server, ACK held": at_first, "SYN_RECV lasts s": round(after_s, 2), "server, then": then}
    seen = {
        "client, ACK held": stage.states("client", peer_port=stage.port),
        "server, ACK held": stage.states("server", port=stage.port),
        "accept queue, ACK held": waiting(stage),
    }
    if stage.parameters["hold"]:
        stage.open("client")
    if cell.values["way"] == "cookie":
        stage.on("client").do("c.send(b'with an ACK')")  # nobody repeats a SYN-ACK that was forgotten
    stage.wait(lambda: waiting(stage) == 1, "the connection to move into the accept queue")
    return {**seen, "server, then": stage.states("server", port=stage.port), "accept queue, then": waiting(stage)}


def way_of(run: CellRun) -> str:
    """How a cell was provoked; earlier records have only one."""
    return str(run.values.get("way", "held"))


def was_held(run: CellRun) -> str:
    there = [] if way_of(run) == "cookie" else ["SYN_RECV"]
    return "" if run.seen["server, ACK held"] == there else f"the server was {run.seen['server, ACK held']}: no ACK was held up"


def predict_handshake(_: Facts, run: CellRun) -> Mapping[str, Value | Expected]:
    if way_of(run) == "lost":
        return {"server, ACK held": ["SYN_RECV"], "SYN_RECV lasts s": seconds_with(run.sysctl(SYNACK_RETRIES)), "server, then": []}
    return {
        "client, ACK held": ["ESTABLISHED"],
        "server, ACK held": [] if way_of(run) == "cookie" else ["SYN_RECV"],
        "accept queue, ACK held": 0,
        "server, then": ["ESTABLISHED"],
        "accept queue, then": 1,
    }


def judge_handshake(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    (seen,) = [run.seen for run in runs if way_of(run) == "held"]
    if seen["accept queue, ACK held"] == 0 and seen["server, then"] == ["ESTABLISHED"]:
        return Verdict("HOLDS", "while the ACK is held up the client is ESTABLISHED already, and the server SYN_RECV")
    return Verdict("REFUTED", f"the accept queue had {seen['accept queue, ACK held']} before the ACK came")


HANDSHAKE = Experiment(
    id="C4",
    name="handshake-states",
    claim=Claim(
        "A SYN makes an entry in state SYN_RCVD; the client's ACK makes it ESTABLISHED and moves it to the queue of complete connections.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 4.5; RFC 9293, section 3.5",
    ),
    linux=(
        "Holds, but for SYN cookies, which leave no entry. A lost ACK is made up for when the server repeats its SYN-ACK; it does so "
        "tcp_synack_retries times, and then forgets the request, of which the client knows nothing."
    ),
    prediction=Prediction(
        "ACK held up: client ESTABLISHED, server SYN_RECV (with a cookie: nothing), accept queue empty; then ESTABLISHED, 1. "
        "SYN_RECV without an ACK: 2^(r+1) - 1 s for tcp_synack_retries = r",
        (
            "net/ipv4/tcp_minisocks.c: tcp_check_req",
            "net/ipv4/inet_connection_sock.c: reqsk_timer_handler",
            "net/ipv4/syncookies.c: cookie_v4_check",
        ),
        predict_handshake,
    ),
    cells=handshakes,
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

ABORT, LINEAR = "net.ipv4.tcp_abort_on_overflow", "net.ipv4.tcp_syn_linear_timeouts"
GHOSTS_BACKLOG = 1


def full_queues(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [
        Cell("a client too many", {"way": "one more"}),
        Cell("a client too many, abort_on_overflow=1", {"way": "one more"}, {ABORT: 1}),
        Cell("ACKs held up until the queue is full", {"way": "phantoms"}),
        Cell("ACKs held up until the queue is full, abort_on_overflow=1", {"way": "phantoms"}, {ABORT: 1}),
        *(Cell(f"nobody accepts, syn_retries={r}", {"way": "gives up", "retries": r}) for r in (1, 2)),
        Cell("all ACKs held up, with cookies", {"way": "ghosts"}),
    ]


def provoke_ghosts(stage: Stage) -> None:
    """Clients whose ACKs never come, many more than there may be half-open requests: the others were answered with a cookie."""
    listen(stage, GHOSTS_BACKLOG)
    hold_acks(stage)
    for number in range(1, int(stage.parameters["ghosts"]) + 1):
        connect(stage, held=True)
        stage.wait(
            lambda number=number: stage.states("client", peer_port=stage.port).count("ESTABLISHED") == number,  # type: ignore[misc]
            f"client {number} to be connected",
        )


def observe_giving_up(stage: Stage, retries: int) -> Seen:
    client, host = stage.on("client"), stage.hosts["client"]
    # Newer kernels repeat the first SYNs every second, and older ones have no such choice.
    if LINEAR in host.sysctl:
        host.sysctl[LINEAR] = 0
    client.do("c = socket.socket(); c.setblocking(False); clients.append(c)")
    client.do(f"c.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, {retries}); began = time.monotonic()")
    client.do(f"c.connect_ex(({stage.addresses['server']!r}, {stage.port}))")
    number = stage.wait(lambda: client.look("c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)"), "the client to give up")
    return {"its error": client.do(f"errno.errorcode[{number}]"), "after s": round(client.do("time.monotonic() - began"), 2)}


def provoke_full(stage: Stage, cell: Cell) -> None:
    """``one more``: b + 1 clients fill the queue, and one more comes; ``gives up``: it has few tries. ``phantoms``: b clients, and b more
    whose ACKs come when there is one place only."""
    b = int(stage.parameters["b"])
    if cell.values["way"] == "ghosts":
        provoke_ghosts(stage)
        return
    listen(stage, b)
    normal = b if cell.values["way"] == "phantoms" else b + 1
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
    if cell.values["way"] == "gives up":
        return observe_giving_up(stage, int(cell.values["retries"]))
    if cell.values["way"] == "ghosts":
        connected = stage.states("client", peer_port=stage.port).count("ESTABLISHED")
        return {
            "clients that think they are connected": connected,
            "half open": half_open(stage),
            "accept queue": waiting(stage),
            "all that the server has of them": len(stage.states("server", port=stage.port)),
        }
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
    # One of them comes first. Of several at once, on several processors, more than one may find the last place free: nothing is locked
    # between the question whether the queue is full and the place that is taken (inet_csk_reqsk_queue_add).
    hold_acks(stage, passed=b + 1)
    stage.wait(lambda: waiting(stage) == b + 1, "a client whose ACK was held up to be in the accept queue")
    stage.open("client")
    refused = b - 1
    if host.sysctl[ABORT]:
        stage.wait(lambda: waiting(stage) == b + 1 and half_open(stage) == 0, "the server to refuse the ACKs")
        # What it tells them is still on its way.
        stage.wait(lambda: len(stage.states("client", peer_port=stage.port)) == b + 1, "the clients to hear of it")
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


def predict_full(facts: Facts, run: CellRun) -> Mapping[str, Value | Expected]:
    b = int(facts.parameters["b"])
    if run.values["way"] == "gives up":
        return {"its error": "ETIMEDOUT", "after s": seconds_with(int(run.values["retries"]))}
    if run.values["way"] == "ghosts":
        there = half_open_limit(facts, limit_of(GHOSTS_BACKLOG, run.sysctl("net.core.somaxconn")))
        return {
            "clients that think they are connected": int(facts.parameters["ghosts"]),
            "half open": there,
            "accept queue": 0,
            "all that the server has of them": there,
        }
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
        "client thinks it is connected, to a server that knows nothing of it (a phantom), with 1 it is reset. A client that was answered "
        "with a SYN cookie thinks so too, before the server has anything of it (a ghost)."
    ),
    prediction=Prediction(
        "one more: SYN_SENT, no error, gets in after an accept. b clients, then b whose ACKs were held up: b - 1 "
        "phantoms, or resets with abort=1. ETIMEDOUT after 2^(r+1) - 1 s with r retries. Of all clients whose ACKs are held up only "
        "as many as may be half open (backlog 1: 2, before Linux 6.14 1) are known to the server",
        (
            "net/ipv4/tcp_input.c: tcp_conn_request, sk_acceptq_is_full",
            "net/ipv4/tcp_minisocks.c: tcp_check_req, listen_overflow",
            "Documentation/networking/ip-sysctl.rst: tcp_abort_on_overflow",
            "net/ipv4/tcp_timer.c: tcp_write_timeout, retransmits_timed_out",
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
    parameters={
        "b": Parameter(3, "the backlog", least=2, most=64),
        "ghosts": Parameter(6, "clients whose ACKs never come", least=3, most=100),
    },
    sysctls=PINNED,
)

EXPERIMENTS = (HANDSHAKE, FULL)
