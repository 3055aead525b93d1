"""Differences between byte orders in words: what the bytes mean, which side is right where that can be said. Pure."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Literal

from testbed.architecture import ByteOrder
from testbed.endian_fields import Named, in_words
from testbed.endian_messages import Channel, Turn
from testbed.endian_text import is_in_text
from testbed.endian_words import WIDTHS, Difference, Place, learned

LENGTH_LEAST = 10  # of a message: a smaller number may well be something else
SHOWN = 16  # bytes in a line of words
CONVERSIONS = {2: "htons()", 4: "htonl()", 8: "htobe64()"}


def hexadecimal(data: bytes) -> str:
    """Bytes in a line, the first ones when they are many."""
    return data[:SHOWN].hex(" ") + (f" ... ({len(data)} bytes)" if len(data) > SHOWN else "")


def explanation(
    one: Difference, message: bytes, of_big: bytes, channel: Channel, names: Sequence[Named] = ()
) -> tuple[str, tuple[str, ...]]:
    """A title and details of a difference, with the whole ``message`` from the little-endian host, and the one ``of_big``; ``names`` are
    the fields of the message, where they are known."""
    title, details = _explanation(one, message, of_big, channel, next((field.order for field in names if field.place == one.place), None))
    field = in_words(names, one.place)
    return title, (field, *details) if field else details


def _explanation(one: Difference, message: bytes, of_big: bytes, channel: Channel, order: ByteOrder | None) -> tuple[str, tuple[str, ...]]:
    if channel.is_port:
        return _about_a_port(one, channel)
    width, offset = one.place.width, one.place.offset
    at = f"offset {offset}" + (f" ({one.big_offset} from the big-endian host)" if one.big_offset != offset else "")
    both = (
        f"{hexadecimal(one.little) or 'nothing'} from the little-endian host, {hexadecimal(one.big) or 'nothing'} from the big-endian one"
    )
    size = "1 byte" if width == 1 else f"{width} bytes"
    if one.converted and one.kind == "reversed":
        return f"{at}, {size}, sent in host order after {CONVERSIONS[one.converted]}: {both}", tuple(_about_a_conversion(one, order))
    if one.kind == "reversed":
        return f"{at}, {size}, sent in host order: {both}", tuple(_about_a_word(one, message, of_big, order, channel))
    if one.kind == "bit fields":
        widths = ", ".join(map(str, one.bit_widths))
        after = f" after {CONVERSIONS[one.converted]}" if one.converted else ""
        return f"{at}, {size}, looks like bit fields{after}: {both}", (
            f"bit fields of {widths} bits, in the order of their declaration, have these bytes{after}",
            "the first one is in the lowest bits on a little-endian host, in the highest on a big-endian one",
            "shift and mask instead: (version << 4) | length is the same byte everywhere",
        )
    if (numbers := _numbers_in_text(one, message)) is not None:
        little, big = numbers
        if _backwards(little, big):
            said = "the one is the other with its bytes reversed: it became text as it came, or was put together from bytes (ntohs, ntohl)"
        else:
            said = "the two are not each other's bytes reversed: perhaps a part of a wider number was read, or it is the host's own"
        return f"{at}, the number {little} from the little-endian host, {big} from the big-endian one", (said,)
    if one.kind == "length":
        stand = "1 byte of the little-endian host stands" if width == 1 else f"{width} bytes of the little-endian host stand"
        return f"{at}: {stand} where the big-endian one sends {len(one.big)}", (both,)
    differ = f"{size} differ{'s' if width == 1 else ''}"
    if checksum := _about_a_checksum(one, message, of_big):
        return f"{at}, {differ}: {both}", (checksum,)
    if any(one.little) and not any(one.big):
        first = "byte" if width == 1 else size
        return f"{at}, {differ}: {both}", (
            f"perhaps the first {first} of a wider number in memory: on a little-endian host its lowest, on a big-endian one its highest",
            "shift, or assign it to a number of that width, and do not send a part of it by its address",
        )
    return f"{at}, {differ}: {both}", (
        "this is no word backwards: perhaps padding that was never written, a checksum of other bytes, or something that is the host's own",
    )


def _numbers_in_text(one: Difference, message: bytes) -> tuple[int, int] | None:
    if one.little.isdigit() and one.big.isdigit() and is_in_text(message, one.place.offset, one.place.width):
        return int(one.little), int(one.big)
    return None


def _about_a_checksum(one: Difference, little: bytes, big: bytes) -> str:
    """On which hosts the bytes are a right checksum of the rest of the message; empty when they are none."""
    of_little, of_big = checksums(one.place, little), checksums(Place(one.big_offset, one.place.width), big)
    for name in (*of_little, *of_big):
        if name in of_little and name in of_big:
            return f"the {name} of the message, right on both hosts: it follows from other bytes that differ"
        side = "little" if name in of_little else "big"
        return f"the {name} of the message, right from the {side}-endian host only: the other one computes it in its own byte order"
    return ""


def checksums(place: Place, message: bytes) -> list[str]:
    """The checksums, by name, of which the bytes at ``place`` are a part, and which are right: the Internet's (RFC 1071) of the whole
    message, or a CRC-32 of all before it, in either byte order."""
    found = []
    padded = message + bytes(len(message) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    if total and total % 0xFFFF == 0 and place.offset // 2 == (place.end - 1) // 2:
        found.append("Internet checksum")
    for begin in range(max(1, place.end - 4), place.offset + 1):
        crc = zlib.crc32(message[:begin])
        if message[begin : begin + 4] in (crc.to_bytes(4, "big"), crc.to_bytes(4, "little")):
            found.append("CRC-32")
    return found


def _about_a_port(one: Difference, channel: Channel) -> tuple[str, tuple[str, ...]]:
    little, big = (int.from_bytes(side, "big") for side in (one.little, one.big))
    verb = "connects to" if channel.what == "port to" else "listens on"
    title = f"it {verb} port {little} (0x{little:04x}) from the little-endian host, {big} (0x{big:04x}) from the big-endian one"
    title = title if channel.what == "port to" else title.replace("from the", "on the")
    if one.kind == "reversed":
        return title, (
            f"if it is to be {big}, it is in sin_port in host order: the big-endian side is right, and htons({big}) is right on both",
            f"if it is to be {little}, its bytes are always swapped: the little-endian side is right, and htons({little}) is right on both",
        )
    return title, ("the two are not each other's bytes reversed",)


def _about_a_word(one: Difference, little: bytes, big: bytes, order: ByteOrder | None, channel: Channel) -> Iterator[str]:
    width = one.place.width
    value = int.from_bytes(one.little, "little")
    if one.varies:
        yield "its value differs from run to run, and at the opposite ends on the two hosts: a time, or a counter"
    elif _follows_from_the_length(one):
        of = _lengths(one.place, little).get(value, "the length of that part of the message")
        yield f"as the hosts have it in memory, it is {value} and {int.from_bytes(one.big, 'big')}, on each {of}"
    else:
        yield f"as the hosts have it in memory, it is {value} (0x{value:0{2 * width}x}){_other_readings(one)} on both"
    if order is None:
        yield from _which_side_is_right(one, little, big, channel)
    else:
        right = _conversion(width, order)
        yield f"it is described as {order}-endian: the {order}-endian side is right, and {right} is right on both"
    if one.others:
        others = " or ".join(f"{place.width} bytes at offset {place.offset}" for place in one.others[:4])
        yield f"the same bytes would also come of {others}{' or others' if len(one.others) > 4 else ''}"


def _follows_from_the_length(one: Difference) -> bool:
    """Whether a word in host order is another number on the other host, as its message has another length."""
    return not one.varies and one.big != one.little[::-1]


def _about_a_conversion(one: Difference, order: ByteOrder | None) -> Iterator[str]:
    width, narrow = one.place.width, CONVERSIONS[one.converted]
    yield f"{int.from_bytes(one.big, 'big')} is a number of {width} bytes here, and {narrow} converts {one.converted}"
    if order == "little":
        yield f"it is described as little-endian: neither side is right, and {_conversion(width, order)} is right on both"
    else:
        yield f"in network order the big-endian side is right, and {_conversion(width, 'big')} is right on both"


def _other_readings(one: Difference) -> str:
    """A negative number, or a floating-point one, where it looks like that."""
    width = one.place.width
    signed = int.from_bytes(one.little, "little", signed=True)
    readings = [f", {signed} if it is signed"] if -100000 < signed < 0 else []
    if width in (4, 8):
        (number,) = struct.unpack("<f" if width == 4 else "<d", one.little)
        if math.isfinite(number) and 1e-6 < abs(number) < 1e12:
            readings.append(f", {number:g} if it is a floating-point number")
    return "".join(readings)


def _which_side_is_right(one: Difference, little: bytes, big: bytes, channel: Channel) -> Iterator[str]:
    width = one.place.width
    as_kept, turned = (int.from_bytes(one.little, order) for order in _ORDERS)
    lengths = _lengths(one.place, little)
    if turned in lengths and as_kept not in lengths:
        yield f"in network order the little-endian host's {one.little.hex(' ')} is {turned}, {lengths[turned]}: that side is right"
        yield "the big-endian one swaps bytes: htons() and htonl() do nothing there, unlike bswap_16() and the like"
        return
    if as_kept in lengths and not _follows_from_the_length(one):
        yield f"{as_kept} is {lengths[as_kept]}"
    # Headers of IP's own protocols are in network order (RFC 791, appendix B).
    other = _protocol_order(one.place, little, big) if channel.what != "ip" else "big"
    to_little = _conversion(width, "little")
    if other == "little":
        yield "other lengths in the message are little-endian on both hosts"
        yield f"if this one is to be so too, the little-endian side is right, and {to_little} is right on both"
        return
    unless = f" (unless the protocol is little-endian here: then the little-endian side is, and {to_little})" if other is None else ""
    yield f"in network order the big-endian side is right, and {_conversion(width, 'big')} is right on both{unless}"


def _conversion(width: int, order: ByteOrder) -> str:
    """What puts a number of so many bytes into an order on every host."""
    if width not in CONVERSIONS:
        return "putting its bytes one by one, the highest first," if order == "big" else "putting its bytes one by one, the lowest first,"
    return CONVERSIONS[width] if order == "big" else f"htole{8 * width}()"


_ORDERS: tuple[Literal["little"], Literal["big"]] = ("little", "big")


def _lengths(place: Place, message: bytes) -> dict[int, str]:
    """What a length field at a place may say, and of what that is the length."""
    return {
        len(message): "the length of the whole message",
        len(message) - place.offset: "the length of the message from this field on",
        len(message) - place.end: "the length of what follows",
    }


def _protocol_order(place: Place, message: bytes, of_big: bytes) -> Literal["little", "big"] | None:
    """The byte order of other fields of a message that are the same on both hosts, out of those that are a right length in one order only;
    None when there are none."""
    counts = dict.fromkeys(_ORDERS, 0)
    for width in WIDTHS[:2]:
        for offset in range(len(message) - width + 1):
            other = Place(offset, width)
            word = message[offset : other.end]
            if other.overlaps(place) or word == word[::-1] or of_big[offset : other.end] != word:
                continue
            lengths = _lengths(other, message)
            for order in _ORDERS:
                counts[order] += LENGTH_LEAST <= int.from_bytes(word, order) in lengths
    if counts["little"] == counts["big"]:
        return None
    return "little" if counts["little"] > counts["big"] else "big"


# Dialogues and outputs


def parting(good: Sequence[Sequence[Turn]], bad: Sequence[Turn]) -> str:
    """Where a dialogue parts from those that went well, in words; empty when it does not. What is not always the same in these counts as
    the same."""
    before = 0
    for number, (one, other) in enumerate(zip_longest(good[0], bad), 1):
        known = [turns[number - 1] for turns in good if number <= len(turns)]
        if one == other or (other and any(_alike(other, one, known) for one in known)):
            before += len(other.data) if other else 0
            continue
        if one and other and one.role == other.role and one.data and other.data:
            least = min(len(one.data), len(other.data))
            varies = learned([turn.data for turn in known]).varying
            same = next((at for at in range(least) if at not in varies and one.data[at] != other.data[at]), least)
            if same == len(other.data):
                return f"after {before + same} bytes that are the same, the {one.role} stops, and does not send {len(one.data) - same} more"
            return (
                f"after {before} bytes that are the same, turn {number} is another from its byte {same} on: the {one.role} sends "
                f"{hexadecimal(other.data[same:])} and not {hexadecimal(one.data[same:])}"
            )
        return f"after {before} bytes that are the same, {_turn(other)}, where {_turn(one)}"
    return ""


def _alike(turn: Turn, one: Turn, known: Sequence[Turn]) -> bool:
    """Whether a turn is as one of those that are known, but for what differs between these."""
    if (turn.role, turn.end, len(turn.data)) != (one.role, one.end, len(one.data)):
        return False
    same_length = [other.data for other in known if len(other.data) == len(one.data)]
    varies = learned(same_length).varying
    return all(at in varies or byte == one.data[at] for at, byte in enumerate(turn.data))


def _turn(turn: Turn | None) -> str:
    if turn is None:
        return "nothing more comes"
    return f"the {turn.role} {turn.end}" if turn.end else f"the {turn.role} sends {hexadecimal(turn.data)}"


_NUMBER = re.compile(r"0x[0-9a-fA-F]+|-?\d+")


def reversed_numbers(little: str, big: str) -> list[tuple[str, str]]:
    """Numbers in two outputs that are each other's bytes reversed, where the outputs are otherwise the same; else none."""
    numbers = [_NUMBER.findall(text) for text in (little, big)]
    if _NUMBER.sub("", little) != _NUMBER.sub("", big) or len(numbers[0]) != len(numbers[1]):
        return []
    apart = [(one, other) for one, other in zip(*numbers, strict=True) if one != other]
    return (
        apart
        if all(_backwards(int(one, 0) if "x" in one else int(one), int(other, 0) if "x" in other else int(other)) for one, other in apart)
        else []
    )


def _backwards(one: int, other: int) -> bool:
    for width in WIDTHS:
        mask = (1 << 8 * width) - 1
        if all(-(1 << 8 * width - 1) <= number <= mask for number in (one, other)) and (one & mask).to_bytes(width, "little") == (
            other & mask
        ).to_bytes(width, "big"):
            return True
    return False
