"""Real programs with known faults, out of PyPI and Debian, and programs that run alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.capture import read_pcap
from testbed.endian import plan, run
from testbed.endian_report import verdict
from testbed.endian_run import Outcome
from tests.lab.support import run_testbed

pytestmark = pytest.mark.long

PROGRAMS = Path(__file__).parent / "endian"
PCOM = "messages: [{over: tcp, fields: [{transaction: 2}, {mode: 1}, {reserved: 1}, {length: {width: 2, order: little}}]}]"


def of_scapy(version: str, script: str, *, vm: bool = False, fields: Path | None = None) -> Outcome:
    return run(plan(script=str(PROGRAMS / script), pip=[f"scapy=={version}"], repeat=2, vm=vm, timeout_s=60, fields=fields))


@pytest.mark.parametrize("vm", [False, True], ids=["emulated", "vm"])
def test_scapy_2_5_0_sends_a_coap_option_delta_in_host_order(*, vm: bool) -> None:
    result = of_scapy("2.5.0", "send_coap.py", vm=vm)
    (found,) = result.judgement.findings
    assert found.difference is not None
    assert (found.role, str(found.channel)) == ("client", "UDP datagram 1")
    assert (
        found.little[found.difference.place.offset - 1 :][:3].hex(" "),
        found.big[found.difference.place.offset - 1 :][:3].hex(" "),
    ) == (
        "e1 14 00",
        "e1 00 14",
    )
    assert found.difference.place.width == 2
    assert any("the big-endian side is right" in one for one in found.details)


def test_scapy_2_5_0_sends_the_length_of_pcom_in_host_order_and_there_the_little_endian_side_is_right(tmp_path: Path) -> None:
    (tmp_path / "pcom.yaml").write_text(PCOM)
    (found,) = of_scapy("2.5.0", "send_pcom.py", fields=tmp_path / "pcom.yaml").judgement.findings
    assert found.difference is not None
    assert (found.difference.little.hex(" "), found.difference.big.hex(" ")) == ("05 00", "00 05")
    assert found.details[0] == "it is the field `length`"
    assert "it is described as little-endian: the little-endian side is right, and htole16() is right on both" in found.details


@pytest.mark.parametrize("script", ["send_coap.py", "send_pcom.py"])
def test_scapy_2_6_0_is_right_in_both(script: str) -> None:
    result = of_scapy("2.6.0", script)
    assert verdict(result) == "NO FINDING"
    assert result.judgement.compared > 8


def test_a_program_of_debian_runs_on_both_byte_orders() -> None:
    """As a server and a client, over TCP."""
    arguments = ["--server", "socat -u TCP-LISTEN:7000,reuseaddr STDOUT", "--client", "sh -c 'echo hello | socat -u STDIN TCP:server:7000'"]
    result = run_testbed("endian", "--package", "socat", *arguments, "--repeat", "2", "--json")
    assert result.exit_code == 0, result.error_text
    data = json.loads(result.text)
    assert {run["server"]["stdout"] for pair in data["pairs"] for run in pair["runs"]} == {"hello\n"}


SENDS = """
import socket, struct, sys
with socket.create_connection(("10.99.88.77", 1)) as connection:  # nobody has that address
    connection.sendall(struct.pack("=I", 4711))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(struct.pack("=H", 0x0102), ("192.0.2.1", 65535))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
raw.sendto(struct.pack("=Q", 0x0102030405060708), ("server", 0))
frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
frames.bind(("eth0", 0))
frames.send(b"\\xff" * 6 + frames.getsockname()[4] + struct.pack("!H", 0x88B5) + struct.pack("=I", 99) + bytes(42))
"""


def test_whatever_is_sent_to_whomever_counts(tmp_path: Path) -> None:
    (tmp_path / "sends.py").write_text(SENDS)
    result = run_testbed(
        *("endian", "--script", tmp_path / "sends.py", "--repeat", "2", "--json", "--keep", tmp_path), "--html", tmp_path / "page.html"
    )
    assert result.exit_code == 1, result.error_text
    found = [(one["message"], one["offset"], one["width"]) for one in json.loads(result.text)["findings"]]
    assert found == [
        ("frame 1 of ethertype 0x88b5", 0, 4),
        ("IP packet 1 of protocol 253", 0, 8),
        ("TCP connection 1", 0, 4),
        ("UDP datagram 1", 0, 2),
    ]
    assert {path.name for path in tmp_path.glob("*.pcap")} == {"little.pcap", "big.pcap"}
    assert any(packet.ethertype == 0x88B5 for packet in read_pcap((tmp_path / "big.pcap").read_bytes()))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 8


@pytest.mark.parametrize(
    ("script", "said"),
    [("true", "Nothing was sent"), ("sh -c 'head -c 64 /dev/urandom | nc -u -q 0 server 7000'", "Nothing could be compared")],
)
def test_what_says_nothing_about_byte_orders_is_no_pass(script: str, said: str) -> None:
    result = run_testbed("endian", "--script", script, "--repeat", "2")
    assert result.exit_code == 4, result.error_text
    assert said in result.text


@pytest.mark.long
def test_a_script_that_sends_more_than_can_be_kept_is_told_to_send_less() -> None:
    result = run_testbed("endian", "--script", "sh -c 'head -c 80000000 /dev/zero | nc -N server 7000'", "--repeat", "2")
    assert result.exit_code == 3, result.text
    assert "let the program send less" in result.error_text


def test_wireshark_names_the_fields(tmp_path: Path) -> None:
    (tmp_path / "dns.py").write_text(
        "import socket, struct\n"
        "query = struct.pack('=H', 0x0102) + struct.pack('!HHHHH', 0x0100, 1, 0, 0, 0) + b'\\x01a\\x00' + struct.pack('!HH', 1, 1)\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(query, ('server', 5300))\n"
    )
    result = run_testbed("endian", "--script", tmp_path / "dns.py", "--dissect", "dns", "--repeat", "2", "--json")
    assert result.exit_code == 1, result.error_text
    (found,) = json.loads(result.text)["findings"]
    assert found["details"][0] == "it is the field `dns.id`"
