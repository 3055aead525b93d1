"""The judgement of one message: what was put in is found where it was put, and nothing else."""

from __future__ import annotations

import random
import struct
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.endian_compare import Difference, Place, compare
from testbed.endian_explain import explanation
from testbed.endian_messages import Channel
from testbed.endian_words import bit_fields
from tests.endian_protocols import Field, Score, any_protocol, compared

WORDS = st.sampled_from((2, 4, 8)).flatmap(lambda width: st.binary(min_size=width, max_size=width))
NUMBERS = st.builds(
    lambda value, order, forgotten: Field("number", len(value), value, order, forgotten),
    WORDS,
    st.sampled_from(("big", "little")),
    st.booleans(),
)
BYTES = st.binary(min_size=1, max_size=12).map(lambda value: Field("bytes", len(value), value))
RANDOM = st.sampled_from((2, 4, 8)).map(lambda width: Field("random", width))
TIMES = st.builds(
    lambda value, order: Field("time", 4, value, order), st.binary(min_size=4, max_size=4), st.sampled_from(("big", "little"))
)
many = settings(max_examples=250)
PROTOCOLS = st.lists(st.one_of(NUMBERS, BYTES, RANDOM, TIMES), min_size=1, max_size=12)


def only(little: str, big: str) -> Difference:
    """The only difference of two messages, in hexadecimal digits."""
    (found,) = compare([bytes.fromhex(little)], [bytes.fromhex(big)]).differences
    return found


@given(PROTOCOLS, st.integers(0, 1 << 32))
@many
def test_every_forgotten_conversion_that_can_be_seen_is_found_at_its_offset_and_width(protocol: list[Field], seed: int) -> None:
    comparison, wanted = compared(protocol, random.Random(seed))
    offered = {place for one in comparison.differences for place in (one.place, *one.others)}
    assert set(wanted) <= offered


@given(PROTOCOLS, st.integers(0, 1 << 32))
@many
def test_a_program_that_is_right_never_has_a_finding(protocol: list[Field], seed: int) -> None:
    right = [Field(one.kind, one.width, one.value, one.order) for one in protocol]
    assert compared(right, random.Random(seed))[0].differences == ()


@given(PROTOCOLS, st.integers(2, 5), st.integers(0, 1 << 32))
@many
def test_a_number_whose_length_varies_from_run_to_run_is_no_finding(protocol: list[Field], digits: int, seed: int) -> None:
    right = [Field(one.kind, one.width, one.value, one.order) for one in protocol]
    middle = len(right) // 2
    # Three runs that happen to be of one length, and three of another, would be a difference in length; six and six are not to be expected.
    assert compared([*right[:middle], Field("decimal", digits), *right[middle:]], random.Random(seed), runs=6)[0].differences == ()


def test_of_random_protocols_nearly_all_faults_are_named_exactly_and_nothing_is_made_up() -> None:
    score, chance = Score(), random.Random(7)
    for _ in range(1000):
        protocol = any_protocol(chance)
        score.add(*compared(protocol, chance))
    assert score.faults > 1000
    assert (score.missed, score.false) == (0, 0)
    assert score.exact > 0.99 * score.faults


