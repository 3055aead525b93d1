"""Family B, the second half: raw sockets, and the order of calls that a server makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.experiment import Cell, CellRun, Claim, Experiment, Facts, Prediction, Scalar, Seen, Value, Verdict, cell_of
from testbed.experiment_stage import Stage

NO_KERNEL = "its kernel is the machine's own: a native host shows the same"


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

EXPERIMENTS = (RAW, ORDER)
