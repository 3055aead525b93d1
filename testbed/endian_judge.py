"""What the four pairs of hosts say about a program: findings, and what may follow from them. Pure.

A role is compared with itself on the other byte order, once with the same peer (then a difference is its own), and once between
the two pairs of one byte order (there also programs that forget everything understand each other, so their whole dialogue is seen).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

from testbed.architecture import ByteOrder
from testbed.endian_compare import Comparison, Difference, Place, compare
from testbed.endian_explain import explanation, hexadecimal, parting, reversed_numbers
from testbed.endian_fields import Description, Named, Names, in_words
from testbed.endian_messages import ROLES, Channel, Role
from testbed.endian_messages import in_words as messages_in_words
from testbed.endian_runs import BIG, LITTLE, PAIRS, Finding, Judgement, Pair, Run, Runs, name_of

COMPARED_MOST = 1 << 16  # bytes of a message
LINES_MOST = 8  # about one message, of what may only follow from the findings
NAMELESS = Description()
# QEMU's user mode passes system calls on to a little-endian kernel, and knows not all of them: TCP_CONGESTION, netlink, IP_PKTINFO, ...
OF_THE_EMULATION = "an emulated host does not get all of a kernel's answers right; whether it is that, --vm shows"


def judge(runs: Runs, names: Names = NAMELESS, *, emulated: bool = False) -> Judgement:
    """Findings out of the runs of all four pairs, one run of each at least; of a client alone, see :func:`alone`. ``names`` know the fields
    of messages. ``emulated``: the big-endian hosts have no kernel of their own. Of a pair of which some runs fail and at least as many do
    not, these count, and the others are among what is inconclusive."""
    sent = sum(run.said.payload for of_pair in _each_once(runs) for run in of_pair)
    unsteady, runs = tuple(_unsteady(runs)), _usual(runs)
    comparisons = {role: _comparisons(runs, role) for role in ROLES}
    strong = [one for role in ROLES for one in _reversed(runs, comparisons[role], role, names)]
    consequences: list[str] = []
    likewise: list[_Said] = []
    weak = [one for role in ROLES for one in _otherwise(runs, role, names, sure=not strong, emulated=emulated)]
    findings = list(strong)
    for one in weak:
        assert one.difference is not None
        if any(
            one.channel == other.channel and other.difference and one.difference.place.overlaps(other.difference.place) for other in strong
        ):
            continue
        if not strong or one.difference.kind == "bit fields":
            findings.append(one)
        else:
            likewise.append((one.channel, f"{one.title}; {one.details[0]}"))
    outcomes = [*_outcomes(runs, emulated=emulated), *_outputs(runs, strong=bool(findings))]
    unsure: list[str] = []
    if not findings and not outcomes:
        for role in ROLES:
            silent, only = _only_one_sends(runs, role, emulated=emulated)
            outcomes += silent
            unsure += [*only, *_together(_not_always_sent(runs, role))]
    if findings:
        consequences = [f"{one.title}" + (f": {one.details[0]}" if one.details else "") for one in outcomes if not one.role]
        consequences += _together(_first(likewise))
        findings += [one for one in outcomes if one.role]
    else:
        findings = outcomes
    whole = [
        one
        for role in ROLES
        for (first, second), of_pair in comparisons[role].items()
        if (first, second) == (LITTLE, BIG)
        for channel, one in of_pair.items()
        if not channel.is_port
    ]
    return Judgement(
        findings=tuple(findings),
        consequences=tuple(dict.fromkeys(consequences)),
        inconclusive=(*unsteady, *_inconclusive(runs, comparisons), *unsure),
        sent=sent,
        compared=sum(one.compared for one in whole),
        set_aside=sum(place.width for one in whole for place in one.set_aside),
        failed=_why_it_fails(runs),
    )


# Runs


def _each_once(runs: Runs) -> Iterable[Sequence[Run]]:
    """The runs of each pair; those of a client alone, which are there for two pairs, once."""
    return {id(of_pair): of_pair for of_pair in runs.values()}.values()


def _usual(runs: Runs) -> Runs:
    """Without the runs that failed of a pair where that is not the rule."""
    usual = {id(of_pair): _usually_well(of_pair) or of_pair for of_pair in _each_once(runs)}
    return {pair: usual[id(of_pair)] for pair, of_pair in runs.items()}


def _usually_well(of_pair: Sequence[Run]) -> list[Run]:
    """The runs that went well, if half of them did; else none."""
    well = [run for run in of_pair if run.well]
    return well if 2 * len(well) >= len(of_pair) else []


def _unsteady(runs: Runs) -> Iterable[str]:
    said = set()
    for pair in PAIRS:
        bad = [run for run in runs[pair] if not run.well]
        if bad and _usually_well(runs[pair]) and id(runs[pair]) not in said:
            said.add(id(runs[pair]))
            count = f"{len(bad)} of {len(runs[pair])} runs failed, and {'was' if len(bad) == 1 else 'were'} not judged"
            yield f"{_name(runs, pair)}: {count}; a larger --repeat shows how often: {_bad_ends(bad[0])}"


# Bytes

_Said = tuple[Channel | None, str]


def _together(lines: Iterable[_Said]) -> Iterable[str]:
    """What is said of several messages alike, once."""
    channels: dict[tuple[Role, str, str], list[Channel]] = {}
    for channel, text in lines:
        if channel:
            channels.setdefault((channel.role, channel.what, text), []).append(channel)
    return [f"{role}, {messages_in_words(of)}: {text}" for (role, _, text), of in channels.items()]


def _first(lines: Sequence[_Said]) -> Iterable[_Said]:
    """The first lines about each message."""
    counts: Counter[Channel | None] = Counter()
    for channel, text in lines:
        counts[channel] += 1
        if counts[channel] <= LINES_MOST:
            yield channel, text
    for channel, count in counts.items():
        if count > LINES_MOST:
            yield channel, f"{count - LINES_MOST} more places differ"


_Comparisons = Mapping[tuple[Pair, Pair], Mapping[Channel, Comparison]]


def _pair(role: Role, own: ByteOrder, peer: ByteOrder) -> Pair:
    return (own, peer) if role == "client" else (peer, own)


def _comparisons(runs: Runs, role: Role) -> _Comparisons:
    """Of a role on both byte orders: with the same peer, then between pairs of one byte order."""
    sides = [(_pair(role, "little", peer), _pair(role, "big", peer)) for peer in ("little", "big")]
    return {
        (first, second): {
            channel: compare(*messages, broken_off=channel.what == "tcp" and _well(runs[first]) != _well(runs[second]))
            for channel, messages in _in_both(runs[first], runs[second], role).items()
        }
        for first, second in (*sides, (LITTLE, BIG))
    }


def _in_both(first: Sequence[Run], second: Sequence[Run], role: Role) -> dict[Channel, tuple[list[bytes], list[bytes]]]:
    """The messages of a role that were sent in every run of two sets."""
    everywhere = set.intersection(*(set(run.said.messages) for run in (*first, *second)))
    return {
        channel: ([_cut(run, channel) for run in first], [_cut(run, channel) for run in second])
        for channel in sorted(everywhere)
        if channel.role == role
    }


def _cut(run: Run, channel: Channel) -> bytes:
    return run.said.messages[channel][:COMPARED_MOST]


def _reversed(runs: Runs, comparisons: _Comparisons, role: Role, names: Names) -> list[Finding]:
    """Words that the role sends backwards. One that shows only between the pairs of one byte order, while with the same
    peer those bytes are the same, is the peer's, sent back."""
    found: dict[tuple[object, ...], Finding] = {}
    for (first, second), of_channels in comparisons.items():
        for channel, comparison in of_channels.items():
            messages = [_cut(runs[pair][0], channel) for pair in (first, second)]
            fields = names.of(channel, *messages)
            words = [_as_a_field(one, fields, *messages) for one in comparison.differences if one.kind == "reversed"]
            for key, one in zip(_keys(runs, channel, words), words, strict=True):
                if key in found:
                    found[key] = replace(found[key], pairs=tuple(dict.fromkeys((*found[key].pairs, first, second))))
                elif (first, second) != (LITTLE, BIG) or not _same_with_the_same_peer(comparisons, channel, one.place):
                    title, details = explanation(one, messages[0], messages[1], channel, fields)
                    field = in_words(fields, one.place)
                    found[key] = Finding(title, details, (first, second), role, channel, one, messages[0], messages[1], field)
    varying = [one for one in found.values() if one.difference and one.difference.varies]
    whole = [one for one in found.values() if not any(_is_part_of(one, other) for other in varying)]
    whole = [_with_its_parts(one, found.values()) if one in varying else one for one in whole]
    return sorted(whole, key=lambda one: (one.channel, one.difference.place.offset) if one.channel and one.difference else ())


