"""What ss and /proc/net say of sockets, and who they belong to: from recorded texts, and with a host that is this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from testbed.errors import DeadlineExceeded, InputError, LabError
from testbed.host import Host
from testbed.network import Endpoint
from testbed.observe import (
    Socket,
    SocketOwner,
    State,
    Timer,
    chosen,
    is_of,
    listen_queue,
    listening_sockets,
    open_sockets,
    parse_listening,
    parse_sockets,
    parse_stat,
    read_state,
)
from testbed.process import Result
from tests.unit.test_agent import host, pipes, program  # noqa: F401  # fixtures

# A server that does not accept, with a backlog of 2, and other sockets of one program; iproute2 6.1 on Linux 6.18.
SS = """\
udp UNCONN    832    0                 0.0.0.0:5353             0.0.0.0:*     users:(("python",pid=19245,fd=7)) ino:5875050 sk:101e cgroup:/ <->
udp ESTAB     0      0               127.0.0.1:46802          127.0.0.1:5353  users:(("python",pid=19245,fd=9)) ino:5875052 sk:101f <->
udp UNCONN    0      0             10.9.9.1%lo:68               0.0.0.0:*     users:(("python",pid=19245,fd=17)) ino:5874358 sk:1020 <->
udp UNCONN    0      0                       *:5354                   *:*     users:(("python",pid=19245,fd=8)) ino:5875051 sk:1021 v6only:0 <->
tcp LISTEN    3      2               127.0.0.1:8001             0.0.0.0:*     users:(("python",pid=19245,fd=3)) ino:5875045 sk:1022 cgroup:/ <->
tcp ESTAB     0      0               127.0.0.1:8001           127.0.0.1:55344 ino:0 sk:1023 cgroup:/ <->
tcp ESTAB     0      0               127.0.0.1:55344          127.0.0.1:8001  users:(("python",pid=19245,fd=11)) timer:(keepalive,119min,0) ino:5875053 sk:1027 cgroup:/ <->
tcp SYN-SENT  0      1               127.0.0.1:55372          127.0.0.1:8001  users:(("python",pid=19245,fd=16)) timer:(on,984ms,0) ino:5875060 sk:102a cgroup:/ <->
tcp LISTEN    0      128                 [::1]:8003                [::]:*     users:(("python",pid=19245,fd=5)) ino:5875048 sk:102b cgroup:/ v6only:1 <->
tcp LISTEN    0      128                     *:8002                   *:*     users:(("python",pid=19245,fd=4)) ino:5875047 sk:102c cgroup:/ v6only:0 <->
tcp TIME-WAIT 0      0                   [::1]:49000              [::1]:8002  timer:(timewait,59sec,0) ino:0 sk:102e
tcp ESTAB     100    0      [::ffff:127.0.0.1]:8002  [::ffff:127.0.0.1]:39772 users:(("python",pid=19245,fd=14)) ino:5875056 sk:102f cgroup:/ <->
"""  # noqa: E501
# Of a server on a guest with a big-endian kernel (Linux 6.1 on s390x), half of whose handshake is done.
SS_BIG_ENDIAN = """\
tcp LISTEN   0 4               *:8001            *:*     users:(("nc -k -l",pid=301,fd=3),("sh",pid=300,fd=3)) uid:65534 ino:1923 sk:1 cgroup:/ v6only:0 <->
tcp SYN-RECV 0 0       [::ffff:10.77.0.3]:8001 [::ffff:10.77.0.2]:40000 timer:(on,9.876ms,2) ino:0 sk:2 <->
tcp ESTAB    0 0 [fe80::1]%eth0:546 [fe80::2]:547 ino:1 sk:3
"""  # noqa: E501


def endpoint(address: str, port: int) -> Endpoint:
    return Endpoint(ip_address(address), port)


def test_every_line_of_ss_is_a_socket() -> None:
    found = parse_sockets(SS)
    assert len(found) == 12
    assert found[4] == Socket(
        protocol="tcp",
        family="IPv4",
        state="LISTEN",
        local=endpoint("127.0.0.1", 8001),
        peer=None,
        receive_queue=3,
        send_queue=2,
        owners=(SocketOwner("python", 19245, 3),),
        inode=5875045,
    )
    assert found[5].owners == (), "it waits to be accepted"
    assert found[5].inode is None
    assert found[6].timer == Timer("keepalive", 119 * 60, 0)
    assert found[7].timer == Timer("on", 0.984, 0)
    assert (found[0].state, found[0].receive_queue, found[0].peer) == ("CLOSE", 832, None)
    assert (found[1].state, found[1].peer) == ("ESTABLISHED", endpoint("127.0.0.1", 5353))
    assert (found[2].local, found[2].interface) == (endpoint("10.9.9.1", 68), "lo")


def test_a_socket_of_ipv6_may_serve_both() -> None:
    found = {one.local.port: one for one in parse_sockets(SS) if one.family == "IPv6"}
    assert found[5354].local == endpoint("::", 5354)
    assert found[5354].dual_stack
    assert found[8003].local == endpoint("::1", 8003)
    assert not found[8003].dual_stack
    assert found[8002].peer == endpoint("::ffff:127.0.0.1", 39772)


def test_the_sockets_of_a_big_endian_host_read_the_same() -> None:
    listening, half_open, link_local = parse_sockets(SS_BIG_ENDIAN)
    assert listening.owners == (SocketOwner("nc -k -l", 301, 3), SocketOwner("sh", 300, 3))
    assert (listening.uid, listening.inode) == (65534, 1923)
    assert (half_open.state, half_open.timer) == ("SYN_RECV", Timer("on", 9.876, 2))
    assert (link_local.local, link_local.interface) == (endpoint("fe80::1", 546), "eth0")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("", 0), ("200ms", 0.2), ("1.040ms", 1.04), ("29sec", 29), ("1min", 60), ("1min58sec", 118), ("119min", 7140)],
)
def test_a_timer_is_read_as_ss_writes_it(written: str, seconds: float) -> None:
    (one,) = parse_sockets(f"tcp ESTAB 0 0 10.0.0.1:1 10.0.0.2:2 timer:(on,{written},7) ino:1 sk:1")
    assert one.timer is not None
    assert one.timer.expires_s == pytest.approx(seconds)
    assert one.timer.retransmissions == 7


@pytest.mark.parametrize("line", ["raw UNCONN 0 0 *:1 *:*", "tcp ESTAB 0 0 nowhere *:*", "tcp DREAMING 0 0 *:1 *:*", "tcp"])
def test_a_line_that_is_not_understood_is_an_error(line: str) -> None:
    with pytest.raises(LabError, match="not understood"):
        parse_sockets(line)


@pytest.mark.parametrize(
    ("wanted", "ports"),
    [
        ({"port": 8001}, [8001, 8001]),
        ({"port": 8001, "state": "listen"}, [8001]),
        ({"peer_port": 8001}, [55344, 55372]),
        ({"state": "time-wait"}, [49000]),
        ({"state": "SYN_SENT"}, [55372]),
        ({"protocol": "udp", "state": "ESTAB"}, [46802]),
        ({"protocol": "tcp", "address": "127.0.0.1", "state": "ESTABLISHED"}, [8001, 55344, 8002]),
        ({"address": ip_address("::1")}, [8003, 49000]),
        ({"port": 1}, []),
    ],
)
def test_sockets_are_chosen(wanted: dict[str, Any], ports: list[int]) -> None:
    assert [one.local.port for one in chosen(parse_sockets(SS), **wanted)] == ports


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"state": "TIMEWAIT"}, "no state 'TIMEWAIT' of a socket, did you mean 'TIME_WAIT'"),
        ({"protocol": "sctp"}, "no protocol 'sctp'"),
        ({"address": "localhost"}, "'localhost' is not an address"),
    ],
)
def test_what_cannot_be_chosen_is_named(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        chosen([], **wanted)


@pytest.mark.parametrize(
    ("written", "state"),
    [("LISTEN", "LISTEN"), ("fin-wait-1", "FIN_WAIT1"), ("FIN_WAIT2", "FIN_WAIT2"), ("UNCONN", "CLOSE"), ("syn_received", "SYN_RECV")],
)
def test_a_state_may_be_written_in_many_ways(written: str, state: State) -> None:
    assert read_state(written) == state


# The accept queue


def test_a_listen_queue_has_what_waits_and_what_is_on_the_way() -> None:
    queue = listen_queue(parse_sockets(SS), "server", 8001, overflows=7, drops=9)
    assert (queue.waiting, queue.limit, queue.half_open, queue.overflows, queue.drops) == (3, 2, 0, 7, 9)
    assert queue.full
    queue = listen_queue(parse_sockets(SS_BIG_ENDIAN), "server", 8001, overflows=0, drops=0)
    assert (queue.waiting, queue.limit, queue.half_open, queue.full) == (0, 4, 1, False)


def test_nobody_listens() -> None:
    with pytest.raises(LabError, match="nobody listens on TCP port 9000 of host server") as caught:
        listen_queue(parse_sockets(SS), "server", 9000, overflows=0, drops=0)
    assert caught.value.hint == "listened on: 8001 (python), 8003 (python), 8002 (python)"
    with pytest.raises(LabError, match=r"nobody listens on TCP port 8001 at 10\.0\.0\.1 of host server"):
        listen_queue(parse_sockets(SS), "server", 8001, overflows=0, drops=0, address="10.0.0.1")
    with pytest.raises(LabError) as caught:
        listen_queue([], "server", 8001, overflows=0, drops=0)
    assert caught.value.hint == "nothing listens there"


def test_of_several_listeners_one_is_chosen_by_its_address() -> None:
    both = parse_sockets(
        "tcp LISTEN 1 5 10.0.0.1:80 0.0.0.0:* ino:1 sk:1\n"
        "tcp LISTEN 2 6 [::1]:80 [::]:* ino:2 sk:2 v6only:1\n"
        "tcp SYN-RECV 0 0 10.0.0.1:80 10.0.0.9:7 ino:0 sk:3\n"
    )
    with pytest.raises(InputError, match="2 sockets listen on TCP port 80 of host server; which one") as caught:
        listen_queue(both, "server", 80, overflows=0, drops=0)
    assert caught.value.hint == "address=, one of: 10.0.0.1, ::1"
    queue = listen_queue(both, "server", 80, overflows=0, drops=0, address="::1")
    assert (queue.waiting, queue.half_open) == (2, 0)
    queue = listen_queue(both, "server", 80, overflows=0, drops=0, address="10.0.0.1")
    assert (queue.waiting, queue.half_open) == (1, 1)
    with pytest.raises(InputError) as caught:
        listen_queue([*both, both[0]], "server", 80, overflows=0, drops=0, address="10.0.0.1")
    assert "SO_REUSEPORT" in caught.value.hint


# Who listens. Recorded on a little-endian and on a big-endian kernel: addresses differ, ports do not.

PROC_NET_TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: {localhost}:1F41 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 5875045 1 0000000000000000 100 0 0 10 0
   1: {localhost}:D830 {localhost}:1F41 01 00000000:00000000 02:000AE6D4 00000000     0        0 5875053 2 0000000000000000 20 0 0 10 -1
"""


