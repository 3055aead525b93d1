"""Bytes that a little-endian and a big-endian host do not send alike, explained: words that are backwards, and bit fields. Pure.

Where several explanations fit, the likeliest is given, and the others beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

WIDTHS = (2, 4, 8)
UNEXPLAINED = 20  # what a differing byte costs that no word explains: more than any word does for the two that it explains
UNALIGNED = 3  # what a word costs beyond its width when its offset is no multiple of that
CARRY_MOST = 7  # differing bytes beside varying ones that may be the same value's higher bytes
BLIND_LEAST = 2
BIT_FIELDS_MOST = 3
BIT_FIELDS_AMONG_MOST = 32  # places that nothing explains: where there are more, messages are out of step
NARROW = ((4, 2), (8, 4), (8, 2))  # how many bytes a number has, and how many of them are converted
ODD_WIDTHS = (16, 7, 6, 5, 3)  # of words that a program puts together by itself; the inside of a wider one is backwards too

Kind = Literal["reversed", "bit fields", "length", "different"]


@dataclass(frozen=True)
class Place:
    """``width`` bytes at an ``offset``, both in bytes."""

    offset: int
    width: int

    @property
    def end(self) -> int:
        return self.offset + self.width

    def overlaps(self, other: Place) -> bool:
        return self.offset < other.end and other.offset < self.end


@dataclass(frozen=True)
class Difference:
    """Bytes of a message that the two hosts do not send alike.

    ``place`` is in the little-endian host's message, ``big_offset`` in the other one's; they are the same unless the messages have
    different lengths before it. ``others`` are places that explain the same bytes as well. ``varies``: its value differs from run to run,
    and that at the opposite ends on the two hosts. ``bit_widths``: of a kind "bit fields", from the first one declared. ``converted``: of
    so many bytes, fewer than the word has, the order was converted before all of it was sent in host order (htons() of a number of 4); of
    bit fields it was that of all.
    """

    kind: Kind
    place: Place
    big_offset: int
    little: bytes
    big: bytes
    others: tuple[Place, ...] = ()
    varies: bool = False
    bit_widths: tuple[int, ...] = ()
    converted: int = 0


@dataclass(frozen=True)
class Stretch:
    """A stretch of a message as it was in several runs: its bytes in the first one, and where they were not always the same."""

    data: bytes
    varying: frozenset[int]


def learned(runs: Sequence[bytes]) -> Stretch:
    size = min(map(len, runs))
    return Stretch(runs[0][:size], frozenset(at for at, values in enumerate(zip(*runs, strict=False)) if len(set(values)) > 1))


def explain(little: Stretch, big: Stretch, *, ragged: tuple[bool, bool] = (False, False)) -> tuple[list[Difference], set[int], list[Place]]:
    """Of two stretches in step: the differences, the offsets set aside, the blind places (see :class:`testbed.endian_compare.Comparison`).

    ``ragged``: before its beginning, after its end, is something that varies."""
    size = min(len(little.data), len(big.data))
    varying = {at for at in little.varying | big.varying if at < size}
    differing = {at for at in range(size) if at not in varying and little.data[at] != big.data[at]}
    words = _fitting(list(_words(little, big, differing, varying)), differing, size)
    chosen, unexplained = _cover(words, differing, size, UNALIGNED if not ragged[0] else 0)
    narrow = _converted_narrowly(little.data, big.data, unexplained, varying, chosen)
    unexplained -= {at for word in narrow for at in range(word.offset, word.end)}
    odd = _of_odd_width(little.data, big.data, unexplained, varying, [*chosen, *narrow])
    chosen = [word for word in chosen if not any(word.overlaps(one) for one in odd)] + odd + [*narrow]
    unexplained -= {at for word in chosen for at in range(word.offset, word.end)}
    beginning: dict[int, list[Place]] = {}
    for word in words:
        beginning.setdefault(word.offset, []).append(word)

    def others(word: Place) -> tuple[Place, ...]:
        near = (other for offset in range(word.offset - max(WIDTHS) + 1, word.end) for other in beginning.get(offset, ()))
        return tuple(other for other in near if other != word and other.overlaps(word))

    found = [
        Difference(
            "reversed",
            word,
            word.offset,
            little.data[word.offset : word.end],
            big.data[word.offset : word.end],
            others=others(word),
            varies=not varying.isdisjoint(range(word.offset, word.end)),
            converted=narrow.get(word, 0),
        )
        for word in chosen
    ]
    beside = varying | {at for at, varies in zip((-1, size), ragged, strict=True) if varies}
    explained = {at for word in chosen for at in range(word.offset, word.end)}
    remaining = places(unexplained)
    for place in remaining:
        if place.width <= CARRY_MOST and not beside.isdisjoint((place.offset - 1, place.end)):
            varying |= set(range(place.offset, place.end))  # the higher bytes of a time, say, that went on between the hosts' runs
            continue
        few = len(remaining) <= BIT_FIELDS_AMONG_MOST
        fields = _as_bit_fields(little.data, big.data, place, explained | varying) if few else None
        within = slice(place.offset, place.end)
        found.append(fields or Difference("different", place, place.offset, little.data[within], big.data[within]))
    blind = list(_palindromes(little.data[:size], explained | varying | differing))
    return sorted(found, key=lambda one: one.place.offset), varying - explained, blind


def _words(little: Stretch, big: Stretch, differing: set[int], varying: set[int]) -> Iterator[Place]:
    """Every word in which one host's bytes are the other's backwards, and which holds bytes that differ."""
    size = min(len(little.data), len(big.data))
    offsets = sorted({at - back for at in differing for back in range(max(WIDTHS)) if at >= back})
    for offset in offsets:
        for width in WIDTHS:
            end = offset + width
            inside = range(offset, end)
            if end > size or differing.isdisjoint(inside):
                continue
            if varying.isdisjoint(inside):
                if little.data[offset:end] == big.data[offset:end][::-1]:
                    yield Place(offset, width)
            elif _mirrored(little, big, offset, width):
                yield Place(offset, width)


def _mirrored(little: Stretch, big: Stretch, offset: int, width: int) -> bool:
    """Whether a word that varies from run to run does so at opposite ends, and is otherwise the other host's backwards: a time in
    host order. At least two bytes must say so, and none may vary on both hosts at once: then it may be any number. Where it is the
    little-endian host's end that varies, as of a program that always swaps, zeros say nothing: memory that was never written has many;
    and so where it varies on one host only, the runs of the other having been in one second."""
    inside = range(offset, offset + width)
    of_little, of_big = ({at for at in inside if at in one.varying} for one in (little, big))
    if not (of_little or of_big) or of_little & of_big:
        return False
    steady = [(at, 2 * offset + width - 1 - at) for at in inside if at not in of_little and 2 * offset + width - 1 - at not in of_big]
    if not all(little.data[here] == big.data[there] for here, there in steady):
        return False
    telling = sum(little.data[here] != 0 for here, _ in steady)
    if not of_little or not of_big:
        return telling >= 2
    return len(steady) >= 2 and (max(of_little) < min(of_big) or telling > 0)


def _fitting(words: Sequence[Place], differing: set[int], size: int) -> list[Place]:
    """The words that are part of an explanation that leaves the fewest bytes unexplained."""
    before = _fewest(words, differing, size)
    mirrored = [Place(size - word.end, word.width) for word in words]
    after = _fewest(mirrored, {size - 1 - at for at in differing}, size)[::-1]
    return [word for word in words if before[word.offset] + after[word.end] == before[size]]


def _fewest(words: Iterable[Place], differing: set[int], size: int) -> list[int]:
    """Of each beginning of a message, by its length: how few of the differing bytes in it words can leave unexplained."""
    ending: dict[int, list[int]] = {}
    for word in words:
        ending.setdefault(word.end, []).append(word.offset)
    fewest = [0]
    for end in range(1, size + 1):
        without = fewest[end - 1] + (end - 1 in differing)
        fewest.append(min(without, *(fewest[begin] for begin in ending.get(end, ()))) if end in ending else without)
    return fewest


def _cover(words: Sequence[Place], differing: set[int], size: int, unaligned: int) -> tuple[list[Place], set[int]]:
    """Words that do not overlap and explain the differing bytes at the least cost, and the bytes that remain. ``unaligned`` is what a word
    costs more at an offset that is no multiple of its width: nothing where offsets vary from run to run.

    Of two ways that cost the same, the one with more words: two equal numbers side by side are likelier than one made of two equal halves.
    """
    ending: dict[int, list[Place]] = {}
    for word in words:
        ending.setdefault(word.end, []).append(word)
    best: list[tuple[int, int]] = [(0, 0)]  # cost, minus the number of words
    last: list[Place | None] = [None]
    for end in range(1, size + 1):
        cost, count = best[end - 1]
        choice: tuple[tuple[int, int], Place | None] = ((cost + (UNEXPLAINED if end - 1 in differing else 0), count), None)
        for word in ending.get(end, ()):
            before, count = best[word.offset]
            with_it = (before + word.width + (unaligned if word.offset % word.width else 0), count - 1)
            if with_it < choice[0]:
                choice = (with_it, word)
        best.append(choice[0])
        last.append(choice[1])
    chosen, remaining, at = [], set(differing), size
    while at:
        taken = last[at]
        if taken is None:
            at -= 1
            continue
        chosen.append(taken)
        remaining -= set(range(taken.offset, taken.end))
        at = taken.offset
    return chosen[::-1], remaining


def _converted_narrowly(little: bytes, big: bytes, unexplained: set[int], varying: set[int], chosen: Sequence[Place]) -> dict[Place, int]:
    """Words of 4 or 8 bytes of which fewer were put into network order: htons() of a number of 4 bytes is so. On a little-endian host these
    come first, on a big-endian one last, and the rest is zeros. Of several that explain the same bytes the smallest number counts."""
    fitting: list[tuple[int, int, int, Place]] = []
    for width, converted in NARROW:
        for begin in {at - back for at in unexplained for back in range(width) if at >= back}:
            here, there = little[begin : begin + width], big[begin : begin + width]
            zeros = bytes(width - converted)
            if len(here) == width and here[:converted] == there[-converted:] and here[converted:] == there[:-converted] == zeros:
                value = int.from_bytes(there, "big")
                fitting += [(value, begin % width, converted, Place(begin, width))] if value else []
    found: dict[Place, int] = {}
    taken = varying | {at for word in chosen for at in range(word.offset, word.end)}
    for _, _, converted, place in sorted(fitting, key=lambda one: (one[0], one[1], one[3].offset)):
        inside = range(place.offset, place.end)
        if taken.isdisjoint(inside):
            found[place] = converted
            taken.update(inside)
    return found


def _of_odd_width(little: bytes, big: bytes, unexplained: set[int], varying: set[int], chosen: Sequence[Place]) -> list[Place]:
    """Words of other widths than processors have that explain what remained: of 24 bits, say, or an identifier of 128. The middle of one is
    backwards too, so it may have been ``chosen``."""
    found: list[Place] = []
    taken = set(varying)
    inside_of = {at: word for word in chosen for at in range(word.offset, word.end)}
    for width in ODD_WIDTHS:
        for begin in sorted(unexplained):
            one = Place(begin, width)
            if one.end - 1 not in unexplained or little[begin : one.end] != big[begin : one.end][::-1]:
                continue
            sticks_out = any(word.offset < begin or word.end > one.end for at in (begin, one.end - 1) if (word := inside_of.get(at)))
            if not sticks_out and taken.isdisjoint(range(begin, one.end)):
                found.append(one)
                taken |= {*range(begin, one.end)}
    return found


def _as_bit_fields(little: bytes, big: bytes, place: Place, taken: set[int]) -> Difference | None:
    """Bytes that differ and are no word backwards as bit fields, if they look so."""
    for unit in (1, 2, 4):
        for offset in range(max(0, place.end - unit), place.offset + 1):
            end = offset + unit
            if end > min(len(little), len(big)) or not taken.isdisjoint(range(offset, end)):
                continue
            here, there = little[offset:end], big[offset:end]
            if widths := bit_fields(here, there):
                return Difference("bit fields", Place(offset, unit), offset, here, there, bit_widths=widths)
            if unit > 1 and (widths := bit_fields(here[::-1], there)):
                return Difference("bit fields", Place(offset, unit), offset, here, there, bit_widths=widths, converted=unit)
    return None


def bit_fields(little: bytes, big: bytes) -> tuple[int, ...]:
    """The widths in bits of the fewest bit fields, at most three, that one host has from the lowest bit up and the other from the highest
    bit down, as the System V ABIs of the two do; none when no such fields fit."""
    bits = 8 * len(little)
    low, high = int.from_bytes(little, "little"), int.from_bytes(big, "big")
    for count in range(2, BIT_FIELDS_MOST + 1):
        for cuts in combinations(range(1, bits), count - 1):
            edges = (0, *cuts, bits)
            turned = 0
            for begin, end in pairwise(edges):
                turned |= (low >> begin & ((1 << (end - begin)) - 1)) << (bits - end)
            if turned == high:
                return tuple(end - begin for begin, end in pairwise(edges))
    return ()


def _palindromes(data: bytes, taken: set[int]) -> Iterator[Place]:
    """The longest stretches of one and the same byte: whatever word is in there, its order cannot be told. Text is left out."""
    at = 0
    while at < len(data):
        end = at
        while end < len(data) and data[end] == data[at] and end not in taken:
            end += 1
        if end - at >= BLIND_LEAST and not 0x20 <= data[at] < 0x7F:
            yield Place(at, end - at)
        at = max(end, at + 1)


def places(offsets: Iterable[int]) -> list[Place]:
    """Offsets as the places that they make up."""
    found: list[Place] = []
    for at in sorted(offsets):
        if found and found[-1].end == at:
            found[-1] = Place(found[-1].offset, found[-1].width + 1)
        else:
            found.append(Place(at, 1))
    return found
