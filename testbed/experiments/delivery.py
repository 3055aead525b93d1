"""Family B, the first half: what becomes of bytes and datagrams that are lost, doubled or overtaken on their way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from testbed.experiment import Cell, CellRun, Claim, Experiment, Facts, Parameter, Prediction, Scalar, Seen, Value, Verdict, cell_of
from testbed.experiment_stage import Stage

NO_KERNEL = "its kernel is the machine's own: a native host shows the same"


# B1

# The sender must make packets of the wire's size, or there are few of them; the receiver must not put them together again.
PLAIN = ["ethtool", "-K", "eth0", "gso", "off", "tso", "off", "gro", "off"]
OUT_OF_ORDER = "TcpExt.TCPOFOQueue"
DATA = "data = b''.join(index.to_bytes(4, 'big') for index in range({words}))"


# In a queue that is emptied slowly enough to become long one of so many packets overtakes the others: it has priority 6. A guest on a
# busy machine sends hardly 20 Mbit/s, and then no queue becomes long; much data need not wait, as it is queued up sooner or later.
OVERTAKES = 5
SLOW_BIT_S, LONG_S = 2_000_000, 10


def double(stage: Stage, match: str) -> None:
    """What the client sends and matches leaves it twice."""
    # Only what has no mark is doubled: the copy passes here as well.
    rule = f"{match} meta mark 0 meta mark set 1 counter dup to eth0"
    text = f"table netdev testbed {{\nchain out {{ type filter hook egress device eth0 priority 0; {rule}; }}\n}}\n"
    stage.hosts["client"].run(["nft", "-f", "-"], stdin=text.encode()).check(where="the client")


def double_no_more(stage: Stage) -> int:
    """How many packets were doubled."""
    client = stage.hosts["client"]
    found = re.search(r"counter packets (\d+)", client.run(["nft", "list", "table", "netdev", "testbed"]).check(where="the client").text)
    client.run(["nft", "delete", "table", "netdev", "testbed"]).check(where="the client")
    return int(found[1]) if found else 0


def queue_up(stage: Stage, rate: str, burst: int) -> None:
    """What the client sends goes out at no more than ``rate``, but for the first ``burst`` bytes; of what waits, priority 6 goes first."""
    shape = ["tbf", "rate", rate, "burst", str(burst), "limit", "10000000"]
    for words in (["root", "handle", "1:", *shape], ["parent", "1:1", "handle", "2:", "pfifo_fast"]):
        stage.hosts["client"].run(["tc", "qdisc", "add", "dev", "eth0", *words]).check(where="the client")


def queue_no_more(stage: Stage) -> None:
    stage.hosts["client"].run(["tc", "qdisc", "del", "dev", "eth0", "root"]).check(where="the client")


def losses(given: Mapping[str, Scalar]) -> Sequence[Cell]:
    if "k" in given:
        return [Cell(f"one of {given['k']} packets lost", {"way": "loss", "k": given["k"]})]
    return [
        *(Cell(f"one of {k} packets lost", {"way": "loss", "k": k}) for k in (3, 5, 10)),
        Cell("every packet doubled", {"way": "double"}),
        Cell(f"one of {OVERTAKES} packets overtakes others", {"way": "overtake"}),
    ]


def provoke_stream(stage: Stage, cell: Cell) -> None:
    client, server, words = stage.on("client"), stage.on("server"), int(stage.parameters["bytes"]) // 4
    for role in ("client", "server"):
        stage.hosts[role].run(PLAIN).check(where=f"the {role}")
    server.do(f"s = socket.create_server(('', {stage.port}))")
    client.do(f"c = socket.create_connection(({stage.addresses['server']!r}, {stage.port}))")
    server.do("s.settimeout(20); a = s.accept()[0]; a.settimeout(20)")
    if cell.values["way"] == "loss":
        # Dropped where it is received: a packet that its own sender drops is known there not to have been sent.
        stage.drop("server", incoming=f"tcp dport {stage.port} numgen inc mod {cell.values['k']} == {cell.values['k'] - 1}")
    elif cell.values["way"] == "double":
        double(stage, f"tcp dport {stage.port}")
    else:
        queue_up(stage, f"{max(SLOW_BIT_S, 4 * 8 * words // LONG_S)}bit", 3000)
        rule = f"tcp dport {stage.port} numgen inc mod {OVERTAKES} == 0 counter meta priority set 6"
        text = f"table ip overtake {{\nchain out {{ type filter hook output priority 0; {rule}; }}\n}}\n"
        stage.hosts["client"].run(["nft", "-f", "-"], stdin=text.encode()).check(where="the client")
    server.do(f"before = {stage.hosts['server'].counters()[OUT_OF_ORDER]}")
    client.do(DATA.format(words=words))
    client.do("def send(): c.sendall(data); c.shutdown(socket.SHUT_WR)")
    client.do("import threading; t = threading.Thread(target=send, daemon=True); t.start()")


def observe_stream(stage: Stage, cell: Cell) -> Seen:
    server, words = stage.on("server"), int(stage.parameters["bytes"]) // 4
    server.do(DATA.format(words=words))
    server.do("chunks = []\nwhile chunk := a.recv(65536): chunks.append(chunk)")
    seen = {"bytes": server.do("sum(map(len, chunks))"), "identical": server.do("b''.join(chunks) == data")}
    if cell.values["way"] == "loss":
        return {**seen, "packets dropped": stage.dropped("server")}
    if cell.values["way"] == "double":
        return {**seen, "packets doubled": double_no_more(stage)}
    queue_no_more(stage)
    stage.hosts["client"].run(["nft", "delete", "table", "ip", "overtake"]).check(where="the client")
    return {**seen, "packets out of order": stage.hosts["server"].counters()[OUT_OF_ORDER] - server.do("before")}


def some_were_disturbed(run: CellRun) -> str:
    done = [name for name in ("packets dropped", "packets doubled", "packets out of order") if run.seen.get(name)]
    return "" if done else "no packet was lost, doubled or overtaken, so nothing was to be repaired"


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
    linux="Holds, with every 3rd, 5th or 10th packet lost on its way in, with every one coming twice, with some overtaking others.",
    prediction=Prediction(
        "all bytes, the same as were sent",
        ("RFC 9293, section 3.8: data communication; RFC 6298: retransmission",),
        lambda facts, _: {"bytes": int(facts.parameters["bytes"]) // 4 * 4, "identical": True},
    ),
    cells=losses,
    provoke=provoke_stream,
    observe=observe_stream,
    took_effect=some_were_disturbed,
    judge=judge_stream,
    others=("client",),
    refused={"emulated": NO_KERNEL},
    parameters={
        "bytes": Parameter(200_000, "how many bytes are sent, a multiple of 4", least=4, most=100_000_000),
        "k": Parameter(None, "every kth packet is lost", usual=5, least=2),
    },
)

# B2

WAYS = {"loss": "loss", "duplicates": "duplicates", "order": "order", "closed port": "closed"}
# Ethernet's header counts where the queue does. What is left of the queue's burst after the filler is less than a small datagram.
FILLER, HEADERS, SMALL = 1472, 42, 46
URGENT = 0x10  # IPTOS_LOWDELAY: its packets overtake those of the usual type of service
MOST = 60  # datagrams: all fit into a receive buffer of the usual size


def datagrams(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [Cell(name, {"way": way}) for name, way in WAYS.items()]


def send_in_two_classes(stage: Stage) -> None:
    """Two large datagrams fill a slow queue for more than a second. Behind them wait the others, the second half of them urgent."""
    client, number, to = stage.on("client"), int(stage.parameters["datagrams"]), (stage.addresses["server"], stage.port)
    client.do(f"c.sendto(bytes(1), {to!r})")  # so that its address is known, and nobody asks for it in between
    stage.wait(lambda: stage.on("server").look("read()") == 1, "the first datagram to arrive")
    stage.on("server").do("got.clear()")
    queue_up(stage, "8kbit", FILLER + HEADERS + SMALL // 2)
    client.do(
        f"for size in (2 * [{FILLER}]): c.sendto(b'\\xff' * size, {to!r})\n"
        f"for index in range({number}):\n"
        f"    c.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, {URGENT} if index >= {number} // 2 else 0)\n"
        f"    c.sendto(index.to_bytes(4, 'big'), {to!r})"
    )


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
    elif way == "order":
        send_in_two_classes(stage)
        return
    else:
        double(stage, f"udp dport {stage.port}")
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
    if way == "order":
        stage.wait(lambda: server.look("read()") >= number + 2, "every datagram to have arrived")
        queue_no_more(stage)
        return {"arrived": server.do(f"[one for one in got if one < {number}]")}
    # Another datagram, to another socket, comes after all the copies.
    server.do("last = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); last.bind(('', 0)); last.settimeout(20)")
    client.do(f"c.sendto(b'last', ({address!r}, {server.do('last.getsockname()[1]')}))")
    server.do("last.recv(100)")
    server.do("read()")
    double_no_more(stage)
    return {"arrived": server.do("got")}


def datagrams_were_disturbed(run: CellRun) -> str:
    if run.cell == "loss" and not run.seen["dropped"]:
        return "no datagram was dropped"
    if run.cell == "order" and run.seen["arrived"] == sorted(run.seen["arrived"]):
        return "no datagram overtook another"
    if run.cell == "duplicates" and len(set(run.seen["arrived"])) == len(run.seen["arrived"]):
        return "no datagram was doubled on its way"
    return ""


def predict_datagrams(facts: Facts, run: CellRun) -> Mapping[str, Value]:
    number, k = int(facts.parameters["datagrams"]), int(facts.parameters["k"])
    if run.cell == "loss":
        return {"arrived": [index for index in range(number) if index % k != k - 1], "dropped": number // k}
    if run.cell == "duplicates":
        return {"arrived": [index for index in range(number) for _ in range(2)]}
    if run.cell == "order":
        return {"arrived": [*range(number // 2, number), *range(number // 2)]}
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
    twice = len(doubled) - len(set(doubled))
    # Earlier records have no such cell.
    overtaken = [run.seen["arrived"] != sorted(run.seen["arrived"]) for run in runs if run.cell == "order"]
    if lost and twice and all(overtaken):
        late = ", and what was overtaken arrived late" if overtaken else ""
        return Verdict("HOLDS", f"{lost} of {number} lost without a word, {twice} arrived twice{late}")
    return Verdict("REFUTED", "what was lost was sent again, what came twice was sorted out, or what came too soon waited")


DATAGRAM = Experiment(
    id="B2",
    name="datagram-is-not",
    claim=Claim(
        "A datagram socket is unreliable: what is lost stays lost, what the network doubles arrives twice, and what is overtaken "
        "arrives late.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 2.3; RFC 768",
    ),
    linux="Holds. Of a closed port only a connected socket learns, with its second send; connect() itself sends nothing.",
    prediction=Prediction(
        "with every kth of N dropped N - floor(N/k) arrive; with each doubled 2N; of what waits in a queue the urgent half first; "
        "ECONNREFUSED at the 2nd send of a "
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
        "datagrams": Parameter(20, "how many datagrams are sent", least=2, most=MOST),
        "k": Parameter(5, "every kth is dropped", least=2),
    },
    sysctls={"net.ipv4.icmp_ratelimit": 0},
)

EXPERIMENTS = (STREAM, DATAGRAM)
