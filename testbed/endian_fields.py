"""A user's small description of messages, so that findings call fields by their names. YAML in, places of a message out. Pure.

messages:
  - from: client            # all of these are optional: from, over (tcp, udp, ip, frame), number, begins, order, repeat
    over: tcp
    fields:
      - version: 1          # a name, and how many bytes
      - length: 2
      - id: {width: 4, order: little}
      - text: length        # as many bytes as another field says; also `length - 4`, and `rest`
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast, get_args

from testbed.architecture import ByteOrder
from testbed.endian_messages import ROLES, Channel, Role
from testbed.endian_words import Place
from testbed.errors import TopologyError, did_you_mean
from testbed.topology_values import shown
from testbed.topology_yaml import Node, read

WIDEST = 1 << 16
MOST_FIELDS = 10_000  # of one message
REST = "rest"
OVER = ("tcp", "udp", "ip", "frame")
EXAMPLE = "messages: [{from: client, fields: [{version: 1}, {length: 2}, {text: length}]}]"
_REFERENCE = re.compile(r"([A-Za-z_][\w.-]*)\s*(?:([+-])\s*([0-9]+))?")


@dataclass(frozen=True)
class Named:
    """A field of a message; ``order`` where it is known which one is right."""

    name: str
    place: Place
    order: ByteOrder | None = None

    def __str__(self) -> str:
        return f"`{self.name}` (offset {self.place.offset}, {self.place.width} {'byte' if self.place.width == 1 else 'bytes'})"


class Names(Protocol):
    """Who knows the fields of messages."""

    def of(self, channel: Channel, little: bytes, big: bytes) -> Sequence[Named]:
        """Those of a message that a little-endian and a big-endian host sent, in its order."""


@dataclass(frozen=True)
class Width:
    """How wide a field is: ``size`` bytes, and if ``of`` is a field's name, so many more as that one says; None is all that is left."""

    size: int | None
    of: str = ""


@dataclass(frozen=True)
class Field:
    name: str
    width: Width
    offset: int | None = None
    order: ByteOrder | None = None


@dataclass(frozen=True)
class Message:
    """The fields of messages that are ``role``'s, ``over`` a protocol, the ``number``-th one, and begin with some bytes; None is any. With
    ``repeat`` the same fields follow again and again."""

    fields: tuple[Field, ...]
    role: Role | None = None
    over: str | None = None
    number: int | None = None
    begins: bytes = b""
    repeat: bool = False

    def fits(self, channel: Channel, data: bytes) -> bool:
        return (
            self.role in (None, channel.role)
            and self.over in (None, channel.what)
            and self.number in (None, channel.number if channel.what == "tcp" else channel.index)
            and data.startswith(self.begins)
        )

    def places(self, little: bytes, big: bytes) -> Iterator[Named]:
        """The fields that are in the message. A length is taken from the host that has it right even where no conversion was made."""
        begin, count = 0, 0
        while True:
            values: dict[str, int] = {}
            at, ends = begin, begin
            for one in self.fields:
                at = at if one.offset is None else begin + one.offset
                width = len(little) - at if one.width.size is None else one.width.size + values.get(one.width.of, 0)
                if width <= 0:
                    continue
                if at + width > min(len(little), len(big)):
                    return
                name = f"{one.name}[{count}]" if self.repeat else one.name
                yield Named(name, Place(at, width), one.order)
                order = one.order or "big"
                values[one.name] = int.from_bytes((little if order == "little" else big)[at : at + width], order)
                at += width
                ends = max(ends, at)
            count += 1
            if not self.repeat or ends <= begin or ends >= len(little) or count * len(self.fields) > MOST_FIELDS:
                return
            begin = ends


@dataclass(frozen=True)
class Description:
    """What the user says of all messages; the first one that fits counts."""

    messages: tuple[Message, ...] = ()

    def of(self, channel: Channel, little: bytes, big: bytes) -> Sequence[Named]:
        if channel.is_port:
            return ()
        found = next((one for one in self.messages if one.fits(channel, little) or one.fits(channel, big)), None)
        return tuple(found.places(little, big)) if found else ()


def in_words(names: Sequence[Named], place: Place) -> str:
    """Which field, or fields, a place is; empty when none is known."""
    touched = [one for one in names if one.place.overlaps(place)]
    exact = next((one for one in touched if one.place == place), None)
    if exact:
        return f"it is the field `{exact.name}`"
    if not touched:
        return ""
    whole = len(touched) == 1 and touched[0].place.offset <= place.offset and place.end <= touched[0].place.end
    return f"it is in the field {touched[0]}" if whole else f"it is in the fields {', '.join(map(str, touched[:4]))}"


# The file


