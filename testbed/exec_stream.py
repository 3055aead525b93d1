"""The streams of a command that runs in a container, as the Docker engine carries them: hijacked HTTP, frames (Engine API, attach)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

from testbed.errors import EngineError

STDOUT, STDERR = 1, 2
FRAME = struct.Struct(">BxxxL")  # which stream, how many bytes
CHUNK = 65536


class ExecStream:
    """A command running in a container: bytes in, frames of (stream, bytes) out.

    Not for use by several readers at once; one reader and one writer are fine.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._answer = getattr(connection, "_response", None)  # of HTTP, which docker-py keeps there, as it owns the socket
        self._socket: socket.socket = getattr(connection, "_sock", connection)
        self._socket.settimeout(None)  # a command may be silent for as long as it likes

    def give_up_sending_after(self, timeout_s: float) -> None:
        """From now on ``send`` raises an OSError when nobody takes anything for so long; some of its data may have gone."""
        whole, part = divmod(timeout_s, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(whole), int(part * 1e6)))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """What the command writes, as it comes: (STDOUT or STDERR, bytes), until both streams end."""
        while header := self._receive(FRAME.size):
            stream, size = FRAME.unpack(header)
            while size:
                chunk = self._socket.recv(min(size, CHUNK))
                if not chunk:
                    raise EngineError("the engine broke off in the middle of a command's output")
                size -= len(chunk)
                yield stream, chunk

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            if not chunk:
                return b""
            data += chunk
        return data

    def close(self) -> None:
        """Also ends a wait for frames in another thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed, or the other side was quicker
        # Before what it reads from: else Python complains, from 3.13 on aloud, when it goes.
        if self._answer is not None:
            self._answer.close()
        self._socket.close()
        self._connection.close()
