"""A reset makes hosts what they were when they came up, whatever was done to them, and harms nobody else."""

from __future__ import annotations

import json
import time

import pytest

from testbed.errors import DeadlineExceeded, LabError
from testbed.host import Host
from testbed.host_container import tar
from testbed.lab import Lab, parts_of
from testbed.lock import lock
from testbed.process import wait_until
from testbed.reset import reset
from tests.lab.support import Labs, run_testbed, status, topology

LAB = """
networks:
  lan:
  other:
hosts:
  native:
    networks: [lan, other]
    sysctls: {net.core.somaxconn: 7}
    files: {/srv/given: {content: "as the file says", mode: 0640}}
  emulated:
    kind: emulated
    networks: [lan, other]
    sysctls: {net.core.somaxconn: 7}
    files: {/srv/given: {content: "as the file says", mode: 0640}}
  vm:
    kind: vm
    arch: s390x
    networks: [lan, other]
    sysctls: {net.core.somaxconn: 7}
    files: {/srv/given: {content: "as the file says", mode: 0640}}
  peer: {networks: [lan]}
"""
# What a test may do to a host, as its root. The first word is a mark by which what it has left is found.
HAVOC = r"""
mark=$1; shift
setsid sleep 987654 >/dev/null 2>&1 </dev/null &
(setsid sh -c 'trap "" TERM HUP INT; while :; do sleep 0.2; done' >/dev/null 2>&1 </dev/null &)
sysctl -q net.core.somaxconn=99 net.ipv4.tcp_syncookies=0 net.ipv4.tcp_fin_timeout=7
echo $mark > /srv/new; echo $mark > /srv/given; chmod 0777 /srv/given; echo $mark >> /etc/hosts; rm /etc/services
mkdir -p /root/$mark/deep; ln -s /etc /root/$mark/link; echo $mark > /dev/shm/$mark; echo $mark > /tmp/$mark
rm -rf /usr/lib/testbed/next /usr/share/doc
"""
SOCKETS = """
import ctypes, socket, sys
server = socket.create_server(("", 4711))
for _ in range(20):
    client = socket.create_connection(("127.0.0.1", 4711))
    there, _ = server.accept()
    client.close()  # first: the TIME_WAIT is on this side
    there.close()
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(20):
    out.sendto(b"x" * 100, (sys.argv[1], 9))
ctypes.CDLL(None).shmget(4711, 4096, 0o1600)  # IPC_CREAT
"""


pytestmark = topology(LAB)


@pytest.fixture(params=["native", "emulated", "vm"])
def host(request: pytest.FixtureRequest, lab: Lab) -> Host:
    return lab.host(request.param)


def observed(host: Host) -> dict[str, str]:
    """What shows whether a host is as it was."""
    show = {
        "processes": "grep -alE '98765[4]|TER[M]' /proc/[0-9]*/cmdline 2>/dev/null",
        "sysctls": "sysctl net.core.somaxconn net.ipv4.tcp_syncookies net.ipv4.tcp_fin_timeout",
        "files": "stat -c '%n %a %s' /srv/* /root/* /tmp/* /dev/shm/* /etc/services /usr/share/doc 2>&1; cat /srv/given /etc/hosts",
        "tcp": "cat /proc/net/tcp /proc/net/tcp6",
        "ipc": "cat /proc/sysvipc/shm",
        "counters": "grep -h -e ^Tcp: -e ^Udp: /proc/net/snmp",
        "devices": "ls /sys/class/net; cat /sys/class/net/*/address",
        "routes": "cat /proc/net/route",
        "mounts": "cat /proc/mounts",
    }
    # One command, as starting one is what costs on a guest.
    said = host.run(["sh", "-c", "".join(f"echo '== {what}'; {command}\n" for what, command in show.items())]).text
    return dict(part.split("\n", 1) for part in said.split("== ")[1:])


