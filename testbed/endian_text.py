"""Texts whose numbers have other digits in every run, compared number by number and between them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from testbed.endian_words import Difference, Place, Stretch, alike, explain, moved

TEXT = re.compile(rb"[\t\n\r -~]*")
_NUMBER = re.compile(rb"(\d+(?:\.\d+)*)")
NUMBERS_LEAST = 2


@dataclass(frozen=True)
class Texts:
    """The same text in several runs, in the same parts: words and numbers by turns, the first and the last are words."""

    runs: tuple[tuple[bytes, ...], ...]

    def part(self, number: int) -> tuple[bytes, bool]:
        """A part as it is in the first run, and whether it is so in all of them."""
        return self.runs[0][number], len({parts[number] for parts in self.runs}) == 1


def texts(little: Sequence[bytes], big: Sequence[bytes]) -> tuple[Texts, Texts] | None:
    """Both hosts' messages in parts; None where they are no texts, do not have the same parts, or have all of them at the same offsets."""
    if not all(TEXT.fullmatch(one) for one in (*little, *big)):
        return None
    sides = [tuple(tuple(_NUMBER.split(one)) for one in side) for side in (little, big)]
    shapes = {tuple(map(len, parts)) for side in sides for parts in side}
    counts = set(map(len, shapes))
    if len(shapes) == 1 or len(counts) > 1 or counts.pop() < 2 * NUMBERS_LEAST + 1:
        return None
    return Texts(sides[0]), Texts(sides[1])


def apart(little: Texts, big: Texts) -> tuple[list[Difference], set[int]]:
    """The parts that are steady on each host, and not the same on both; and the offsets in the little-endian host's first run of what
    is not steady."""
    found: list[Difference] = []
    aside: set[int] = set()
    for number, (offset, of_big) in enumerate(zip(_offsets(little), _offsets(big), strict=True)):
        (one, steady), (other, steady_there) = little.part(number), big.part(number)
        place = Place(offset, len(one))
        if not (steady and steady_there):
            aside |= set(range(place.offset, place.end))
        elif one != other:
            compared = _numbers if number % 2 else _words
            found += moved((compared(one, other), set(), []), offset, of_big)[0]
    return found, aside


def _numbers(little: bytes, big: bytes) -> list[Difference]:
    return [Difference("different" if len(little) == len(big) else "length", Place(0, len(little)), 0, little, big)]


def _words(little: bytes, big: bytes) -> list[Difference]:
    if len(little) == len(big):
        return explain(Stretch(little, frozenset()), Stretch(big, frozenset()))[0]
    head = alike(little, big)
    tail = alike(little[head:][::-1], big[head:][::-1])
    ends = len(little) - tail, len(big) - tail
    return [Difference("length", Place(head, ends[0] - head), head, little[head : ends[0]], big[head : ends[1]])]


def _offsets(texts: Texts) -> Iterator[int]:
    sizes = [len(part) for part in texts.runs[0]]
    return accumulate(sizes[:-1], initial=0)
