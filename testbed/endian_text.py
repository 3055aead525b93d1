"""Numbers in texts, which may have other digits in every run: messages in parts, the numbers and what stands between. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_TEXT, _SIGN = rb"[\t\n\r -~]", rb"[\t\n\r -/:-@[-`{-~]"
# In the middle of a text, as a byte that happens to be a digit is not, and not within a word, which may be any letters and digits.
_NUMBER = re.compile(rb"(?:(?<=%b{3}%b)|^(?!\w+[a-zA-Z]))(\d+(?:\.\d+)*(?:e[-+]?\d+)?)(?!\d)(?=%b{2}|%b|\Z)" % (_TEXT, _SIGN, _TEXT, _SIGN))
NUMBERS_LEAST = 2


@dataclass(frozen=True)
class Part:
    """A part of a message as both hosts sent it in all runs, and its offsets in their first ones."""

    little: tuple[bytes, ...]
    big: tuple[bytes, ...]
    offset: int
    of_big: int
    is_number: bool

    @property
    def is_steady(self) -> bool:
        """Whether it has one length in all runs of each host."""
        return all(len(set(map(len, side))) == 1 for side in (self.little, self.big))


def parts(little: Sequence[bytes], big: Sequence[bytes]) -> list[Part]:
    """The parts of a message, what is no number and numbers by turns; none where it is not the same numbers in every run, or where they
    have as many digits in all."""
    sides = [[_NUMBER.split(one) for one in side] for side in (little, big)]
    shapes = {tuple(map(len, one)) for side in sides for one in side}
    counts = set(map(len, shapes))
    if len(shapes) == 1 or len(counts) > 1 or counts.pop() < 2 * NUMBERS_LEAST + 1:
        return []
    found: list[Part] = []
    offset = of_big = 0
    for number, (of_little, others) in enumerate(zip(zip(*sides[0], strict=True), zip(*sides[1], strict=True), strict=True)):
        found.append(Part(of_little, others, offset, of_big, is_number=number % 2 == 1))
        offset += len(of_little[0])
        of_big += len(others[0])
    return found


def is_in_text(message: bytes, offset: int, size: int) -> bool:
    """Whether what stands at an offset is a number of a text."""
    return any(found.span(1) == (offset, offset + size) for found in _NUMBER.finditer(message))
