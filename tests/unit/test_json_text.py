"""JSON as people read it is JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from testbed.json_text import WIDTH, json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


@given(VALUES)
def test_what_is_read_is_what_was_written(value: object) -> None:
    assert json.loads(json_text(value)) == value


def test_what_fits_on_a_line_is_on_one() -> None:
    row = {"at_s": 0.1, "sender": "client"}
    lines = json_text({"events": [row] * 9, "short": [1, 2]}).splitlines()
    assert lines[0] == "{"
    assert lines[1] == ' "events": ['
    assert lines[2] == '  {"at_s": 0.1, "sender": "client"},'
    assert lines[-2] == ' "short": [1, 2]'
    assert all(len(line) <= WIDTH + 1 for line in lines)
