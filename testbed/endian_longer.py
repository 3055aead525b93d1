"""A message of which one host always sends more than the other: what both send alike, and what stands between. Pure.

Each host sends one length in every run. Lengths in the message follow from that, and tell the order in which they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Literal

from testbed.endian_words import WIDTHS, Difference, Place, Stretch, explain, learned

ALIKE = 4  # bytes in a row that are the same on both hosts, so that they are the same part of the message
UNLIKE = 3  # so many values are among them: zeros stand everywhere
MATCHED_MOST = 4096  # bytes in which such parts are looked for, which may take the square of that

Found = tuple[list[Difference], set[int], list[Place]]
"""Differences, offsets set aside, blind places, as :func:`testbed.endian_words.explain` gives them."""


@dataclass(frozen=True)
class _Part:
    """A part of the message on both hosts, from an offset on each to another."""

    sides: tuple[Stretch, Stretch]
    begins: tuple[int, int]
    ends: tuple[int, int]

    @property
    def sizes(self) -> tuple[int, int]:
        return self.ends[0] - self.begins[0], self.ends[1] - self.begins[1]

    def first(self, size: int) -> _Part:
        return replace(self, ends=(self.begins[0] + size, self.begins[1] + size))

    def last(self, size: int) -> _Part:
        return replace(self, begins=(self.ends[0] - size, self.ends[1] - size))

    def without(self, first: int, last: int = 0) -> _Part:
        begins, ends = self.begins, self.ends
        return replace(self, begins=(begins[0] + first, begins[1] + first), ends=(ends[0] - last, ends[1] - last))

    def split(self, here: int, there: int, width: int) -> tuple[_Part, _Part]:
        """What is before and after ``width`` bytes at an offset on each."""
        return replace(self, ends=(here, there)), replace(self, begins=(here + width, there + width))

    @property
    def data(self) -> tuple[bytes, bytes]:
        little, big = (side.data[begin:end] for side, begin, end in zip(self.sides, self.begins, self.ends, strict=True))
        return little, big

    def in_step(self) -> Found:
        """What differs, of two stretches of the same length."""
        varying = [
            frozenset(at - begin for at in side.varying if begin <= at < end)
            for side, begin, end in zip(self.sides, self.begins, self.ends, strict=True)
        ]
        little, big = map(Stretch, self.data, varying)
        return moved(explain(little, big), *self.begins)

    def odd(self, found: Found) -> list[int]:
        """Of two stretches of the same length, in which so much is ``found``, where in them bytes differ that are no words backwards and do
        not vary: the one is shifted against the other there."""
        words = {at for one in found[0] if one.kind == "reversed" for at in range(one.place.offset, one.place.end)}
        begin, other = self.begins
        of_little, of_big = (side.varying for side in self.sides)
        pairs = enumerate(zip(*self.data, strict=True))
        unlike = (at for at, (here, there) in pairs if here != there and begin + at not in of_little and other + at not in of_big)
        return [at for at in unlike if begin + at not in words]


def longer(little: Sequence[bytes], big: Sequence[bytes]) -> Found:
    """What is in step from the beginning and from the end, and what differs between: in one place, or in several with the same bytes
    between them. A number that is the length of what follows, or of the message, is set aside where it is so in one order; it is in host
    order where it is so in each host's own, and then the two are not the same number."""
    rest = _Part((learned(little), learned(big)), (0, 0), (len(little[0]), len(big[0])))
    found: list[Found] = []
    for length in _lengths(little[0], big[0]):
        before, after = rest.split(length.place.offset, length.big_offset, length.place.width)
        size, front = _front(before)
        if size < before.sizes[0]:
            break  # from there on the one is shifted against the other
        own = length.kind == "reversed"
        found += [front, ([length] if own else [], set() if own else {*range(length.place.offset, length.place.end)}, [])]
        rest = after
    head_size, front = _front(rest)
    tail_size, back = _back(rest.without(head_size))
    middle = rest.without(head_size, tail_size)
    return _together([*found, front, *map(_apart, _pieces(middle)), back])


