"""What was seen of one exchange of an integer and a text, and what that says about the claim. Pure.

The claim: sent in network byte order, both arrive the same, whatever the byte orders of the two hosts.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from testbed.architecture import ByteOrder

PROGRAM_CODES = (0, 1)  # done; done, and the message was not whole

Outcome = Literal["HOLDS", "REFUTED", "INCONCLUSIVE"]


@dataclass(frozen=True)
class Party:
    """A host that took part. ``arch`` is Debian's name, ``kernel`` the release of the kernel whose TCP/IP stack it has, and
    ``kernel_of`` says whose that is: its own, or the machine's."""

    host: str
    kind: str
    arch: str
    byte_order: ByteOrder
    kernel_of: str
    kernel: str


@dataclass(frozen=True)
class Run:
    """What a program left; ``exit_code`` is None when it did not end by itself, and ``problem`` says why."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    problem: str = ""

    def why_useless(self, program: str) -> str:
        """In words, for a run that did not do its job."""
        words = self.problem or (self.stderr.decode(errors="backslashreplace").strip().splitlines() or [""])[-1]
        ended = "did not end" if self.exit_code is None else f"ended with exit code {self.exit_code}"
        return f"the {program} {ended}" + (f": {words}" if words else "")


@dataclass(frozen=True)
class Told:
    """The lines that a program printed, by their first word. A line that is not there, or not understood, is None."""

    lines: Mapping[str, bytes]

    @classmethod
    def of(cls, output: bytes) -> Told:
        split = (line.partition(b" ") for line in output.split(b"\n") if line)
        return cls({word.decode(errors="backslashreplace"): rest for word, _, rest in split})

    def number(self, word: str) -> int | None:
        value = self.lines.get(word, b"")
        return int(value) if value.isdigit() else None

    def bytes_(self, word: str) -> bytes | None:
        try:
            return bytes.fromhex(self.lines[word].decode())
        except (KeyError, ValueError):
            return None

    def text(self, word: str = "text") -> bytes | None:
        """A text as it was before the program wrote what is not printable as \\x0a."""
        value = self.lines.get(word)
        return None if value is None else re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), value)

    def yes(self, word: str) -> bool | None:
        return {b"yes": True, b"no": False}.get(self.lines.get(word, b""))

    def word(self, word: str) -> str:
        return self.lines.get(word, b"").decode(errors="backslashreplace")


@dataclass(frozen=True)
class Observation:
    """All that was seen of one exchange, not yet judged. ``wire`` is what the client's host sent; None: see ``wire_problem``."""

    client: Party
    server: Party
    port: int
    integer: int
    text: bytes
    host_order: bool
    client_run: Run | None
    """None when it was not started, because its server did not listen."""
    server_run: Run
    wire: bytes | None
    wire_problem: str = ""

    @property
    def client_told(self) -> Told:
        return Told.of(b"" if self.client_run is None else self.client_run.stdout)

    @property
    def server_told(self) -> Told:
        return Told.of(self.server_run.stdout)

    @property
    def expected(self) -> bytes:
        return message(self.integer, self.text)

    def as_json(self) -> dict[str, object]:
        client, server = self.client_told, self.server_told
        return {
            "client": vars(self.client),
            "server": vars(self.server),
            "port": self.port,
            "integer": self.integer,
            "text": _shown(self.text),
            "host_order": self.host_order,
            "memory": _hex(client.bytes_("memory")),
            "wire": _hex(self.wire),
            "wire_problem": self.wire_problem,
            "expected": _hex(self.expected),
            "server_received": _hex(server.bytes_("received")),
            "server_integer": server.number("integer"),
            "server_memory": _hex(server.bytes_("memory")),
            "server_text": _shown(server.text()),
            "server_complete": server.yes("complete"),
            "runs": {name: _run_as_json(run) for name, run in (("client", self.client_run), ("server", self.server_run))},
        }


@dataclass(frozen=True)
class Verdict:
    """HOLDS, REFUTED or INCONCLUSIVE, and the reason for the last two."""

    outcome: Outcome
    reason: str = ""


def message(integer: int, text: bytes) -> bytes:
    """What has to be on the wire: images/programs/exchange.h says how it is laid out."""
    return struct.pack(">IH", integer, len(text)) + text


# Judging


def judge(seen: Observation) -> Verdict:
    """What one observation says about the claim. Pure."""
    if why := _why_inconclusive(seen):
        return Verdict("INCONCLUSIVE", why)
    wrong = _contradictions(seen)
    return Verdict("REFUTED", "; ".join(wrong)) if wrong else Verdict("HOLDS")


def _why_inconclusive(seen: Observation) -> str:
    """Why nothing can be said about the claim, or nothing."""
    client, server = seen.client_told, seen.server_told
    if seen.client_run is None:
        return seen.server_run.why_useless("server")
    if seen.client_run.exit_code not in PROGRAM_CODES or client.bytes_("sent") is None or client.yes("acknowledged") is None:
        return seen.client_run.why_useless("client")
    if seen.server_run.exit_code not in PROGRAM_CODES or server.bytes_("received") is None or server.yes("complete") is None:
        return seen.server_run.why_useless("server")
    if seen.wire is None:
        return seen.wire_problem or "nothing was captured"
    for party, told in ((seen.client, client), (seen.server, server)):
        if told.word("byte-order") != party.byte_order:
            return f"host {party.host} is {told.word('byte-order')}-endian, and the lab says {party.byte_order}-endian"
    if client.bytes_("memory") != seen.integer.to_bytes(4, seen.client.byte_order):
        return f"the client had {_hex(client.bytes_('memory'))} in memory, and {seen.integer:#010x} is something else there"
    return ""


def _contradictions(seen: Observation) -> list[str]:
    """What of the claim is not so."""
    client, server = seen.client_told, seen.server_told
    wire, expected, wrong = seen.wire or b"", seen.expected, []
    for name, begin, end in (("integer", 0, 4), ("length", 4, 6), ("text", 6, None)):
        if wire[begin:end] != expected[begin:end]:
            wrong.append(f"the {name} on the wire is {_brief(wire[begin:end])} and should be {_brief(expected[begin:end])}")
    if server.number("integer") != seen.integer:
        number = server.number("integer")
        wrong.append(f"the server read {'no integer' if number is None else f'{number:#010x}'} for {seen.integer:#010x}")
    if server.text() != seen.text:
        wrong.append("the server read another text")
    if not server.yes("complete"):
        wrong.append(f"the server waited in vain for the rest of {server.number('length') or 0} bytes of text")
    elif not client.yes("acknowledged"):
        wrong.append("the client got no acknowledgement")
    if client.bytes_("sent") != wire:
        wrong.append("the wire does not have the bytes that the client says it sent")
    # An incomplete message is read up to the client's end as well, so this holds for every observation.
    if server.bytes_("received") != wire:
        wrong.append("the server did not receive the bytes that were on the wire")
    return wrong


# For people and JSON


def _run_as_json(run: Run | None) -> dict[str, object] | None:
    if run is None:
        return None
    return {"exit_code": run.exit_code, "stdout": _shown(run.stdout), "stderr": _shown(run.stderr), "problem": run.problem}


def _shown(text: bytes | None) -> str | None:
    return None if text is None else text.decode(errors="backslashreplace")


def _hex(data: bytes | None) -> str | None:
    return None if data is None else data.hex(" ")


def _brief(data: bytes) -> str:
    """Bytes for a sentence."""
    if not data:
        return "nothing"
    return data.hex(" ") if len(data) <= 12 else f"{data[:8].hex(' ')} ... ({len(data)} bytes)"