def load(path: Path) -> Description:
    """The description in a file. Raises :class:`TopologyError` with line and column."""
    try:
        return parse(path.read_text(), file=str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TopologyError(f"the description of fields cannot be read: {reason}", file=str(path)) from None


def parse(text: str, *, file: str = "") -> Description:
    """The description in ``text``. Raises :class:`TopologyError` with line and column."""
    try:
        root = read(text, file=file)
    except TopologyError as error:
        error.hint = EXAMPLE if "topology" in error.hint else error.hint
        raise
    return _Reader(file).description(root)


@dataclass
class _Reader:
    file: str
    _names: dict[str, None] = field(default_factory=dict)  # of the message that is read

    def error(self, node: Node | tuple[int, int], message: str, hint: str = EXAMPLE) -> TopologyError:
        line, column = node.at if isinstance(node, Node) else node
        return TopologyError(message, file=self.file, line=line, column=column, hint=hint)

    def mapping(self, node: Node, what: str, keys: Sequence[str]) -> Mapping[str, Node]:
        if not isinstance(node.value, dict):
            raise self.error(node, f"{what} is a mapping", f"keys here: {', '.join(keys)}")
        for key in node.value:
            if key not in keys:
                raise self.error(
                    node.keys[key], f"{what} has no key {shown(key)}{did_you_mean(key, keys)}", f"keys here: {', '.join(keys)}"
                )
        return node.value

    def description(self, root: Node) -> Description:
        messages = self.mapping(root, "a description of messages", ("messages",)).get("messages")
        if messages is None or not isinstance(messages.value, list) or not messages.value:
            raise self.error(messages or root, "there are no messages")
        return Description(tuple(self.message(one) for one in messages.value))

    def message(self, node: Node) -> Message:
        keys = self.mapping(node, "a message", ("from", "over", "number", "begins", "order", "repeat", "fields"))
        fields = keys.get("fields")
        if fields is None or not isinstance(fields.value, list) or not fields.value:
            raise self.error(fields or node, "a message has fields, a list")
        self._names = {}
        order = self.choice(keys["order"], get_args(ByteOrder), "order") if "order" in keys else None
        begins = self.text(keys["begins"]) if "begins" in keys else ""
        try:
            beginning = bytes.fromhex(begins)
        except ValueError:
            raise self.error(keys["begins"], f"{shown(begins)} is not hexadecimal", 'begins: "01 02"') from None
        return Message(
            fields=tuple(self.field(one, cast("ByteOrder | None", order)) for one in fields.value),
            role=cast(Role, self.choice(keys["from"], ROLES, "from")) if "from" in keys else None,
            over=self.choice(keys["over"], OVER, "over") if "over" in keys else None,
            number=self.number(keys["number"], 1) if "number" in keys else None,
            begins=beginning,
            repeat="repeat" in keys and self.choice(keys["repeat"], ("true", "false"), "repeat") == "true",
        )

    def field(self, node: Node, order: ByteOrder | None) -> Field:
        hint = "a name and its width in bytes, such as length: 2; or id: {width: 4, offset: 8, order: little}"
        if not isinstance(node.value, dict) or len(node.value) != 1:
            raise self.error(node, "a field is one name with its width", hint)
        ((name, given),) = node.value.items()
        if name in self._names:
            raise self.error(node.keys[name], f"there is a field {shown(name)} already", "each field of a message has a name of its own")
        if isinstance(given.value, dict):
            keys = self.mapping(given, f"field {shown(name)}", ("width", "offset", "order"))
            if "width" not in keys:
                raise self.error(given, f"field {shown(name)} has no width", hint)
            width = self.width(keys["width"], hint)
            offset = self.number(keys["offset"], 0) if "offset" in keys else None
            own = cast(ByteOrder, self.choice(keys["order"], get_args(ByteOrder), "order")) if "order" in keys else order
        else:
            width, offset, own = self.width(given, hint), None, order
        self._names[name] = None
        return Field(name, width, offset, own)

    def width(self, node: Node, hint: str) -> Width:
        text = self.text(node).strip()
        if text == REST:
            return Width(None)
        if text.isascii() and text.isdigit():
            return Width(self.number(node, 1))
        found = _REFERENCE.fullmatch(text)
        if not found:
            raise self.error(node, f"{shown(text)} is no width", hint)
        if found[1] not in self._names:
            near = did_you_mean(found[1], self._names)
            known = f"fields before it: {', '.join(self._names)}" if self._names else "no field stands before it"
            raise self.error(node, f"no field {shown(found[1])} stands before this one{near}", known)
        return Width(int(f"{found[2] or '+'}{found[3] or 0}"), found[1])

    def text(self, node: Node) -> str:
        if not isinstance(node.value, str):
            raise self.error(node, "text or a number belongs here")
        return node.value

    def number(self, node: Node, least: int) -> int:
        text = self.text(node)
        if not (text.isascii() and text.isdigit() and len(text) < 8 and least <= int(text) <= WIDEST):
            raise self.error(node, f"{shown(text)} is no number from {least} to {WIDEST}", "a whole number without a unit")
        return int(text)

    def choice(self, node: Node, allowed: Sequence[str], what: str) -> str:
        text = self.text(node)
        if text not in allowed:
            raise self.error(node, f"there is no {what} {shown(text)}{did_you_mean(text, allowed)}", f"one of: {', '.join(allowed)}")
        return text
