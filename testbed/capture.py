"""Packet capture: tcpdump in a lab's switch, so from outside the hosts, and without a loss that nobody hears of.

A device of the switch is a host's port (what the host sends comes *in* there), a network's bridge, or :data:`ALL_PORTS`.
tcpdump is told to stop only when it has written all that the kernel gave its filter, and a packet that the kernel had
no room for is an error.
"""

from __future__ import annotations

import io
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from testbed.errors import CommandFailed, DeadlineExceeded, InputError, LabError, TestbedError
from testbed.host import Host, Process
from testbed.process import Deadline, wait_until

ALL_PORTS = "any"
START_S = 10.0
END_S = 10.0
MEMORY_MOST = 64 << 20  # bytes of a capture without a file
BUFFER_KIB = 32 << 10
# In immediate mode the kernel's buffer is cut into slots of this size each: the largest packet without "big TCP" and its link header.
SNAP = 65535 + 20
# How long tcpdump's counters stand still before it counts as having nothing more to write: see Capture.stop.
SETTLED_S = 0.3
SETTLED_LATE_S = 1.5  # without immediate mode the kernel hands packets over after at most a second

_COUNTS = re.compile(
    r"(\d+) packets? captured,?\s+(\d+) packets? received by filter,?\s+(\d+) packets? dropped by kernel"
    r"(?:,?\s+(\d+) packets? dropped by interface)?"
)

VLAN_TAGS = (b"\x81\x00", b"\x88\xa8")

Link = Literal["ethernet", "cooked"]


@dataclass(frozen=True)
class Packet:
    """One captured packet. ``time_s`` is in seconds since 1970, ``payload`` what follows the link-layer header.

    ``interface`` is the index of the switch's device where it was seen, known only in captures on :data:`ALL_PORTS`.
    """

    time_s: float
    link: Link
    interface: int | None
    source_mac: bytes
    ethertype: int
    payload: bytes


@dataclass(frozen=True)
class Counts:
    """tcpdump's statistics. ``received`` are the packets that the filter let through, dropped ones included."""

    captured: int
    received: int
    dropped: int

    @property
    def all_written(self) -> bool:
        return self.captured + self.dropped >= self.received


def parse_counts(text: str) -> Counts | None:
    """The last statistics in what tcpdump wrote to standard error, both of its ways to write them; None without any."""
    found = _COUNTS.findall(text)
    if not found:
        return None
    captured, received, dropped, by_interface = found[-1]
    return Counts(int(captured), int(received), int(dropped) + int(by_interface or 0))


def ask_counts(process: Process) -> tuple[str, Counts | None]:
    """What a running tcpdump says when asked for its statistics, and they; None when it has ended."""
    process.send_signal(signal.SIGUSR1)
    said = ""
    while line := process.stderr.readline(timeout_s=END_S).decode(errors="backslashreplace"):
        said += line
        if counts := parse_counts(line):
            return said, counts
    return said, None


class Settling:
    """Whether tcpdump, asked again and again, has written what it has received: when its counts agree, or have stood still for
    ``still_s`` seconds.

    They never agree when packets came in the moments between its opening the device and its setting the filter: the kernel counts
    those, and nobody writes them.
    """

    def __init__(self, still_s: float) -> None:
        self._still_s = still_s
        self._still = Deadline(still_s)
        self._last: Counts | None = None

    def done(self, counts: Counts) -> bool:
        if counts != self._last:
            self._last, self._still = counts, Deadline(self._still_s)
        return counts.all_written or self._still.passed


def read_pcap(data: bytes) -> list[Packet]:
    """The packets of a pcap file with Ethernet or Linux cooked v2 headers. Raises :class:`LabError` for anything else."""
    import dpkt  # type: ignore[import-untyped] # here, because loading it takes a tenth of a second

    try:
        reader = dpkt.pcap.Reader(io.BytesIO(data))
        read = {dpkt.pcap.DLT_EN10MB: _ethernet, dpkt.pcap.DLT_LINUX_SLL2: _cooked}[reader.datalink()]
        return [read(float(time_s), frame) for time_s, frame in reader]
    except KeyError as error:
        raise LabError(f"a capture of link type {error} cannot be read", hint="Ethernet and Linux cooked v2 can") from None
    except (ValueError, dpkt.dpkt.Error) as error:
        raise LabError(f"a capture of {len(data)} bytes is no whole pcap file: {error or type(error).__name__}") from error