def _with_its_parts(whole: Finding, findings: Iterable[Finding]) -> Finding:
    """A finding, also seen where only a part of it was."""
    seen = {pair for one in findings if one is whole or _is_part_of(one, whole) for pair in one.pairs}
    return whole if seen == {*whole.pairs} else replace(whole, pairs=tuple(pair for pair in PAIRS if pair in seen))


def _is_part_of(one: Finding, other: Finding) -> bool:
    """Whether it is the inside of a word that is a finding of its own: of a time which in one comparison was the same in all runs of a
    host, and in another was not."""
    if one.channel != other.channel or not one.difference or not other.difference or not other.difference.varies:
        return False
    here, there = one.difference.place, other.difference.place
    return here.width < there.width and there.offset <= here.offset and here.end <= there.end


def _as_a_field(one: Difference, fields: Sequence[Named], little: bytes, big: bytes) -> Difference:
    """Of the words that explain the same bytes, the one that is a field, if the likeliest is none."""
    places = {field.place for field in fields}
    other = next((place for place in one.others if place in places), None)
    if one.place in places or other is None or one.big_offset != one.place.offset or one.varies:
        return one
    others = (one.place, *(place for place in one.others if place != other))
    inside = slice(other.offset, other.end)
    return replace(one, place=other, big_offset=other.offset, little=little[inside], big=big[inside], others=others)


