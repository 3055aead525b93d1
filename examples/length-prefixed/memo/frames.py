"""One message on the wire: how many bytes follow (4 bytes), then a text in UTF-8."""

from __future__ import annotations

import struct
from io import BufferedIOBase

HEADER_SIZE = 4
LONGEST = 65536  # bytes; whoever announces more does not speak this protocol


class FrameError(Exception):
    """What came is no message."""


def pack(text: str) -> bytes:
    body = text.encode()
    return struct.pack("!I", len(body)) + body


def read(stream: BufferedIOBase) -> str | None:
    """The next message; None at the end of the stream."""
    header = stream.read(HEADER_SIZE)
    if not header:
        return None
    if len(header) < HEADER_SIZE:
        raise FrameError(f"the stream ends after {len(header)} bytes of a header")
    (size,) = struct.unpack("!I", header)
    if size > LONGEST:
        raise FrameError(f"a message of {size} bytes is announced, and {LONGEST} is the most")
    body = stream.read(size)
    if len(body) < size:
        raise FrameError(f"the stream ends after {len(body)} of {size} bytes")
    return body.decode()