@pytest.mark.parametrize("localhost", ["0100007F", "7F000001"])
def test_the_ports_that_are_listened_on(localhost: str) -> None:
    assert parse_listening(PROC_NET_TCP.format(localhost=localhost)) == {8001: {5875045}}
    assert parse_listening(PROC_NET_TCP.format(localhost=localhost), "01") == {0xD830: {5875053}}


@pytest.mark.parametrize(
    ("text", "found"),
    [("7 (a) b) (c) S 5 6 4 0 -1", (5, 6, 4)), ("7 (sleep) R 1 7 7 0", (1, 7, 7)), ("", None)],
)
def test_the_family_of_a_process(text: str, found: tuple[int, int, int] | None) -> None:
    assert parse_stat(text) == found


def processes(**stats: str) -> Callable[[Sequence[str]], Result]:
    def run(argv: Sequence[str]) -> Result:
        command, path = argv
        assert command == "cat"
        text = stats.get(f"p{path.split('/')[2]}", "")
        return Result(tuple(argv), 0 if text else 1, text.encode(), b"", 0.0)

    return run


def test_whose_a_process_is() -> None:
    run = processes(
        p20="20 (a) S 1 10 20",
        p21="21 (a) S 1 21 10",
        p30="30 (b) S 10 30 30",
        p31="31 (b) S 30 31 31",
        p40="40 (c) S 1 40 40",
        p50="50 (d) S 50 1 1",
    )
    assert is_of(run, 10, 10), "itself"
    assert is_of(run, 20, 10), "its group"
    assert is_of(run, 21, 10), "its session"
    assert is_of(run, 30, 10), "a session of its own, and its child"
    assert is_of(run, 31, 10), "and the child of that"
    assert not is_of(run, 40, 10)
    assert not is_of(run, 50, 10), "no endless search"
    assert not is_of(run, 99, 10), "gone"


