"""What tcpdump writes, read; and a capture that ends when all is written, not before."""

from __future__ import annotations

import base64
import signal
import threading
import zlib
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from testbed import capture as capturing
from testbed.capture import Counts, capture, command, parse_counts, read_pcap, refuse_drops
from testbed.errors import InputError, LabError
from testbed.process import Result
from testbed.wire import conversations

# `exchange-client 10.77.0.4 28085 16909060 hello`, recorded by tcpdump 4.99.3: on "any" with the filter "inbound and tcp
# port 28085", and on the client's port of the switch with "tcp port 28085". pcap files, compressed.
COOKED = (
    "eNqN0k9LwnAYwPHn99uc4ilrhy55s1dg2UF0KNoWBqG4bkZEJKVIHaLCqG69DHsL0Q79O0V1s4K89CIiMJIkouf5mSPnJAe7/DY+z5dne745PeEgQ/caAwYq"
    "A/ja8m5YaQYLeEa3r/NYAiYpPOGfBw6QAoia5xpoysMKneAtN2Jl6327OU0v13j7Ta0DcNlzJnOfX4++7tI5kyQ/+S/9vmL7cscHIH9ygk5oRtlqxCqhnVmc"
    "EamNfh//9TfTyx80o+s30dcR1Qf3h80L0b/u6I/gDP1wBOLqHfayTjv55M5kGOQQyw124+alcAuu7ji6T7a7Ry7jkgye4mqpVKERuUxfunM14WCeRngfHavR"
    "cUwC07VuOvItGkNuOTPESq5EetGRnhDpgZ6VUHqL3EKWgYGYMbh3KmiK3rpLbxJXoqn3du8n2QrBR9khgq9F8JojOIm44fiGVcLJXcoPseBF12BDBAd6Ftwm"
    "m9yD/P+9v/90yKV3jnpTt3bvPtk/JOLGeA=="
)
ETHERNET = (
    "eNp90s9LwmAYwPFnr3vVBkVzHjxMOtWhY9gtcGzTfoB56LLbTkGYEvgX1K3/Iv0D6lAadjbqJgT5B3QRoiBvQUr0PK8p+vKyjY3xjn323aOv3dsmAx2mmwUa"
    "7gDjeuK0tcfhAK/pYK5RAl2cWRIKADs2d8CJGxlaoXt9v9Z+aF59kdJgP8N0D5/SeUtnSUPb9K5pXYvFDJI/ZZlN/IkMQPJGllboXq3d94NO10d92Ej9Xs7L"
    "5e/yG+lTeXmfg4uqq2rO2XHRvCY1D1EvnK9CPv2EjZrovSGZxETIoYRaSSXm7YQQLaWYQfFlJt6JVhbTgZ8cV6tnhG+FUu78IHKBSXjPkgZRwBeMMNeZ5iI8"
    "oBeQeBRGDiApcrNS7kjkmgsDoNwBiWaFg4eap2rcDlKi0VQ0jnEATvp51vhOalx8diUycklE2lLkGNmi9CvdE0viSj1ykJYysigizYVBfpBK4mE9qvH/P7qu"
    "aNylxseLWWOH1D+S08aE"
)
USR1 = "tcpdump: 5 packets captured, 14 packets received by filter, 0 packets dropped by kernel\n"
END = "7 packets captured\n17 packets received by filter\n0 packets dropped by kernel\n"
LISTENING = "tcpdump: listening on br0, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n"


def unpacked(recorded: str) -> bytes:
    return zlib.decompress(base64.b64decode(recorded))


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (USR1, Counts(5, 14, 0)),
        (END, Counts(7, 17, 0)),
        (LISTENING + USR1 + END, Counts(7, 17, 0)),
        ("1 packet captured\n1 packet received by filter\n1 packet dropped by kernel\n3 packets dropped by interface\n", Counts(1, 1, 4)),
        (LISTENING, None),
        ("", None),
    ],
)
def test_the_last_counts_are_read_however_they_are_written(text: str, counts: Counts | None) -> None:
    assert parse_counts(text) == counts


def test_all_is_written_when_what_is_not_captured_was_dropped() -> None:
    assert Counts(5, 5, 0).all_written
    assert Counts(3, 5, 2).all_written
    assert not Counts(4, 5, 0).all_written


def test_packets_that_the_kernel_dropped_are_an_error() -> None:
    refuse_drops(Counts(5, 5, 0), "br0")
    with pytest.raises(LabError, match="br0 is not whole: 2 of 5 packets were dropped"):
        refuse_drops(Counts(3, 5, 2), "br0")


def test_a_capture_on_all_ports_knows_the_port_of_each_packet() -> None:
    packets = read_pcap(unpacked(COOKED))
    assert {one.link for one in packets} == {"cooked"}
    assert {one.interface for one in packets} == {3, 6}
    assert all(one.source_mac in (b"\x02B\nM\x00\x02", b"\x02B\nM\x00\x04") for one in packets)
    assert packets == sorted(packets, key=lambda one: one.time_s)


