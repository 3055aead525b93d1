"""What one message looks like from a little-endian and from a big-endian host: which bytes differ, and why. Pure.

Both are given in several runs. What differs from run to run on the same host (times, random numbers, ports) is set aside; what
then still differs between the two is explained: bytes reversed in a word of 2, 4 or 8 bytes were sent in host order.
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
CALM = 8  # bytes in a row that are the same in all runs, so that runs of different length count as still in step
BLIND_LEAST = 2
BIT_FIELDS_MOST = 3

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
    and that at the opposite ends on the two hosts. ``bit_widths``: of a kind "bit fields", from the first one declared.
    """

    kind: Kind
    place: Place
    big_offset: int
    little: bytes
    big: bytes
    others: tuple[Place, ...] = ()
    varies: bool = False
    bit_widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """``differences`` in the order of their offsets. ``set_aside`` varies from run to run; ``blind`` are bytes that are the same on both
    hosts and the same backwards, so they say nothing about the order of a word there; ``compared`` counts the bytes that were
    compared, of ``size`` in the little-endian host's first run."""

    differences: tuple[Difference, ...]
    set_aside: tuple[Place, ...]
    blind: tuple[Place, ...]
    compared: int
    size: int


@dataclass(frozen=True)
class _Runs:
    """A stretch of a message as it was in several runs: its bytes in the first one, and where they were not always the same."""

    data: bytes
    varying: frozenset[int]


def compare(little: Sequence[bytes], big: Sequence[bytes]) -> Comparison:
    """Compare a message of the little-endian host (once for each run) with the same message of the big-endian one; neither is empty."""
    sizes = {len(one) for one in (*little, *big)}
    return _in_step(little, big) if len(sizes) == 1 else _out_of_step(little, big)


def _in_step(little: Sequence[bytes], big: Sequence[bytes]) -> Comparison:
    differences, varying, blind = _stretch(_learned(little), _learned(big))
    size = len(little[0])
    return Comparison(tuple(differences), tuple(_places(varying)), tuple(blind), size - len(varying), size)


def _learned(runs: Sequence[bytes]) -> _Runs:
    size = min(map(len, runs))
    return _Runs(runs[0][:size], frozenset(at for at, values in enumerate(zip(*runs, strict=False)) if len(set(values)) > 1))


def _stretch(little: _Runs, big: _Runs) -> tuple[list[Difference], set[int], list[Place]]:
    """Of two stretches in step: the differences, the offsets set aside, the blind places."""
    size = min(len(little.data), len(big.data))
    varying = {at for at in little.varying | big.varying if at < size}
    differing = {at for at in range(size) if at not in varying and little.data[at] != big.data[at]}
    words = _fitting(list(_words(little, big, differing, varying)), differing, size)
    chosen, unexplained = _cover(words, differing, size)
    found = [
        Difference(
            "reversed",
            word,
            word.offset,
            little.data[word.offset : word.end],
            big.data[word.offset : word.end],
            others=tuple(other for other in words if other != word and other.overlaps(word)),
            varies=not varying.isdisjoint(range(word.offset, word.end)),
        )
        for word in chosen
    ]
    explained = {at for word in chosen for at in range(word.offset, word.end)}
    for place in _places(unexplained):
        if place.width <= CARRY_MOST and not varying.isdisjoint((place.offset - 1, place.end)):
            varying |= set(range(place.offset, place.end))  # the higher bytes of a time, say, that went on between the hosts' runs
            continue
        found.append(_unexplained(little.data, big.data, place, explained | varying))
    blind = list(_palindromes(little.data[:size], explained | varying | differing))
    return sorted(found, key=lambda one: one.place.offset), varying - explained, blind


def _words(little: _Runs, big: _Runs, differing: set[int], varying: set[int]) -> Iterator[Place]:
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


def _mirrored(little: _Runs, big: _Runs, offset: int, width: int) -> bool:
    """Whether a word that varies from run to run does so at opposite ends, and is otherwise the other host's backwards: a time in
    host order. At least two bytes must say so, and none may vary on both hosts at once: then it may be any number."""
    inside = range(offset, offset + width)
    of_little, of_big = ({at for at in inside if at in one.varying} for one in (little, big))
    if not of_little or not of_big or of_little & of_big:
        return False
    steady = [(at, 2 * offset + width - 1 - at) for at in inside if at not in of_little and 2 * offset + width - 1 - at not in of_big]
    return len(steady) >= 2 and all(little.data[here] == big.data[there] for here, there in steady)


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


