"""A recording of all networks of a lab that runs all the time, so that the packets of something that failed are there afterwards.

tcpdump writes into two files a network in the switch, in turn, so that they never grow beyond a limit. Unlike a capture
(:mod:`testbed.capture`) it costs nothing at the beginning and the end of each part of it, and it may lose packets, which it then says.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.capture import END_S, SETTLED_LATE_S, Counts, Settling, ask_counts, command, wait_until_listening
from testbed.errors import LabError, TestbedError
from testbed.host import Process
from testbed.lab import Lab
from testbed.process import Deadline, wait_until

SNAP = 2048  # bytes kept of a packet: whole ones of the usual MTU, and the beginning of the large ones that the kernel makes of many
FILE_MB = 16
FILES = 2
BUFFER_KIB = 4096
FILE = "/run/testbed/recording-{}.pcap"  # of a network, in the switch; tcpdump appends a number
FLUSH_S = 2.0

FILE_HEADER, RECORD_HEADER = 24, 16
_MAGICS = {0xA1B2C3D4: 1e6, 0xA1B23C4D: 1e9}


@dataclass(frozen=True)
class Saved:
    """What was saved of one network. ``note`` says what is missing, if anything."""

    file: Path
    packets: int
    note: str = ""


class Recording:
    """The recording of a lab. Raises :class:`LabError` when it cannot begin."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._switch = lab.switch
        self._running: dict[str, Process] = {}
        self._dropped: dict[str, int] = {}
        self._since_s = 0.0
        try:
            # The switch's clock is this machine's own unless the engine is elsewhere.
            self._ahead_s = 0.0 if lab.engine.local else float(self._switch.run(["date", "+%s.%N"]).check().text) - time.time()
            for network in lab.segments:
                self._running[network] = self._begin(network)
        except BaseException:
            self.close()
            raise
        self.mark()

    def mark(self) -> None:
        """What comes from now on is what :meth:`save` saves. A tcpdump that has ended is started again."""
        for network, process in self._running.items():
            if process.exit_code is not None:
                self._running[network], self._dropped[network] = self._begin(network), 0
        self._since_s = time.time() + self._ahead_s

    def save(self, directory: Path) -> dict[str, Saved]:
        """The packets of each network since the mark, as NETWORK.pcap in a directory. A network whose recording has ended is noted
        as such."""
        return {network: self._save(network, process, directory / f"{network}.pcap") for network, process in self._running.items()}

    def close(self) -> None:
        """End it."""
        self._switch.close()

    def _begin(self, network: str) -> Process:
        device = self._lab.bridge(network)
        # -C counts in millions of bytes; -U: a packet is in the file when tcpdump has it
        argv = command(device, "", "-s", str(SNAP), "-U", "-C", str(FILE_MB), "-W", str(FILES), "-w", FILE.format(network))
        argv[argv.index("-B") + 1] = str(BUFFER_KIB)
        process = self._switch.start(argv)
        wait_until_listening(process, self._switch, device, "")
        return process

    def _save(self, network: str, process: Process, file: Path) -> Saved:
        try:
            dropped = self._catch_up(process)
            data = recorded(list(self._files(network)), self._since_s)
        except TestbedError as error:
            return Saved(file, 0, note=f"the recording of network {network} has broken off: {error.message}")
        file.write_bytes(data.pcap)
        before, self._dropped[network] = self._dropped.get(network, 0), dropped
        notes = []
        if data.from_the_middle:
            notes.append(f"only the last {FILES * FILE_MB} MB are kept")
        if dropped > before:
            notes.append(f"up to {dropped - before} packets were too fast to be recorded")
        return Saved(file, data.packets, "; ".join(notes))

    def _catch_up(self, process: Process) -> int:
        """Wait until tcpdump has written what passed so far, which the kernel hands over after at most a second. Gives how many
        packets were dropped, ever."""
        settling = Settling(SETTLED_LATE_S)
        # Under traffic that goes on it is never done; then what is there after that time is what there was.
        deadline = Deadline(FLUSH_S)

        def written() -> Counts | None:
            _, counts = ask_counts(process)
            if counts is None:
                raise LabError(f"tcpdump ended with exit code {process.wait()}")
            return counts if settling.done(counts) or deadline.passed else None

        return wait_until(written, timeout_s=END_S, what="tcpdump to write what it has", every_s=0.02).dropped

    def _files(self, network: str) -> Iterator[bytes]:
        for number in range(FILES):
            found = self._switch.run(["cat", f"{FILE.format(network)}{number}"])
            if found.exit_code == 0:
                yield found.stdout


@dataclass(frozen=True)
class Recorded:
    """A pcap file. ``from_the_middle``: there may have been packets before its first one."""

    pcap: bytes
    packets: int
    from_the_middle: bool


def recorded(files: list[bytes], since_s: float) -> Recorded:
    """Of pcap files that were written in turn, the packets since a moment, in seconds since 1970, as one."""
    whole = sorted((one for one in files if len(one) > FILE_HEADER), key=lambda one: next(records(one), (float("inf"), b""))[0])
    if not whole:
        return Recorded(next((one[:FILE_HEADER] for one in files), b""), 0, from_the_middle=False)
    packets = [(time_s, record) for one in whole for time_s, record in records(one)]
    chosen = [record for time_s, record in packets if time_s >= since_s]
    # Every file is full and nothing in them is older: what was there before has been overwritten.
    wrapped = len(whole) == FILES and bool(chosen) and len(chosen) == len(packets)
    return Recorded(whole[0][:FILE_HEADER] + b"".join(chosen), len(chosen), from_the_middle=wrapped)


def records(data: bytes) -> Iterator[tuple[float, bytes]]:
    """(seconds since 1970, record with its header) of a pcap file; the last one may be cut, and is left out then."""
    order = "<" if int.from_bytes(data[:4], "little") in _MAGICS else ">"
    fraction = _MAGICS.get(int.from_bytes(data[:4], "little" if order == "<" else "big"))
    if fraction is None:
        raise LabError("what tcpdump recorded is no pcap file")
    header = struct.Struct(f"{order}IIII")
    at = FILE_HEADER
    while at + header.size <= len(data):
        seconds, parts, size, _ = header.unpack_from(data, at)
        end = at + header.size + size
        if end > len(data):
            return
        yield seconds + parts / fraction, data[at:end]
        at = end