def _ethernet(time_s: float, frame: bytes) -> Packet:
    at = 12
    while frame[at : at + 2] in VLAN_TAGS:
        at += 4
    return Packet(time_s, "ethernet", None, frame[6:12], int.from_bytes(frame[at : at + 2], "big"), frame[at + 2 :])


def _cooked(time_s: float, frame: bytes) -> Packet:
    """Linux cooked v2: protocol 2, unused 2, interface 4, hardware 2, direction 1, address size 1, address 8 bytes."""
    address = frame[12 : 12 + min(frame[11], 8)] if len(frame) >= 20 else b""
    return Packet(time_s, "cooked", int.from_bytes(frame[4:8], "big"), address, int.from_bytes(frame[:2], "big"), frame[20:])


def command(device: str, filter_: str, *options: str) -> list[str]:
    """tcpdump's arguments. Raises :class:`InputError` for a filter that would lose a packet.

    libpcap itself applies the filter to the first packets, those that may be older than the kernel's filter, and does not know
    the direction of any: with `inbound` the first packet was always missing (1.10.3). On all ports at once the direction
    is written into the packet's header, and nothing is missing.

    ``-Z root``: it stays who it is, as the switch may not change users; ``--``: a filter is no option."""
    if device != ALL_PORTS and re.search(r"\b(inbound|outbound)\b", filter_):
        raise InputError(
            f"'{filter_}': on one device tcpdump loses the first packet with 'inbound' or 'outbound'",
            hint="name the sender instead: src host ADDRESS, or ether src MAC",
        )
    return ["tcpdump", "-n", "-Z", "root", "-i", device, "-B", str(BUFFER_KIB), *options, "--", *([filter_] if filter_.strip() else [])]


class Capture:
    """A capture that runs, or has run. Made by :func:`capture`."""

    def __init__(self, process: Process, device: str, begun: Begun, *, switch: str, sink: BinaryIO | None, settled_s: float) -> None:
        self.device = device
        self._process = process
        self._switch = switch
        self._settled_s = settled_s
        self._sink = sink
        self._memory = bytearray()
        self._failure: TestbedError | None = None
        self._begun = begun
        self._complaints = begun.complaints
        self._ended = False
        self._reader = threading.Thread(target=self._collect, name=f"capture on {device}", daemon=True)
        self._reader.start()

    @property
    def pcap(self) -> bytes:
        """The whole capture as a pcap file; only after its end, and only without a file of its own."""
        if not self._ended or self._sink is not None:
            raise RuntimeError("a capture is read after its end, and from its file when it has one")
        return bytes(self._memory)

    def packets(self) -> list[Packet]:
        """Its packets in the order in which they were seen."""
        return read_pcap(self.pcap)

    def wait(self, *, timeout_s: float | None) -> bool:
        """Wait for the end that its ``count`` brings (or a failure); False when it still runs after ``timeout_s`` seconds."""
        deadline = Deadline(timeout_s)
        while self._reader.is_alive() and not deadline.passed:
            self._reader.join(deadline.look_s)
        return not self._reader.is_alive()

    def send_signal(self, number: int) -> None:
        """Send tcpdump a signal."""
        self._process.send_signal(number)

    def stop(self) -> Counts:
        """End it when all that passed the filter so far is written. Raises :class:`LabError` if anything was lost.

        tcpdump is asked for its counts until they have settled.
        """
        settling = Settling(self._settled_s)

        def done() -> bool:
            said, counts = ask_counts(self._process)
            self._complaints += said
            return counts is None or settling.done(counts)

        wait_until(done, timeout_s=END_S, what=f"tcpdump on {self.device} to write what it has received", every_s=0.01)
        self._process.send_signal(signal.SIGINT)
        exit_code = self._process.wait(timeout_s=END_S)
        self._complaints += self._process.stderr.read(timeout_s=END_S).decode(errors="backslashreplace")
        self._reader.join(END_S)
        self._ended = True
        if self._failure is not None:
            raise self._failure
        counts = parse_counts(self._complaints)
        if exit_code != 0 or counts is None:
            raise CommandFailed(self._process.argv, exit_code, self._complaints, where=self._switch)
        counts = self._begun.since(counts)
        refuse_drops(counts, self.device)
        return counts

    def close(self) -> None:
        """End it at once, whatever is lost; after ``stop`` it does nothing."""
        self._process.close()
        self._reader.join(END_S)

    def _collect(self) -> None:
        """The thread that takes the pcap as it comes."""
        try:
            while piece := self._process.stdout.read_some(timeout_s=None):
                if self._failure is not None:
                    continue  # read on, so that tcpdump can end
                if self._sink is not None:
                    self._sink.write(piece)
                    self._sink.flush()  # whoever looks into the file sees what has come
                elif len(self._memory) + len(piece) > MEMORY_MOST:
                    self._failure = TooMuch(
                        f"the capture on {self.device} has passed {MEMORY_MOST >> 20} MB, the most that is kept in memory",
                        hint="write it to a file, narrow the filter, or capture less of each packet (snap)",
                    )
                else:
                    self._memory += piece
        except OSError as error:
            self._failure = LabError(f"the capture on {self.device} cannot be written: {error.strerror or error}")
            self._process.kill()
        except TestbedError as error:
            self._failure = error


