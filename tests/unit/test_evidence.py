"""A page about each host for the terminal."""

from __future__ import annotations

from testbed import evidence
from testbed.agent import Transport
from testbed.errors import LabError
from testbed.host import Host, HostFacts
from testbed.transcript import Transcript

SOCKETS = """\
$ ss -tuwanpemi
Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port Process
tcp   LISTEN 5      4            0.0.0.0:8001      0.0.0.0:*    users:(("listener",pid=7,fd=3)) ino:1 sk:1
\t skmem:(r0,rb131072)
udp   UNCONN 0      0            0.0.0.0:53        0.0.0.0:*
"""


def host() -> Host:
    def nowhere() -> Transport:
        raise LabError("no host is asked here")

    made = Host(HostFacts("lab", "server", "emulated", "s390x", "big", "id", {}), nowhere)
    made.transcript = Transcript()
    return made


def test_a_host_is_shown_with_its_sockets_and_what_ran_there() -> None:
    server = host()
    assert server.transcript
    entry = server.transcript.begin(["listener", "8001"])
    entry.wrote(1, b"".join(b"line %d\n" % number for number in range(20)))
    lines = evidence._about(server, {"server/sockets.txt": SOCKETS})
    assert lines[:4] == [
        "server (emulated s390x):",
        "  tcp LISTEN 5 4 0.0.0.0:8001 0.0.0.0:*",
        "  udp UNCONN 0 0 0.0.0.0:53 0.0.0.0:*",
        "  listener 8001: runs",
    ]
    assert lines[4:] == [f"    | line {number}" for number in range(20 - evidence.LINES, 20)]


def test_what_is_too_much_is_counted() -> None:
    server = host()
    assert server.transcript
    for number in range(evidence.COMMANDS + 3):
        server.transcript.begin(["echo", str(number), "x" * 500]).ending = "exit code 0"
    rows = "".join(f"tcp LISTEN 0 1 0.0.0.0:{port} 0.0.0.0:*\n" for port in range(evidence.LINES + 2))
    lines = evidence._about(server, {"server/sockets.txt": rows})
    assert "  and 2 more sockets" in lines
    assert "  (3 commands before these)" in lines
    assert max(map(len, lines)) < 200


def test_a_host_that_is_gone_is_shown_as_that() -> None:
    assert evidence._about(host(), {"server/gone.txt": "host server is gone: exit code 137\n"}) == [
        "server (emulated s390x):",
        "  host server is gone: exit code 137",
    ]


def test_a_program_of_many_lines_is_one_line() -> None:
    server = host()
    assert server.transcript
    server.transcript.begin(["python3", "-c", "import socket\nprint(1)\n"])
    assert evidence._about(server, {})[1:] == ["  python3 -c import socket print(1): runs"]


def test_nothing_that_a_terminal_would_obey_is_shown() -> None:
    server = host()
    assert server.transcript
    server.transcript.begin(["show"]).wrote(1, b"\x1b[2Jclear\ttab \xc3\xb6\n")
    assert evidence._about(server, {})[-1] == "    | \\x1b[2Jclear\ttab ö"
