"""The Python interface on real hosts of every kind, as its user writes it: everything comes from ``testbed`` itself."""

from __future__ import annotations

import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from testbed import (
    CommandFailed,
    DeadlineExceeded,
    Host,
    HostSpec,
    InputError,
    Lab,
    LabError,
    Network,
    Process,
    Ready,
    Socket,
    Topology,
    TopologyError,
    UnknownName,
    wait_until,
)
from testbed.engine import Engine
from testbed.lab import parts_of
from testbed.process import run_local
from tests.lab.support import Labs, needs_guest, run_testbed

PAIR = "networks: {lan: }\nhosts: {client: , server: }\n"


def own_name() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


def left(engine: Engine, name: str) -> bool:
    return bool(parts_of(engine, name))


CONTAINERS = {
    "client": HostSpec(networks=["lan", "ipv6"]),
    "native": HostSpec(networks=["lan", "ipv6"]),
    "emulated": HostSpec(kind="emulated", networks=["lan", "ipv6"]),
}
EVERYTHING = {**CONTAINERS, "vm": HostSpec(kind="vm", arch="s390x", networks=["lan", "ipv6"])}


@pytest.fixture(scope="module")
def lab_of_containers() -> Iterator[Lab]:
    with lab_of(CONTAINERS) as lab:
        yield lab


@pytest.fixture(scope="module")
def everything() -> Iterator[Lab]:
    """A client and a host of every kind, for the tests that need a vm. They come last, as it costs while nobody does anything with it."""
    with lab_of(EVERYTHING) as lab:
        yield lab


def lab_of(hosts: Mapping[str, HostSpec]) -> Lab:
    """A lab that is built without a file."""
    return Lab.from_topology(Topology(name=own_name(), networks={"lan": Network(), "ipv6": Network(ipv6=True)}, hosts=dict(hosts)))


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Lab:
    """The lab that tests share."""
    shared: Lab = request.getfixturevalue("everything" if needs_guest(request.node) else "lab_of_containers")
    return shared


@pytest.fixture(params=["native", "emulated", "vm"])
def host(lab: Lab, request: pytest.FixtureRequest) -> Host:
    return lab.host(request.param)


def address(host: Host, network: str = "lan") -> str:
    return str(host.addresses[network][0])


# A lab's life


def test_a_file_is_a_lab_for_as_long_as_the_block_runs(engine: Engine, labs: Labs) -> None:
    file = labs.file(PAIR)
    with Lab.from_file(file) as lab:
        assert (lab.name, sorted(lab.hosts), lab.networks) == (file.stem, ["client", "server"], ("lan",))
        with lab.host("server").start(["echo-server", "8001"]) as server:
            server.wait_listening(8001)
            answer = lab.host("client").run(["echo-client", "server", "8001", "hello"]).check().text
        assert "hello" in answer
        assert {row.name: row.byte_order for row in lab.status()} == {"client": "little", "server": "little"}
    assert not left(engine, file.stem)
    with pytest.raises(InputError, match=f"lab '{file.stem}' is not up") as caught:
        lab.host("server")
    assert "with" in caught.value.hint


def test_a_topology_that_comes_with_testbed_may_be_up_twice_under_two_names(engine: Engine) -> None:
    names = own_name(), own_name()
    with Lab.from_file("pair", name=names[0]) as one, Lab.from_file("pair", name=names[1]) as other:
        for lab in (one, other):
            assert lab.host("client").run(["ping", "-c", "1", "server"]).check().exit_code == 0
        assert one.host("server").container != other.host("server").container
        assert one.host("server").addresses != other.host("server").addresses
    assert not left(engine, names[0])
    assert not left(engine, names[1])


def test_an_error_in_the_block_takes_the_lab_down(engine: Engine) -> None:
    name = own_name()
    with pytest.raises(CommandFailed), Lab.from_file("pair", name=name) as lab:
        lab.host("client").run(["false"]).check()
    assert not left(engine, name)