@dataclass(frozen=True)
class Begun:
    """A tcpdump that listens: what it said until then, and how many packets were dropped. Until its filter is set it takes in everything:
    what is dropped of that may be much, and nobody wants it."""

    complaints: str
    dropped: int

    @classmethod
    def by(cls, process: Process, switch: Host, device: str, filter_: str) -> Begun:
        """Wait until it listens. Raises as :func:`wait_until_listening` does."""
        complaints = wait_until_listening(process, switch, device, filter_)
        said, counts = ask_counts(process)
        if counts is None:  # it has ended: these are its last words, with its statistics
            return cls(complaints + said, 0)
        return cls(complaints + "".join(said.splitlines(keepends=True)[:-1]), counts.dropped)

    def since(self, counts: Counts) -> Counts:
        """Its counts, without what was dropped until it listened."""
        return replace(counts, dropped=counts.dropped - self.dropped)


class TooMuch(LabError):
    """More packets than can be captured, or kept."""


def refuse_drops(counts: Counts, device: str) -> None:
    """Raise :class:`TooMuch` when the kernel dropped packets that the filter had let through."""
    if counts.dropped:
        raise TooMuch(
            f"the capture on {device} is not whole: {counts.dropped} of {counts.received} packets were dropped",
            hint="narrow the filter, capture less of each packet (snap), or capture with immediate=False",
        )


@contextmanager
def capture(
    switch: Host,
    device: str,
    *,
    filter: str = "",  # noqa: A002 - the field's own word, and a keyword only
    snap: int | None = None,
    file: Path | BinaryIO | None = None,
    count: int | None = None,
    immediate: bool = True,
) -> Iterator[Capture]:
    """Capture on a device of the switch while the block runs; it begins when tcpdump listens, and ends without a loss.

    ``filter`` as in pcap-filter(7); ``snap`` the most bytes kept of a packet (all of it by default); the pcap goes to
    ``file``, or is kept in memory. It ends by itself after ``count`` packets. Without ``immediate`` the kernel collects
    packets for up to a second: that bears more traffic, and leaving the block takes that second.

    Raises :class:`InputError` for a filter that tcpdump does not understand or a file that cannot be made, and
    :class:`LabError` when there is no such device, or packets were lost.
    """
    options = ["-w", "-", "-U", "-s", str(snap or SNAP)]
    options += ["--immediate-mode"] if immediate else []
    options += ["-c", str(count)] if count is not None else []
    filter = _without_bridges(switch, filter) if device == ALL_PORTS else filter  # noqa: A001 - as above
    with _opened(file) as sink, switch.start(command(device, filter, *options)) as process:
        begun = Begun.by(process, switch, device, filter)
        settled_s = SETTLED_S if immediate else SETTLED_LATE_S
        running = Capture(process, device, begun, switch=switch.name, sink=sink, settled_s=settled_s)
        try:
            yield running
            running.stop()
        finally:
            running.close()