def _front(part: _Part) -> tuple[int, Found]:
    """How far a part is in step from its beginning, and what differs there."""
    size = min(part.sizes)
    found = part.first(size).in_step()
    if odd := part.first(size).odd(found):
        size = odd[0]
        found = part.first(size).in_step()
    return size, found


def _back(part: _Part) -> tuple[int, Found]:
    """The same from its end."""
    size = min(part.sizes)
    found = part.last(size).in_step()
    if odd := part.last(size).odd(found):
        size -= odd[-1] + 1
        found = part.last(size).in_step()
    return size, found


def _apart(part: _Part) -> Found:
    """What is left between two stretches that are the same on both hosts: in step where it is of one length, else what only one has."""
    if part.sizes[0] == part.sizes[1]:
        return part.in_step()
    head_size, front = _front(part)
    tail_size, back = _back(part.without(head_size))
    more = part.without(head_size, tail_size)
    return _together([front, ([Difference("length", Place(more.begins[0], more.sizes[0]), more.begins[1], *more.data)], set(), []), back])


def _together(found: Sequence[Found]) -> Found:
    return (
        [one for differences, _, _ in found for one in differences],
        {at for _, aside, _ in found for at in aside},
        [place for _, _, blind in found for place in blind],
    )


def _pieces(part: _Part) -> Iterator[_Part]:
    """What is between stretches that are the same on both hosts and in all runs."""
    if max(part.sizes) <= MATCHED_MOST:
        # What varies is like nothing else.
        tokens = [
            [side.data[at] if at not in side.varying else -2 * at - number - 1 for at in range(begin, end)]
            for number, (side, begin, end) in enumerate(zip(part.sides, part.begins, part.ends, strict=True))
        ]
        here, there = part.begins
        for block in SequenceMatcher(None, tokens[0], tokens[1], autojunk=False).get_matching_blocks():
            if block.size >= ALIKE and len({*tokens[0][block.a : block.a + block.size]}) >= UNLIKE:
                before, part = part.split(here + block.a, there + block.b, block.size)
                yield before
    yield part


# Lengths


def _lengths(little: bytes, big: bytes) -> Iterator[Difference]:
    """Numbers at one offset on both hosts that are the length of the message, or of the rest of it, on each: "reversed" where they are so
    only in the order of each host, else "different"."""
    taken: set[int] = set()
    for offset in range(min(len(little), len(big))):
        for width in (*WIDTHS[::-1], 1):
            end = offset + width
            words = little[offset:end], big[offset:end]
            if min(map(len, words)) < width or words[0] == words[1] or not taken.isdisjoint(range(offset, end)):
                continue
            wanted = [tuple(len(one) - less for one in (little, big)) for less in (0, offset, end)]
            if _read(words, "little", "little") in wanted or _read(words, "big", "big") in wanted:
                yield Difference("different", Place(offset, width), offset, *words)
            elif _read(words, "little", "big") in wanted:
                yield Difference("reversed", Place(offset, width), offset, *words)
            else:
                continue
            taken |= {*range(offset, end)}


_Order = Literal["little", "big"]


def _read(words: tuple[bytes, bytes], of_little: _Order, of_big: _Order) -> tuple[int, ...]:
    return int.from_bytes(words[0], of_little), int.from_bytes(words[1], of_big)


def moved(found: Found, by: int, of_big: int) -> Found:
    """What was found in a stretch that begins at an offset of its own in each host's message."""

    def there(place: Place) -> Place:
        return Place(place.offset + by, place.width)

    differences, varying, blind = found
    return (
        [
            replace(one, place=there(one.place), big_offset=one.big_offset + of_big, others=tuple(map(there, one.others)))
            for one in differences
        ],
        {at + by for at in varying},
        list(map(there, blind)),
    )