def wreak_havoc(host: Host, mark: str) -> None:
    host.run(["sh", "-c", HAVOC, "sh", mark]).check()
    host.run(["python3", "-c", SOCKETS, str(host.addresses["lan"][0])]).check()
    if host.kind != "emulated":  # QEMU's user mode passes on no netlink of nft's and tc's
        host.run(["nft", "add table inet mine; add chain inet mine everything { type filter hook input priority 0; policy drop; }"]).check()
        host.run(["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "1mbit", "burst", "10k", "latency", "50ms"]).check()


def reaches(one: Host, other: Host) -> bool:
    return one.run(["ping", "-c", "1", "-W", "2", str(other.addresses["lan"][0])]).exit_code == 0


def test_everything_is_as_it_was(lab: Lab, host: Host) -> None:
    reset(lab, [host.name])
    before = observed(host)
    wreak_havoc(host, "havoc")
    during = observed(host)
    changed = {what for what in before if before[what] != during[what]}
    assert changed >= {"processes", "sysctls", "files", "tcp", "ipc", "counters"}, "the havoc is to be seen, or its absence shows nothing"
    reset(lab, [host.name])
    assert observed(host) == before
    assert "net.core.somaxconn = 7" in before["sysctls"]
    assert "as the file says" in before["files"]
    assert host.run(["stat", "-c", "%a", "/srv/given"]).text == "640\n"
    if host.kind != "emulated":
        assert host.run(["nft", "list", "ruleset"]).check().text == ""
        assert "tbf" not in host.run(["tc", "qdisc"]).check().text
    assert reaches(host, lab.host("peer"))
    assert reaches(lab.host("peer"), host)


def test_a_host_is_new_as_often_as_one_likes(lab: Lab) -> None:
    for number in range(20):
        lab.host("native").write("/srv/number", str(number).encode())
        lab.host("emulated").write("/srv/number", str(number).encode())
        reset(lab, ["native", "emulated"])
        for name in ("native", "emulated"):
            assert lab.host(name).run(["test", "-e", "/srv/number"]).exit_code == 1
    mounts = lab.host("native").read("/proc/mounts").decode()
    assert mounts.count(" / ") == 1, mounts
    assert reaches(lab.host("native"), lab.host("emulated"))


def test_what_ran_there_is_over_and_says_why(lab: Lab, host: Host) -> None:
    with host.start(["sleep", "1000"]) as running:
        reset(lab, [host.name])
        with pytest.raises(LabError, match="was reset"):
            running.wait(timeout_s=20)
    host.start(["sleep", "98765431"], detached=True)
    assert "sleep 98765431" in host.run(["ps", "-eo", "args"]).check().text
    reset(lab, [host.name])
    assert "sleep 98765431" not in host.run(["ps", "-eo", "args"]).check().text


def test_the_others_are_left_alone(lab: Lab) -> None:
    peer = lab.host("peer")
    peer.write("/root/mine", b"kept")
    with peer.start(["sleep", "1000"]) as running:
        reset(lab, ["native", "emulated", "vm"])
        assert running.exit_code is None
    assert peer.read("/root/mine") == b"kept"
    reset(lab)
    assert peer.run(["test", "-e", "/root/mine"]).exit_code == 1


def test_other_clients_of_the_host_can_go_on(lab: Lab, host: Host) -> None:
    with Lab(lab.engine, parts_of(lab.engine, lab.name)) as other:
        assert other.host(host.name).run(["true"]).exit_code == 0
        reset(lab, [host.name])
        host.write("/root/new", b"by one")
        there = other.host(host.name)
        # Its connection ended with what was on the host, and may end it once more before it is made anew.
        wait_until(lambda: _reads(there, "/root/new"), timeout_s=20, what="the new host, for the other client")
        assert reaches(there, other.host("peer"))
    assert run_testbed("exec", f"{lab.name}/{host.name}", "cat", "/root/new").check().text == "by one"


def _reads(host: Host, path: str) -> bool:
    try:
        return host.run(["cat", path]).exit_code == 0
    except LabError:
        return False


@pytest.mark.parametrize("name", ["native", "emulated"])
def test_no_command_has_what_init_has_for_itself(lab: Lab, name: str) -> None:
    host = lab.host(name)
    for _ in range(2):
        for user in (None, "nobody"):
            own = [line.split() for line in host.run(["grep", "^Cap", "/proc/self/status"], user=user).check().text.splitlines()]
            for field, value in own:
                assert not int(value, 16) & 1 << 21, f"{field} has SYS_ADMIN"
        assert host.run(["unshare", "-n", "true"]).exit_code != 0
        reset(lab, [name])


def test_a_command_and_its_readiness_come_again(labs: Labs) -> None:
    lab = labs.up("""
networks: {lan: }
hosts:
  server:
    networks: [lan]
    command: [sh, -c, "echo begun; echo x >> /root/begun; exec nc -lk 4711"]
    ready: {listening: 4711}
  logger:
    networks: [lan]
    command: [sh, -c, "sleep 0.5; echo now it is; exec sleep 1000"]
    ready: {log: now it is}
""")
    with lab:
        for _ in range(3):
            begin = time.monotonic()
            reset(lab)
            assert time.monotonic() - begin > 0.4, "it waits for the logger"
            assert lab.host("server").read("/root/begun") == b"x\n"
            assert lab.host("logger").run(["nc", "-z", "server", "4711"]).exit_code == 0


def test_a_command_that_ends_before_it_is_ready_again_is_an_error(labs: Labs) -> None:
    lab = labs.up("""
networks: {lan: }
hosts:
  once:
    networks: [lan]
    command: [sh, -c, "exec nc -lk 4711"]
    ready: {listening: 4711, timeout_s: 20}
""")
    with lab:
        reset(lab)
        # From the machine, so that it is there after the reset: the image below the host.
        path = "/usr/bin/nc"
        lab.engine.put_archive(
            parts_of(lab.engine, lab.name).hosts["once"].id, "/", tar({path: b"#!/bin/sh\nexit 9\n"}, {path: ("", 0o755)})
        )
        with pytest.raises(LabError, match=r"ended with exit code 9|before it was ready"):
            reset(lab)


@pytest.mark.long
def test_names_of_hosts_that_came_later_are_known_after_it(labs: Labs) -> None:
    before = "networks: {lan: }\nhosts:\n  a: {networks: [lan]}\n  v: {kind: vm, networks: [lan]}\n"
    path = labs.file(before)
    run_testbed("up", path).check()
    path.write_text(before + "  late: {networks: [lan]}\n")
    run_testbed("up", path).check()
    with labs.lab(path) as lab:
        reset(lab)
        for name in ("a", "v"):
            assert lab.host(name).run(["getent", "hosts", "late"]).exit_code == 0
            assert reaches(lab.host(name), lab.host("late"))


def test_a_host_without_its_link_gets_it_back(lab: Lab) -> None:
    assert lab.host("native").run(["ip", "link", "delete", "eth0"]).exit_code == 0
    reset(lab, ["native"])
    assert reaches(lab.host("native"), lab.host("peer"))


# Three processes that are never the same for long: each leaves a child in its place. Their number stays three.
FLEEING = """
import os
for _ in range(3):
    if not os.fork():
        while True:
            if os.fork():
                os._exit(0)
"""


@pytest.mark.parametrize("name", ["native", "emulated"])
def test_processes_that_flee_from_their_end_by_making_others_are_caught(lab: Lab, name: str) -> None:
    host = lab.host(name)

    def seen() -> bool:
        return "fleeing" in host.run(["ps", "-eo", "args"]).check().text

    first = host.start(["python3", "-c", FLEEING, "fleeing"], detached=True)
    wait_until(lambda: first.exit_code is not None and seen(), timeout_s=60, what="the ones that flee")
    reset(lab, [name])
    assert not any(seen() for _ in range(20))


def test_the_verb_makes_hosts_new_and_says_so(lab: Lab) -> None:
    lab.host("native").write("/root/new", b"")
    lab.host("peer").write("/root/new", b"")
    assert "hosts made new: 1," in run_testbed("reset", lab.name, "native").check().text
    wait_until(lambda: not _reads(lab.host("native"), "/root/new"), timeout_s=20, what="the new host")
    assert _reads(lab.host("peer"), "/root/new")
    wrong = run_testbed("reset", lab.name, "nobody")
    assert (wrong.exit_code, "native" in wrong.error_text) == (2, True), wrong.error_text


def test_a_reset_that_is_killed_is_mended_by_up(labs: Labs) -> None:
    path = labs.file("networks: {lan: }\nhosts: {a: {networks: [lan]}, b: {networks: [lan]}}\n")
    run_testbed("up", path).check()
    with labs.lab(path) as lab:
        for name in lab.hosts:  # as it is when it dies between the old links and the new ones
            lab.host(name).ask_for_reset("").wait_for_links()
            lab.own_switch.run(["ip", "link", "delete", lab.port(name, "lan")]).check()
    with lock(path.stem, lab.engine.socket) as held:
        held.at_work()
    run_testbed("up", path).check()
    with labs.lab(path) as lab:
        assert reaches(lab.host("a"), lab.host("b"))


def test_status_and_logs_are_those_of_the_new_guest(lab: Lab) -> None:
    reset(lab, ["vm"])
    row = status(lab.name)["vm"]
    assert row["state"].startswith("running (restored")
    assert json.dumps(row["addresses"])


def test_a_paused_host_is_an_error_and_not_a_hang(labs: Labs) -> None:
    lab = labs.up("networks: {lan: }\nhosts: {a: {networks: [lan]}, b: {networks: [lan]}}\n")
    with lab:
        assert lab.host("a").run(["true"]).exit_code == 0
        lab.engine._client.pause(lab.host("a").container)
        with pytest.raises(DeadlineExceeded, match="host a"):
            reset(lab)
        assert not lab.engine.inspect(lab.host("b").container).running, "it waits for its links for ever"
    run_testbed("up", labs.folder / f"{lab.name}.yaml").check()
    with labs.lab(labs.folder / f"{lab.name}.yaml") as again:
        assert reaches(again.host("a"), again.host("b"))
