"""Random protocols with known faults, to try the judgement of byte orders on: what hosts of both byte orders would send."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.architecture import ByteOrder
from testbed.endian_compare import Comparison, Place, compare

Kind = Literal["bytes", "number", "float", "time", "random", "decimal"]


@dataclass(frozen=True)
class Field:
    """A field of a message. ``order`` is what the protocol says, ``forgotten`` that the program sends it in its host's order instead.

    ``time`` is a number that grows a little from run to run, ``random`` has any bytes, ``decimal``
    is any number in digits, so its length varies.
    """

    kind: Kind
    width: int
    value: bytes = b""  # of a number or float: as in network order
    order: ByteOrder = "big"
    forgotten: bool = False

    def encoded(self, host: ByteOrder, run: int, chance: random.Random) -> bytes:
        """As a host sends it, in one of the runs."""
        if self.kind == "random":
            return chance.randbytes(self.width)
        if self.kind == "decimal":
            return str(chance.randrange(10**self.width)).encode()
        value = self.value
        if self.kind == "time":
            value = ((int.from_bytes(self.value, "big") + run) % (1 << 8 * self.width)).to_bytes(self.width, "big")
        order = host if self.forgotten else self.order
        return value if order == "big" or self.kind == "bytes" else value[::-1]


Protocol = Sequence[Field]


def sent(protocol: Protocol, host: ByteOrder, runs: Sequence[int], chance: random.Random) -> list[list[bytes]]:
    """The fields of the message in several runs, which have numbers."""
    return [[field.encoded(host, run, chance) for field in protocol] for run in runs]


def faults(protocol: Protocol, first: Sequence[bytes]) -> list[Place]:
    """Where a field of the little-endian host's ``first`` message shows that its order was forgotten: not the same backwards."""
    found, at = [], 0
    for field, data in zip(protocol, first, strict=True):
        if field.forgotten and field.kind in ("number", "float") and field.value != field.value[::-1]:
            found.append(Place(at, field.width))
        at += len(data)
    return found


def any_protocol(chance: random.Random, *, fields: int = 12, decimals: int = 0) -> Protocol:
    """A protocol as they come, any of its fields forgotten, with so many numbers in digits somewhere in it."""
    order: ByteOrder = chance.choice(("big", "big", "big", "little"))
    protocol = [_any_field(chance, order) for _ in range(chance.randint(1, fields))]
    for _ in range(decimals):
        protocol.insert(chance.randint(0, len(protocol)), Field("decimal", 4))
    return protocol


def _any_field(chance: random.Random, order: ByteOrder) -> Field:
    kind = chance.choices(("bytes", "number", "float", "time", "random"), (4, 8, 1, 1, 1))[0]
    forgotten = chance.random() < 0.4
    if kind == "bytes":
        width = chance.randint(1, 12)
        value = bytes(chance.choices(b"abcdefgh" if chance.random() < 0.5 else range(256), k=width))
        return Field("bytes", width, value)
    if kind == "random":
        return Field("random", chance.choice((2, 4, 8)))
    if kind == "time":
        return Field("time", 4, chance.randrange(1 << 31).to_bytes(4, "big"), order)
    if kind == "float":
        width = chance.choice((4, 8))
        number = round(chance.uniform(-1000, 1000), chance.randint(0, 6))
        return Field("float", width, struct.pack(">f" if width == 4 else ">d", number), order, forgotten)
    width = chance.choice((2, 2, 4, 4, 8))
    # Small numbers are the rule: a length, a count, a port, a flag.
    most = chance.choice((10, 256, 65536, 1 << 8 * width))
    return Field("number", width, chance.randrange(min(most, 1 << 8 * width)).to_bytes(width, "big"), order, forgotten)


def compared(protocol: Protocol, chance: random.Random, *, runs: int = 3) -> tuple[Comparison, list[Place]]:
    """What the judgement says of both hosts' messages, first all runs of the one, then of the other; and where the faults are."""
    little, big = sent(protocol, "little", range(runs), chance), sent(protocol, "big", range(runs, 2 * runs), chance)
    return compare([b"".join(one) for one in little], [b"".join(one) for one in big]), faults(protocol, little[0])


@dataclass
class Score:
    """``exact``: found at its offset and width. ``ambiguous``: as one of several explanations that fit. ``false``: a finding where no
    field was forgotten, or that names no word."""

    protocols: int = 0
    faults: int = 0
    exact: int = 0
    ambiguous: int = 0
    missed: int = 0
    false: int = 0

    def add(self, comparison: Comparison, wanted: Sequence[Place]) -> None:
        found = [one for one in comparison.differences if one.kind == "reversed"]
        others = {place for one in found for place in one.others}
        self.protocols += 1
        self.faults += len(wanted)
        for place in wanted:
            if any(one.place == place for one in found):
                self.exact += 1
            elif place in others:
                self.ambiguous += 1
            else:
                self.missed += 1
        self.false += sum(
            1 for one in comparison.differences if one.kind != "reversed" or not any(one.place.overlaps(place) for place in wanted)
        )
