"""Captures in the switch of a real lab: nothing is lost, nothing is seen on the hosts."""

from __future__ import annotations

import io
import signal
import time
from pathlib import Path

import pytest

from testbed.capture import ALL_PORTS, capture, read_pcap, show
from testbed.errors import InputError, LabError
from testbed.lab import Lab
from testbed.wire import datagrams
from tests.lab.support import started, topology

PAIR = "networks: {lan: }\nhosts: {a: , b: {kind: emulated}}\n"
# COUNT datagrams of SIZE bytes, numbered, to port 9 of ADDRESS, as fast as they go.
BURST = """
import socket, sys
address, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(count):
    s.sendto(number.to_bytes(4, "big") + bytes(size - 4), (address, 9))
"""


pytestmark = topology(PAIR)


def burst(lab: Lab, count: int, size: int, *, host: str = "a", to: str = "b") -> None:
    lab.host(host).run(["python3", "-c", BURST, address(lab, to), str(count), str(size)]).check()


def address(lab: Lab, host: str) -> str:
    return str(lab.host(host).addresses["lan"][0])


@pytest.mark.parametrize("sender", ["a", "b"])
def test_every_datagram_of_a_host_is_captured_at_its_port_also_the_last_one(lab: Lab, sender: str) -> None:
    receiver = {"a": "b", "b": "a"}[sender]
    for _ in range(5):
        with lab.switch as switch, capture(switch, lab.port(sender, "lan"), filter="udp port 9", snap=200) as seen:
            burst(lab, 300, 100, host=sender, to=receiver)
        numbers = [int.from_bytes(one.data[:4], "big") for one in datagrams(seen.packets())]
        assert numbers == list(range(300))


def test_a_datagram_in_fragments_is_put_together(lab: Lab) -> None:
    with (
        lab.switch as switch,
        capture(switch, lab.port("a", "lan"), filter=f"src host {address(lab, 'a')} and (udp or ip[6:2] & 0x1fff != 0)") as seen,
    ):
        burst(lab, 2, 60_000)
    assert [len(one.data) for one in datagrams(seen.packets())] == [60_000, 60_000]
    assert len(seen.packets()) == 2 * 41


def test_all_ports_at_once_show_each_packet_where_it_came_in(lab: Lab) -> None:
    with lab.switch as switch, capture(switch, ALL_PORTS, filter="inbound and icmp") as seen:
        lab.host("a").run(["ping", "-c", "2", "-i", "0.01", address(lab, "b")]).check()
    interfaces = [one.interface for one in seen.packets()]
    assert len(interfaces) == 4
    assert interfaces[:2] == interfaces[2:]
    assert interfaces[0] != interfaces[1]


def test_packets_that_the_kernel_had_no_room_for_are_an_error(lab: Lab) -> None:
    def too_much() -> None:
        with lab.switch as switch, capture(switch, lab.port("a", "lan"), filter="udp") as seen:
            # tcpdump stands still while more comes than the kernel keeps for it.
            seen.send_signal(signal.SIGSTOP)
            burst(lab, 2000, 1000)
            seen.send_signal(signal.SIGCONT)

    with pytest.raises(LabError, match="packets were dropped"):
        too_much()


def test_a_filter_set_under_traffic_does_not_hold_the_end(lab: Lab) -> None:
    with lab.host("a").start(["python3", "-c", BURST, address(lab, "b"), "100000000", "10"]), lab.switch as switch:
        for _ in range(5):
            begin = time.monotonic()
            with capture(switch, lab.port("a", "lan"), filter="tcp port 7") as seen:
                pass
            assert seen.packets() == []
            assert time.monotonic() - begin < 5


def test_a_capture_without_immediate_mode_bears_a_burst_of_large_datagrams(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "burst.pcap"
    with lab.switch as switch, capture(switch, lab.port("a", "lan"), filter="udp port 9", file=file, immediate=False):
        burst(lab, 5000, 1000)
    assert len(datagrams(read_pcap(file.read_bytes()))) == 5000


def test_a_wrong_filter_is_the_users_error_and_a_wrong_device_the_labs(lab: Lab) -> None:
    with lab.switch as switch:
        for wrong in ("port port", "-w /tmp/x"):
            with pytest.raises(InputError, match="can't parse filter expression"), capture(switch, lab.port("a", "lan"), filter=wrong):
                pass
        with pytest.raises(LabError, match="No such device") as caught, capture(switch, "nothing", filter="port port"):
            pass
    assert not isinstance(caught.value, InputError)


def test_packets_are_shown_as_lines_and_the_count_ends_it(lab: Lab) -> None:
    output = io.BytesIO()
    with lab.switch as switch, lab.host("a").start(["ping", "-i", "0.05", address(lab, "b")]):
        show(switch, lab.port("a", "lan"), "icmp", count=4, output=output)
        assert len(output.getvalue().splitlines()) == 4
        assert b"ICMP echo request" in output.getvalue()
        show(switch, lab.port("a", "lan"), "icmp", duration_s=0.5, output=output)
        assert len(output.getvalue().splitlines()) > 4


def test_a_capture_ends_by_ctrl_c_with_a_whole_file(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "trace.pcap"
    with started("capture", "--write", file, f"{lab.name}/a", "icmp") as process:
        deadline = time.monotonic() + 20
        # The file has its header once tcpdump listens.
        while not file.exists() or file.stat().st_size < 24:
            assert time.monotonic() < deadline
            lab.host("a").run(["true"]).check()
        lab.host("a").run(["ping", "-c", "2", "-i", "0.01", address(lab, "b")]).check()
        process.send_signal(signal.SIGINT)
        output, complaints = process.communicate(timeout=20)
    assert (process.returncode, output, complaints) == (0, b"", b"")
    assert len(read_pcap(file.read_bytes())) == 4
