"""YAML to a tree of nodes that know their lines and columns.

Every scalar stays the text that was written: `1.10` is not 1.1, `0755` not 493, `on` not true, and a host may be called
`7`. Only an empty value (also `~` and `null`) is nothing. What a value means, its reader in ``topology_values`` knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from testbed.errors import TopologyError
from testbed.topology_values import shown

Position = tuple[int, int]  # line and column, from 1

# Limits far above any real topology; below them no file takes noticeable time or memory.
MOST_CHARACTERS = 2**20
DEEPEST = 32
MOST_NODES = 50_000

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser where PyYAML was built with it
_NOTHING = ("", "~", "null", "Null", "NULL")
_SCALAR_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")))
_MAPPING_TAGS = (None, "!", "tag:yaml.org,2002:map")
_SEQUENCE_TAGS = (None, "!", "tag:yaml.org,2002:seq")
_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# What YAML calls printable; surrogates are in none of the ranges.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Node:
    """A value with its place; a mapping also has the places of its keys. ``size`` counts the nodes in it, aliases written out."""

    value: str | list[Node] | dict[str, Node] | None
    at: Position
    keys: dict[str, Position] = field(default_factory=dict)
    size: int = 1

    def plain(self) -> Any:
        """The value without places."""
        match self.value:
            case dict():
                return {key: node.plain() for key, node in self.value.items()}
            case list():
                return [node.plain() for node in self.value]
            case _:
                return self.value


def read(text: str, *, file: str = "") -> Node:
    """The one document in ``text``. Raises :class:`TopologyError` with file, line and column."""
    text = text.removeprefix("\ufeff")
    if len(text) > MOST_CHARACTERS:
        raise TopologyError(f"the file has more than {MOST_CHARACTERS:,} characters", file=file, hint="this is not a topology")
    strange = _UNPRINTABLE.search(text)
    if strange:
        line, column = end_of(text[: strange.start()])
        character = f"U+{ord(strange[0]):04X}"
        raise TopologyError(f"not YAML: the character {character} is not text", file=file, line=line, column=column, hint="remove it")
    try:
        return _Reader(yaml.parse(text, Loader=_PARSER), file).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = _inside(text, mark.line, mark.column) if mark else (0, 0)
        words = ", ".join(part for part in (error.problem, error.context) if part)
        hint = "indent with spaces, never with tabs" if "cannot start any token" in words and "\t" in text else _YAML_HINT
        raise TopologyError(f"not YAML: {words}", file=file, line=line, column=column, hint=hint) from None


_YAML_HINT = "'name: value', one a line, what belongs to it indented below; text with ': ' or ' #' in it needs quotes"


def end_of(text: str) -> Position:
    """The place just after the last character."""
    lines = _LINE_BREAK.split(text)
    return len(lines), len(lines[-1]) + 1


def _inside(text: str, line: int, column: int) -> Position:
    """A place of libyaml (from 0), which may lie after the last line, as one in the text (from 1)."""
    lines = _LINE_BREAK.split(text)
    if line >= len(lines):
        return end_of(text)
    return line + 1, min(column, len(lines[line])) + 1


class _Reader:
    """The events of one stream, made into nodes. Its own stack is bounded by ``DEEPEST``, its result by ``MOST_NODES``."""

    def __init__(self, events: Iterator[Any], file: str) -> None:
        self._events = events
        self._file = file
        self._anchors: dict[str, Node | None] = {}  # None while the node is still being read
        self._nodes = 0
        self._twice: list[TopologyError] = []

    def document(self) -> Node:
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise TopologyError("the file is empty", file=self._file, hint="a topology has networks: and hosts:")
        node = self._node(next(self._events), 0)
        next(self._events)  # the document ends
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            raise self._error("a second document begins", more, "a file holds one topology")
        if self._twice:
            first = self._twice[0]
            text = "\n".join([first.message, *map(str, self._twice[1:])])
            hint = "each key stands once in its mapping"
            raise TopologyError(text, file=self._file, line=first.line, column=first.column, hint=hint)
        return node

    def _node(self, event: Any, depth: int) -> Node:
        if depth > DEEPEST:
            raise self._error(f"more than {DEEPEST} levels deep", event, "a topology needs six")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        match event:
            case yaml.ScalarEvent():
                node = self._scalar(event)
            case yaml.SequenceStartEvent():
                node = self._sequence(event, depth)
            case _:
                node = self._mapping(event, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise self._error(f"there is no '&{event.anchor}' above", event, "an alias repeats what an anchor has named before")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(f"'*{event.anchor}' stands inside '&{event.anchor}' itself", event, "write it out")
        self._count(node.size, event)
        return replace(node, at=_at(event))

    def _scalar(self, event: Any) -> Node:
        if event.tag not in _SCALAR_TAGS:
            raise self._tag_error(event)
        self._count(1, event)
        text: str = event.value
        strange = next((one for one in text if one == "\0" or "\ud800" <= one <= "\udfff"), None)
        if strange:
            raise self._error(f"the text has the character U+{ord(strange):04X} in it", event, "a file: with source: may hold any bytes")
        plain_nothing = event.implicit[0] and not event.style and text in _NOTHING
        return Node(None if plain_nothing or event.tag == "tag:yaml.org,2002:null" else text, _at(event))

    def _sequence(self, event: Any, depth: int) -> Node:
        if event.tag not in _SEQUENCE_TAGS:
            raise self._tag_error(event)
        self._count(1, event)
        items: list[Node] = []
        while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(inner, depth + 1))
        return Node(items, _at(event), size=1 + sum(item.size for item in items))

    def _mapping(self, event: Any, depth: int) -> Node:
        if event.tag not in _MAPPING_TAGS:
            raise self._tag_error(event)
        self._count(1, event)
        items: dict[str, Node] = {}
        keys: dict[str, Position] = {}
        while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
            key = self._key(inner, depth)
            node = self._node(next(self._events), depth + 1)
            if key in items:
                line, column = _at(inner)
                message = f"{shown(key)} is there already, in line {keys[key][0]}"
                self._twice.append(TopologyError(message, file=self._file, line=line, column=column))
            else:
                items[key], keys[key] = node, _at(inner)
        return Node(items, _at(event), keys, size=1 + sum(item.size for item in items.values()))

    def _key(self, event: Any, depth: int) -> str:
        if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            raise self._error("a key is text, not a list or a mapping", event, _YAML_HINT)
        node = self._node(event, depth + 1)
        if isinstance(event, yaml.ScalarEvent) and not event.style:
            if event.value == "<<":
                raise self._error("there are no merge keys here", event, "what all hosts share belongs under defaults:")
            if event.value == "":
                raise self._error("a key is missing before ':'", event, _YAML_HINT)
            return str(event.value)  # `null` and `~` too: a key is always text
        if not isinstance(node.value, str):
            raise self._error("a key is text, not a list, a mapping or nothing", event, _YAML_HINT)
        return node.value

    def _count(self, nodes: int, event: Any) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise self._error(f"more than {MOST_NODES:,} values, aliases written out", event, "this is not a topology")

    def _tag_error(self, event: Any) -> TopologyError:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        return self._error(f"there are no tags like {tag!r} here", event, "write the plain value")

    def _error(self, message: str, event: Any, hint: str) -> TopologyError:
        line, column = _at(event)
        return TopologyError(message, file=self._file, line=line, column=column, hint=hint)


def _at(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1