def test_a_lab_that_does_not_come_up_leaves_nothing(engine: Engine) -> None:
    topology = Topology(
        name=own_name(), networks={"lan": Network()}, hosts={"a": HostSpec(command=["sleep", "9"], ready=Ready(listening=7, timeout_s=0.2))}
    )
    lab = Lab.from_topology(topology)
    with pytest.raises(LabError), lab:
        raise AssertionError("it did come up")
    assert not left(engine, topology.name)
    with pytest.raises(InputError, match="is not up"):
        _ = lab.hosts


def test_a_lab_is_entered_once_and_again_when_it_is_down(engine: Engine) -> None:
    lab = Lab.from_file("pair", name=own_name())
    with lab, pytest.raises(InputError, match="is up already, by this very object"), lab:
        raise AssertionError("it was entered twice")
    assert not left(engine, lab.name)
    with lab:
        assert lab.host("client").run(["true"]).exit_code == 0


def test_a_lab_that_somebody_else_has_up_is_left_alone(engine: Engine, labs: Labs) -> None:
    file = labs.file(PAIR)
    run_testbed("up", file).check()
    before = parts_of(engine, file.stem).hosts["server"].id
    with pytest.raises(InputError, match=f"lab '{file.stem}' is up already") as caught, Lab.from_file(file):
        raise AssertionError("it was taken over")
    assert f"testbed down {file.stem}" in caught.value.hint
    assert parts_of(engine, file.stem).hosts["server"].id == before


def test_a_lab_that_is_kept_is_used_again_and_changed(engine: Engine, labs: Labs) -> None:
    file = labs.file(PAIR)
    with Lab.from_file(file, keep=True) as lab:
        client, server = (lab.host(name).container for name in ("client", "server"))
    file.write_text(PAIR.replace("server: ", "server: {sysctls: {net.core.somaxconn: 7}}"))
    with Lab.from_file(file, keep=True) as lab:
        assert lab.host("client").container == client
        assert lab.host("server").container != server
        assert lab.host("server").sysctl["net.core.somaxconn"] == 7
        lab.down()
        with pytest.raises(InputError, match="is not up"):
            lab.host("server")
    assert not left(engine, file.stem)


