"""A description of messages: which place each field is, what a mistake in it says, and what findings make of it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from testbed.endian_fields import Description, Named, in_words, load, parse
from testbed.endian_judge import judge
from testbed.endian_messages import Channel, Said
from testbed.endian_runs import PAIRS, Ending, Judgement, Run
from testbed.endian_words import Place
from testbed.errors import TopologyError

CLIENT = Channel("client", "tcp", 1)
HEADER = """
messages:
  - from: client
    over: tcp
    fields:
      - version: 1
      - length: 2
      - text: length
      - id: {width: 4, order: little}
      - tail: rest
"""


def places(text: str, little: bytes, big: bytes | None = None, channel: Channel = CLIENT) -> list[tuple[str, int, int]]:
    return [(one.name, one.place.offset, one.place.width) for one in parse(text).of(channel, little, big or little)]


def test_fields_follow_each_other_and_a_length_is_one_that_another_field_says() -> None:
    message = b"\x01\x00\x05hello\x01\x02\x03\x04the end"
    assert places(HEADER, message) == [("version", 0, 1), ("length", 1, 2), ("text", 3, 5), ("id", 8, 4), ("tail", 12, 7)]


def test_a_length_in_host_order_is_read_on_the_host_that_has_it_right() -> None:
    little, big = (struct.pack(f"{order}BH5sI", 1, 5, b"hello", 7) for order in "<>")
    assert places(HEADER, little, big)[2] == ("text", 3, 5)


def test_what_is_not_in_the_message_has_no_place() -> None:
    assert places(HEADER, b"\x01\x00") == [("version", 0, 1)]
    assert places(HEADER, b"\x01\x00\x09hello") == [("version", 0, 1), ("length", 1, 2)]


def test_a_length_may_count_what_is_before_it_and_an_offset_leaves_a_gap() -> None:
    text = "messages: [{fields: [{size: 1}, {body: size - 1}, {crc: {width: 2, offset: 6}}]}]"
    assert places(text, b"\x04abc..\xaa\xbb") == [("size", 0, 1), ("body", 1, 3), ("crc", 6, 2)]


def test_records_are_repeated_and_numbered() -> None:
    text = "messages: [{repeat: true, fields: [{size: 1}, {body: size}]}]"
    assert places(text, b"\x01a\x02bc") == [("size[0]", 0, 1), ("body[0]", 1, 1), ("size[1]", 2, 1), ("body[1]", 3, 2)]


def test_a_record_without_a_width_ends() -> None:
    assert places("messages: [{repeat: true, fields: [{a: {width: 1, offset: 0}}]}]", b"abc") == [
        ("a[0]", 0, 1),
        ("a[1]", 1, 1),
        ("a[2]", 2, 1),
    ]


@pytest.mark.parametrize(
    ("which", "channel", "fits"),
    [
        ("from: server", CLIENT, False),
        ("over: udp", CLIENT, False),
        ("number: 2", Channel("client", "tcp", 2), True),
        ("number: 2", Channel("client", "udp", 1, 2), True),
        ("number: 2", CLIENT, False),
        ("begins: '61 62'", CLIENT, True),
        ("begins: '62'", CLIENT, False),
        ("from: client", Channel("client", "port to", 1), False),
    ],
)
def test_a_description_is_of_the_messages_that_it_says(which: str, channel: Channel, *, fits: bool) -> None:
    assert bool(places(f"messages: [{{{which}, fields: [{{x: 1}}]}}]", b"abc", channel=channel)) == fits


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 0, 0, "the file is empty"),
        ("messages: []", 1, 11, "there are no messages"),
        ("fields: []", 1, 1, "has no key 'fields'"),
        ("messages:\n  - form: client\n", 2, 5, "has no key 'form', did you mean 'from'?"),
        ("messages:\n  - from: clint\n    fields: [{a: 1}]\n", 2, 11, "there is no from 'clint', did you mean 'client'?"),
        ("messages:\n  - fields:\n    - a: x\n", 3, 10, "no field 'x' stands before this one"),
        ("messages:\n  - fields:\n    - len: 2\n    - a: lem\n", 4, 10, "did you mean 'len'?"),
        ("messages:\n  - fields:\n    - a: 0\n", 3, 10, "'0' is no number from 1 to"),
        ("messages:\n  - fields:\n    - a: 2 bytes\n", 3, 10, "is no width"),
        ("messages:\n  - fields:\n    - a: 1\n    - a: 2\n", 4, 7, "there is a field 'a' already"),
        ("messages:\n  - fields:\n    - a: {offset: 2}\n", 3, 10, "field 'a' has no width"),
        ("messages:\n  - begins: xyz\n    fields: [{a: 1}]\n", 2, 13, "'xyz' is not hexadecimal"),
        ("messages:\n\t- x\n", 2, 1, "not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(TopologyError) as caught:
        parse(text, file="fields.yaml")
    error = caught.value
    assert (error.line, error.column) == (line, column)
    assert words in error.message
    assert "topology" not in error.hint
    assert error.hint


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_a_place_is_a_field_in_one_or_in_several() -> None:
    names = [Named("a", Place(0, 4)), Named("b", Place(4, 2))]
    assert in_words(names, Place(0, 4)) == "it is the field `a`"
    assert in_words(names, Place(1, 2)) == "it is in the field `a` (offset 0, 4 bytes)"
    assert in_words(names, Place(2, 4)) == "it is in the fields `a` (offset 0, 4 bytes), `b` (offset 4, 2 bytes)"
    assert in_words(names, Place(6, 2)) == ""


def judged(form: str, *values: int, description: str) -> Judgement:
    def run(order: str) -> Run:
        data = struct.pack(order + form, *values)
        return Run({"client": Ending(0), "server": Ending(0)}, Said({CLIENT: data}, ()))

    return judge({pair: [run("<" if pair[0] == "little" else ">")] * 2 for pair in PAIRS}, parse(description))


def test_a_finding_has_the_name_of_its_field() -> None:
    (found,) = judged("BH", 1, 5, description="messages: [{fields: [{version: 1}, {length: 2}]}]").findings
    assert found.details[0] == "it is the field `length`"
    assert any("htons() is right on both" in one for one in found.details)


def test_where_the_order_is_described_it_is_known_which_side_is_right() -> None:
    (found,) = judged("I", 4711, description="messages: [{order: little, fields: [{id: 4}]}]").findings
    assert "it is described as little-endian: the little-endian side is right, and htole32() is right on both" in found.details
    assert not any("network order" in one for one in found.details)


def test_of_two_words_that_explain_the_same_bytes_the_one_that_is_a_field_is_named() -> None:
    description = "messages: [{fields: [{id: 4}]}]"
    (likeliest,) = judged("I", 1 << 8, description="messages: [{fields: [{x: 1}]}]").findings
    (found,) = judged("I", 1 << 8, description=description).findings
    assert found.difference is not None
    assert likeliest.difference is not None
    assert (found.difference.place, found.details[0]) == (Place(0, 4), "it is the field `id`")
    assert Place(0, 4) in (likeliest.difference.place, *likeliest.difference.others)


def test_without_a_description_nothing_has_a_name() -> None:
    assert Description().of(CLIENT, b"abc", b"abc") == ()
