"""Ladder diagrams: rows in their order, what is lost, broken lines, and no text upon another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.drawing import Drawing, overlapping, width_of, wrapped
from testbed.ladder import MOST_PACKETS, label, ladder, states, step_text
from testbed.traffic import Event, Look, Traffic

ROLES = ["client", "server"]


def socket(state: str, waits: int = 0, protocol: str = "tcp", port: int = 20000) -> dict[str, Any]:
    return {"protocol": protocol, "state": state, "port": port, "peer": 15001, "receive_queue": waits, "send_queue": 0}


def texts(traffic: Traffic, steps: list[dict[str, Any]] | None = None, roles: list[str] | None = None) -> list[str]:
    drawing = ladder(traffic, steps or [], roles or ROLES, "title")
    assert overlapping(drawing) == []
    return [one.text for one in drawing.texts]


HANDSHAKE = [
    Event(0.010, "client", "server", "TCP", 15001, 20000, "SYN"),
    Event(0.011, "server", "client", "TCP", 20000, 15001, "SYN ACK", 0, 1),
    Event(0.012, "client", "server", "TCP", 15001, 20000, "ACK", 1, 1, lost="out"),
]


def test_steps_packets_and_states_are_in_their_order() -> None:
    looks = [Look(0.013, 1, {"client": [socket("ESTABLISHED")], "server": [socket("LISTEN"), socket("SYN_RECV")]})]
    steps = [{"at_s": 0.02, "took_s": 0.0105, "on": "client", "step": "c.connect(('10.0.0.1', 20000))", "value": None}]
    shown = texts(Traffic(HANDSHAKE, looks), steps)
    order = [
        shown.index(one)
        for one in ("c.connect(('10.0.0.1', 20000))", "SYN seq=0", "SYN ACK seq=0 ack=1", "ACK seq=1 ack=1", "ESTABLISHED", "SYN_RECV")
    ]
    assert order == sorted(order)


@pytest.mark.parametrize(("lost", "whose"), [("in", "server"), ("out", "client")])
def test_what_is_lost_says_who_dropped_it(lost: str, whose: str) -> None:
    assert f"dropped by the {whose}'s firewall" in texts(Traffic([Event(0.1, "client", "server", "UDP", 1, 2, size=3, lost=lost)]))


def test_the_lines_are_broken_where_nothing_happens() -> None:
    assert "nothing for 3.00 s" in texts(Traffic([Event(0, "client", "server", "UDP"), Event(3, "client", "server", "UDP")]))
    assert not any(
        "nothing for" in one for one in texts(Traffic([Event(0, "client", "server", "UDP"), Event(0.3, "client", "server", "UDP")]))
    )


def test_many_alike_are_the_first_the_last_and_how_many_between() -> None:
    shown = texts(Traffic([Event(at / 100, "client", "server", "UDP", 1, 2, size=10) for at in range(60)]))
    assert shown.count("UDP, 10 bytes") == 2
    assert any("58 more like it" in one for one in shown)


def test_what_is_too_long_ends_with_how_many_are_missing() -> None:
    both = [Event(at / 1000, ROLES[at % 2], ROLES[1 - at % 2], "UDP", size=at) for at in range(MOST_PACKETS + 4)]
    assert "and 11 packets more" in texts(Traffic(both, left_out=7))


def test_only_changes_of_states_are_shown() -> None:
    same = [Look(at / 10, at, {"server": [socket("LISTEN")], "client": []}) for at in range(3)]
    shown = texts(Traffic((), [*same, Look(1, 3, {"server": [socket("LISTEN", 2)], "client": []})]))
    assert shown.count("LISTEN") == 1
    assert shown.count("LISTEN, 2 wait") == 1


def test_connections_are_told_apart_by_the_clients_ports() -> None:
    listening = [Look(0, 0, {"server": [socket("LISTEN")], "client": []})]
    shown = texts(Traffic([*HANDSHAKE, Event(0.1, "client", "server", "TCP", 15002, 20000, "SYN")], listening))
    assert "15001: SYN ACK seq=0 ack=1" in shown
    assert "15002: SYN seq=0" in shown
    assert "SYN seq=0" in texts(Traffic(HANDSHAKE, listening))


def test_nothing_seen_is_said() -> None:
    assert "nothing was seen" in texts(Traffic())


def test_sockets_in_words() -> None:
    assert states([socket("SYN_RECV"), socket("SYN_RECV"), socket("CLOSE", 832, "udp")]) == ["2 × SYN_RECV", "UDP, 832 B queued"]
    assert states([]) == ["no socket"]


@pytest.mark.parametrize(
    ("step", "shown"),
    [
        ({"step": "def f(): pass"}, ""),
        ({"step": "n.bind(('', 7))", "errno": "EADDRINUSE"}, "n.bind(('', 7)) → EADDRINUSE"),
        ({"step": "len(a.recv(4))", "value": 4}, "len(a.recv(4)) → 4"),
        ({"step": "c = socket.socket(); c.setblocking(False); c.connect_ex(x)", "value": None}, "c.connect_ex(x)"),
        ({"step": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "value": None}, "s = socket.socket(AF_INET, SOCK_DGRAM)"),
        (
            {"drops": "chain prerouting { type filter hook prerouting priority -150; tcp dport 7 counter drop; }"},
            "firewall drops what comes in: tcp dport 7",
        ),
        ({"drops": ""}, "firewall taken away"),
    ],
)
def test_what_was_done_in_words(step: dict[str, Any], shown: str) -> None:
    assert step_text({"on": "client", **step}) == shown


def test_a_label_of_each_protocol() -> None:
    assert label(Event(0, "client", "server", "ICMP", what="port unreachable")) == "ICMP port unreachable"
    assert label(Event(0, "client", "server", "TCP", 1, 2, "PSH ACK", 5, 1, 7)) == "PSH ACK seq=5 ack=1 len=7"


EVENTS = st.builds(
    Event,
    st.floats(0, 70),
    st.sampled_from(ROLES),
    st.sampled_from(ROLES),
    st.sampled_from(["TCP", "UDP", "ICMP", "IP"]),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.sampled_from(["SYN", "PSH ACK", "FIN PSH ACK"]),
    st.integers(0, 2**32),
    st.none() | st.integers(0, 2**32),
    st.integers(0, 65535),
    st.text(max_size=20),
    st.sampled_from(["", "in", "out"]),
).filter(lambda one: one.sender != one.receiver)
STEPS = st.fixed_dictionaries({"at_s": st.floats(0, 70), "on": st.sampled_from(ROLES), "step": st.text(max_size=200), "value": st.none()})


@given(st.lists(EVENTS, max_size=30), st.lists(STEPS, max_size=10))
def test_whatever_happens_no_text_lies_on_another(events: list[Event], steps: list[dict[str, Any]]) -> None:
    drawing = ladder(Traffic(events), steps, ROLES, "title")
    assert overlapping(drawing) == []


def test_three_hosts_have_three_lines() -> None:
    shown = texts(
        Traffic([Event(0, "a", "b", "UDP"), Event(0.1, "b", "c", "UDP")]), [{"at_s": 0, "on": "b", "step": "x()"}], ["a", "b", "c"]
    )
    assert "b: x()" in shown


def test_texts_upon_each_other_are_found() -> None:
    drawing = Drawing(100, 50, "t", "d")
    drawing.text((10, 20), "one")
    drawing.text((12, 24), "two")
    drawing.text((90, 40), "three")
    assert overlapping(drawing) == [("one", "two"), ("three", "edge")]


@given(st.text(), st.floats(60, 300))
def test_lines_are_no_wider_than_they_may_be(text: str, width: float) -> None:
    assert all(width_of(line) <= width for line in wrapped(text, width))
    assert "".join("".join(wrapped(text, width)).split()) == "".join(text.split())


def test_what_is_not_xml_is_escaped() -> None:
    drawing = Drawing(100, 50, "<t>", "a & b")
    drawing.text((1, 20), "<script>\"'&")
    text = drawing.svg(alone=True)
    assert "<script>" not in text
    from xml.etree import ElementTree as ET

    ET.fromstring(text)
