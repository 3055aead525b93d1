"""Family C, the first half: how long the two queues of a listening socket are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed import pictures_of_queues
from testbed.counters import Counters
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
)
from testbed.experiment_listener import NO_KERNEL, PINNED, connect, half_open_limit, hold_syn_acks, limit_of, listen, look
from testbed.experiment_stage import Stage

COOKIES, SYN_BACKLOG_M = "net.ipv4.tcp_syncookies", "net.ipv4.tcp_max_syn_backlog"
MORE = 2  # attempts beyond what should fit
WATCHED = (
    *("TcpExt.ListenOverflows", "TcpExt.ListenDrops", "TcpExt.TCPReqQFullDrop", "TcpExt.TCPReqQFullDoCookies"),
    "TcpExt.SyncookiesSent",
)


# Provoking


def fill(stage: Stage, attempts: int) -> None:
    """Normal clients, one after the other; each waits until the server has it in its accept queue, or has counted an overflow."""
    at_first = look(stage)
    for number in range(1, attempts + 1):
        connect(stage)

        def arrived(number: int = number) -> bool:
            now = look(stage)
            return now.waiting - at_first.waiting + now.overflows - at_first.overflows >= number

        stage.wait(arrived, f"the server to see client {number}")


def fill_half_open(stage: Stage, attempts: int) -> Counters:
    """Clients whose handshake is held up, one after the other; each waits until the server has a request, has refused it, or has
    answered it with a cookie. A client then gives up, before it repeats its SYN. Gives what the server counted."""
    begin, at_first = stage.hosts["server"].counters(), look(stage)
    for number in range(1, attempts + 1):
        connect(stage, held=True)

        def arrived(number: int = number) -> bool:
            now = look(stage)
            there, refused = now.half_open - at_first.half_open, now.drops - at_first.drops
            return there + refused + now.cookies - at_first.cookies >= number

        stage.wait(arrived, f"the server to see half-open client {number}")
        stage.on("client").do("c.close()")
    return stage.hosts["server"].counters() - begin


def lengths(stage: Stage) -> dict[str, Value]:
    now = look(stage)
    return {"accept queue": now.waiting, "half open": now.half_open, "sum": now.waiting + now.half_open}


# C1


def provoke_two(stage: Stage, _: Cell) -> None:
    listen(stage, 8)
    if stage.parameters["hold"]:
        hold_syn_acks(stage)
    for _number in range(int(stage.parameters["half_open"])):
        connect(stage, held=True)
    fill(stage, int(stage.parameters["complete"]))


def observe_two(stage: Stage, _: Cell) -> Seen:
    states = stage.states("server", port=stage.port)
    return {**lengths(stage), "SYN_RECV": states.count("SYN_RECV"), "ESTABLISHED": states.count("ESTABLISHED")}


def predict_two(facts: Facts, _: CellRun) -> Mapping[str, Value]:
    half_open, complete = int(facts.parameters["half_open"]), int(facts.parameters["complete"])
    return {"accept queue": complete, "half open": half_open, "SYN_RECV": half_open, "ESTABLISHED": complete}


def some_half_open(run: CellRun) -> str:
    return "" if run.seen["half open"] else "no request is half open: the handshakes were not held up"


def judge_two(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    (run,) = runs
    if run.seen["accept queue"] and run.seen["accept queue"] == run.seen["ESTABLISHED"] and run.seen["half open"] == run.seen["SYN_RECV"]:
        return Verdict("HOLDS", f"{run.seen['half open']} half open, {run.seen['accept queue']} complete and not accepted")
    return Verdict("REFUTED", f"the accept queue has {run.seen['accept queue']}, with {run.seen['ESTABLISHED']} complete connections")


TWO = Experiment(
    id="C1",
    name="two-queues",
    claim=Claim(
        "For a listening socket the kernel keeps two queues: of connections whose handshake is not complete, and of complete ones.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 4.5",
    ),
    linux=(
        "Holds, but only the second is a queue: half-open requests are in the kernel's table of all "
        "connections, and the socket counts them."
    ),
    prediction=Prediction(
        "held-up handshakes: SYN_RECV, counted; complete ones: ESTABLISHED, in the accept queue",
        (
            "include/net/request_sock.h: struct request_sock_queue: qlen, rskq_accept_head",
            "net/ipv4/inet_connection_sock.c: reqsk_queue_hash_req",
        ),
        predict_two,
    ),
    provoke=provoke_two,
    observe=observe_two,
    took_effect=some_half_open,
    judge=judge_two,
    others=("client",),
    refused={"emulated": NO_KERNEL},
    parameters={
        "half_open": Parameter(3, "handshakes that are held up"),
        "complete": Parameter(2, "handshakes that complete"),
        "hold": Parameter(True, "whether they are held up at all"),
    },
    sysctls=PINNED,
)

# C2


FILLS = ("accept queue", "half open", "both")


def backlogs(given: Mapping[str, Scalar]) -> Sequence[Cell]:
    fills = [given["fill"]] if "fill" in given else FILLS
    if "backlog" in given:
        return [Cell(f"b={given['backlog']}: {fill}", {"b": given["backlog"], "fill": fill}) for fill in fills]
    cells = [
        Cell(f"b={b} S={s}: accept queue", {"b": b, "fill": "accept queue"}, {"net.core.somaxconn": s})
        for s in (1, 4)
        for b in (-1, 0, 1, 2, 8)
    ]
    cells += [Cell(f"b={b} S=128: half open", {"b": b, "fill": "half open"}) for b in (0, 1, 3)]
    both = {"fill": "both"}
    cells += [Cell(f"b={b} S=128, cookies: both", {"b": b, **both}, {"net.ipv4.tcp_syncookies": 1}) for b in (1, 3)]
    cells += [Cell(f"b={b} S=128, no cookies: both", {"b": b, **both}, {"net.ipv4.tcp_syncookies": 0}) for b in (1, 3)]
    return [cell for cell in cells if cell.values["fill"] in fills]


def provoke_backlog(stage: Stage, cell: Cell) -> None:
    b = int(cell.values["b"])
    listen(stage, b)
    limit = look(stage).limit
    if cell.values["fill"] == "accept queue":
        fill(stage, limit + 1 + MORE)
        return
    hold_syn_acks(stage)
    if cell.values["fill"] == "half open":
        fill_half_open(stage, limit + 1 + MORE)
        return
    # Once the accept queue is full no SYN gets in, so the half-open ones come first. Without cookies a place must stay free among them,
    # which every normal client passes through.
    cookies = stage.hosts["server"].sysctl[COOKIES]
    fill_half_open(stage, limit + 1 + MORE if cookies else limit)
    # On an older kernel without cookies even that is full.
    fill(stage, limit + 1 + MORE)


def observe_backlog(stage: Stage, _: Cell) -> Seen:
    return {**lengths(stage), "limit": look(stage).limit}


def predict_backlog(facts: Facts, run: CellRun) -> Mapping[str, Value | Expected]:
    limit = limit_of(int(run.values["b"]), run.sysctl("net.core.somaxconn"))
    half_open = half_open_limit(facts, limit)
    if run.values["fill"] == "accept queue":
        return {"limit": limit, "accept queue": limit + 1}
    if run.values["fill"] == "half open":
        return {"limit": limit, "half open": half_open}
    if run.sysctl("net.ipv4.tcp_syncookies"):
        return {"limit": limit, "accept queue": limit + 1, "half open": half_open}
    return {"limit": limit, "accept queue": limit + 1, "half open": limit}


def judge_backlog(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    more = [run for run in runs if run.values["b"] >= 0 and run.seen["sum"] > run.values["b"]]
    if more:
        most = max(more, key=lambda run: run.seen["sum"] - run.values["b"])
        return Verdict("REFUTED", f"with backlog {most.values['b']} both queues together have {most.seen['sum']} ({most.cell})")
    return Verdict("HOLDS")


def something_waits(run: CellRun) -> str:
    if run.values["fill"] != "accept queue" and run.values["b"] and not run.seen["half open"]:
        return "no request is half open: the handshakes were not held up"
    return "" if run.seen["sum"] or not run.values["b"] else "nobody waits: the clients did not arrive, or were accepted"


BACKLOG = Experiment(
    id="C2",
    name="accept-queue",
    claim=Claim(
        "The sum of both queues does not exceed the backlog given to listen.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 4.5, of historic kernels",
    ),
    linux=(
        "Refuted: each is limited by itself, with L = min(backlog, somaxconn): the accept queue to L + 1, the half-open requests to L + 1 "
        "(L before Linux 6.14). Together they reach 2(L + 1) with syncookies, 2L + 1 without. A backlog of -1 is the "
        "largest number there is."
    ),
    prediction=Prediction(
        "L = min(unsigned b, S); accept queue L + 1; half open L + 1, from 6.14 on, else L",
        (
            "include/net/sock.h: sk_acceptq_is_full, sk_ack_backlog > sk_max_ack_backlog",
            "include/net/inet_connection_sock.h: inet_csk_reqsk_queue_is_full",
            "net/socket.c: __sys_listen; listen(2)",
        ),
        predict_backlog,
    ),
    cells=backlogs,
    provoke=provoke_backlog,
    observe=observe_backlog,
    took_effect=something_waits,
    judge=judge_backlog,
    others=("client",),
    picture=pictures_of_queues.queues_by_backlog,
    watched="b=1 S=128, cookies: both",
    refused={"emulated": NO_KERNEL},
    parameters={
        "backlog": Parameter(None, "the backlog given to listen", usual=8, least=-1, most=512),
        "fill": Parameter(None, f"which queue is filled: {', '.join(FILLS)}", usual=FILLS[0], choices=FILLS),
    },
    sysctls=PINNED,
)

# C3


def limit_by_m(most: int) -> int:
    """How many half-open requests there are with tcp_max_syn_backlog = M, without cookies: a quarter is for peers that are known."""
    return most - (most >> 2) + 1


def syn_backlogs(given: Mapping[str, Scalar]) -> Sequence[Cell]:
    if "backlog" in given:
        return [Cell(f"b={given['backlog']}", {"b": given["backlog"]})]
    cells = [Cell(f"syncookies=0 M={m} b=128", {"b": 128}, {COOKIES: 0, SYN_BACKLOG_M: m}) for m in (0, 1, 2, 3, 4)]
    cells += [Cell(f"syncookies=0 M=1024 b={b}", {"b": b}, {COOKIES: 0, SYN_BACKLOG_M: 1024}) for b in (1, 2)]
    cells += [Cell(f"syncookies=1 M={m} b=3", {"b": 3}, {COOKIES: 1, SYN_BACKLOG_M: m}) for m in (0, 1, 1024)]
    return [*cells, Cell("syncookies=2 M=1024 b=3", {"b": 3}, {COOKIES: 2, SYN_BACKLOG_M: 1024})]


def provoke_syn_backlog(stage: Stage, cell: Cell) -> None:
    stage.hosts["server"].run(["ip", "tcp_metrics", "flush"]).check(where="the server")
    now = stage.hosts["server"].sysctl.several((COOKIES, SYN_BACKLOG_M))
    listen(stage, int(cell.values["b"]))
    hold_syn_acks(stage)
    # Beyond every limit that may count: without cookies the smaller one does.
    enough = look(stage).limit + 1
    if not now[COOKIES]:
        enough = min(enough, limit_by_m(int(now[SYN_BACKLOG_M])))
    counted = fill_half_open(stage, enough + MORE)
    stage.on("client").do(f"counted = {sorted(name for name in WATCHED if counted[name])!r}")


def observe_syn_backlog(stage: Stage, _: Cell) -> Seen:
    return {**lengths(stage), "counters that rose": stage.on("client").do("counted")}


def predict_syn_backlog(facts: Facts, run: CellRun) -> Mapping[str, Value | Expected]:
    limit = limit_of(int(run.values["b"]), run.sysctl("net.core.somaxconn"))
    cookies, most = run.sysctl(COOKIES), run.sysctl(SYN_BACKLOG_M)
    answered = ["TcpExt.SyncookiesSent", "TcpExt.TCPReqQFullDoCookies"]
    if cookies == 2:
        return {"half open": 0, "counters that rose": answered}
    if cookies == 1:
        return {"half open": half_open_limit(facts, limit), "counters that rose": answered}
    by_m = limit_by_m(most)
    if by_m <= limit:
        return {"half open": by_m, "counters that rose": ["TcpExt.ListenDrops"]}
    return {"half open": half_open_limit(facts, limit), "counters that rose": ["TcpExt.ListenDrops", "TcpExt.TCPReqQFullDrop"]}


def judge_syn_backlog(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    wrong = [run for run in runs if run.seen["half open"] != run.sysctl("net.ipv4.tcp_max_syn_backlog")]
    few = [f"{run.cell}: {run.seen['half open']}" for run in wrong]
    return Verdict("REFUTED", f"half-open requests at most, {'; '.join(few)}") if wrong else Verdict("HOLDS")


def somebody_was_refused(run: CellRun) -> str:
    return "" if run.seen["counters that rose"] else "no limit was met: no SYN was refused or answered with a cookie"


SYN_BACKLOG = Experiment(
    id="C3",
    name="syn-backlog",
    claim=Claim(
        "The queue of incomplete connections is as long as net.ipv4.tcp_max_syn_backlog (M) says.",
        "tcp(7), listen(2), and most guides to tuning",
    ),
    linux=(
        "Mostly refuted. With syncookies=1, the default, M is ignored and the backlog counts. With 0 both do, M reduced by a quarter; a "
        "client that is known from before is let in all the same. With 2 nothing is half open: every SYN is answered with a cookie."
    ),
    prediction=Prediction(
        "syncookies=0: min(half-open limit of the backlog, M - floor(M/4) + 1); 1: that limit alone; 2: 0",
        ("net/ipv4/tcp_input.c: tcp_conn_request, tcp_syn_flood_action", "Documentation/networking/ip-sysctl.rst: tcp_syncookies"),
        predict_syn_backlog,
    ),
    cells=syn_backlogs,
    provoke=provoke_syn_backlog,
    observe=observe_syn_backlog,
    took_effect=somebody_was_refused,
    judge=judge_syn_backlog,
    others=("client",),
    picture=pictures_of_queues.half_open_by_limit,
    watched="syncookies=0 M=1 b=128",
    refused={"emulated": NO_KERNEL},
    parameters={"backlog": Parameter(None, "the backlog given to listen", usual=24, least=0, most=512)},
    sysctls=PINNED,
)

EXPERIMENTS = (TWO, BACKLOG, SYN_BACKLOG)