def _keys(runs: Runs, channel: Channel, differences: Sequence[Difference]) -> list[tuple[object, ...]]:
    """What tells each difference of a message in one comparison from the others, and is the same in all comparisons: its place, or where
    the length of the message varies, its bytes and which one of those with the same bytes it is."""
    sizes = {len(run.said.messages[channel]) for of_pair in runs.values() for run in of_pair if channel in run.said.messages}
    keys: list[tuple[object, ...]] = []
    for one in differences:
        own = (channel, one.place) if len(sizes) == 1 or one.varies else (channel, one.little, one.big)
        keys.append((*own, sum(key[:-1] == own for key in keys)))
    return keys


def _same_with_the_same_peer(comparisons: _Comparisons, channel: Channel, place: Place) -> bool:
    for sides, of_channels in comparisons.items():
        comparison = of_channels.get(channel)
        if sides == (LITTLE, BIG) or comparison is None or comparison.size < place.end:
            continue
        if any(place.overlaps(one) for one in comparison.set_aside):
            continue
        if not any(one.kind == "length" or one.place.overlaps(place) for one in comparison.differences):
            return True
    return False


def _otherwise(runs: Runs, role: Role, names: Names, *, sure: bool, emulated: bool) -> list[Finding]:
    """Other differences of a role. Where the pairs understand each other, out of all its runs, so that what varies is known better."""
    peers: tuple[ByteOrder, ...] = ("little", "big")
    little, big = ([run for peer in peers for run in runs[_pair(role, own, peer)] if run.well] for own in peers)
    if not sure or not little or not big:
        little, big = list(runs[LITTLE]), list(runs[BIG])
    found = []
    for channel, messages in _in_both(little, big, role).items():
        for one in compare(*messages).differences:
            if one.kind == "reversed":
                continue
            fields = names.of(channel, messages[0][0], messages[1][0])
            title, details = explanation(one, messages[0][0], messages[1][0], channel, fields)
            if emulated and one.kind != "bit fields":
                details = (*details, OF_THE_EMULATION)
            field = in_words(fields, one.place)
            found.append(Finding(title, details, (LITTLE, BIG), role, channel, one, messages[0][0], messages[1][0], field))
    return found