@pytest.mark.parametrize("width", [2, 3, 4, 5, 6, 7, 8, 16])
@pytest.mark.parametrize("before", ["", "41", "4142434445"])
def test_a_word_is_found_also_where_it_is_not_aligned(width: int, before: str) -> None:
    value = bytes(range(1, width + 1))
    found = only(before + value[::-1].hex() + "7a", before + value.hex() + "7a")
    assert (found.kind, found.place) == ("reversed", Place(len(before) // 2, width))


def test_the_elements_of_an_array_are_found_one_by_one() -> None:
    values = (1, 1, 500, 70000)
    comparison = compare([struct.pack("<4I", *values)], [struct.pack(">4I", *values)])
    assert [one.place for one in comparison.differences] == [Place(at, 4) for at in (0, 4, 8, 12)]


def test_two_explanations_that_fit_are_both_given() -> None:
    found = only("00 01 00 00", "00 00 01 00")
    assert (found.place, found.others) == (Place(0, 4), (Place(1, 2),))


def test_an_explanation_that_leaves_bytes_over_is_not_offered() -> None:
    assert only("67 12 00 00", "00 00 12 67").others == ()


def test_a_float_in_host_order_is_a_word_backwards() -> None:
    assert only(struct.pack("<d", 3.14).hex(), struct.pack(">d", 3.14).hex()).place == Place(0, 8)


def test_bit_fields_are_recognised() -> None:
    found = only("41 21", "41 12")
    assert (found.kind, found.place, found.bit_widths) == ("bit fields", Place(1, 1), (4, 4))


def test_bit_fields_of_a_wider_unit_are_recognised() -> None:
    # struct { unsigned short kind : 3, flags : 5, size : 8; } = {5, 17, 200}
    low, high = 5 | 17 << 3 | 200 << 8, 5 << 13 | 17 << 8 | 200
    assert bit_fields(low.to_bytes(2, "little"), high.to_bytes(2, "big")) == (3, 5, 8)


def test_a_difference_that_is_no_order_of_bytes_is_called_just_that() -> None:
    assert only("41 ff ff 41", "41 00 12 41").kind == "different"


def test_what_varies_from_run_to_run_is_set_aside() -> None:
    comparison = compare([b"id \x01\x02 end", b"id \x09\x07 end"], [b"id \x33\x44 end", b"id \x55\x66 end"])
    assert comparison.differences == ()
    assert comparison.set_aside == (Place(3, 2),)
    assert comparison.compared == 7


def test_a_time_in_host_order_is_found_though_it_varies() -> None:
    seconds = 0x66_5E_5F_10
    little = [struct.pack("<I", seconds + run) for run in range(3)]
    big = [struct.pack(">I", seconds + run) for run in range(3, 6)]
    (found,) = compare(little, big).differences
    assert (found.place, found.varies) == (Place(0, 4), True)


def test_a_time_that_is_swapped_on_both_hosts_is_found_and_memory_that_was_never_written_is_no_such_time() -> None:
    little, big = ([struct.pack(order, 0x665E5F10 + run) for run in runs] for order, runs in ((">I", range(3)), ("<I", range(3, 6))))
    (found,) = compare(little, big).differences
    assert (found.place, found.varies) == (Place(0, 4), True)
    little, big = [bytes.fromhex(f"00 00 e8 {run}") for run in ("72", "41")], [bytes.fromhex(f"{run} 00 00") for run in ("e9 03", "91 04")]
    assert not any(one.kind == "reversed" for one in compare(little, big).differences)


@pytest.mark.parametrize(("form", "width"), [("I", 4), ("Q", 8)])
@pytest.mark.parametrize("varies", ["little", "big"])
def test_a_time_in_host_order_is_found_though_the_runs_of_one_host_were_in_one_second(form: str, width: int, varies: str) -> None:
    seconds = {side: [0x665E5F10 + run * (side == varies) + 5 * (side == "big") for run in range(3)] for side in ("little", "big")}
    little, big = ([struct.pack(order + form, at) for at in seconds[side]] for order, side in (("<", "little"), (">", "big")))
    (found,) = compare(little, big).differences
    assert (found.kind, found.place, found.varies) == ("reversed", Place(0, width), True)
    little = [struct.pack(">" + form, at) for at in seconds["little"]]
    assert compare(little, big).differences == ()


def test_a_time_that_carries_into_a_higher_byte_between_the_hosts_is_no_finding() -> None:
    little = [struct.pack(">I", 0x665E5FFD + run) for run in range(3)]
    big = [struct.pack(">I", 0x665E6001 + run) for run in range(3)]
    assert compare(little, big).differences == ()


def test_more_bytes_in_the_middle_are_one_difference_in_length_and_what_follows_is_compared() -> None:
    first, second = compare([b"\x05\x00hello and the end"], [b"\x00\x05hello!! and the end"]).differences
    assert (first.kind, first.place) == ("reversed", Place(0, 2))
    assert (second.kind, second.place, second.big) == ("length", Place(7, 0), b"!!")


def test_a_word_after_bytes_too_many_has_an_offset_on_each_side() -> None:
    first, second = compare([b"abcdefgh" + b"\x01\x02"], [b"abcd!!efgh" + b"\x02\x01"]).differences
    assert (first.kind, first.place, first.big) == ("length", Place(4, 0), b"!!")
    assert (second.kind, second.place, second.big_offset) == ("reversed", Place(8, 2), 10)


def test_bytes_that_are_the_same_backwards_are_named_as_telling_nothing() -> None:
    comparison = compare([bytes.fromhex("00 00 00 00 68 69")], [bytes.fromhex("00 00 00 00 68 69")])
    assert comparison.differences == ()
    assert comparison.blind == (Place(0, 4),)


def test_a_word_between_two_numbers_of_varying_length_is_found() -> None:
    def message(run: int, word: bytes) -> bytes:
        return b"pid=%d; " % (7 * 10**run) + word + b" tries=%d; the end" % (3 + run * 50)

    (found,) = compare(
        [message(run, b"\x05\x00\x01") for run in range(3)], [message(run, b"\x00\x05\x01") for run in range(1, 4)]
    ).differences
    assert (found.kind, found.place, found.big_offset) == ("reversed", Place(7, 2), 8)


def test_where_two_parts_vary_in_length_most_faults_are_found_and_nothing_is_made_up() -> None:
    score, chance = Score(), random.Random(5)
    for _ in range(150):
        score.add(*compared(any_protocol(chance, decimals=2), chance, runs=6))
    assert score.false == 0
    assert score.exact > 0.9 * score.faults


def test_of_two_ways_to_lay_stretches_side_by_side_the_one_that_compares_more_counts() -> None:
    """A time that begins with the same byte in all runs of one host only: a byte further, `97 f0` is `f0 97` backwards."""
    times = [(0x0BAB3EF9 + run).to_bytes(4, "little") for run in range(12)]
    texts = [b"%d" % 7**run for run in range(12)]
    sent = [time + bytes.fromhex("e8 71 97 f0 97") + text + b" the end" for time, text in zip(times, texts, strict=True)]
    comparison = compare(sent[:6], sent[6:])
    assert comparison.differences == ()
    assert comparison.compared >= 5 + len(b" the end")


def test_a_value_that_varies_at_the_same_end_on_both_hosts_is_no_time_in_host_order() -> None:
    little = [bytes.fromhex(f"12 34 56 {last}") for last in ("01", "02")]
    big = [bytes.fromhex(f"12 56 34 {last}") for last in ("07", "08")]
    (found,) = compare(little, big).differences
    assert (found.place, found.varies, found.others) == (Place(1, 2), False, ())


def test_of_a_dialogue_that_broke_off_only_the_beginning_is_compared() -> None:
    """A client whose first length was not understood sends no second message, and says goodbye with what it says at the end."""
    whole = [b"\x0a\0\0\0" + b"number %d! " % number + b"\x07\0\0\0 and more \x10" for number in (1, 22, 333)]
    short = [b"\0\0\0\x0a" + b"number %d! " % number + b"\x10" for number in (4, 55, 666)]
    assert [one.place for one in compare(whole, short, broken_off=True).differences] == [Place(0, 4)]


def test_letters_that_are_backwards_between_other_letters_are_no_word_where_messages_are_out_of_step() -> None:
    little, big = b"one:seven two:nine", b"one:es, two:nine"
    assert all(one.kind != "reversed" for one in compare([little], [big]).differences)
    # In step they may well be one: two letters of a text in UTF-16, say, are turned round in every message.
    assert [one.place for one in compare([b"one:sexy two"], [b"one:esxy two"]).differences] == [Place(4, 2)]


def report(numbers: tuple[int, int, int], *, port: int, word: bytes = b"calls") -> bytes:
    load, calls, size = numbers
    return b"load %d.%d, %d %s, port=%d, %d bytes\n" % (load, calls, calls, word, port, size)


RUNS = ((1, 22, 333), (444, 5, 66), (77, 888, 9), (10, 11, 12))


def test_in_a_text_numbers_of_varying_length_do_not_shift_what_follows() -> None:
    """Not even where all runs of each host happen to be as long."""
    little = [report(numbers, port=5001) for numbers in RUNS]
    big = [report(tuple(10 * one for one in numbers), port=5001) for numbers in RUNS]  # type: ignore[arg-type]
    for comparison in (compare(little, big), compare([little[0], little[3]], [big[0], big[3]])):
        assert comparison.differences == ()
        assert comparison.compared == len(b"load ,  calls, port=5001,  bytes\n")


def test_numbers_are_those_of_texts_and_not_of_words_or_of_other_bytes() -> None:
    """A message as iperf3's: a cookie of any letters and digits, a length before each text, numbers with and without an exponent; and a
    word in host order after it."""

    def sent(cookie: bytes, load: bytes, name: bytes, order: Literal["<", ">"]) -> bytes:
        text = b'{"load":%s,"user":%s,"by":"%s","tries":1}' % (load, load, name)
        return cookie + struct.pack(">I", len(text)) + text + struct.pack(order + "I", 4711)

    cookies = (b"2zysn4bjj2jl", b"ax7rr3heff27", b"mtg3keyjtm4i", b"4ong5ncu5jxv")
    loads = (b"5.3e-05", b"0", b"33.2155274519543", b"7.5")
    little = [sent(cookie, load, b"bbr", "<") for cookie, load in zip(cookies, loads, strict=True)]
    big = [sent(cookie, load + b"1", b"cubic", ">") for cookie, load in zip(cookies, loads, strict=True)]
    found = [(one.kind, one.little, one.big) for one in compare(little, big).differences]
    assert found == [("length", b"bbr", b"cubic"), ("reversed", b"\x67\x12\0\0", b"\0\0\x12\x67")]


def test_a_number_in_a_text_that_is_another_one_on_the_other_host_is_found() -> None:
    little, big = ([report(numbers, port=port) for numbers in RUNS] for port in (5001, 35091))
    (found,) = compare(little, big).differences
    assert (found.kind, found.place, found.little, found.big) == ("length", Place(26, 4), b"5001", b"35091")
    title, (line,) = explanation(found, little[0], big[0], Channel("client", "tcp", 1))
    assert "the number 5001 from the little-endian host, 35091 from the big-endian one" in title
    assert "its bytes reversed" in line
    other = compare(little, [report(numbers, port=0) for numbers in RUNS]).differences[0]
    assert "not each other's bytes reversed" in explanation(other, little[0], big[0], Channel("client", "tcp", 1))[1][0]


def test_what_only_one_host_sends_after_a_text_is_found() -> None:
    little = [report(numbers, port=5001)[:-7] for numbers in RUNS]  # which end in a number
    big = [one + b"\r\n" for one in little]
    (found,) = compare(little, big).differences
    assert (found.kind, found.place, found.big) == ("length", Place(len(little[0]), 0), b"\r\n")
    assert compare([*little, little[0] + b"\r\n"], big).differences == ()


def test_a_word_in_a_text_that_is_another_one_on_the_other_host_is_found() -> None:
    little, big = ([report(numbers, port=1, word=word) for numbers in RUNS] for word in (b"calls", b"calling"))
    (found,) = compare(little, big).differences
    assert (found.kind, found.place, found.little, found.big) == ("length", Place(18, 1), b"s", b"ing")


def test_what_one_host_has_more_in_the_middle_is_found_between_things_that_vary() -> None:
    """Not as many letters that differ because the text after it stands elsewhere."""

    def sent(name: bytes, numbers: tuple[int, ...]) -> list[bytes]:
        return [b'{"load":%d,"control":"%s","streams":[1,2],"bytes":%d}' % (number, name, number * 7) for number in numbers]

    (found,) = compare(sent(b"bbr", (1, 22, 333, 4)), sent(b"", (55, 6, 777, 8))).differences
    assert (found.kind, found.little, found.big) == ("length", b"bbr", b"")


@pytest.mark.parametrize(("width", "converted"), [(4, 2), (8, 2), (8, 4)])
@pytest.mark.parametrize("before", [0, 3, 8])
def test_a_number_that_is_converted_in_fewer_bytes_than_it_has_is_found(width: int, converted: int, before: int) -> None:
    """htons() of a number of 4 bytes: 00 01 00 00 on a little-endian host, as the memory of the big-endian one has it in its last bytes."""
    value, zeros = (4711).to_bytes(converted, "big"), bytes(width - converted)
    little, big = (b"x" * before + word + b"end" for word in (value + zeros, zeros + value))
    (found,) = compare([little] * 2, [big] * 2).differences
    assert (found.kind, found.place, found.converted) == ("reversed", Place(before, width), converted)


def test_of_several_numbers_that_are_converted_in_part_the_smallest_is_named() -> None:
    """2 at offset 1, and not 512 at offset 2, though the message is not aligned."""
    (found,) = compare([bytes.fromhex("80 00 02 00 00 00 00")] * 2, [bytes.fromhex("80 00 00 00 02 00 00")] * 2).differences
    assert (found.place, found.converted) == (Place(1, 4), 2)


def test_what_is_backwards_as_a_whole_is_no_narrow_conversion() -> None:
    (found,) = compare([bytes.fromhex("01 01 00 00")] * 2, [bytes.fromhex("00 00 01 01")] * 2).differences
    assert (found.place, found.converted) == (Place(0, 4), 0)


def test_bit_fields_of_which_the_whole_word_is_converted_are_found() -> None:
    """4, 12 and 16 bits with 1, 0x123 and 0x4567, then htonl()."""
    (found,) = compare([bytes.fromhex("45 67 12 31")] * 2, [bytes.fromhex("11 23 45 67")] * 2).differences
    assert (found.kind, found.place, found.bit_widths, found.converted) == ("bit fields", Place(0, 4), (4, 12, 16), 4)
    title, (first, *_) = explanation(found, found.little, found.big, Channel("client", "tcp", 1))
    assert "looks like bit fields after htonl(): 45 67 12 31" in title
    assert first.endswith("bits, in the order of their declaration, have these bytes after htonl()")


def test_the_first_byte_of_a_wider_number_is_explained() -> None:
    """write(fd, &number, 1)"""
    (found,) = compare([b"\x05hello"] * 2, [b"\x00hello"] * 2).differences
    title, (line, _) = explanation(found, b"\x05hello", b"\x00hello", Channel("client", "tcp", 1))
    assert "1 byte differs: 05 from the little-endian host, 00 from" in title
    assert line.startswith("perhaps the first byte of a wider number in memory: on a little-endian host its lowest")
