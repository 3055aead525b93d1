"""Real programs on hosts of both byte orders: each of the usual mistakes is found, and a right program is not accused."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.architecture import EMULATED, of_machine
from testbed.capture import read_pcap
from testbed.endian import assert_same
from testbed.endian_compare import Place
from testbed.endian_program import read
from testbed.endian_report import verdict
from testbed.endian_run import Outcome, Plan, endian
from testbed.endian_runs import BIG, LITTLE, PAIRS
from testbed.engine import Engine
from testbed.errors import CheckFailed, InputError
from testbed.lab import down, read_parts
from testbed.process import run_local
from tests.lab.support import run_testbed

SOURCES = Path(__file__).parent / "endian"
EXAMPLE = Path(__file__).parents[2] / "examples" / "byte-order"
MENDED = {
    "client.c": [(".length = (uint16_t)strlen(text), .id = 4711", ".length = htons((uint16_t)strlen(text)), .id = htonl(4711)")],
    "server.c": [
        ("    char text[256];", "    header.length = ntohs(header.length);\n    header.id = ntohl(header.id);\n    char text[256];")
    ],
}
SERVER = f"{SOURCES / 'server.c'} {SOURCES / 'common.c'}"


@pytest.fixture
def name(engine: Engine) -> Iterator[str]:
    """The name of a lab, of which nothing is left afterwards."""
    name = f"t{uuid.uuid4().hex[:8]}"
    yield name
    left = name in read_parts(engine)
    down(engine, name)
    assert not left


def outcome(name: str, client: str, server: str = SERVER, **options: object) -> Outcome:
    """A client of tests/lab/endian with the mistake that it is told, run twice on each pair."""
    programs = {"client": read("client", client), "server": read("server", server)}
    return endian(Plan(programs, **{"repeat": 2, **options}), name=name)  # type: ignore[arg-type]


def written(folder: Path, **texts: str) -> tuple[Path, ...]:
    """A Python file for each role."""
    files = tuple(folder / f"{role}.py" for role in texts)
    for file, text in zip(files, texts.values(), strict=True):
        file.write_text(text)
    return files


def found(of: Outcome) -> list[tuple[str | None, str, Place | None]]:
    return [
        (one.role, one.difference.kind if one.difference else "", one.difference.place if one.difference else None)
        for one in of.judgement.findings
    ]


def test_a_right_program_has_no_finding_and_its_process_id_is_set_aside(name: str) -> None:
    result = outcome(name, f"{SOURCES / 'client.c'} right", repeat=3)
    assert verdict(result) == "NO FINDING"
    assert all(run.well for runs in result.runs.values() for run in runs)
    assert [len(result.runs[pair]) for pair in PAIRS] == [3, 3, 3, 3]
    assert result.judgement.set_aside > 0
    (own,) = {run.endings["server"].stdout for runs in result.runs.values() for run in runs}
    assert own == "11 bytes\n"


@pytest.mark.parametrize(
    ("mistake", "places"),
    [
        pytest.param("length", [Place(0, 2)], marks=pytest.mark.long),
        ("struct", [Place(1, 2), Place(3, 4), Place(7, 8)]),
        pytest.param("long", [Place(0, 8)], marks=pytest.mark.long),
    ],
)
def test_words_in_host_order_are_found_at_their_offsets_and_widths(name: str, mistake: str, places: list[Place]) -> None:
    assert found(outcome(name, f"{SOURCES / 'client.c'} {mistake}")) == [("client", "reversed", place) for place in places]


@pytest.mark.long
def test_bit_fields_are_found(name: str) -> None:
    assert found(outcome(name, f"{SOURCES / 'client.c'} bits")) == [("client", "bit fields", Place(1, 1))]


@pytest.mark.long
def test_a_port_without_htons_is_found_though_the_client_never_comes_through(name: str) -> None:
    result = outcome(name, f"{SOURCES / 'client.c'} port")
    (finding,) = result.judgement.findings
    assert "it connects to port 22555 (0x581b) from the little-endian host, 7000 (0x1b58) from the big-endian one" in finding.title
    assert not result.runs[LITTLE][0].well
    assert result.runs[BIG][0].well


@pytest.mark.long
def test_a_time_in_host_order_is_found_although_it_differs_in_every_run(name: str) -> None:
    result = outcome(name, f"{SOURCES / 'client.c'} time", repeat=3)
    assert found(result) == [("client", "reversed", Place(0, 4))]


@pytest.mark.long
def test_over_ipv6_it_is_the_same(name: str) -> None:
    result = outcome(name, f"{SOURCES / 'client.c'} length", ipv6=True)
    assert found(result) == [("client", "reversed", Place(0, 2))]
    assert any(packet.ethertype == 0x86DD for packet in read_pcap(result.pcap_of(LITTLE)))


@pytest.mark.long
def test_big_endian_kernels_show_the_same(name: str) -> None:
    result = outcome(name, f"{SOURCES / 'client.c'} long", vm=True)
    assert sorted(result.hosts.values()) == ["native", "native", "vm", "vm"]
    assert found(result) == [("client", "reversed", Place(0, 8))]


@pytest.mark.long
def test_programs_that_the_user_has_built_run_on_the_hosts_that_they_are_for(tmp_path: Path) -> None:
    sources = {"server": [SOURCES / "server.c", SOURCES / "common.c"], "client": [SOURCES / "client.c", SOURCES / "common.c"]}
    files = []
    for one in (of_machine(), EMULATED):
        (tmp_path / one.name).mkdir()
        for role, of in sources.items():
            files.append(tmp_path / one.name / role)
            run_local([one.compiler, "-static", "-o", str(files[-1]), *map(str, of)], timeout_s=60).check()
    with pytest.raises(CheckFailed, match="offset 0, 2 bytes, sent in host order"):
        assert_same(server="server", client="client length", files=files, repeat=2)
    with pytest.raises(InputError, match=r"server' is a program for \w+ only, and big-endian hosts are s390x"):
        assert_same(server="server", client="client length", files=files[:2], repeat=2)


UDP_SERVER = """
import socket, struct
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.bind(("", 7001))
while True:
    data, peer = own.recvfrom(100)
    own.sendto(struct.pack("=I", len(data)), peer)
