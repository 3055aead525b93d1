"""Family B: what the types of sockets promise, and the order of calls that a server makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.experiment import Cell, CellRun, Claim, Experiment, Facts, Parameter, Prediction, Scalar, Seen, Value, Verdict
from testbed.experiment_stage import Stage

NO_KERNEL = "its kernel is the machine's own: a native host shows the same"


def cell_of(runs: Sequence[CellRun], name: str) -> Seen:
    """What was seen of the cell of that name."""
    (run,) = [run for run in runs if run.cell == name]
    return run.seen


# B1

# The sender must make packets of the wire's size, or there are few of them; the receiver must not put them together again.
PLAIN = ["ethtool", "-K", "eth0", "gso", "off", "tso", "off", "gro", "off"]
DATA = "data = b''.join(index.to_bytes(4, 'big') for index in range({words}))"


def losses(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [Cell(f"every {k}th packet lost", {"k": k}) for k in (3, 5, 10)]


def provoke_stream(stage: Stage, cell: Cell) -> None:
    client, server, words = stage.on("client"), stage.on("server"), int(stage.parameters["bytes"]) // 4
    for role in ("client", "server"):
        stage.hosts[role].run(PLAIN).check(where=f"the {role}")
    server.do(f"s = socket.create_server(('', {stage.port}))")
    client.do(f"c = socket.create_connection(({stage.addresses['server']!r}, {stage.port}))")
    server.do("s.settimeout(20); a = s.accept()[0]; a.settimeout(20)")
    # Dropped where it is received: a packet that its own sender drops is known there not to have been sent.
    stage.drop("server", incoming=f"tcp dport {stage.port} numgen inc mod {cell.values['k']} == {cell.values['k'] - 1}")
    client.do(DATA.format(words=words))
    client.do("def send(): c.sendall(data); c.shutdown(socket.SHUT_WR)")
    client.do("import threading; t = threading.Thread(target=send, daemon=True); t.start()")


def observe_stream(stage: Stage, _: Cell) -> Seen:
    server, words = stage.on("server"), int(stage.parameters["bytes"]) // 4
    server.do(DATA.format(words=words))
    server.do("chunks = []\nwhile chunk := a.recv(65536): chunks.append(chunk)")
    return {
        "bytes": server.do("sum(map(len, chunks))"),
        "identical": server.do("b''.join(chunks) == data"),
        "packets dropped": stage.dropped("server"),
    }


def some_were_lost(run: CellRun) -> str:
    return "" if run.seen["packets dropped"] else "no packet was lost, so nothing was to be repaired"


def judge_stream(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    wrong = [run.cell for run in runs if not run.seen["identical"]]
    return Verdict("REFUTED", f"other bytes arrived with {', '.join(wrong)}") if wrong else Verdict("HOLDS")


STREAM = Experiment(
    id="B1",
    name="stream-is-reliable",
    claim=Claim(
        "A stream socket is reliable: bytes arrive as they were sent, in order, none lost and none twice.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 2.4; RFC 9293, section 2.2",
    ),
    linux="Holds, with every 3rd, 5th or 10th packet lost on its way in.",
    prediction=Prediction(
        "all bytes, the same as were sent",
        ("RFC 9293, section 3.8: data communication; RFC 6298: retransmission",),
        lambda facts, _: {"bytes": int(facts.parameters["bytes"]) // 4 * 4, "identical": True},
    ),
    cells=losses,
    provoke=provoke_stream,
    observe=observe_stream,
    took_effect=some_were_lost,
    judge=judge_stream,
    others=("client",),
    refused={"emulated": NO_KERNEL},
    parameters={"bytes": Parameter(200_000, "how many bytes are sent, a multiple of 4")},
)

# B2

MOST = 60  # datagrams: all fit into a receive buffer of the usual size


def datagrams(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [Cell("loss", {"way": "loss"}), Cell("duplicates", {"way": "duplicates"}), Cell("closed port", {"way": "closed"})]


def provoke_datagrams(stage: Stage, cell: Cell) -> None:
    client, server, number = stage.on("client"), stage.on("server"), int(stage.parameters["datagrams"])
    way, address = cell.values["way"], stage.addresses["server"]
    client.do("c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    if way == "closed":
        before = stage.hosts["client"].counters()
        client.do(f"c.connect(({address!r}, {stage.port}))")
        sent = (stage.hosts["client"].counters() - before)["Ip.OutRequests"]
        client.do(f"by_connect = {sent}")
        client.do("u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
        return
    server.do(f"s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', {stage.port})); s.setblocking(False)")
    server.do("got = []")
    server.do(
        "def read():\n    try:\n        while True: got.append(int.from_bytes(s.recv(100), 'big'))\n    except "
        "BlockingIOError: return len(got)"
    )
    if way == "loss":
        k = int(stage.parameters["k"])
        stage.drop("server", incoming=f"udp dport {stage.port} numgen inc mod {k} == {k - 1}")
    else:
        # Only what has no mark is doubled: the copy passes here as well.
        rule = f"udp dport {stage.port} meta mark 0 meta mark set 1 counter dup to eth0"
        text = f"table netdev testbed {{\nchain out {{ type filter hook egress device eth0 priority 0; {rule}; }}\n}}\n"
        stage.hosts["client"].run(["nft", "-f", "-"], stdin=text.encode()).check(where="the client")
    client.do(f"for index in range({number}): c.sendto(index.to_bytes(4, 'big'), ({address!r}, {stage.port}))")


def observe_datagrams(stage: Stage, cell: Cell) -> Seen:
    client, server, number = stage.on("client"), stage.on("server"), int(stage.parameters["datagrams"])
    way, address = cell.values["way"], stage.addresses["server"]
    if way == "closed":
        before = stage.hosts["client"].counters()
        first = client.outcome("c.send(b'1')")
        refusals = "Icmp.InDestUnreachs"
        stage.wait(lambda: (stage.hosts["client"].counters() - before).get(refusals) > 0, "the client to be told that the port is closed")
        seen: dict[str, Value] = {"connect sends": client.do("by_connect"), "connected, 1st send": first}
        seen["connected, 2nd send"] = client.outcome("c.send(b'2')")
        before = stage.hosts["client"].counters()
        outcomes = []
        for count in range(1, 4):
            outcomes.append(client.outcome(f"u.sendto(b'{count}', ({address!r}, {stage.port}))"))
            stage.wait(
                lambda: (stage.hosts["client"].counters() - before).get(refusals) >= count,  # noqa: B023 # asked at once
                "the client to be told that the port is closed",
            )
        return {**seen, "not connected, 3 sends": outcomes}
    if way == "loss":
        stage.wait(lambda: server.do("read()") + stage.dropped("server") >= number, "every datagram to have arrived or been dropped")
        return {"arrived": server.do("got"), "dropped": stage.dropped("server")}
    # Another datagram, to another socket, comes after all the copies.
    server.do("last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); last.bind(('', 0)); last.settimeout(20)")
    client.do(f"c.sendto(b'last', ({address!r}, {server.do('last.getsockname()[1]')}))")
    server.do("last.recv(100)")
    server.do("read()")
    stage.hosts["client"].run(["nft", "delete", "table", "netdev", "testbed"])
    return {"arrived": server.do("got")}


def datagrams_were_disturbed(run: CellRun) -> str:
    if run.cell == "loss" and not run.seen["dropped"]:
        return "no datagram was dropped"
    if run.cell == "duplicates" and len(set(run.seen["arrived"])) == len(run.seen["arrived"]):
        return "no datagram was doubled on its way"
    return ""


def predict_datagrams(facts: Facts, run: CellRun) -> Mapping[str, Value]:
    number, k = int(facts.parameters["datagrams"]), int(facts.parameters["k"])
    if run.cell == "loss":
        return {"arrived": [index for index in range(number) if index % k != k - 1], "dropped": number // k}
    if run.cell == "duplicates":
        return {"arrived": [index for index in range(number) for _ in range(2)]}
    return {
        "connect sends": 0,
        "connected, 1st send": "ok",
        "connected, 2nd send": "ECONNREFUSED",
        "not connected, 3 sends": ["ok", "ok", "ok"],
    }


def judge_datagrams(facts: Facts, runs: Sequence[CellRun]) -> Verdict:
    number = int(facts.parameters["datagrams"])
    lost = number - len(set(cell_of(runs, "loss")["arrived"]))
    doubled = cell_of(runs, "duplicates")["arrived"]
    if lost and len(doubled) > len(set(doubled)):
        return Verdict("HOLDS", f"{lost} of {number} lost without a word, {len(doubled) - len(set(doubled))} arrived twice")
    return Verdict("REFUTED", "what was lost was sent again, or what came twice was sorted out")


DATAGRAM = Experiment(
    id="B2",
    name="datagram-is-not",
    claim=Claim(
        "A datagram socket is unreliable: what is lost stays lost, and what the network doubles arrives twice.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 2.3; RFC 768",
    ),
    linux="Holds. Of a closed port only a connected socket learns, with its second send; connect() itself sends nothing.",
    prediction=Prediction(
        "with every kth of N dropped N - floor(N/k) arrive; with each doubled 2N; ECONNREFUSED at the 2nd send of a "
        "connected socket, never without",
        ("net/ipv4/udp.c: udp_err, __udp4_lib_err: the error goes to a connected socket", "udp(7)"),
        predict_datagrams,
    ),
    cells=datagrams,
    provoke=provoke_datagrams,
    observe=observe_datagrams,
    took_effect=datagrams_were_disturbed,
    judge=judge_datagrams,
    others=("client",),
    watched="closed port",
    refused={"emulated": NO_KERNEL},
    parameters={
        "datagrams": Parameter(20, f"how many datagrams are sent, at most {MOST}"),
        "k": Parameter(5, "every kth is dropped"),
    },
    sysctls={"net.ipv4.icmp_ratelimit": 0},
)

# B3

WITHOUT_NET_RAW = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))  # linux/capability.h: version 3, this process
sets = ctypes.create_string_buffer(24)
if libc.capget(header, sets): raise OSError(ctypes.get_errno(), "capget")
words = [word & ~(1 << 13) if index < 3 else word for index, word in enumerate(struct.unpack("=6I", sets.raw))]  # CAP_NET_RAW is 13
if libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *words))): raise OSError(ctypes.get_errno(), "capset")
"""