@pytest.mark.parametrize("recorded", [COOKED, ETHERNET])
def test_a_recorded_exchange_gives_the_bytes_of_both_directions(recorded: str) -> None:
    (talk,) = conversations(read_pcap(unpacked(recorded)))
    assert talk.client.address == ip_address("10.77.0.2")
    assert talk.server.port == 28085
    assert talk.sent.data == bytes.fromhex("01020304 0005") + b"hello"
    assert talk.received.data == b"\x06"
    assert talk.sent.whole
    assert talk.received.whole


def test_a_vlan_tag_is_passed_over() -> None:
    plain = read_pcap(unpacked(ETHERNET))[0]
    data = bytearray(unpacked(ETHERNET))
    size = int.from_bytes(data[32:36], "little")
    tagged = bytes(data[40:52]) + b"\x81\x00\x00\x07" + bytes(data[52 : 40 + size])
    packet = read_pcap(bytes(data[:32]) + (size + 4).to_bytes(4, "little") * 2 + tagged)[0]
    assert (packet.ethertype, packet.payload) == (plain.ethertype, plain.payload)


@pytest.mark.parametrize("data", [b"", b"not a pcap file at all, by no means", unpacked(COOKED)[:20]])
def test_what_is_no_pcap_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(LabError, match="is no whole pcap file"):
        read_pcap(data)


def test_an_unknown_link_type_is_named() -> None:
    data = bytearray(unpacked(COOKED)[:24])
    data[20:24] = (12).to_bytes(4, "little")
    with pytest.raises(LabError, match="link type 12"):
        read_pcap(bytes(data))


def test_a_filter_is_never_an_option_of_tcpdump() -> None:
    assert command("br0", "-w /etc/passwd")[-2:] == ["--", "-w /etc/passwd"]
    assert command("br0", " ")[-1] == "--"


@pytest.mark.parametrize("filter_", ["inbound", "tcp and (outbound)"])
def test_a_filter_that_would_lose_the_first_packet_is_refused(filter_: str) -> None:
    with pytest.raises(InputError, match="loses the first packet"):
        command("little-a.0", filter_)
    assert command(capturing.ALL_PORTS, filter_)[-1] == filter_


# Capturing, with a tcpdump that is made up