"""
UDP_CLIENT = """
import socket
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.settimeout(5)
own.sendto(b"how long is this?", ("server", 7001))
print(len(own.recv(100)), "bytes came back")
"""


@pytest.mark.long
def test_a_command_with_files_over_udp_and_a_server_that_serves_on(name: str, tmp_path: Path) -> None:
    files = written(tmp_path, server=UDP_SERVER, client=UDP_CLIENT)
    result = outcome(name, "python3 client.py", "python3 server.py", files=files)
    assert found(result) == [("server", "reversed", Place(0, 4))]
    assert {run.endings["server"].words for runs in result.runs.values() for run in runs} == {"serves on"}


LENGTH_SERVER = """
import socket, struct
peer, _ = socket.create_server(("", 7002)).accept()
(length,) = struct.unpack("=H", peer.recv(2, socket.MSG_WAITALL))
peer.recv(length, socket.MSG_WAITALL)
peer.sendall(b"ok")
"""
LENGTH_CLIENT = """
import socket, struct
own = socket.create_connection(("server", 7002))
own.sendall(struct.pack("=H", 5) + b"hello")
own.recv(2, socket.MSG_WAITALL)
"""


@pytest.mark.long
def test_pairs_that_wait_for_ever_are_ended_and_run_twice_at_most(name: str, tmp_path: Path) -> None:
    """Of 5 in the other byte order, 1280, the server waits for bytes that never come, and the client for its answer."""
    files = written(tmp_path, server=LENGTH_SERVER, client=LENGTH_CLIENT)
    result = outcome(name, "python3 client.py", "python3 server.py", files=files, repeat=3, timeout_s=4)
    assert found(result) == [("client", "reversed", Place(0, 2))]
    assert {pair: len(runs) for pair, runs in result.runs.items()} == {LITTLE: 3, BIG: 3, ("little", "big"): 2, ("big", "little"): 2}
    late = {run.endings["client"].words for pair, runs in result.runs.items() for run in runs if pair not in (LITTLE, BIG)}
    assert late == {"did not end within 4 s"}


@pytest.mark.long
def test_broadcast_and_multicast_go_to_the_own_pair_only_and_a_client_is_given_its_input(name: str, tmp_path: Path) -> None:
    """Two pairs run at the same time on one network: what one of them tells everybody is not for the other."""
    (tmp_path / "words.txt").write_text("hello everybody\n")
    result = outcome(name, str(SOURCES / "everybody_client.c"), str(SOURCES / "everybody_server.c"), input=tmp_path / "words.txt")
    assert found(result) == [("client", "reversed", Place(0, 2))] * 2
    heard = {pair: {run.endings["server"].stdout for run in runs} for pair, runs in result.runs.items()}
    assert heard == {pair: {"10 00\n10 00\n" if pair[0] == "little" else "00 10\n00 10\n"} for pair in PAIRS}


WITHOUT_AN_ADDRESS = """
import os, socket, struct
os.chroot("/root")
datagram = struct.pack("!4H", 68, 67, 8 + 4, 0) + struct.pack("=I", 4711)
header = struct.pack("!2B3H2BH4s4s", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0, bytes(4), b"\\xff" * 4)
total = sum(struct.unpack("!10H", header))
header = header[:10] + struct.pack("!H", 0xFFFF - total % 0xFFFF) + header[12:]
own = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
own.sendto(header + datagram, ("eth0", 0x0800, 0, 0, b"\\xff" * 6))
"""


@pytest.mark.long
def test_a_program_alone_may_have_no_address_yet_and_change_its_root(tmp_path: Path) -> None:
    """As DHCP clients and daemons do."""
    (tmp_path / "discover.py").write_text(WITHOUT_AN_ADDRESS)
    with pytest.raises(CheckFailed, match=r"offset 0, 4 bytes, sent in host order: 67 12 00 00 from the little-endian"):
        assert_same(script=str(tmp_path / "discover.py"), repeat=2)


def test_the_command_shows_findings_keeps_packets_and_leaves_with_1(tmp_path: Path) -> None:
    arguments: list[str | Path] = [
        "--server",
        SERVER,
        "--client",
        f"{SOURCES / 'client.c'} length",
        "--repeat",
        "2",
        "--keep",
        tmp_path / "packets",
    ]
    shown = run_testbed("endian", *arguments)
    assert shown.exit_code == 1, shown.error_text
    assert "offset 0, 2 bytes, sent in host order: 05 00 from the little-endian host, 00 05" in shown.text
    assert "1 finding: the program is not the same on both byte orders." in shown.text
    kept = sorted(tmp_path.glob("packets/*.pcap"))
    assert [path.stem for path in kept] == ["big-to-big", "big-to-little", "little-to-big", "little-to-little"]
    assert all(b"hello" in path.read_bytes() for path in kept)
    assert all(read_pcap(path.read_bytes()) for path in kept)


@pytest.mark.long
def test_nothing_sent_has_an_exit_code_of_its_own_and_json_says_so() -> None:
    result = run_testbed("endian", "--server", SERVER, "--client", f"{SOURCES / 'client.c'} nothing", "--repeat", "2", "--json")
    assert result.exit_code == 4, result.error_text
    data = json.loads(result.text)
    assert (data["verdict"], data["sent"]) == ("NOTHING SENT", 0)


def test_what_is_the_users_mistake_is_said_before_a_lab_is_made(tmp_path: Path) -> None:
    (tmp_path / "wrong.c").write_text("int main(void) { return x; }\n")
    result = run_testbed("endian", "--server", SERVER, "--client", tmp_path / "wrong.c")
    assert result.exit_code == 2
    assert "the client does not compile for" in result.error_text
    assert "wrong.c:1:" in result.error_text


def test_a_command_that_hosts_do_not_have_is_the_users_mistake(name: str) -> None:
    with pytest.raises(InputError, match="nonsense"):
        outcome(name, "nonsense", SERVER)


@pytest.mark.long
def test_the_example_has_the_findings_of_the_walk_through_and_none_when_mended(name: str, tmp_path: Path) -> None:
    """docs/endian.md tells it."""
    result = outcome(name, f"{EXAMPLE / 'client.c'} hello", str(EXAMPLE / "server.c"))
    assert found(result) == [("client", "reversed", Place(2, 2)), ("client", "reversed", Place(4, 4))]
    assert [all(run.well for run in result.runs[pair]) for pair in PAIRS] == [True, False, False, True]
    for file, changes in MENDED.items():
        text = (EXAMPLE / file).read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / file).write_text(text)
    (tmp_path / "message.h").write_bytes((EXAMPLE / "message.h").read_bytes())
    assert verdict(outcome(name, f"{tmp_path / 'client.c'} hello", str(tmp_path / "server.c"))) == "NO FINDING"


@pytest.mark.long
def test_as_an_assertion_the_findings_are_its_message() -> None:
    with pytest.raises(CheckFailed) as failed:
        assert_same(server=SERVER, client=f"{SOURCES / 'client.c'} bits", repeat=2)
    assert "looks like bit fields: 54 from the little-endian host, 45 from the big-endian one" in " ".join(failed.value.message.split())