def _without_bridges(switch: Host, filter_: str) -> str:
    """The filter for the ports alone. While somebody captures on a bridge it takes in all that it forwards, which would be seen
    once more then."""
    listed = switch.run(["sh", "-c", 'for one in /sys/class/net/*/bridge; do [ ! -d "$one" ] || cat "${one%bridge}ifindex"; done'])
    bridges = [f"not ifindex {number}" for number in listed.check(where=switch.name).text.split()]
    return " and ".join(([f"({filter_})"] if filter_.strip() else []) + bridges)


def show(
    switch: Host,
    device: str,
    filter: str = "",  # noqa: A002 - as above
    *,
    file: Path | None = None,
    count: int | None = None,
    duration_s: float | None = None,
    output: BinaryIO | None = None,
) -> None:
    """`testbed capture`: a line a packet on ``output`` (standard output), or a pcap to ``file`` (``-``: to ``output``).

    Ends after ``count`` packets, after ``duration_s`` seconds, or with Ctrl-C, which is as good an end as the others.
    Raises as :func:`capture` does.
    """
    output = output or sys.stdout.buffer
    if file is not None:
        sink = output if str(file) == "-" else file
        with capture(switch, device, filter=filter, file=sink, count=count, immediate=False) as running, ctrl_c_ends():
            running.wait(timeout_s=duration_s)
        return
    options = ["-l", "--immediate-mode", "-s", str(SNAP), *(["-c", str(count)] if count is not None else [])]
    with switch.start(command(device, filter, *options)) as process:
        begun = Begun.by(process, switch, device, filter)
        with ctrl_c_ends():
            _copy_lines(process, output, Deadline(duration_s))
        process.send_signal(signal.SIGINT)
        result = process.result(timeout_s=END_S)
        output.write(result.stdout)
        output.flush()
    counts = parse_counts(begun.complaints + result.error_text)
    if result.exit_code != 0 or counts is None:
        result.check(where=switch.name)
        raise LabError(f"tcpdump on {device} ended without its statistics", hint=result.error_text.strip())
    refuse_drops(begun.since(counts), device)


def _copy_lines(process: Process, output: BinaryIO, deadline: Deadline) -> None:
    """Lines as they come, until the output's end or the deadline."""
    try:
        while line := process.stdout.readline(timeout_s=deadline.left_s):
            output.write(line)
            output.flush()
    except DeadlineExceeded:
        return


@contextmanager
def ctrl_c_ends() -> Iterator[None]:
    """Within it Ctrl-C is an end like others."""
    try:
        yield
    except KeyboardInterrupt:
        return


@contextmanager
def _opened(file: Path | BinaryIO | None) -> Iterator[BinaryIO | None]:
    if not isinstance(file, Path):
        yield file
        return
    try:
        opened = file.open("wb")
    except OSError as error:
        raise InputError(f"the capture cannot be written to '{file}': {error.strerror}") from error
    with opened:
        yield opened


def wait_until_listening(process: Process, switch: Host, device: str, filter_: str) -> str:
    """What tcpdump says until it listens. Raises :class:`InputError` when it stumbles over the filter, else :class:`LabError`."""
    complaints, deadline = "", Deadline(START_S)
    while line := process.stderr.readline(timeout_s=deadline.left_s).decode(errors="backslashreplace"):
        complaints += line
        if "listening on" in line:
            return complaints
    exit_code = process.wait(timeout_s=START_S)
    said = [line.removeprefix("tcpdump: ") for line in complaints.splitlines() if line.startswith("tcpdump: ")]
    words = said[-1] if said else f"exit code {exit_code}"
    # It says nothing about which of its arguments is meant. So: does the device work without the filter?
    if filter_.strip() and switch.run(command(device, "", "-d"), timeout_s=START_S).exit_code == 0:
        hint = "filters are explained in pcap-filter(7), for example: tcp port 8001"
        raise InputError(f"tcpdump refuses the filter '{filter_}': {words}", hint=hint)
    raise LabError(f"tcpdump cannot capture on {device} of {switch.name}: {words}")
