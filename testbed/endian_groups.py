"""Findings as they are shown: those of one cause together, an array, or one field of many messages or records. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from testbed.endian_explain import hexadecimal
from testbed.endian_messages import in_words
from testbed.endian_records import bytes_of, firsts
from testbed.endian_runs import Finding
from testbed.endian_words import Place

ARRAY_LEAST = 4  # words of one width in a row; fewer are told one by one, as the fields of a struct
VALUES_MOST = 6
ELSEWHERE_MOST = 4
OFFSETS_MOST = 8
PLACES_MOST = 8  # of one message that are told one by one where no order of bytes explains them


def grouped(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each array, and one for a field that is wrong in several connections, datagrams, or records of a stream; of a message
    that differs everywhere the first places. The others as they are."""
    rows = list(_first_places(_arrays(findings)))
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for number, (one, first) in enumerate(zip(rows, firsts(rows), strict=True)):
        groups.setdefault(_cause(first) or (number,), []).append(one)
    return [_in_all(group) for group in groups.values()]


def _arrays(findings: Iterable[Finding]) -> list[Finding]:
    rows: list[list[Finding]] = []
    for one in findings:
        if rows and _goes_on(rows[-1][-1], one):
            rows[-1].append(one)
        else:
            rows.append([one])
    return [found for row in rows for found in ([_array(row)] if len(row) >= ARRAY_LEAST else row)]


def _first_places(findings: Sequence[Finding]) -> Iterator[Finding]:
    """All findings, but for what is not explained of a message, where there is much of it."""
    unexplained: dict[tuple[object, ...], list[Finding]] = {}
    for one in findings:
        if one.channel and one.difference and one.difference.kind in ("different", "length"):
            unexplained.setdefault((one.channel, one.pairs), []).append(one)
    left_out = {id(one) for of in unexplained.values() for one in of[PLACES_MOST:]}
    last = {id(of[PLACES_MOST - 1]): of for of in unexplained.values() if len(of) > PLACES_MOST}
    for one in findings:
        if id(one) in last:
            more = last[id(one)][PLACES_MOST:]
            line = f"so it goes on: {len(more)} more places that differ, the last one at offset {_place(more[-1]).offset}"
            yield replace(one, details=(*one.details, line))
        elif id(one) not in left_out:
            yield one


def _goes_on(before: Finding, one: Finding) -> bool:
    here, there = before.difference, one.difference
    return (
        here is not None
        and there is not None
        and here.kind == there.kind == "reversed"
        and not (here.varies or there.varies or here.converted or there.converted or before.field or one.field)
        and (before.channel, before.pairs, here.place.width) == (one.channel, one.pairs, there.place.width)
        and (here.place.end, here.big_offset + here.place.width) == (there.place.offset, there.big_offset)
    )


def _array(row: Sequence[Finding]) -> Finding:
    """Of one word after the other, as one finding."""
    first = row[0]
    differences = [one.difference for one in row if one.difference]
    whole = replace(
        differences[0],
        place=Place(differences[0].place.offset, sum(one.place.width for one in differences)),
        little=b"".join(one.little for one in differences),
        big=b"".join(one.big for one in differences),
        others=(),
    )
    width = differences[0].place.width
    values = [str(int.from_bytes(one.little, "little")) for one in differences[:VALUES_MOST]]
    more = ", ..." if len(row) > VALUES_MOST else ""
    at = f"offset {whole.place.offset}" + (
        f" ({whole.big_offset} from the big-endian host)" if whole.big_offset != whole.place.offset else ""
    )
    title = (
        f"{at}, {len(row)} words of {width} bytes, each sent in host order: {hexadecimal(whole.little)} from the little-endian host, "
        f"{hexadecimal(whole.big)} from the big-endian one"
    )
    details = (f"as the hosts have them in memory, they are {', '.join(values)}{more} on both", *first.details[1:])
    return replace(first, title=title, details=details, difference=whole)


def _cause(one: Finding) -> tuple[object, ...] | None:
    """What findings of one cause have in common; None for one that stands for itself."""
    if one.difference is None or one.channel is None or one.channel.is_port:
        return None
    of = one.difference
    return (one.role, one.channel.what, of.kind, of.place, of.big_offset, of.varies, of.bit_widths, of.converted, one.field)


def _in_all(group: Sequence[Finding]) -> Finding:
    first, *rest = group
    if not rest:
        return first
    within, elsewhere = ([one for one in rest if (one.channel == first.channel) == same] for same in (True, False))
    lines = []
    if again := [_place(one).offset for one in within if bytes_of(one) == bytes_of(first)]:
        lines.append(
            f"the same again at {'offset' if len(again) == 1 else 'offsets'} {_some([str(offset) for offset in again], OFFSETS_MOST)}"
        )
    if others := [f"offset {_place(one).offset} {_against(one)}" for one in within if bytes_of(one) != bytes_of(first)]:
        lines.append(f"the same field again at {_some(others, ELSEWHERE_MOST)}")
    if alike := [one.channel for one in elsewhere if one.channel and bytes_of(one) == bytes_of(first)]:
        lines.append(f"the same in {in_words(alike)}")
    if others := [_elsewhere(one, first) for one in elsewhere if bytes_of(one) != bytes_of(first)]:
        lines.append(f"at the same place also in {_some(others, ELSEWHERE_MOST)}")
    return replace(first, details=(*first.details, *lines))


def _some(words: Sequence[str], most: int) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _elsewhere(one: Finding, first: Finding) -> str:
    offset = "" if _place(one) == _place(first) else f", offset {_place(one).offset}"
    return f"{one.channel}{offset} {_against(one)}"


def _against(one: Finding) -> str:
    little, big = bytes_of(one)
    return f"({hexadecimal(little)} against {hexadecimal(big)})"


def _place(one: Finding) -> Place:
    assert one.difference
    return one.difference.place
