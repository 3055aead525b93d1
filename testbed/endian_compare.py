"""What one message looks like from a little-endian and from a big-endian host: which bytes differ, and why. Pure.

Both are given in several runs. What differs from run to run on the same host (times, random numbers, ports) is set aside, also where
its length differs; what then still differs between the two is explained (:mod:`testbed.endian_words`). Messages with numbers in
text are compared number by number (:mod:`testbed.endian_text`); if other parts vary in length too, in both ways, and the likelier counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from testbed.endian_longer import Found, longer, moved
from testbed.endian_text import Part, parts
from testbed.endian_words import WIDTHS, Difference, Kind, Place, Stretch, explain, learned, places

CALM = 8  # bytes in a row that are the same in all runs, so that runs of different length count as still in step
ANCHOR = 4  # bytes in a row that are the same in all runs, wherever they are: so many are no chance
NEIGHBOURS = 3  # letters on each side of a word that is in a text
MORE_MOST = 64  # bytes that one host may have more of inside a stretch
SHIFT_MOST = 3  # by so many bytes a stretch may begin later on one host, where what varies before it ends in the same way by chance
ALIGNED_MOST = 2048  # bytes of a message in which anchors are looked for, which may take the square of that

__all__ = ["Comparison", "Difference", "Place", "compare"]


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


def compare(little: Sequence[bytes], big: Sequence[bytes], *, broken_off: bool = False) -> Comparison:
    """Compare a message of the little-endian host (once for each run) with the same message of the big-endian one; neither is empty.

    ``broken_off``: on one of them the dialogue went wrong, so where their lengths differ only what they begin with is the same message."""
    if broken_off and len({len(one) for one in (*little, *big)}) > 1:
        return _without_chance(_from_both_ends(little, big, tails=False), little[0], big[0])
    in_parts = parts(little, big)
    if not in_parts:
        return _whole(little, big)
    if all(part.is_steady for part in in_parts if not part.is_number):
        return _in_parts(in_parts)
    return min(_whole(little, big), _in_parts(in_parts), key=lambda one: _unexplained(one.differences) - one.compared)


def _whole(little: Sequence[bytes], big: Sequence[bytes]) -> Comparison:
    if len({len(one) for one in (*little, *big)}) == 1:
        return _in_step(little, big)
    return _without_chance(_out_of_step(little, big), little[0], big[0])


def _in_step(little: Sequence[bytes], big: Sequence[bytes]) -> Comparison:
    differences, varying, blind = explain(learned(little), learned(big))
    size = len(little[0])
    return Comparison(tuple(differences), tuple(places(varying)), tuple(blind), size - len(varying), size)


# Messages with numbers in text


def _in_parts(in_parts: Sequence[Part]) -> Comparison:
    """Compare what stands between the numbers piece by piece, and the numbers that are the same in all runs of a host."""
    differences: list[Difference] = []
    aside: set[int] = set()
    blind: list[Place] = []
    compared = 0
    for part in in_parts:
        between = not part.is_number and all((*part.little, *part.big))
        one = _whole(part.little, part.big) if between else _as_one(part)
        varying = {at for place in one.set_aside for at in range(place.offset, place.end)}
        found = moved((list(one.differences), varying, list(one.blind)), part.offset, part.of_big)
        differences += found[0]
        aside |= found[1]
        blind += found[2]
        compared += one.compared
    size = sum(len(part.little[0]) for part in in_parts)
    return Comparison(tuple(differences), tuple(places(aside)), tuple(blind), compared, size)


def _as_one(part: Part) -> Comparison:
    """A part that is the same on both hosts, or is not, or varies from run to run, as a whole."""
    little, big, size = part.little[0], part.big[0], len(part.little[0])
    if len({*part.little}) > 1 or len({*part.big}) > 1:
        return Comparison((), (Place(0, size),) if size else (), (), 0, size)
    kind: Kind = "different" if size == len(big) else "length"
    return Comparison((Difference(kind, Place(0, size), 0, little, big),) if little != big else (), (), (), size, size)


# Messages of different lengths


def _without_chance(found: Comparison, little: bytes, big: bytes) -> Comparison:
    """Without letters that are backwards within a text: where messages are out of step, one text may stand beside another, and two
    neighbours in it are easily turned round by chance."""

    def is_chance(one: Difference) -> bool:
        inside = one.kind == "reversed" and one.place.width < ANCHOR
        return inside and _in_text(little, one.place) and _in_text(big, Place(one.big_offset, one.place.width))

    chance = [one.place for one in found.differences if is_chance(one)]
    if not chance:
        return found
    aside = {at for place in (*found.set_aside, *chance) for at in range(place.offset, place.end)}
    left = tuple(one for one in found.differences if one.place not in chance)
    return replace(found, differences=left, set_aside=tuple(places(aside)), compared=found.compared - sum(one.width for one in chance))


def _in_text(message: bytes, place: Place) -> bool:
    """Whether a word and its neighbours on both sides are to be read."""
    around = message[max(place.offset - NEIGHBOURS, 0) : place.end + NEIGHBOURS]
    return len(around) == place.width + 2 * NEIGHBOURS and all(0x20 <= one < 0x7F for one in around)


def _out_of_step(little: Sequence[bytes], big: Sequence[bytes]) -> Comparison:
    if all(len({len(one) for one in side}) == 1 for side in (little, big)):
        return _longer(little, big)
    if max(len(one) for one in (*little, *big)) <= ALIGNED_MOST:
        anchors = [_anchors(side) for side in (little, big)]
        if anchors[0] and len(anchors[0]) == len(anchors[1]):
            return _between_gaps(little[0], big[0], anchors[0], anchors[1])
    return _from_both_ends(little, big)


def _longer(little: Sequence[bytes], big: Sequence[bytes]) -> Comparison:
    """Each host sends the same length in every run, and they are not the same."""
    found, aside, blind = longer(little, big)
    apart = {at for one in found if one.kind == "length" for at in range(one.place.offset, one.place.end)}
    size = len(little[0])
    return Comparison(tuple(found), tuple(places(aside)), tuple(blind), size - len(aside | apart), size)


def _from_both_ends(little: Sequence[bytes], big: Sequence[bytes], *, tails: bool = True) -> Comparison:
    """The length varies from run to run: from both ends, as far as the runs are in step. What lies between is set aside. Without
    ``tails``, from the beginning only."""
    size = len(little[0])
    begin = min(_steps(little), _steps(big))
    least = min(len(one) for one in (*little, *big))
    end = min(_steps([one[::-1] for one in little]), _steps([one[::-1] for one in big]), least - begin) if tails else 0
    front, aside, blind = _head(little, big, begin, ragged=True)
    back, aside_back, blind_back = _tail(little, big, end, ragged=True)
    varying = {*aside, *aside_back, *range(begin, size - end)}
    return Comparison((*front, *back), tuple(places(varying)), (*blind, *blind_back), size - len(varying), size)


def _head(little: Sequence[bytes], big: Sequence[bytes], size: int, *, ragged: bool = False) -> Found:
    """What differs in the first ``size`` bytes. ``ragged``: after them is something that varies."""
    sides = [learned([one[:size] for one in side]) for side in (little, big)]
    return explain(sides[0], sides[1], ragged=(False, ragged))


def _tail(little: Sequence[bytes], big: Sequence[bytes], size: int, *, ragged: bool = False) -> Found:
    """What differs in the last ``size`` bytes. ``ragged``: before them is something that varies."""
    sides = [learned([one[len(one) - size :] for one in side]) for side in (little, big)]
    return moved(explain(sides[0], sides[1], ragged=(ragged, False)), len(little[0]) - size, len(big[0]) - size)


def _anchors(runs: Sequence[bytes]) -> list[Place]:
    """The stretches of the first run that are in all of them, in this order, with what varies between."""
    first = runs[0]
    partners: list[dict[int, int]] = []
    for other in runs[1:]:
        blocks = SequenceMatcher(None, first, other, autojunk=False).get_matching_blocks()
        partners.append({block.a + at: block.b + at for block in blocks if block.size >= ANCHOR for at in range(block.size)})
    found: list[Place] = []
    for at in range(len(first)):
        if not all(at in partner for partner in partners):
            continue
        goes_on = found and found[-1].end == at and all(partner[at] == partner[at - 1] + 1 for partner in partners)
        if goes_on:
            found[-1] = Place(found[-1].offset, found[-1].width + 1)
        else:
            found.append(Place(at, 1))
    return [one for one in found if one.width >= ANCHOR]


def _between_gaps(little: bytes, big: bytes, of_little: Sequence[Place], of_big: Sequence[Place]) -> Comparison:
    """Compare the stretches that are in every run of each host, one by one."""
    differences: list[Difference] = []
    blind: list[Place] = []
    compared: set[int] = set()
    for here, there in zip(of_little, of_big, strict=True):
        tried = [_overlap(little, big, begins, (here.end, there.end)) for begins in _beginnings(here, there, len(little), len(big))]
        tried += _with_more_inside(little, big, here, there)
        found, aside, more_blind, covered = min(tried, key=lambda one: _unlikelihood(one[0], len(one[3] - one[1])))
        differences += found
        blind += more_blind
        compared |= covered - aside
    aside = set(range(len(little))) - compared
    return Comparison(tuple(differences), tuple(places(aside)), tuple(blind), len(compared), len(little))


_Overlap = tuple[list[Difference], set[int], list[Place], set[int]]


def _overlap(little: bytes, big: bytes, begins: tuple[int, int], ends: tuple[int, int]) -> _Overlap:
    """What is found when two stretches, as long as the shorter one, are laid side by side; and which bytes they are."""
    size = min(end - begin for begin, end in zip(begins, ends, strict=True))
    begin, other = begins
    ragged = (begin > 0, begin + size < len(little))
    found = explain(Stretch(little[begin : begin + size], frozenset()), Stretch(big[other : other + size], frozenset()), ragged=ragged)
    return (*moved(found, begin, other), set(range(begin, begin + size)))


def _with_more_inside(little: bytes, big: bytes, here: Place, there: Place) -> list[_Overlap]:
    """Two stretches that are the same but for some bytes inside that only one of them has. Where they begin and end is by chance."""
    for begin, other in [(shift, 0) for shift in range(SHIFT_MOST + 1)] + [(0, shift) for shift in range(1, SHIFT_MOST + 1)]:
        first, second = little[here.offset + begin : here.end], big[there.offset + other : there.end]
        least = min(len(first), len(second))
        head = next((at for at in range(least) if first[at] != second[at]), least)
        for more, of_big in [gap for width in range(1, MORE_MOST + 1) for gap in ((width, 0), (0, width))]:
            rest = min(len(first) - more, len(second) - of_big) - head
            if min(head, rest) >= CALM and first[head + more :][:rest] == second[head + of_big :][:rest]:
                place = Place(here.offset + begin + head, more)
                found = Difference("length", place, there.offset + other + head, first[head : head + more], second[head : head + of_big])
                return [([found], set(), [], set(range(here.offset + begin, place.end + rest)))]
    return []


def _beginnings(here: Place, there: Place, size: int, other: int) -> list[tuple[int, int]]:
    """Where two stretches may begin: what varies before or after them may begin or end in the same way by chance, and so belong to one of
    them. Not so at the beginning and the end of the messages."""
    if here.offset == there.offset == 0:
        return [(0, 0)]
    short = min(here.width, there.width)
    if (here.end, there.end) == (size, other):
        return [(here.end - short, there.end - short)]
    shifts = [(shift, 0) for shift in range(SHIFT_MOST + 1)] + [(0, shift) for shift in range(1, SHIFT_MOST + 1)]
    tried = [(here.offset + one, there.offset + another) for one, another in shifts]
    tried += [(here.end - short - one, there.end - short - another) for one, another in shifts]
    return [(one, another) for one, another in tried if here.offset <= one < here.end and there.offset <= another < there.end]


def _unlikelihood(found: Sequence[Difference], compared: int) -> tuple[int, int, int]:
    """The fewer bytes remain unexplained the likelier; then the more that are compared; then the fewer words that are backwards."""
    return _unexplained(found), -compared, len(found)


def _unexplained(found: Sequence[Difference]) -> int:
    """How many bytes are in differences that no order of bytes explains."""
    return sum(max(len(one.little), len(one.big)) for one in found if one.kind != "reversed")


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
