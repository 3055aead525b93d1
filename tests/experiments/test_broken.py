"""Wrong is worse than missing: with its provocation or its server broken, no experiment says what it says otherwise.

For each claim something is broken, and the verdict changes, or the prediction is missed, or nothing can be said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from testbed import experiment_find as finding
from testbed import experiment_listener as listener
from testbed import experiment_restart as restart
from testbed.errors import LabError
from testbed.experiment import Cell, Experiment
from testbed.experiment_stage import Stage
from testbed.experiments import queues

pytestmark = pytest.mark.long

ALL = finding.known()
PATIENCE_S = 2.0  # for what is not going to come


@dataclass(frozen=True)
class Broken:
    """What is broken, and what comes of it: a verdict, or "not predicted"."""

    what: str
    id: str
    comes: str
    experiment: Experiment
    parameters: Mapping[str, str] = field(default_factory=dict)


def called(identifier: str) -> Experiment:
    return next(one for one in ALL.values() if one.id == identifier)


def with_parameters(identifier: str, what: str, comes: str, **parameters: str) -> Broken:
    return Broken(what, identifier, comes, called(identifier), parameters)


def only_cells(identifier: str, *words: str) -> Experiment:
    one = called(identifier)
    return replace(one, cells=lambda given: [cell for cell in one.cells(given) if any(word in cell.name for word in words)])


def afterwards(what: str, identifier: str, comes: str, spoil: Callable[[Stage], object], experiment: Experiment | None = None) -> Broken:
    """Provoked as it should be, and then something is spoilt."""
    one = experiment or called(identifier)

    def provoke(stage: Stage, cell: Cell) -> None:
        one.provoke(stage, cell)
        spoil(stage)

    return Broken(what, identifier, comes, replace(one, provoke=provoke))


def instead(
    what: str, identifier: str, comes: str, provoke: Callable[[Stage, Cell], object], experiment: Experiment | None = None
) -> Broken:
    def provoked(stage: Stage, cell: Cell) -> None:
        provoke(stage, cell)

    return Broken(what, identifier, comes, replace(experiment or called(identifier), provoke=provoked))


def raw_although_without(_: object) -> list[Cell]:
    return [Cell("with CAP_NET_RAW", {"net_raw": True}), Cell("without, as uid 0", {"net_raw": True})]


def listen_always(stage: Stage, _: Cell) -> None:
    stage.on("server").do(f"port = {stage.port}; s = socket.create_server(('', port)); s.setblocking(False)")
    stage.on("client").do(f"early = socket.create_connection(({stage.addresses['server']!r}, {stage.port}))")


def other_backlog(stage: Stage, _: Cell) -> None:
    listener.listen(stage, 6)
    queues.fill(stage, 3)


def no_rule(stage: Stage, _: Cell) -> None:
    listener.listen(stage, 3)
    queues.fill_half_open(stage, 3)


def accepting(stage: Stage, cell: Cell) -> None:
    listener.listen(stage, int(cell.values["b"]))
    queues.fill(stage, 2)
    stage.on("server").do("kept = [s.accept(), s.accept()]")


def start_without_kill(stage: Stage, _: Cell) -> None:
    old = restart.start_server(stage, reuse=True)
    restart.connect(stage)
    old.do("a = s.accept()[0]")


def no_client(stage: Stage, cell: Cell) -> None:
    restart.start_server(stage, reuse=bool(cell.values["old"]))
    restart.kill(stage)


def without_old_reuse(stage: Stage, cell: Cell) -> None:
    called("D1").provoke(stage, replace(cell, values={**cell.values, "reuse": False}))


def other_side(stage: Stage, cell: Cell) -> None:
    who = {"client": "server", "server": "client"}[str(cell.values["who"])]
    called("D4").provoke(stage, replace(cell, values={**cell.values, "who": who}))


def nobody_is_held_up(stage: Stage, _: Cell) -> None:
    listener.listen(stage, 8)
    for _number in range(int(stage.parameters["ghosts"])):
        listener.connect(stage, held=True)
    stage.wait(lambda: listener.waiting(stage) == int(stage.parameters["ghosts"]), "all clients to be in the accept queue")


def one_after_the_other(stage: Stage, cell: Cell) -> None:
    called("D4").provoke(stage, replace(cell, values={"who": "client", "long": False}))


def any_port(stage: Stage, cell: Cell) -> None:
    stage.hosts["server"].sysctl["net.ipv4.ip_local_port_range"] = "40000 40099"
    called("D4").provoke(stage, cell)


def no_queue(stage: Stage, cell: Cell) -> None:
    called("B2").provoke(stage, replace(cell, values={"way": "none"}))
    stage.on("server").do("got += [99, 99]")
    stage.hosts["client"].run(["tc", "qdisc", "add", "dev", "eth0", "root", "pfifo"]).check()


def never_corked(stage: Stage, cell: Cell) -> None:
    called("E1").provoke(stage, cell)
    stage.on("client").do("corked = unsent()")


def ack_comes(stage: Stage, cell: Cell) -> None:
    called("E1").provoke(stage, replace(cell, values={**cell.values, "way": ""}))
    stage.drop("client", incoming="tcp sport 1")


def known_from_before(stage: Stage, cell: Cell) -> None:
    """One connection that went well, remembered: the limit by tcp_max_syn_backlog is not for such a client."""
    server = stage.hosts["server"]
    server.run(["ip", "tcp_metrics", "flush"]).check()
    server.sysctl["net.ipv4.tcp_no_metrics_save"] = 0
    listener.listen(stage, int(cell.values["b"]))
    queues.fill(stage, 1)
    stage.on("server").do("a = s.accept()[0]")
    stage.on("client").do("c.close()")
    stage.on("server").do("a.close()")
    stage.wait(lambda: stage.states("server", port=stage.port) == [], "the connection to be over")
    listener.hold_syn_acks(stage)
    limit = queues.limit_by_m(int(cell.sysctls[queues.SYN_BACKLOG_M]))
    queues.fill_half_open(stage, limit + 1)
    stage.on("client").do("counted = ['TcpExt.ListenDrops']")


def with_sysctl(stage: Stage, cell: Cell, name: str, value: int) -> None:
    stage.hosts["server"].sysctl[name] = value
    called("C4").provoke(stage, cell)


def gives_up_at_once(stage: Stage, cell: Cell) -> None:
    with_sysctl(stage, cell, "net.ipv4.tcp_synack_retries", 0)


def no_cookies(stage: Stage, cell: Cell) -> None:
    with_sysctl(stage, cell, "net.ipv4.tcp_syncookies", 1)


def nobody_is_too_many(stage: Stage, cell: Cell) -> None:
    listener.listen(stage, 8)
    del cell


def two_datagrams(stage: Stage, cell: Cell) -> None:
    called("E2").provoke(stage, Cell("", {"way": "none"}))
    to = (stage.addresses["server"], stage.port)
    for piece in (b"0123", b"4567", b"end"):
        stage.on("client").do(f"c.sendto({piece!r}, {to!r})")
    del cell


BROKEN = [
    Broken("the program says nothing", "A1", "INCONCLUSIVE", replace(called("A1"), observe=lambda *_: {})),
    afterwards("another family in it", "A2", "REFUTED", lambda stage: stage.on("server").do("address = b'\\0\\12' + bytes(14)")),
    with_parameters("A3", "sin_zero is 0", "INCONCLUSIVE", sin_zero="00" * 8),
    Broken("only AF_INET is tried", "A4", "HOLDS", replace(called("A4"), cells=lambda _: called("A4").cells({})[:1])),
    afterwards("nothing listens", "A5", "INCONCLUSIVE", lambda stage: stage.on("server").do("forgetful.close()")),
    afterwards("htonl does nothing", "A6", "REFUTED", lambda stage: stage.on("server").do("socket.htonl = int")),
    afterwards("inet_addr is wrong", "A7", "REFUTED", lambda stage: stage.on("server").do("def inet_addr(text): return 1")),
    afterwards("no rule drops anything", "B1", "INCONCLUSIVE", lambda stage: stage.drop("server", incoming="tcp dport 1")),
    with_parameters("B2", "nothing is dropped", "INCONCLUSIVE", k="1000"),
    Broken("the right is not taken away", "B3", "REFUTED", replace(called("B3"), cells=raw_although_without)),
    instead("it listens always", "B4", "REFUTED", listen_always, only_cells("B4", "then a client", "bind, accept")),
    with_parameters("B1", "no packet is lost", "INCONCLUSIVE", k="1000000"),
    instead("the queue is not slow", "B2", "INCONCLUSIVE", no_queue, only_cells("B2", "order")),
    with_parameters("C1", "nothing holds the handshakes up", "INCONCLUSIVE", hold="no"),
    instead("another backlog", "C2", "not predicted", other_backlog, only_cells("C2", "b=1 S=4:")),
    instead("no rule drops anything", "C2", "INCONCLUSIVE", no_rule, only_cells("C2", "b=3 S=128: half")),
    instead("the server accepts", "C2", "INCONCLUSIVE", accepting, only_cells("C2", "b=1 S=4:")),
    instead("no rule drops anything", "C3", "INCONCLUSIVE", no_rule, only_cells("C3", "syncookies=1 M=1 ")),
    instead("the client is known from before", "C3", "not predicted", known_from_before, only_cells("C3", "syncookies=0 M=1 ")),
    with_parameters("C4", "no ACK is held up", "INCONCLUSIVE", hold="no"),
    instead("the server repeats nothing", "C4", "not predicted", gives_up_at_once, only_cells("C4", "synack_retries=1")),
    instead("there are no cookies", "C4", "INCONCLUSIVE", no_cookies, only_cells("C4", "the ACK held up")),
    afterwards("the server accepts", "C5", "INCONCLUSIVE", lambda stage: stage.on("server").do("a = s.accept()"), only_cells("C5", "many")),
    instead("the queue is not full", "C5", "INCONCLUSIVE", nobody_is_too_many, only_cells("C5", "nobody accepts, syn_retries=1")),
    instead("no ACK is held up", "C5", "not predicted", nobody_is_held_up, only_cells("C5", "with cookies")),
    with_parameters("C6", "no ACK is held up", "REFUTED", hold="no"),
    afterwards("the server accepts", "C7", "REFUTED", lambda stage: stage.on("server").do("a = s.accept(), s.accept()")),
    instead("nobody kills the server", "D1", "INCONCLUSIVE", start_without_kill, only_cells("D1", "accepted, no unread data, with reuse")),
    instead("reuse is not set", "D1", "not predicted", without_old_reuse, only_cells("D1", "accepted, no unread data, with reuse")),
    instead("nobody is connected", "D2", "INCONCLUSIVE", no_client, only_cells("D2", "old 0, new 1")),
    instead("nobody kills the server", "D3", "INCONCLUSIVE", start_without_kill, only_cells("D3", "FIN_WAIT2, fin_timeout=3")),
    instead("the other side closes first", "D4", "REFUTED", other_side, only_cells("D4", "closed by the server")),
    instead("one side closes first", "D4", "not predicted", one_after_the_other, only_cells("D4", "both at once")),
    instead("there are more ports", "D4", "not predicted", any_port, only_cells("D4", "tw_reuse=0")),
    instead("an ACK comes", "E1", "not predicted", ack_comes, only_cells("E1", "before an ACK, TCP_NODELAY=0")),
    instead("it is corked no more", "E1", "not predicted", never_corked, only_cells("E1", "TCP_CORK")),
    Broken(
        "the server reads as much as was sent",
        "E1",
        "REFUTED",
        replace(called("E1"), cells=lambda _: [Cell("2 sends", {"sends": [7, 7], "nodelay": False, "recv": 7})]),
    ),
    instead("the client sends two", "E2", "REFUTED", two_datagrams, only_cells("E2", "10 bytes")),
    with_parameters("E3", "the buffer is large", "INCONCLUSIVE", rcvbuf="1000000"),
]


@pytest.mark.parametrize("broken", [pytest.param(one, id=f"{one.id}, {one.what}") for one in BROKEN])
def test_what_is_broken_is_noticed(on_native, broken: Broken) -> None:  # type: ignore[no-untyped-def]
    _, judgement = on_native(broken.experiment, broken.parameters, PATIENCE_S)
    if broken.comes == "not predicted":
        assert not judgement.predicted
        assert judgement.comparisons
    else:
        assert judgement.verdict.outcome == broken.comes, judgement.verdict.reason
    assert not judgement.passed or broken.comes in ("HOLDS", "REFUTED")


def test_every_claim_is_broken_somehow() -> None:
    assert {one.id for one in BROKEN} == {one.id for one in ALL.values()}


def test_a_player_that_dies_makes_it_inconclusive(on_native) -> None:  # type: ignore[no-untyped-def]
    def provoke(stage: Stage, _: Cell) -> None:
        stage.on("server").do("os._exit(0)")

    record, judgement = on_native(replace(called("A6"), provoke=provoke))
    assert "ended during" in record.cells[0].problem
    assert judgement.verdict.outcome == "INCONCLUSIVE"
    assert not judgement.passed


def test_a_broken_cell_leaves_the_others_alone(on_native) -> None:  # type: ignore[no-untyped-def]
    one = called("A4")

    def provoke(stage: Stage, cell: Cell) -> None:
        if cell.name == "AF_INET6":
            raise LabError("broken on purpose")
        one.provoke(stage, cell)

    record, judgement = on_native(replace(one, provoke=provoke))
    assert [run.problem for run in record.cells] == ["", "", "", "broken on purpose", ""]
    assert judgement.verdict.outcome == "INCONCLUSIVE"
    assert judgement.verdict.reason == "AF_INET6: broken on purpose"


def test_no_cell_leaves_its_sysctls_to_the_next(on_native) -> None:  # type: ignore[no-untyped-def]
    name = "net.core.somaxconn"
    one = replace(
        called("C7"), cells=lambda _: [Cell("changed", sysctls={name: 4}), Cell("as pinned"), Cell("changed again", sysctls={name: 3})]
    )
    record, judgement = on_native(one, {"b": "8"})
    assert [run.sysctls[name] for run in record.cells] == [4, 128, 3]
    assert [run.seen["ss Send-Q"] for run in record.cells] == [4, 8, 3]
    assert judgement.predicted
