"""The protocol by itself, on one machine: all of this also passes with the fault."""

from __future__ import annotations

import io

import pytest

from memo import frames


@pytest.mark.parametrize("text", ["", "hello", "größer", "x" * 65536])
def test_what_is_packed_is_read_again(text: str) -> None:
    assert frames.read(io.BytesIO(frames.pack(text))) == text


def test_messages_follow_each_other() -> None:
    stream = io.BytesIO(frames.pack("one") + frames.pack("two"))
    assert [frames.read(stream) for _ in range(3)] == ["one", "two", None]


@pytest.mark.parametrize("cut", [1, 3, 4, 8])
def test_a_message_that_breaks_off_is_an_error(cut: int) -> None:
    with pytest.raises(frames.FrameError, match="the stream ends after"):
        frames.read(io.BytesIO(frames.pack("hello")[:cut]))


def test_nobody_is_made_to_wait_for_a_message_too_long() -> None:
    with pytest.raises(frames.FrameError, match="65537 bytes"):
        frames.read(io.BytesIO(frames.pack("x" * 65537)))
