"""What is taken out of the files that tcpdump writes in turn."""

from __future__ import annotations

import struct

import pytest

from testbed.capture import read_pcap
from testbed.errors import LabError
from testbed.recording import recorded

FRAME = bytes(12) + b"\x08\x00" + b"payload"


def pcap(*times_s: float, order: str = "<", nano: bool = False) -> bytes:
    magic, unit = (0xA1B23C4D, 1e9) if nano else (0xA1B2C3D4, 1e6)
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 2048, 1)
    for time_s in times_s:
        data += struct.pack(f"{order}IIII", int(time_s), round(time_s % 1 * unit), len(FRAME), len(FRAME)) + FRAME
    return data


def times(data: bytes) -> list[float]:
    return [round(one.time_s, 6) for one in read_pcap(data)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_only_packets_since_the_mark_are_taken(order: str, nano: bool) -> None:
    found = recorded([pcap(1.5, 2.25, 3.0, order=order, nano=nano)], 2.25)
    assert times(found.pcap) == [2.25, 3.0]
    assert (found.packets, found.from_the_middle) == (2, False)


def test_files_are_put_together_in_the_order_of_their_packets() -> None:
    found = recorded([pcap(5.0, 6.0), pcap(3.0, 4.0)], 3.5)
    assert times(found.pcap) == [4.0, 5.0, 6.0]
    assert found.from_the_middle is False


def test_it_is_said_when_older_packets_may_have_been_overwritten() -> None:
    assert recorded([pcap(5.0, 6.0), pcap(3.0, 4.0)], 1.0).from_the_middle is True
    assert recorded([pcap(3.0, 4.0)], 1.0).from_the_middle is False


def test_a_packet_that_is_being_written_is_left_out() -> None:
    assert times(recorded([pcap(1.0, 2.0)[:-3]], 0.0).pcap) == [1.0]
    assert times(recorded([pcap(1.0) + b"\0" * 7], 0.0).pcap) == [1.0]


@pytest.mark.parametrize("files", [[], [b""], [pcap()], [pcap(), pcap()]])
def test_nothing_gives_no_packets(files: list[bytes]) -> None:
    assert recorded(files, 0.0).packets == 0


def test_what_is_no_pcap_is_an_error() -> None:
    with pytest.raises(LabError, match="no pcap"):
        recorded([b"x" * 100], 0.0)