def rights(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [Cell("with CAP_NET_RAW", {"net_raw": True}), Cell("without, as uid 0", {"net_raw": False})]


def provoke_raw(stage: Stage, cell: Cell) -> None:
    server = stage.on("server", "with" if cell.values["net_raw"] else "without")
    server.do("uid = os.getuid()")
    if not cell.values["net_raw"]:
        server.do(WITHOUT_NET_RAW)
    server.do("def make(): global raw; raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP); raw.settimeout(20)")


def observe_raw(stage: Stage, cell: Cell) -> Seen:
    server, client = stage.on("server", "with" if cell.values["net_raw"] else "without"), stage.on("client")
    seen: dict[str, Value] = {"uid": server.do("uid"), "socket": server.outcome("make()")}
    if seen["socket"] != "ok":
        return seen
    server.do(f"normal = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); normal.bind(('', {stage.port})); normal.settimeout(20)")
    client.do("c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    for port in (stage.port, stage.port + 1):
        client.do(f"c.sendto(b'hello', ({stage.addresses['server']!r}, {port}))")
    packets = [bytes.fromhex(server.do("raw.recv(100).hex()")) for _ in range(2)]
    return {
        **seen,
        "IP version and header length": [f"{packet[0]:#x}" for packet in packets],
        "ports, from the first": [int.from_bytes(packet[22:24], "big") - stage.port for packet in packets],
        "the normal socket still gets its datagram": server.do("normal.recv(100).decode()"),
    }


def predict_raw(_: Facts, run: CellRun) -> Mapping[str, Value]:
    if not run.values["net_raw"]:
        return {"uid": 0, "socket": "EPERM"}
    return {
        "uid": 0,
        "socket": "ok",
        "IP version and header length": ["0x45", "0x45"],
        "ports, from the first": [0, 1],
        "the normal socket still gets its datagram": "hello",
    }


def judge_raw(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    having, lacking = cell_of(runs, "with CAP_NET_RAW"), cell_of(runs, "without, as uid 0")
    if having["socket"] != "ok":
        return Verdict("INCONCLUSIVE", f"a raw socket cannot be made at all: {having['socket']}")
    if lacking["socket"] == "ok":
        return Verdict("REFUTED", "it can be made without the right to")
    return Verdict("HOLDS", f"without CAP_NET_RAW: {lacking['socket']}, although the user is uid 0")


RAW = Experiment(
    id="B3",
    name="raw-socket",
    claim=Claim(
        "A raw socket reads and writes IP packets; making one needs a privilege.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 28.2",
    ),
    linux="Holds. The privilege is CAP_NET_RAW, not the user id 0. Raw sockets get a copy, of all ports; the normal ones get theirs.",
    prediction=Prediction(
        "EPERM without CAP_NET_RAW; with it packets begin with the IP header (0x45), whatever their port",
        ("raw(7)", "net/ipv4/af_inet.c: inet_create, ns_capable(CAP_NET_RAW)", "net/ipv4/raw.c: raw_local_deliver"),
        predict_raw,
    ),
    cells=rights,
    provoke=provoke_raw,
    observe=observe_raw,
    judge=judge_raw,
    others=("client",),
    refused={"emulated": NO_KERNEL},
)

# B4


def orders(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    steps = {
        "socket, bind, listen, then a client": f"s.bind(('', port)); s.listen({FIRST_BACKLOG})",
        "socket, bind, no listen, then a client": "s.bind(('', port))",
        "socket, bind, accept": "s.bind(('', port))",
        "socket, listen, without bind": "s.listen()",
        "listen on a UDP socket": "",
        "listen a second time": f"s.bind(('', port)); s.listen({FIRST_BACKLOG})",
    }
    return [Cell(name, {"code": code}) for name, code in steps.items()]


FIRST_BACKLOG, SECOND_BACKLOG = 2, 5


def provoke_order(stage: Stage, cell: Cell) -> None:
    server = stage.on("server")
    server.do(f"port = {stage.port}")
    kind = "SOCK_DGRAM" if "UDP" in cell.name else "SOCK_STREAM"
    server.do(f"s = socket.socket(socket.AF_INET, socket.{kind})")
    if cell.values["code"]:
        server.do(cell.values["code"])


def observe_order(stage: Stage, cell: Cell) -> Seen:
    server = stage.on("server")
    if cell.name.endswith("then a client"):
        client = stage.on("client")
        client.do("c = socket.socket()")
        return {"connect": client.outcome(f"c.connect(({stage.addresses['server']!r}, {stage.port}))")}
    if cell.name == "socket, bind, accept":
        return {"accept": server.outcome("s.accept()")}
    if cell.name == "socket, listen, without bind":
        return {"has a port": server.do("s.getsockname()[1]") > 0, "listens": bool(stage.hosts["server"].sockets(state="LISTEN"))}
    if cell.name == "listen on a UDP socket":
        return {"listen": server.outcome("s.listen()")}
    before = stage.hosts["server"].listen_queue(stage.port).limit
    server.do(f"s.listen({SECOND_BACKLOG})")
    return {"limit at first": before, "limit then": stage.hosts["server"].listen_queue(stage.port).limit}


def predict_order(_: Facts, run: CellRun) -> Mapping[str, Value]:
    outcomes: dict[str, Mapping[str, Value]] = {
        "socket, bind, listen, then a client": {"connect": "ok"},
        "socket, bind, no listen, then a client": {"connect": "ECONNREFUSED"},
        "socket, bind, accept": {"accept": "EINVAL"},
        "socket, listen, without bind": {"has a port": True, "listens": True},
        "listen on a UDP socket": {"listen": "EOPNOTSUPP"},
        "listen a second time": {"limit at first": FIRST_BACKLOG, "limit then": SECOND_BACKLOG},
    }
    return outcomes[run.cell]


def judge_order(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    listening, bound = (cell_of(runs, f"socket, bind, {word}, then a client")["connect"] for word in ("listen", "no listen"))
    accepted = cell_of(runs, "socket, bind, accept")["accept"]
    if listening != "ok":
        return Verdict("INCONCLUSIVE", f"nobody can connect to a listening socket either: {listening}")
    if bound == "ok" or accepted == "ok":
        return Verdict("REFUTED", "a server works without listen")
    return Verdict("HOLDS", f"without listen: connect gives {bound}, accept {accepted}")


ORDER = Experiment(
    id="B4",
    name="order-of-calls",
    claim=Claim(
        "A server calls socket, bind, listen and accept, in this order: listen comes before accept and before any client can connect.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, sections 4.1 and 4.5",
    ),
    linux=(
        "Holds, but that bind may be left out (listen then takes a free port), and that listen may be called again, to change the backlog."
    ),
    prediction=Prediction(
        "accept before listen: EINVAL; connect to a bound port: ECONNREFUSED; listen on UDP: EOPNOTSUPP; a second listen changes the limit",
        ("net/ipv4/inet_connection_sock.c: inet_csk_accept", "net/ipv4/af_inet.c: inet_listen, inet_autobind", "listen(2)"),
        predict_order,
    ),
    cells=orders,
    provoke=provoke_order,
    observe=observe_order,
    judge=judge_order,
    others=("client",),
    watched="socket, bind, no listen, then a client",
    refused={"emulated": NO_KERNEL},
    sysctls={"net.core.somaxconn": 128},
)

EXPERIMENTS = (STREAM, DATAGRAM, RAW, ORDER)
