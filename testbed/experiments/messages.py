"""Family E: what becomes of the boundaries between sends, on a stream and between datagrams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed import pictures_of_bytes
from testbed.experiment import (
    KINDS,
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
    one_of,
)
from testbed.experiment_stage import Stage

NO_KERNEL = "the receive buffer is the kernel's, and an emulated host has the machine's: a native host shows the same"
# How many bytes there are to be read, asked of the kernel: no sleep is long enough to know that all have come.
WAITING = """
def waiting():
    buffer = bytearray(4)
    fcntl.ioctl(a.fileno(), 0x541B, buffer)  # FIONREAD
    return int.from_bytes(buffer, sys.byteorder)
"""
# And how many have not been sent yet.
UNSENT = """
def unsent():
    buffer = bytearray(4)
    fcntl.ioctl(c.fileno(), 0x894B, buffer)  # SIOCOUTQNSD
    return int.from_bytes(buffer, sys.byteorder)
"""
PIECE = 7

# E1


def streams(given: Mapping[str, Scalar]) -> Sequence[Cell]:
    cells = [
        Cell(f"{k} sends, TCP_NODELAY={int(flag)}", {"sends": [PIECE] * k, "nodelay": flag})
        for k in ([int(given["sends"])] if "sends" in given else (1, 2, 5, 10))
        for flag in (False, True)
    ]
    if "sends" in given:
        return cells
    five = {"sends": [PIECE] * 5}
    return [
        *cells,
        Cell("1 send of 100, recv of 30", {"sends": [100], "nodelay": False, "recv": 30}),
        Cell("1 send of 5, recv of 10", {"sends": [5], "nodelay": False, "recv": 10}),
        Cell("2 sends of 5, recv of 10 with MSG_WAITALL", {"way": "all", "sends": [5], "nodelay": False}),
        *(Cell(f"5 sends before an ACK, TCP_NODELAY={int(flag)}", {"way": "no ACK", **five, "nodelay": flag}) for flag in (False, True)),
        Cell("5 sends, TCP_CORK", {"way": "cork", **five, "nodelay": False}),
    ]


def provoke_stream(stage: Stage, cell: Cell) -> None:
    client, server, way = stage.on("client"), stage.on("server"), cell.values.get("way")
    client.do(UNSENT)
    server.do(WAITING)
    server.do(f"s = socket.create_server(('', {stage.port}))")
    client.do("c = socket.socket()")
    client.do(f"c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, {int(cell.values['nodelay'])})")
    client.do(f"c.connect(({stage.addresses['server']!r}, {stage.port}))")
    server.do("s.settimeout(20); a = s.accept()[0]; a.settimeout(20)")
    if way == "no ACK":
        stage.drop("client", incoming=f"tcp sport {stage.port}")
    sends = "; ".join(f"c.sendall(bytes({size}))" for size in cell.values["sends"])
    if way == "cork":
        # At once: what is corked goes all the same after 200 ms.
        client.do(f"c.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1); {sends}; corked = unsent()")
        client.do("c.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)")
    else:
        client.do(sends)
    if way != "no ACK":
        all_there(stage, cell)


def all_there(stage: Stage, cell: Cell) -> None:
    stage.wait(lambda: stage.on("server").look("waiting()") == sum(cell.values["sends"]), "all bytes to have arrived")


def observe_stream(stage: Stage, cell: Cell) -> Seen:
    client, server, way, size = stage.on("client"), stage.on("server"), cell.values.get("way"), int(cell.values.get("recv", 4096))
    seen: dict[str, Value] = {}
    if way == "all":
        server.do("import threading; a.settimeout(None); got = []")  # else it is not the kernel that waits
        server.do("t = threading.Thread(target=lambda: got.append(len(a.recv(10, socket.MSG_WAITALL))), daemon=True); t.start()")
        stage.wait(lambda: server.look("waiting()") == 0, "recv to have taken the first bytes")
        client.do("c.sendall(bytes(5))")
        server.do("t.join(20)")
        return {"recv with MSG_WAITALL": server.do("got")}
    if way == "cork":
        seen = {"not sent while corked": client.do("corked")}
    if way == "no ACK":
        left = client.do("unsent()")
        sent = sum(cell.values["sends"]) - left
        stage.wait(lambda: server.look("waiting()") >= sent, "what was sent to have arrived")
        seen = {"not sent before an ACK": left, "arrived before an ACK": server.do("waiting()")}
        stage.open("client")
        all_there(stage, cell)
    server.do(f"got = [len(a.recv({size}))]\nwhile waiting(): got.append(len(a.recv({size})))")
    return {**seen, "recv": server.do("got")}


def predict_stream(_: Facts, run: CellRun) -> Mapping[str, Value]:
    left, size, got, way = sum(run.values["sends"]), int(run.values.get("recv", 4096)), [], run.values.get("way")
    if way == "all":
        return {"recv with MSG_WAITALL": [10]}
    seen: dict[str, Value] = {"not sent while corked": left} if way == "cork" else {}
    if way == "no ACK":
        at_once = left if run.values["nodelay"] else run.values["sends"][0]
        seen = {"not sent before an ACK": left - at_once, "arrived before an ACK": at_once}
    while left:
        got.append(min(left, size))
        left -= got[-1]
    return {**seen, "recv": got}


def judge_stream(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    kept = [run.cell for run in runs if len(run.values["sends"]) > 1 and run.seen.get("recv") == run.values["sends"]]
    if kept:
        return Verdict("REFUTED", f"a recv for each send: {', '.join(kept)}")
    return Verdict("HOLDS", "several sends come as one recv, and one send as several, with TCP_NODELAY or without")


STREAM = Experiment(
    id="E1",
    name="stream-boundaries",
    claim=Claim(
        "TCP is a stream of bytes: it keeps no boundaries between sends.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 2.4; RFC 9293, section 3.8",
    ),
    linux=(
        "Holds. What has arrived comes with one recv if it fits. TCP_NODELAY and TCP_CORK change how many segments there are and when "
        "they go, not what recv gives: of small sends only the first goes before an ACK has come (Nagle); with TCP_NODELAY all do, and "
        "none while corked."
    ),
    prediction=Prediction(
        "k sends that have arrived: one recv of all; n bytes with a buffer of r: ceil(n/r) recvs; MSG_WAITALL: as many as asked for. k "
        "sends of 7 before an ACK: 7 go, with TCP_NODELAY 7k, corked 0",
        (
            "net/ipv4/tcp.c: tcp_recvmsg_locked",
            "RFC 9293, sections 3.7.4 and 3.9.1.3",
            "net/ipv4/tcp_output.c: tcp_nagle_check",
            "tcp(7): TCP_CORK",
        ),
        predict_stream,
    ),
    cells=streams,
    provoke=provoke_stream,
    observe=observe_stream,
    judge=judge_stream,
    others=("client",),
    watched="2 sends, TCP_NODELAY=0",
    kinds=KINDS,
    parameters={"sends": Parameter(None, "how many sends of 7 bytes", usual=5, least=1, most=1000)},
    # Else a probe for a lost ACK takes new bytes with it, and what Nagle lets go may be held up for another reason.
    sysctls={"net.ipv4.tcp_early_retrans": 0, "net.ipv4.tcp_autocorking": 0},
)

# E2


def datagrams(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [Cell("10 bytes and 3, recv of 4", {"way": "short"}), Cell("0 bytes", {"way": "empty"}), Cell("the largest", {"way": "large"})]


def provoke_datagram(stage: Stage, cell: Cell) -> None:
    server, client = stage.on("server"), stage.on("client")
    server.do(f"a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(('', {stage.port})); a.settimeout(20)")
    client.do("c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    to = (stage.addresses["server"], stage.port)
    if cell.values["way"] == "short":
        client.do(f"c.sendto(b'0123456789', {to!r}); c.sendto(b'end', {to!r})")
    elif cell.values["way"] == "empty":
        client.do(f"c.sendto(b'', {to!r})")


def observe_datagram(stage: Stage, cell: Cell) -> Seen:
    server = stage.on("server")
    if cell.values["way"] == "large":
        to = (stage.addresses["client"], stage.port)
        return {f"send of {size}": server.outcome(f"a.sendto(bytes({size}), {to!r})") for size in (65507, 65508)}
    if cell.values["way"] == "empty":
        return {"recv": server.do("len(a.recv(4))")}
    server.do("data, _, flags, _ = a.recvmsg(4)")
    return {
        "recv": server.do("data.decode()"),
        "MSG_TRUNC": server.do("bool(flags & socket.MSG_TRUNC)"),
        "then recv": server.do("a.recv(4).decode()"),
    }


def predict_datagram(_: Facts, run: CellRun) -> Mapping[str, Value]:
    ways: dict[str, Mapping[str, Value]] = {
        "short": {"recv": "0123", "MSG_TRUNC": True, "then recv": "end"},
        "empty": {"recv": 0},
        "large": {"send of 65507": "ok", "send of 65508": "EMSGSIZE"},
    }
    return ways[run.values["way"]]


def judge_datagram(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    (short,) = [run for run in runs if run.values["way"] == "short"]
    if short.seen["then recv"] == "end":
        return Verdict("HOLDS", "what did not fit into the buffer is gone, and the next recv gives the next datagram")
    return Verdict("REFUTED", f"after {short.seen['recv']} the next recv gave {short.seen['then recv']}")


DATAGRAM = Experiment(
    id="E2",
    name="datagram-boundaries",
    claim=Claim(
        "UDP keeps boundaries: a recv gives one datagram, or the part of it that fits.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 2.3; RFC 768",
    ),
    linux="Holds. The rest of a datagram that does not fit is gone, which MSG_TRUNC tells. One may have no bytes, and 65507 at most.",
    prediction=Prediction(
        "recv(4) of 10 bytes: 4, MSG_TRUNC, then the next datagram; 65535 - 20 - 8 = 65507 bytes can be sent, one more is EMSGSIZE",
        ("recv(2): MSG_TRUNC", "net/ipv4/udp.c: udp_sendmsg, udp_recvmsg", "RFC 791: total length"),
        predict_datagram,
    ),
    cells=datagrams,
    provoke=provoke_datagram,
    observe=observe_datagram,
    judge=judge_datagram,
    others=("client",),
    kinds=KINDS,
)

# E3

EXACT_FROM = (6, 18)


def sizes(given: Mapping[str, Scalar]) -> Sequence[Cell]:
    chosen = [given["size"]] if "size" in given else (10, 100, 1000)
    return [Cell(f"{size} bytes each", {"size": size}) for size in chosen]


def provoke_overflow(stage: Stage, cell: Cell) -> None:
    server, client, number = stage.on("server"), stage.on("client"), int(stage.parameters["datagrams"])
    server.do(f"a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.bind(('', {stage.port})); a.setblocking(False)")
    server.do(f"a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, {stage.parameters['rcvbuf']})")
    server.do("def held(): return struct.unpack('=9I', a.getsockopt(socket.SOL_SOCKET, 55, 36))[0]  # SO_MEMINFO: SK_MEMINFO_RMEM_ALLOC")
    before = stage.hosts["server"].counters()
    client.do("c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    client.do(f"c.connect(({stage.addresses['server']!r}, {stage.port})); c.send(bytes({cell.values['size']}))")
    server.do(f"before = {before['Udp.RcvbufErrors']}")
    stage.wait(lambda: server.do("held()") > 0, "the first datagram to arrive")
    server.do("truesize = held()")
    client.do(f"for _ in range({number - 1}): c.send(bytes({cell.values['size']}))")
    whole = ("Udp.InDatagrams", "Udp.RcvbufErrors")

    def all_came() -> bool:
        # One that waits to be read is not yet counted as received; so it is told from the memory that is taken.
        lost = (stage.hosts["server"].counters() - before)[whole[1]]
        return bool(server.do("held() // truesize") + lost >= number)

    stage.wait(all_came, "every datagram to have been kept or dropped")


def observe_overflow(stage: Stage, _: Cell) -> Seen:
    server = stage.on("server")
    errors = stage.hosts["server"].counters()["Udp.RcvbufErrors"] - int(server.do("before"))
    server.do("got = 0")
    server.do("def read():\n    global got\n    try:\n        while True: a.recv(2000); got += 1\n    except BlockingIOError: return got")
    return {
        "R": server.do("a.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)"),
        "truesize": server.do("truesize"),
        "held": server.do("read()"),
        "RcvbufErrors": errors,
    }


def predict_overflow(facts: Facts, run: CellRun) -> Mapping[str, Value | Expected]:
    number = int(facts.parameters["datagrams"])
    fit = min(number, run.seen["R"] // run.seen["truesize"])
    if facts.release >= EXACT_FROM:
        return {"held": fit, "RcvbufErrors": number - fit}
    reason = "older kernels take one more: they look at what is there before it comes"
    return {
        "held": one_of(fit, min(number, fit + 1), reason=reason),
        "RcvbufErrors": number - run.seen["held"],
    }


def buffer_was_full(run: CellRun) -> str:
    return "" if run.seen["RcvbufErrors"] else "nothing was dropped: the receive buffer was not full"


def judge_overflow(facts: Facts, runs: Sequence[CellRun]) -> Verdict:
    by_bytes = [run for run in runs if run.seen["held"] * run.values["size"] + run.values["size"] > facts.parameters["rcvbuf"]]
    if len(by_bytes) == len(runs):
        return Verdict("HOLDS")
    held = [f"{run.seen['held']} of {run.values['size']} bytes" for run in runs]
    return Verdict("REFUTED", f"with a buffer set to {facts.parameters['rcvbuf']} bytes it holds {', '.join(held)}")


OVERFLOW = Experiment(
    id="E3",
    name="udp-overflow",
    claim=Claim(
        "A UDP socket's receive buffer holds as many bytes of datagrams as SO_RCVBUF was set to; what is more is dropped.", "socket(7)"
    ),
    linux=(
        "More is dropped, but what counts is the memory that a datagram takes (truesize), not its bytes: of ten bytes "
        "each as few fit as of a hundred."
    ),
    prediction=Prediction(
        "R = getsockopt(SO_RCVBUF), t = truesize of the first: floor(R / t) are held (one more before 6.18), the rest "
        "counted in RcvbufErrors",
        (
            "net/ipv4/udp.c: __udp_enqueue_schedule_skb",
            "socket(7): SO_RCVBUF is doubled",
            "include/uapi/linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC",
        ),
        predict_overflow,
    ),
    cells=sizes,
    provoke=provoke_overflow,
    observe=observe_overflow,
    took_effect=buffer_was_full,
    judge=judge_overflow,
    others=("client",),
    picture=pictures_of_bytes.held_datagrams,
    refused={"emulated": NO_KERNEL},
    parameters={
        "rcvbuf": Parameter(8192, "what SO_RCVBUF is set to", least=0),
        "datagrams": Parameter(60, "how many are sent", least=2, most=100_000),
        "size": Parameter(None, "the bytes of each", usual=100, least=1, most=1472),
    },
)

EXPERIMENTS = (STREAM, DATAGRAM, OVERFLOW)