@pytest.mark.long
def test_the_lab_of_a_killed_program_is_nobodys(engine: Engine) -> None:
    name = own_name()
    program = f"""if True:
        import os, signal
        from testbed import Lab
        with Lab.from_file("pair", name="{name}") as lab:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run_local([sys.executable, "-c", program], timeout_s=150).exit_code == 128 + signal.SIGKILL
    before = parts_of(engine, name).hosts["server"].id
    with Lab.from_file("pair", name=name) as lab:
        assert lab.host("server").container != before
    assert not left(engine, name)


def test_attaching_changes_nothing(engine: Engine, labs: Labs) -> None:
    file = labs.file(PAIR)
    run_testbed("up", file).check()
    lab = Lab.attach(file.stem)
    assert lab.host("client").run(["true"]).exit_code == 0
    with lab as same:
        assert same is lab
        detached = lab.host("server").start(["echo-server", "8001"], detached=True)
        detached.wait_listening(8001)
    with pytest.raises(InputError, match=rf"is not up\n.*Lab.attach\('{file.stem}'\)"):
        lab.host("client")
    with lab:
        assert lab.host("server").sockets(8001, state="LISTEN")
    assert left(engine, file.stem)


def test_only_a_lab_that_is_up_can_be_attached_to(lab: Lab) -> None:
    with pytest.raises(UnknownName, match="no lab is called 'no-such-lab'") as caught:
        Lab.attach("no-such-lab")
    assert lab.name in caught.value.hint


def test_what_is_not_there_is_named(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no host is called 'sevrer'") as caught:
        lab.host("sevrer")
    assert caught.value.hint == "there is: client, emulated, native"
    with pytest.raises(UnknownName, match="is called 'piar', did you mean 'pair'"):
        Lab.from_file("piar")
    with pytest.raises(TopologyError, match="there is no such file"):
        Lab.from_file(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="'My Lab' is not a name, did you mean 'my-lab'"):
        Lab.from_file("pair", name="My Lab")


@pytest.mark.long
def test_a_reset_lab_is_as_it_came_up() -> None:
    topology = Topology(
        name=own_name(),
        networks={"lan": Network()},
        hosts={"a": HostSpec(sysctls={"net.core.somaxconn": 9}), "b": HostSpec(kind="vm", arch="s390x"), "c": HostSpec(kind="emulated")},
    )
    with Lab.from_topology(topology) as lab:
        for host in lab.hosts.values():
            host.sysctl["net.core.somaxconn"] = 5
            host.write("/tmp/left", b"behind")
            host.start(["echo-server", "8001"], detached=True).wait_listening(8001)
        lab.reset("a")
        assert [bool(lab.host(name).sockets(8001)) for name in "abc"] == [False, True, True]
        lab.reset()
        for host in lab.hosts.values():
            assert host.sysctl["net.core.somaxconn"] == (9 if host.name == "a" else 4096)
            assert host.sockets() == []
            assert host.counters()["Tcp.PassiveOpens"] == 0
            with pytest.raises(InputError):
                host.read("/tmp/left")
        with pytest.raises(UnknownName, match="no host is called 'd'"):
            lab.reset(["a", "d"])


def test_progress_is_told() -> None:
    said: list[tuple[str, str]] = []
    with Lab.from_file("pair", name=own_name(), progress=lambda what, step: said.append((what, step))):
        pass
    assert {("client", "ready"), ("server", "ready")} <= set(said)


def test_many_threads_use_one_lab(everything: Lab) -> None:
    hosts = [everything.host(name) for name in ("client", "native", "emulated", "vm")]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda number: hosts[number % 4].run(["echo", str(number)]).text, range(32))
    assert list(answers) == [f"{number}\n" for number in range(32)]


# Captures


def exchanged(lab: Lab, text: str) -> None:
    with lab.host("emulated").start(["echo-server", "-1", "8001"]) as server:
        server.wait_listening(8001)
        lab.host("client").run(["echo-client", address(lab.host("emulated")), "8001", text]).check()


def test_a_capture_has_what_was_sent(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "trace.pcap"
    with (
        lab.capture("client", "lan", filter="tcp port 8001") as at_the_client,
        lab.capture(network="lan", filter="tcp port 8001", file=file) as on_the_network,
        lab.capture(filter="tcp port 8001") as everywhere,
    ):
        exchanged(lab, "hello")
    for capture in (at_the_client, on_the_network):
        (conversation,) = capture.conversations()
        assert conversation.sent.data == conversation.received.data
        assert b"hello" in conversation.sent.data
        assert conversation.sent.whole
        assert str(conversation.server) == f"{address(lab.host('emulated'))}:8001"
    assert at_the_client.pcap[:4] == file.read_bytes()[:4]
    assert len(at_the_client.packets) == len(at_the_client.segments()) == len(on_the_network.packets)
    seen = [one.payload for one in everywhere.packets]
    assert set(seen) == {one.payload for one in at_the_client.packets}
    assert len(seen) > len(at_the_client.packets), "each at every device that it passes"


def test_a_capture_ends_after_so_many_packets(lab: Lab) -> None:
    with lab.capture("client", "lan", filter="icmp", count=2) as capture:
        lab.host("client").run(["ping", "-c", "3", "-i", "0.1", address(lab.host("native"))]).check()
        assert capture.wait(timeout_s=20)
    assert len(capture.packets) == 2
    with lab.capture("client", "lan", filter="icmp", count=2) as capture:
        assert not capture.wait(timeout_s=0.1)


def test_a_capture_that_makes_no_sense_is_refused(lab: Lab) -> None:
    for arguments, words in (
        (("nobody",), "no host is called 'nobody'"),
        (("client",), "host 'client' is on 2 networks; which one?"),
        (("client", "lam"), "no network of this host is called 'lam', did you mean 'lan'"),
        ((None, "lam"), "no network is called 'lam', did you mean 'lan'"),
    ):
        with pytest.raises(InputError, match=words), lab.capture(*arguments):
            raise AssertionError("it began")


# Waiting for a server


@pytest.mark.parametrize("network", ["lan", "ipv6"])
def test_a_server_is_waited_for(lab: Lab, host: Host, network: str) -> None:
    script = f"import socket, time; time.sleep(0.3); s = socket.create_server(('{address(host, network)}', 8001)); time.sleep(60)"
    if network == "ipv6":
        ipv6 = next(str(one) for one in host.addresses["ipv6"] if one.version == 6)
        script = f"import socket, time; time.sleep(0.3); s = socket.create_server(('{ipv6}', 8001), family=socket.AF_INET6); time.sleep(60)"
    with host.start(["python3", "-c", script]) as server:
        server.wait_listening(8001, timeout_s=60)
        (found,) = host.sockets(8001)
        assert (found.state, found.family) == ("LISTEN", "IPv6" if network == "ipv6" else "IPv4")
        assert [(one.name, one.pid) for one in found.owners] == [("python3", server.pid)]


def test_a_server_of_datagrams_is_waited_for(host: Host) -> None:
    script = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 8002)); time.sleep(60)"
    with host.start(["python3", "-c", script]) as server:
        server.wait_listening(8002, protocol="udp", timeout_s=60)
        (found,) = host.sockets(8002)
        assert (found.protocol, found.state, found.peer) == ("udp", "CLOSE", None)
    with pytest.raises(LabError, match="ended with exit code 137, and did not listen on UDP port 8002"):
        server.wait_listening(8002, protocol="udp", timeout_s=60)


def test_a_server_that_fails_says_why_at_once(host: Host) -> None:
    with host.start(["sh", "-c", "echo cannot find its file >&2; exit 3"]) as server:
        began = time.monotonic()
        with pytest.raises(LabError, match="ended with exit code 3, and did not listen on TCP port 8001") as caught:
            server.wait_listening(8001, timeout_s=120)
        assert time.monotonic() - began < 60
    assert "| cannot find its file" in caught.value.hint


def test_an_older_server_on_the_port_is_not_taken_for_the_new_one(host: Host) -> None:
    with host.start(["echo-server", "8003"]) as old:
        host.wait_listening(8003)
        with host.start(["sleep", "60"]) as new, pytest.raises(DeadlineExceeded) as caught:
            new.wait_listening(8003, timeout_s=0.3)
        assert f"echo-server (process {old.pid})" in caught.value.hint


def test_a_shell_waits_with_its_server(host: Host) -> None:
    with host.start(["sh", "-c", "echo-server 8004; exit 5"]) as shell:
        shell.wait_listening(8004)
        shell.send_signal(signal.SIGTERM)
        assert shell.wait() != 0


def test_a_server_of_another_user_is_waited_for(host: Host) -> None:
    with host.start(["echo-server", "8005"], user="nobody") as server:
        server.wait_listening(8005)
        (found,) = host.sockets(8005, state="LISTEN")
        assert found.uid == 65534


# Sockets, queues, counters


@contextmanager
def listening(host: Host, *arguments: str) -> Iterator[Process]:
    """A server that accepts only when it is told; its port is its last argument."""
    with host.start(["listener", *arguments]) as server:
        server.wait_listening(int(arguments[-1]))
        yield server


def test_both_ends_of_a_connection_are_seen(lab: Lab, host: Host) -> None:
    client = lab.host("client")
    with listening(host, "8001") as server, client.start(["connector", address(host), "8001", "1"]) as connector:
        connector.wait_for_line("connected")
        (here,) = wait_until(lambda: host.sockets(8001, state="ESTABLISHED"), timeout_s=20, what="a connection")
        (there,) = client.sockets(peer_port=8001, state="ESTABLISHED")
        assert there.local.address == client.addresses["lan"][0]
        assert there.peer is not None
        assert there.peer.address == host.addresses["lan"][0]
        assert here.peer is not None
        assert here.peer.port == there.local.port
        assert here.peer.address.version == 6, "the server's socket is one of IPv6, and takes IPv4 too"
        assert (here.inode, here.owners) == (None, ()), "it waits for accept()"
        assert [one.name for one in there.owners] == ["connector"]
        server.stdin.write(b"accept\n")
        server.wait_for_line("accepted")
        (accepted,) = host.sockets(8001, state="ESTABLISHED")
        assert [(one.name, one.pid) for one in accepted.owners] == [("listener", server.pid)]
    wait_until(lambda: not host.sockets(8001, state="LISTEN"), timeout_s=20, what="the end of the listener")


def test_a_closed_connection_is_in_time_wait(lab: Lab, host: Host) -> None:
    other = lab.host("client")
    with other.start(["echo-server", "-1", "8006"]) as server:
        server.wait_listening(8006)
        host.run(["echo-client", address(other), "8006", "hello"]).check()

        def waiting() -> list[Socket]:
            return [*host.sockets(peer_port=8006, state="TIME_WAIT"), *other.sockets(8006, state="TIME_WAIT")]

        (one,) = wait_until(waiting, timeout_s=20, what="the end of the connection")
    assert one.timer is not None
    assert one.timer.name == "timewait"
    assert 0 < one.timer.expires_s <= 60
    assert one.owners == ()


def test_the_accept_queue_fills_and_overflows(lab: Lab, host: Host) -> None:
    client = lab.host("client")
    with listening(host, "-b", "2", "8001") as server:
        empty = host.listen_queue(8001)
        assert (empty.waiting, empty.limit, empty.half_open, empty.full) == (0, 2, 0, False)
        before = host.counters()
        with client.start(["connector", address(host), "8001", "5"]):
            wait_until(lambda: host.listen_queue(8001).overflows > empty.overflows, timeout_s=60, what="an overflow")
            full = host.listen_queue(8001)
            assert (full.waiting, full.limit, full.full) == (3, 2, True), "one more than the limit"
            happened = host.counters() - before
            assert happened["TcpExt.ListenDrops"] >= happened["TcpExt.ListenOverflows"] >= 1
            assert happened["eth0.rx_packets"] >= 5
            assert "TcpExt.ListenOverflows" in repr(happened)

        def is_empty() -> bool:
            server.stdin.write(b"accept\n")  # once more each time: one whose handshake was not done may come later
            return host.listen_queue(8001).waiting == 0

        wait_until(is_empty, timeout_s=60, what="an empty queue")
    with pytest.raises(LabError, match=f"nobody listens on TCP port 8001 of host {host.name}"):
        host.listen_queue(8001)


def test_half_open_connections_are_counted(lab: Lab, host: Host) -> None:
    """The client's firewall drops each SYN-ACK, so that no handshake comes to its end."""
    client = lab.host("client")
    rules = "table inet t { chain in { type filter hook input priority 0; tcp sport 8001 tcp flags & (syn|ack) == (syn|ack) drop; }; }"
    client.run(["nft", "-f", "-"], stdin=rules.encode()).check()
    try:
        with listening(host, "-b", "5", "8001"), client.start(["connector", address(host), "8001", "3"]):
            wait_until(lambda: host.listen_queue(8001).half_open == 3, timeout_s=60, what="three halves")
            assert host.listen_queue(8001).waiting == 0
            assert {one.state for one in host.sockets(8001)} == {"LISTEN", "SYN_RECV"}
            assert len(client.sockets(peer_port=8001, state="SYN_SENT")) == 3
    finally:
        client.run(["nft", "delete", "table", "inet", "t"]).check()


