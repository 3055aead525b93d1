"""Messages of which one host always sends more: what differs is found in each place, and lengths that follow from it tell their order."""

from __future__ import annotations

import struct
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.endian_compare import Place, compare
from testbed.endian_explain import explanation
from testbed.endian_messages import Channel

Order = Literal["<", ">"]


def framed(order: Order, text: bytes, width: str = "I", *, less: int = 0) -> bytes:
    """A text after its length, in so many bytes more."""
    return struct.pack(order + width, len(text) + less) + text


def sent_by_chillin(order: Order) -> bytes:
    """As chillin 1.3.1: numbers in host order without the zeros at their end, each after how many bytes it has."""

    def field(text: bytes) -> bytes:
        size = struct.pack(order + "I", len(text)).rstrip(b"\0")
        return bytes((1, len(size))) + size + text

    return framed(order, field(b"ClientJoined") + field(b'{"name": "a"}'))


def test_a_program_whose_numbers_have_other_lengths_is_taken_apart() -> None:
    little, big = sent_by_chillin("<"), sent_by_chillin(">")
    found = compare([little] * 2, [big] * 2)
    assert [(one.kind, one.place, one.big_offset, one.little, one.big) for one in found.differences] == [
        ("reversed", Place(0, 4), 0, struct.pack("<I", 31), struct.pack(">I", 37)),
        ("length", Place(5, 1), 5, b"\x01", b"\x04\0\0\0"),
        ("length", Place(20, 1), 23, b"\x01", b"\x04\0\0\0"),
    ]
    title, (meaning, right, *_) = explanation(found.differences[0], little, big, Channel("client", "tcp", 1))
    assert title.startswith("offset 0, 4 bytes, sent in host order: 1f 00 00 00 from the little-endian host, 00 00 00 25 from")
    assert meaning == "as the hosts have it in memory, it is 31 and 37, on each the length of what follows"
    assert right.startswith("in network order the big-endian side is right, and htonl() is right on both")


@pytest.mark.parametrize("width", ["H", "I", "Q"])
@pytest.mark.parametrize("whole", [False, True], ids=["what follows", "all"])
def test_a_length_in_host_order_is_found_though_it_is_another_number(width: str, *, whole: bool) -> None:
    size = struct.calcsize(width)
    little = framed("<", b"tcp: bbr, on", width, less=size * whole)
    big = framed(">", b"tcp: cubic, on", width, less=size * whole)
    length, text = compare([little] * 2, [big] * 2).differences
    assert (length.kind, length.place) == ("reversed", Place(0, size))
    assert (text.kind, text.little, text.big) == ("length", b"bbr", b"cubic")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("width", ["B", "H", "I", "Q"])
def test_a_length_in_one_order_on_both_hosts_is_what_it_must_be(order: Order, width: str) -> None:
    little, big = (framed(order, text, width) for text in (b"bbr", b"cubic"))
    comparison = compare([little] * 2, [big] * 2)
    (text,) = comparison.differences
    assert (text.kind, text.little, text.big) == ("length", b"bbr", b"cubic")
    assert Place(0, struct.calcsize(width)) == comparison.set_aside[0]


def test_words_between_and_after_what_only_one_has_are_found() -> None:
    little, big = (
        b"begin " + more + struct.pack(order + "I", 4711) + b" middle " + more + b"and the end" + struct.pack(order + "H", 5)
        for order, more in (("<", b""), (">", b"more"))
    )
    found = [(one.kind, one.little, one.big) for one in compare([little] * 2, [big] * 2).differences]
    assert found == [
        ("length", b"", b"more"),
        ("reversed", b"\x67\x12\0\0", b"\0\0\x12\x67"),
        ("length", b"", b"more"),
        ("reversed", b"\x05\0", b"\0\x05"),
    ]


def test_what_varies_between_the_places_is_set_aside() -> None:
    little, big = (
        [b"begin " + more + b" middle " + bytes((run, 99 - run)) + b" again " + more + b"end" for run in runs]
        for more, runs in ((b"", (1, 2, 3)), (b"more", (4, 5, 6)))
    )
    comparison = compare(little, big)
    assert [(one.kind, one.big) for one in comparison.differences] == [("length", b"more")] * 2
    assert comparison.set_aside == (Place(14, 2),)


edits = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5), st.binary(max_size=5)), max_size=5)


@given(st.binary(max_size=60) | st.text("abcdefg ", max_size=60).map(str.encode), edits)
def test_what_is_found_makes_one_message_of_the_other(little: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    big = little
    for offset, width, data in changes:
        big = big[:offset] + data + big[offset + width :]
    if not little or not big:
        return
    comparison = compare([little] * 2, [big] * 2)
    aside = {at for place in comparison.set_aside for at in range(place.offset, place.end)}
    made: list[int | None] = []  # None for what is set aside, such as lengths
    at = 0
    for one in comparison.differences:
        made += [None if here in aside else little[here] for here in range(at, one.place.offset)]
        assert len(made) == one.big_offset
        made += one.big
        at = one.place.end
    made += [None if here in aside else little[here] for here in range(at, len(little))]
    assert len(made) == len(big)
    assert all(byte in (None, big[offset]) for offset, byte in enumerate(made))