def _only_one_sends(runs: Runs, role: Role, *, emulated: bool) -> tuple[list[Finding], list[str]]:
    """Messages that a role sends in every run on one byte order, and in none on the other: a finding where the other sends nothing at all;
    else perhaps one host is merely slower."""
    findings: list[Finding] = []
    unsure: list[str] = []
    for own, other in ((LITTLE, BIG), (BIG, LITTLE)):
        always = set.intersection(*(_data_of(run, role) for run in runs[own]))
        ever = set.union(*(_data_of(run, role) for run in runs[other]))
        only = sorted(always - ever)
        if only and not ever:
            details = [f"{channel}: {hexadecimal(_cut(runs[own][0], channel))}" for channel in only[:4]]
            run = runs[other][0]
            if words := _bad_ends(run, [role]):
                details += [f"{_name(runs, other)}: {words}", *_last_words(run, [role])]
            if emulated and other == BIG:
                details.append(OF_THE_EMULATION)
            findings.append(Finding(f"the {role} sends nothing on a {other[0]}-endian host", tuple(details), (own, other), role))
        else:
            said = ((channel, f"only the {own[0]}-endian host sends it: {hexadecimal(_cut(runs[own][0], channel))}") for channel in only)
            unsure += _together(said)
    return findings, unsure


def _not_always_sent(runs: Runs, role: Role) -> Iterable[_Said]:
    """Messages that one run has and another run between the same hosts has not."""
    for pair in (LITTLE, BIG):
        ever = set.union(*(_data_of(run, role) for run in runs[pair]))
        always = set.intersection(*(_data_of(run, role) for run in runs[pair]))
        for channel in sorted(ever - always):
            yield channel, "not every run sends it, so it was not compared"


def _data_of(run: Run, role: Role) -> set[Channel]:
    return {channel for channel in run.said.messages if channel.role == role and not channel.is_port}


# How it ended


def _well(runs: Sequence[Run]) -> bool:
    return all(run.well for run in runs)


def _alone(runs: Runs) -> bool:
    return runs[LITTLE] is runs["little", "big"]


def _name(runs: Runs, pair: Pair) -> str:
    return name_of(pair, alone=_alone(runs))


def _bad_ends(run: Run, roles: Sequence[Role] = ROLES) -> str:
    """How those of a run ended that did not end well."""
    return "; ".join(f"the {role}: {run.endings[role].words}" for role in roles if not run.endings[role].well)


def _last_words(run: Run, roles: Sequence[Role] = ROLES) -> list[str]:
    """What those wrote last that did not end well."""
    return [f"the {role} wrote: {line}" for role in roles if not run.endings[role].well and (line := run.endings[role].last_line)]


def _outcomes(runs: Runs, *, emulated: bool) -> list[Finding]:
    """Pairs that fail while a pair of one byte order does not."""
    bad = tuple(pair for pair in PAIRS if not _well(runs[pair]))
    good = next((pair for pair in (LITTLE, BIG) if pair not in bad), None)
    if not bad or good is None:
        return []
    if _alone(runs):
        bad = (LITTLE,) if LITTLE in bad else (BIG,)
        title = f"it fails on the {bad[0][0]}-endian host only"
    elif LITTLE not in bad and BIG not in bad:
        title = "it fails only where the byte orders of the two hosts differ"
    elif len(bad) == 3:
        title = f"it fails on every pair with a {'big' if good == LITTLE else 'little'}-endian host"
    else:
        title = f"it fails {' and '.join(name_of(pair) for pair in bad)}, and not between two {good[0]}-endian hosts"
    details = []
    for pair in bad:
        run = next(run for run in runs[pair] if not run.well)
        details.append(f"{_name(runs, pair)}: {_bad_ends(run)}")
        if where := parting([one.said.turns for one in runs[good]], run.said.turns):
            details.append(f"{_name(runs, pair)}, against {_name(runs, good)}: {where}")
        details += _last_words(run)
    if emulated and BIG in bad and LITTLE not in bad:
        details.append(OF_THE_EMULATION)
    return [Finding(title, tuple(details), bad)]