def test_a_port_may_have_a_listener_at_each_address(host: Host) -> None:
    script = (
        "import socket, time; a = socket.create_server(('127.0.0.1', 8007), backlog=3);"
        f" b = socket.create_server(('{address(host)}', 8007), backlog=4); print('up', flush=True); time.sleep(60)"
    )
    with host.start(["python3", "-c", script]) as server:
        server.wait_for_line("up")
        with pytest.raises(InputError, match="2 sockets listen on TCP port 8007"):
            host.listen_queue(8007)
        assert host.listen_queue(8007, address="127.0.0.1").limit == 3
        assert host.listen_queue(8007, address=IPv4Address(address(host))).limit == 4


def test_counters_count_what_was_sent(lab: Lab, host: Host) -> None:
    before = host.counters()
    lab.host("client").run(["ping", "-c", "3", "-i", "0.2", address(host)]).check()
    happened = host.counters() - before
    assert (happened["Icmp.InEchos"], happened["Icmp.OutEchoReps"]) == (3, 3)
    assert happened["eth0.rx_packets"] >= 3
    assert {"Tcp.RetransSegs", "TcpExt.TCPTimeouts", "Ip6.InReceives", "lo.rx_bytes"} <= set(happened)
    with pytest.raises(UnknownName, match=r"did you mean 'TcpExt\.ListenOverflows'"):
        before["TcpExt.ListenOverflow"]


