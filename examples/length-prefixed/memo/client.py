"""python3 -m memo.client HOST PORT TEXT...: sends memos and prints the answers."""

from __future__ import annotations

import socket
import sys

from memo import frames


def send(host: str, port: int, texts: list[str]) -> list[str]:
    """Send memos, one after the other; gives the server's answers."""
    answers = []
    with socket.create_connection((host, port), timeout=30) as connection, connection.makefile("rwb") as stream:
        for text in texts:
            stream.write(frames.pack(text))
            stream.flush()
            answer = frames.read(stream)
            if answer is None:
                raise frames.FrameError("the server hung up")
            answers.append(answer)
    return answers


def main() -> None:
    host, port, *texts = sys.argv[1:]
    try:
        print("\n".join(send(host, int(port), texts)))
    except (frames.FrameError, OSError) as error:
        sys.exit(f"memo: {error}")


if __name__ == "__main__":
    main()
