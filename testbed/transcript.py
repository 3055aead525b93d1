"""What was run on a host and what it wrote, kept as it comes: for whoever asks afterwards why something failed."""

from __future__ import annotations

import shlex
import threading
import time
from collections import deque
from collections.abc import Sequence

MOST_COMMANDS = 100
MOST_OUTPUT = 32 * 1024  # bytes kept of each output stream, the last ones
STREAMS = {1: "output", 2: "error output"}


class Entry:
    """One command: what it is, when it began (seconds since 1970), how it ended, and the end of what it wrote."""

    def __init__(self, argv: Sequence[str], files: Sequence[str]) -> None:
        self.argv = tuple(argv)
        self.files = tuple(files)  # where its output goes instead, if anywhere
        self.began_s = time.time()
        self.ending = ""  # empty while it runs
        self._written = {stream: bytearray() for stream in STREAMS}
        self._forgotten = dict.fromkeys(STREAMS, 0)

    def wrote(self, stream: int, data: bytes) -> None:
        """Keep the end of it; called by the thread that reads."""
        kept = self._written[stream]
        kept += data
        if len(kept) > 2 * MOST_OUTPUT:  # not for every piece: moving the rest costs
            self._forgotten[stream] += len(kept) - MOST_OUTPUT
            del kept[:-MOST_OUTPUT]

    def output(self, stream: int) -> tuple[str, int]:
        """The end of a stream as text, and how many bytes came before that."""
        data = bytes(self._written[stream])
        end = data[-MOST_OUTPUT:]
        return end.decode(errors="backslashreplace"), self._forgotten[stream] + len(data) - len(end)


class Transcript:
    """The last commands that were run on one host."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=MOST_COMMANDS)
        self._since_s = time.time()
        self._count = 0

    def begin(self, argv: Sequence[str], files: Sequence[str] = ()) -> Entry:
        """A command that is about to be started."""
        entry = Entry(argv, files)
        with self._lock:
            self._entries.append(entry)
            self._count += 1
        return entry

    def clear(self) -> None:
        """Forget all, and count the time from now."""
        with self._lock:
            self._entries.clear()
            self._since_s, self._count = time.time(), 0

    @property
    def entries(self) -> list[Entry]:
        """The commands in the order in which they were started."""
        with self._lock:
            return list(self._entries)

    def text(self) -> str:
        """All of it, to be read by people."""
        entries = self.entries
        lines = [f"({self._count - len(entries)} commands before these)"] if self._count > len(entries) else []
        for entry in entries:
            lines += [f"+{entry.began_s - self._since_s:.3f} s  {shlex.join(entry.argv)}", f"  {entry.ending or 'runs'}"]
            lines += [f"  its output goes to {' and '.join(filter(None, entry.files))}"] if any(entry.files) else []
            for stream, name in STREAMS.items():
                text, before = entry.output(stream)
                more = f" ({before} bytes before this)" if before else ""
                lines += [f"  {name}{more}:", *(f"  | {line}" for line in text.splitlines())] if text else []
        return "\n".join([*lines, ""]) if lines else ""