class FakeStream:
    """What a test says that tcpdump writes; at the end of it, it waits for more or for the end of tcpdump."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.data = b""
        self.ended = False

    def add(self, data: bytes) -> None:
        with self.changed:
            self.data += data
            self.changed.notify_all()

    def end(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _take(self, ready: Any, size: Any) -> bytes:
        with self.changed:
            assert self.changed.wait_for(lambda: ready() or self.ended, 10)
            cut = size()
            data, self.data = self.data[:cut], self.data[cut:]
            return data

    def read_some(self, size: int = 1 << 16, *, timeout_s: float | None = None) -> bytes:
        return self._take(lambda: self.data, lambda: len(self.data))

    def read(self, size: int = -1, *, timeout_s: float | None = None) -> bytes:
        return self._take(lambda: False, lambda: len(self.data))

    def readline(self, *, timeout_s: float | None = None) -> bytes:
        return self._take(lambda: b"\n" in self.data, lambda: self.data.find(b"\n") + 1 or len(self.data))


NOTHING = Counts(0, 0, 0)


class FakeTcpdump:
    """Answers the first SIGUSR1 with ``at_first``, every other with the next of ``answers``; ends at SIGINT with the last words ``end``."""

    def __init__(
        self,
        answers: list[Counts],
        end: Counts,
        *,
        at_first: Counts = NOTHING,
        pcap: bytes = b"pcap",
        says: str = LISTENING,
        exit_code: int | None = None,
    ) -> None:
        self.at_first: Counts | None = at_first
        self.argv = ("tcpdump",)
        self.answers = answers
        self.end = end
        self.asked = 0
        self.signals: list[int] = []
        self.stdout, self.stderr = FakeStream(), FakeStream()
        self.stdout.add(pcap)
        self.stderr.add(says.encode())
        self.exit_code = exit_code
        if exit_code is not None:
            self.close()

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        if self.exit_code is not None:
            return
        if number == signal.SIGUSR1:
            one = self.at_first or self.answers[min(self.asked, len(self.answers) - 1)]
            self.asked += 0 if self.at_first else 1
            self.at_first = None
            between, begin = ", ", "tcpdump: "
        else:
            one, between, begin = self.end, "\n", ""
        words = (
            f"{one.captured} packets captured",
            f"{one.received} packets received by filter",
            f"{one.dropped} packets dropped by kernel",
        )
        self.stderr.add(f"{begin}{between.join(words)}\n".encode())
        if number == signal.SIGINT:
            self.exit_code = 0
            self.close()

    def wait(self, timeout_s: float) -> int:
        assert self.exit_code is not None
        return self.exit_code

    def kill(self) -> None:
        self.exit_code = 137
        self.close()

    def close(self) -> None:
        self.stdout.end()
        self.stderr.end()

    def __enter__(self) -> FakeTcpdump:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FakeSwitch:
    name = "switch"

    def __init__(self, tcpdump: FakeTcpdump, *, device_is_there: bool = True) -> None:
        self.tcpdump = tcpdump
        self.device_is_there = device_is_there

    def start(self, argv: list[str]) -> FakeTcpdump:
        self.argv = argv
        return self.tcpdump

    def run(self, argv: list[str], *, timeout_s: float) -> Result:
        assert "-d" in argv
        return Result(tuple(argv), 0 if self.device_is_there else 1, b"", b"", 0.0)


def captured(tcpdump: FakeTcpdump, inside: Any = lambda _: None, *, device_is_there: bool = True, **options: Any) -> capturing.Capture:
    """A capture with ``inside`` called while it runs."""
    switch: Any = FakeSwitch(tcpdump, device_is_there=device_is_there)
    with capture(switch, "br0", **options) as one:
        inside(one)
    return one


def test_it_ends_only_when_all_that_was_received_is_written() -> None:
    tcpdump = FakeTcpdump([Counts(1, 3, 0), Counts(2, 3, 0), Counts(3, 3, 0)], Counts(3, 3, 0))
    assert captured(tcpdump).pcap == b"pcap"
    assert tcpdump.signals == [signal.SIGUSR1] * 4 + [signal.SIGINT]  # the first for what came before it began


def test_packets_from_before_the_filter_do_not_hold_it_for_ever() -> None:
    tcpdump = FakeTcpdump([Counts(0, 2, 0), Counts(3, 5, 0)], Counts(3, 5, 0))
    captured(tcpdump)
    assert tcpdump.asked > 3  # it has looked for a while whether the counts move


def test_dropped_packets_end_it_with_an_error() -> None:
    with pytest.raises(LabError, match="2 of 5 packets were dropped"):
        captured(FakeTcpdump([Counts(3, 5, 2)], Counts(3, 5, 2)))


def test_what_was_dropped_before_the_filter_was_set_is_no_loss() -> None:
    captured(FakeTcpdump([Counts(0, 670, 158)], Counts(0, 670, 158), at_first=Counts(0, 670, 158)))
    with pytest.raises(LabError, match="1 of 671 packets were dropped"):
        captured(FakeTcpdump([Counts(0, 671, 159)], Counts(0, 671, 159), at_first=Counts(0, 670, 158)))


def test_a_capture_too_large_for_memory_is_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "MEMORY_MOST", 3)
    with pytest.raises(LabError, match="in memory") as caught:
        captured(FakeTcpdump([Counts(1, 1, 0)], Counts(1, 1, 0)))
    assert "file" in caught.value.hint


def test_a_file_gets_the_capture_and_memory_nothing(tmp_path: Path) -> None:
    file = tmp_path / "trace.pcap"
    captured(FakeTcpdump([Counts(1, 1, 0)], Counts(1, 1, 0)), file=file)
    assert file.read_bytes() == b"pcap"


def test_a_file_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written to .*No such file"):
        captured(FakeTcpdump([Counts(1, 1, 0)], Counts(1, 1, 0)), file=tmp_path / "nowhere" / "trace.pcap")


def test_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(LabError, match="No space left"):
        captured(FakeTcpdump([Counts(1, 1, 0)], Counts(1, 1, 0)), file=full)


def test_a_filter_that_tcpdump_refuses_is_the_users_error() -> None:
    tcpdump = FakeTcpdump([], Counts(0, 0, 0), says="tcpdump: can't parse filter expression: syntax error\n", exit_code=1)
    with pytest.raises(InputError, match="refuses the filter 'foo bar': can't parse filter expression: syntax error"):
        captured(tcpdump, filter="foo bar")


def test_a_missing_device_is_the_labs_error_whatever_the_filter() -> None:
    tcpdump = FakeTcpdump([], Counts(0, 0, 0), says="tcpdump: br0: No such device exists\n(No such device exists)\n", exit_code=1)
    with pytest.raises(LabError, match="cannot capture on br0 of switch: br0: No such device exists") as caught:
        captured(tcpdump, filter="foo bar", device_is_there=False)
    assert not isinstance(caught.value, InputError)


def test_a_tcpdump_that_ends_in_between_is_an_error() -> None:
    tcpdump = FakeTcpdump([Counts(1, 1, 0)], Counts(1, 1, 0))

    def port_goes(_: object) -> None:
        tcpdump.exit_code = 1
        tcpdump.stderr.add(b"tcpdump: pcap_loop: The interface disappeared\n")
        tcpdump.close()

    with pytest.raises(LabError, match=r"exit code 1:(.|\n)*disappeared"):
        captured(tcpdump, port_goes)


def test_an_error_inside_the_block_stays_what_it_is() -> None:
    tcpdump = FakeTcpdump([Counts(1, 2, 0)], Counts(1, 2, 0))
    with pytest.raises(ZeroDivisionError):
        captured(tcpdump, lambda _: 1 // 0)
    assert signal.SIGINT not in tcpdump.signals


def test_a_capture_is_not_read_while_it_runs() -> None:
    with pytest.raises(RuntimeError):
        captured(FakeTcpdump([Counts(1, 1, 0)], Counts(1, 1, 0)), lambda running: running.packets())
