"""python3 -m memo.server PORT: takes memos, answers each with its number and its text."""

from __future__ import annotations

import socket
import sys

from memo import frames


def serve(connection: socket.socket, stored: list[str]) -> None:
    with connection.makefile("rwb") as stream:
        while (text := frames.read(stream)) is not None:
            stored.append(text)
            stream.write(frames.pack(f"{len(stored)}: {text}"))
            stream.flush()


def main() -> None:
    stored: list[str] = []
    with socket.create_server(("", int(sys.argv[1]))) as server:
        while True:
            connection, peer = server.accept()
            with connection:
                try:
                    serve(connection, stored)
                except (frames.FrameError, OSError) as error:
                    print(f"{peer[0]}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