def _cover(words: Sequence[Place], differing: set[int], size: int) -> tuple[list[Place], set[int]]:
    """Words that do not overlap and explain the differing bytes at the least cost, and the bytes that remain.

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
            with_it = (before + word.width + (UNALIGNED if word.offset % word.width else 0), count - 1)
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


def _unexplained(little: bytes, big: bytes, place: Place, taken: set[int]) -> Difference:
    """Bytes that differ and are no word backwards: bit fields if they look so."""
    for unit in (1, 2, 4):
        for offset in range(max(0, place.end - unit), place.offset + 1):
            end = offset + unit
            if end > min(len(little), len(big)) or not taken.isdisjoint(range(offset, end)):
                continue
            if widths := bit_fields(little[offset:end], big[offset:end]):
                whole = Place(offset, unit)
                return Difference("bit fields", whole, offset, little[offset:end], big[offset:end], bit_widths=widths)
    ends = place.offset, place.end
    return Difference("different", place, place.offset, little[slice(*ends)], big[slice(*ends)])


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


def _places(offsets: Iterable[int]) -> list[Place]:
    """Offsets as the places that they make up."""
    found: list[Place] = []
    for at in sorted(offsets):
        if found and found[-1].end == at:
            found[-1] = Place(found[-1].offset, found[-1].width + 1)
        else:
            found.append(Place(at, 1))
    return found


# Messages of different lengths


def _out_of_step(little: Sequence[bytes], big: Sequence[bytes]) -> Comparison:
    """Compare from the beginning as far as the runs are in step, and from the end; what lies between is set aside, or differs in length."""
    fixed = len({len(one) for one in little}) == 1 and len({len(one) for one in big}) == 1
    size, other = len(little[0]), len(big[0])
    head = min(_steps(little), _steps(big))
    front, aside_front, blind = _stretch(_learned([one[:head] for one in little]), _learned([one[:head] for one in big]))
    if fixed and (odd := next((one for one in front if one.kind in ("different", "bit fields")), None)):
        # From here on the one is shifted against the other.
        head = odd.place.offset
        front, aside_front, blind = _stretch(_learned([one[:head] for one in little]), _learned([one[:head] for one in big]))
    least = min(len(one) for one in (*little, *big))
    tail = min(_steps([one[::-1] for one in little]), _steps([one[::-1] for one in big]), least - head)
    back, aside_back, blind_back = _tail(little, big, tail)
    if fixed and (odd := next((one for one in reversed(back) if one.kind in ("different", "bit fields")), None)):
        tail = size - odd.place.end
        back, aside_back, blind_back = _tail(little, big, tail)
    found = [*front, *back]
    if fixed:
        middle = Place(head, size - tail - head)
        found.append(Difference("length", middle, head, little[0][head : size - tail], big[0][head : other - tail]))
    varying = {*aside_front, *aside_back, *(range(head, size - tail) if not fixed else ())}
    compared = head + tail - len(aside_front) - len(aside_back)
    return Comparison(
        tuple(sorted(found, key=lambda one: one.place.offset)), tuple(_places(varying)), (*blind, *blind_back), compared, size
    )


def _tail(little: Sequence[bytes], big: Sequence[bytes], tail: int) -> tuple[list[Difference], set[int], list[Place]]:
    """As :func:`_stretch`, of the last ``tail`` bytes, with offsets from the beginning of the messages."""
    runs = [_learned([one[len(one) - tail :] for one in side]) for side in (little, big)]
    found, varying, blind = _stretch(runs[0], runs[1])
    begin, other = len(little[0]) - tail, len(big[0]) - tail
    moved = [
        Difference(
            one.kind,
            _moved(one.place, begin),
            one.place.offset + other,
            one.little,
            one.big,
            tuple(_moved(place, begin) for place in one.others),
            one.varies,
            one.bit_widths,
        )
        for one in found
    ]
    return moved, {at + begin for at in varying}, [_moved(place, begin) for place in blind]


def _moved(place: Place, by: int) -> Place:
    return Place(place.offset + by, place.width)


def _steps(runs: Sequence[bytes]) -> int:
    """How far runs are in step from the beginning: a varying byte is passed over when calm follows within the width of a word."""
    size = min(map(len, runs))
    if len({len(one) for one in runs}) == 1:
        return size
    same = [len({one[at] for one in runs}) == 1 for at in range(size)]
    at = 0
    while at < size:
        if same[at]:
            at += 1
            continue
        after = next(
            (begin for begin in range(at + 1, at + max(WIDTHS) + 1) if begin + CALM <= size and all(same[begin : begin + CALM])), None
        )
        if after is None:
            return at
        at = after
    return size