def _outputs(runs: Runs, *, strong: bool) -> list[Finding]:
    """What the programs print: numbers backwards on one byte order, or other words only where the byte orders differ."""
    found = []
    for role in ROLES:
        printed = {pair: {run.endings[role].stdout for run in runs[pair]} for pair in PAIRS}
        if any(len(texts) != 1 for texts in printed.values()):
            continue  # it varies
        text = {pair: next(iter(texts)) for pair, texts in printed.items()}
        own_little, own_big = ({text[_pair(role, own, peer)] for peer in ("little", "big")} for own in ("little", "big"))
        if len(own_little) == len(own_big) == 1 and own_little != own_big:
            numbers = reversed_numbers(next(iter(own_little)), next(iter(own_big)))
            if numbers and not strong:
                words = tuple(f"it prints {little} on a little-endian host and {big} on a big-endian one" for little, big in numbers)
                hint = "the bytes that it received were the same: they are read in host order (ntohs and ntohl are missing)"
                found.append(Finding(f"the {role} reads a number in its host's byte order", (*words, hint), PAIRS, role))
        elif text[LITTLE] == text[BIG]:
            other = tuple(pair for pair in PAIRS if text[pair] != text[LITTLE])
            if other:
                details = tuple(_first_line_apart(text[LITTLE], text[pair], pair) for pair in other)
                found.append(Finding(f"the {role} prints something else where the byte orders of the hosts differ", details, other))
    return found


def _first_line_apart(here: str, there: str, pair: Pair) -> str:
    for one, other in zip_longest(here.splitlines(), there.splitlines()):
        if one != other:
            shown = ["nothing more" if line is None else f"'{line}'" for line in (one, other)]
            return f"{name_of(pair)}: {shown[1]}, and between hosts of one byte order {shown[0]}"
    return f"{name_of(pair)}: the same lines with other line ends"


def _why_it_fails(runs: Runs) -> str:
    """Why the program does not even work between hosts of one byte order; empty when it does."""
    for pair in (LITTLE, BIG):
        if _well(runs[pair]):
            return ""
    run = next(run for run in runs[LITTLE] if not run.well)
    return _bad_ends(run)


# What cannot be said


def _inconclusive(runs: Runs, comparisons: Mapping[Role, _Comparisons]) -> Iterable[str]:
    yield from _together(_of_messages(runs, comparisons))
    for pair in PAIRS:
        for run in runs[pair]:
            for part in run.said.partial:
                yield f"{_name(runs, pair)}: the capture has only a part of {part}"


def _of_messages(runs: Runs, comparisons: Mapping[Role, _Comparisons]) -> Iterable[_Said]:
    for role in ROLES:
        for channel, comparison in comparisons[role][LITTLE, BIG].items():
            if channel.is_port:
                continue
            blind = telling_nothing(runs[LITTLE][0].said.messages[channel], comparison)
            if blind:
                where = ", ".join(f"{place.offset}-{place.end - 1}" for place in blind[:6]) + (", ..." if len(blind) > 6 else "")
                yield (
                    channel,
                    (
                        f"the bytes at {where} are the same backwards, so of a number there the order cannot be told; "
                        "let the program send numbers of different bytes, such as 0x0102"
                    ),
                )
            if comparison.set_aside and not comparison.compared and not comparison.differences:
                yield channel, "all of it differs from run to run, so nothing could be compared"
            if any(len(run.said.messages[channel]) > COMPARED_MOST for run in (*runs[LITTLE], *runs[BIG])):
                yield channel, f"only its first {COMPARED_MOST} bytes were compared"


def telling_nothing(message: bytes, comparison: Comparison) -> list[Place]:
    """The blind places that may well be whole numbers: of a word's width or more, and not merely the high bytes of a small one."""
    differing = [one.place for one in comparison.differences]
    return [
        place
        for place in comparison.blind
        if not any(place.overlaps(one) for one in differing) and not _is_part_of_a_word(place, len(message))
    ]


def _is_part_of_a_word(place: Place, size: int) -> bool:
    """Whether a word at an offset that is a multiple of its width begins or ends with those bytes, and has others."""
    for width in (4, 8):
        first = place.offset - place.offset % width
        last = place.end - 1 - (place.end - 1) % width
        for begin in {first, last}:
            word = Place(begin, width)
            if word.end <= size and place.width < width and word.offset <= place.offset and place.end <= word.end:
                return True
    return False
