"""Findings as they are shown: those of one cause together, which are the elements of an array, or one field of many messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from testbed.endian_explain import hexadecimal
from testbed.endian_messages import in_words
from testbed.endian_runs import Finding
from testbed.endian_words import Place

ARRAY_LEAST = 4  # words of one width in a row; fewer are told one by one, as the fields of a struct
VALUES_MOST = 6
ELSEWHERE_MOST = 4


def grouped(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for each array, and one for a field that is wrong in several connections or datagrams; the others as they are."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for number, one in enumerate(_arrays(findings)):
        groups.setdefault(_cause(one) or (number,), []).append(one)
    return [_in_all(group) for group in groups.values()]


def _arrays(findings: Iterable[Finding]) -> list[Finding]:
    rows: list[list[Finding]] = []
    for one in findings:
        if rows and _goes_on(rows[-1][-1], one):
            rows[-1].append(one)
        else:
            rows.append([one])
    return [found for row in rows for found in ([_array(row)] if len(row) >= ARRAY_LEAST else row)]


def _goes_on(before: Finding, one: Finding) -> bool:
    here, there = before.difference, one.difference
    return (
        here is not None
        and there is not None
        and here.kind == there.kind == "reversed"
        and not (here.varies or there.varies or before.field or one.field)
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
    return (one.role, one.channel.what, of.kind, of.place, of.big_offset, of.varies, of.bit_widths, one.field)


def _in_all(group: Sequence[Finding]) -> Finding:
    first, *rest = group
    if not rest:
        return first
    alike = [one for one in rest if _bytes(one) == _bytes(first)]
    lines = [f"the same in {in_words([one.channel for one in alike if one.channel])}"] if alike else []
    others = [one for one in rest if one not in alike and one.channel and one.difference]
    if others:
        shown = [
            f"{one.channel} ({hexadecimal(one.difference.little)} against {hexadecimal(one.difference.big)})"
            for one in others[:ELSEWHERE_MOST]
            if one.difference
        ]
        more = f" and {len(others) - ELSEWHERE_MOST} more" if len(others) > ELSEWHERE_MOST else ""
        lines.append(f"at the same place also in {', '.join(shown)}{more}")
    return replace(first, details=(*first.details, *lines))


def _bytes(one: Finding) -> tuple[bytes, bytes]:
    assert one.difference
    return one.difference.little, one.difference.big