# Sysctls


def test_a_sysctl_is_set_on_one_host(lab: Lab, host: Host) -> None:
    client = lab.host("client")
    was, others = host.sysctl["net.core.somaxconn"], client.sysctl["net.core.somaxconn"]
    host.sysctl["net.core.somaxconn"] = 3
    try:
        assert host.sysctl["net.core.somaxconn"] == 3
        assert client.sysctl["net.core.somaxconn"] == others
        assert host.run(["cat", "/proc/sys/net/core/somaxconn"]).text == "3\n"
        with listening(host, "-b", "128", "8001"):
            assert host.listen_queue(8001).limit == 3
    finally:
        host.sysctl["net.core.somaxconn"] = was


def test_sysctls_have_values_of_every_form(host: Host) -> None:
    its = host.sysctl
    was = its["net.ipv4.tcp_rmem"]
    its["net.ipv4.tcp_rmem"] = [4096, 8192, 16384]
    assert its["net.ipv4.tcp_rmem"] == "4096 8192 16384"
    its["net.ipv4.tcp_rmem"] = was
    assert its["net.ipv4.tcp_rmem"] == was
    assert isinstance(its["net.ipv4.tcp_congestion_control"], str)
    its["net.ipv4.conf.eth0.rp_filter"] = 2
    assert its["net.ipv4.conf.eth0.rp_filter"] == 2
    assert "net.ipv4.conf.eth0.rp_filter" in its
    assert "net.ipv4.conf.eth9.rp_filter" not in its
    assert {"net.core.somaxconn", "net.ipv4.tcp_syncookies", "kernel.ostype"} <= set(its)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("net.core.somaxconn", -1, "somaxconn = -1: the kernel refuses the value"),
        ("net.core.somaxconn", "many", "'many' cannot be the value of"),
        ("net.ipv4.tcp_congestion_control", "nosuch", "the kernel has nothing of that name"),
        ("net.ipv4.tcp_syncookie", 1, "there is no sysctl 'net.ipv4.tcp_syncookie', did you mean 'net.ipv4.tcp_syncookies'"),
        ("net.ipv4.conf.eth9.rp_filter", 1, "no sysctl of host .* is called 'net.ipv4.conf.eth9.rp_filter'"),
    ],
)
def test_a_sysctl_that_cannot_be_set_says_why(host: Host, name: str, value: str | int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        host.sysctl[name] = value


def test_what_is_the_whole_kernels_only_a_vm_may_set(lab: Lab, host: Host) -> None:
    def set_it(name: str, value: int | list[int]) -> Callable[[], None]:
        return lambda: host.sysctl.__setitem__(name, value)

    for name, value in (("net.ipv4.tcp_mem", [1000, 2000, 3000]), ("vm.swappiness", 7)):
        if host.kind == "vm":
            set_it(name, value)()
            assert host.sysctl[name] == (value if isinstance(value, int) else "1000 2000 3000")
        else:
            with pytest.raises(InputError, match="not per") as caught:
                set_it(name, value)()
            assert "kind: vm" in caught.value.hint


# What the documentation shows


def examples() -> list[str]:
    """The programs of docs/python-api.md; a piece of one has no import."""
    text = (Path(__file__).parents[2] / "docs" / "python-api.md").read_text()
    return [one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if one.startswith("from testbed import")]


def test_the_documentation_has_two_examples() -> None:
    assert len(examples()) == 2


@pytest.mark.long
@pytest.mark.parametrize("number", [0, 1])
def test_an_example_of_the_documentation_does_what_it_says(number: int) -> None:
    program = re.sub(r'name="[a-z-]+"', f'name="{own_name()}"', examples()[number])
    done = run_local([sys.executable, "-c", program], timeout_s=150).check()
    assert ("waiting: 5, limit: 4, overflows: " in done.text) == (number == 0)
