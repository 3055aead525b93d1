"""Records that a stream repeats: which findings are about the same field of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.endian_messages import Channel
from testbed.endian_runs import Finding
from testbed.endian_words import Difference

REPEATED_LEAST = 3  # times that the same bytes stand in one message, so that it is no chance
NEXT_MOST = 8  # so many that follow are looked at to find how long a record is


@dataclass(frozen=True)
class Records:
    """Records of ``size`` bytes, one after the other from ``offset`` on."""

    offset: int
    size: int

    def field(self, offset: int) -> int:
        """Where the field at an offset is in the first record, or the offset itself before that."""
        return offset if offset < self.offset else self.offset + (offset - self.offset) % self.size


def firsts(findings: Sequence[Finding]) -> list[Finding]:
    """For each finding the first one about the same field of a record, in the same message; itself where there is none."""
    of_channel: dict[Channel, list[Finding]] = {}
    for one in findings:
        if one.channel and one.difference and one.difference.kind == "reversed":
            of_channel.setdefault(one.channel, []).append(one)
    first: dict[int, Finding] = {}
    for alike in of_channel.values():
        records = _records([one.difference for one in alike if one.difference])
        counts = Counter(bytes_of(one) for one in alike)
        seen: dict[tuple[object, ...], Finding] = {}
        for one in alike:
            assert one.difference
            if records:
                key: tuple[object, ...] = (records.field(one.difference.place.offset), one.difference.place.width, one.field)
            elif counts[bytes_of(one)] >= REPEATED_LEAST:
                key = (*bytes_of(one), one.field)
            else:
                continue
            first[id(one)] = seen.setdefault(key, one)
    return [first.get(id(one), one) for one in findings]


def bytes_of(one: Finding) -> tuple[bytes, bytes]:
    """What the two hosts send of a finding about bytes."""
    assert one.difference
    return one.difference.little, one.difference.big


def _records(differences: Sequence[Difference]) -> Records | None:
    """What records the differences of one message are in: the distance at which the same bytes come again most often, if then most of
    what follows is repeated at that distance, whatever its value."""
    steps: Counter[int] = Counter()
    begins: dict[int, int] = {}
    alike: dict[tuple[bytes, bytes], list[int]] = {}
    for one in differences:
        alike.setdefault((one.little, one.big), []).append(one.place.offset)
    for offsets in alike.values():
        for at, offset in enumerate(offsets):
            for following in offsets[at + 1 : at + 1 + NEXT_MOST]:
                steps[following - offset] += 1
                begins[following - offset] = min(begins.get(following - offset, offset), offset)
    if not steps:
        return None
    size = min(steps, key=lambda step: (-steps[step], step))
    if steps[size] < REPEATED_LEAST - 1 or size <= max(one.place.width for one in differences):
        return None
    places = {(one.place.offset, one.place.width) for one in differences}
    within = [one.place for one in differences if one.place.offset >= begins[size]]
    again = [one for one in within if {(one.offset + size, one.width), (one.offset - size, one.width)} & places]
    return Records(begins[size], size) if 2 * len(again) > len(within) else None
