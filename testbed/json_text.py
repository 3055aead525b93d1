"""JSON as people read it: what fits on one line is on one. Pure."""

from __future__ import annotations

import json
from typing import Any

WIDTH = 120


def json_text(value: Any) -> str:
    """The text of a value, which ends with a newline."""
    return f"{_lines(value, 0, 0)}\n"


def _lines(value: Any, indent: int, before: int) -> str:
    """``before``: how many columns of its first line are taken by what stands before it."""
    short = json.dumps(value)
    if not value or not isinstance(value, dict | list | tuple) or before + len(short) <= WIDTH:
        return short
    margin = " " * (indent + 1)
    if isinstance(value, dict):
        rows = [f"{json.dumps(str(key))}: " for key in value]
        rows = [row + _lines(one, indent + 1, indent + 1 + len(row)) for row, one in zip(rows, value.values(), strict=True)]
        opening, closing = "{", "}"
    else:
        rows = [_lines(one, indent + 1, indent + 1) for one in value]
        opening, closing = "[", "]"
    inner = f",\n{margin}".join(rows)
    return f"{opening}\n{margin}{inner}\n{' ' * indent}{closing}"
