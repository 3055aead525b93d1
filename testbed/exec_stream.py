"""The streams of a command that runs in a container, as the Docker engine carries them: hijacked HTTP, frames (Engine API, attach)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import Any, Protocol

from testbed.errors import EngineError

STDOUT, STDERR = 1, 2
FRAME = struct.Struct(">BxxxL")  # which stream, how many bytes
CHUNK = 65536


class Execs(Protocol):
    """What the engine can still be asked about a command."""

    def exec_exit_code(self, exec_id: str) -> int | None: ...
    def resize_exec(self, exec_id: str, rows: int, columns: int) -> None: ...


class ExecStream:
    """A command running in a container: bytes in, frames of (stream, bytes) out, its exit code at the end.

    Not for use by several readers at once; one reader and one writer are fine.
    """

    def __init__(self, engine: Execs, exec_id: str, connection: Any, *, tty: bool) -> None:
        self._engine = engine
        self._exec_id = exec_id
        self._response = connection  # keeps the socket's owner alive
        self._socket: socket.socket = getattr(connection, "_sock", connection)
        self._socket.settimeout(None)  # a command may be silent for as long as it likes
        self._tty = tty

    def fileno(self) -> int:
        return self._socket.fileno()

    def give_up_sending_after(self, timeout_s: float) -> None:
        """From now on ``send`` raises an OSError when nobody takes anything for so long; some of its data may have gone."""
        whole, part = divmod(timeout_s, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(whole), int(part * 1e6)))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def close_input(self) -> None:
        """End of the command's standard input."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            # The command, and so the connection, ended first: there is no input left to end.
            if error.errno != errno.ENOTCONN:
                raise

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """What the command writes, as it comes: (STDOUT or STDERR, bytes), until both streams end."""
        if self._tty:
            while chunk := self._socket.recv(CHUNK):
                yield STDOUT, chunk
            return
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

    def resize(self, rows: int, columns: int) -> None:
        self._engine.resize_exec(self._exec_id, rows, columns)

    def exit_code(self) -> int | None:
        """The command's exit code; None while it runs."""
        return self._engine.exec_exit_code(self._exec_id)

    def close(self) -> None:
        """Also ends a wait for frames in another thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was closed, or the other side was quicker
        self._socket.close()
        self._response.close()