# Waiting until a command listens: on this machine

SERVER = """
import socket, sys, time
port = int(sys.argv[1])
time.sleep(float(sys.argv[2]))
kind = socket.SOCK_DGRAM if "udp" in sys.argv else socket.SOCK_STREAM
family, address = (socket.AF_INET6, "::1") if "ipv6" in sys.argv else (socket.AF_INET, "127.0.0.1")
server = socket.socket(family, kind)
server.bind((address, port))
if kind == socket.SOCK_STREAM:
    server.listen()
time.sleep(60)
"""


@pytest.fixture
def port() -> int:
    """One that nothing has."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("more", [[], ["ipv6"], ["udp"], ["udp", "ipv6"]])
def test_a_command_is_waited_for_until_it_listens(host: Host, port: int, more: list[str]) -> None:  # noqa: F811
    with host.start([sys.executable, "-c", SERVER, str(port), "0.3", *more]) as server:
        began = time.monotonic()
        server.wait_listening(port, timeout_s=20, protocol="udp" if "udp" in more else "tcp")
        assert time.monotonic() - began > 0.25
        if "udp" not in more:
            (found,) = host.sockets(port, state="LISTEN")
            assert [one.pid for one in found.owners] == [server.pid]


@pytest.mark.parametrize("way", ["{python} -c '{server}' {port} 0 & wait", "setsid {python} -c '{server}' {port} 0"])
def test_what_a_command_started_listens_for_it(host: Host, port: int, way: str) -> None:  # noqa: F811
    script = way.format(python=sys.executable, server=SERVER, port=port) + "; exit 0"
    with host.start(["sh", "-c", script]) as server:
        server.wait_listening(port, timeout_s=20)
        ((owner,),) = [one.owners for one in host.sockets(port, state="LISTEN")]
        assert owner.pid != server.pid
        os.kill(owner.pid, signal.SIGKILL)


def test_a_command_that_ends_before_it_listens_is_an_error_at_once(host: Host, port: int) -> None:  # noqa: F811
    with host.start(["sh", "-c", "echo no such file >&2; sleep 0.2; exit 7"]) as server:
        began = time.monotonic()
        with pytest.raises(LabError, match=f"ended with exit code 7, and did not listen on TCP port {port}") as caught:
            server.wait_listening(port, timeout_s=50)
        assert time.monotonic() - began < 10
        assert "| no such file" in caught.value.hint


def test_the_last_words_of_a_command_are_waited_for(host: Host, port: int) -> None:  # noqa: F811
    with host.start(["sh", "-c", "(sleep 0.1; echo late >&2) & exit 7"]) as server, pytest.raises(LabError) as caught:
        server.wait_listening(port, timeout_s=50)
    assert "| late" in caught.value.hint


def test_somebody_elses_socket_is_not_enough(host: Host, port: int) -> None:  # noqa: F811
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port), "0"]) as other:
        try:
            host.wait_listening(port, timeout_s=20)
            with host.start(["sleep", "60"]) as server, pytest.raises(DeadlineExceeded) as caught:
                server.wait_listening(port, timeout_s=0.3)
            assert f"(process {other.pid})" in caught.value.hint
            with host.start([sys.executable, "-c", SERVER, str(port), "0"]) as server, pytest.raises(LabError) as failed:
                server.wait_listening(port)
            assert "Address already in use" in failed.value.hint
        finally:
            other.kill()


def test_a_process_tells_which_sockets_it_has_open(host: Host, port: int) -> None:  # noqa: F811
    with host.start([sys.executable, "-c", SERVER, str(port), "0"]) as server, host.start(["sleep", "60"]) as other:
        server.wait_listening(port)
        (inode,) = listening_sockets(host.run)[port]
        assert open_sockets(host.run, server.pid) == {inode}
        assert open_sockets(host.run, other.pid) == set()
    assert open_sockets(host.run, server.pid) == set(), "it is gone"


def test_nobody_waits_for_a_port_that_cannot_be(host: Host) -> None:  # noqa: F811
    with host.start(["sleep", "60"]) as process:
        for wait in (process.wait_listening, host.wait_listening):
            with pytest.raises(InputError, match="there is no port 65536"):
                wait(65536)
