"""What a host's kernel says of itself: one command and one pure parser each.

The functions take ``run``, which runs a command on the host; :class:`testbed.host.Host` has them as its methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Literal, get_args

from testbed.errors import InputError, LabError, did_you_mean
from testbed.network import Address, Endpoint
from testbed.process import Result

Run = Callable[[Sequence[str]], Result]
Protocol = Literal["tcp", "udp"]
# fmt: off
State = Literal[
    "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING",
]
# fmt: on
"""The kernel's names (include/net/tcp_states.h). A UDP socket is ESTABLISHED when it is connected, else CLOSE."""

# As ss writes them, as the RFC does, and as people do.
_ALIASES: dict[str, State] = {
    "ESTAB": "ESTABLISHED",
    "SYN_RECEIVED": "SYN_RECV",
    "FIN_WAIT_1": "FIN_WAIT1",
    "FIN_WAIT_2": "FIN_WAIT2",
    "LISTENING": "LISTEN",
    "CLOSED": "CLOSE",
    "UNCONN": "CLOSE",
}
_LISTEN, _UNCONNECTED = "0A", "07"  # TCP_LISTEN and TCP_CLOSE as /proc/net/tcp and udp write states


@dataclass(frozen=True)
class Timer:
    """A timer of a TCP socket. ``name``: on (retransmission), keepalive, timewait, persist. ``expires_s``: seconds from then."""

    name: str
    expires_s: float
    retransmissions: int


@dataclass(frozen=True)
class SocketOwner:
    """A process that has a socket open, by its name, process id and file descriptor."""

    name: str
    pid: int
    descriptor: int


@dataclass(frozen=True)
class Socket:
    """A TCP or UDP socket of a host.

    ``receive_queue`` are bytes that came and were not read, ``send_queue`` bytes that were not acknowledged. Of one that listens:
    connections that wait for accept(), and the most that may (see :class:`ListenQueue`). ``peer`` is None of one that has none.
    ``family`` is the socket's: one of IPv6 also serves IPv4 when it is ``dual_stack``, with addresses like ::ffff:10.0.0.1.
    ``owners`` may be empty: nobody's any more (TIME_WAIT), nobody's yet (waiting for accept()), or of a process of
    another user than root. ``inode`` is None where the kernel has none. ``interface`` is the one that it is bound to.
    """

    protocol: Protocol
    family: Literal["IPv4", "IPv6"]
    state: State
    local: Endpoint
    peer: Endpoint | None
    receive_queue: int
    send_queue: int
    owners: tuple[SocketOwner, ...] = ()
    timer: Timer | None = None
    inode: int | None = None
    uid: int = 0
    interface: str = ""
    dual_stack: bool = False


@dataclass(frozen=True)
class ListenQueue:
    """The accept queue of a listening TCP socket, and what of its port is on the way there.

    ``waiting`` connections are established and not accepted, at most ``limit`` + 1: the kernel refuses one more when
    ``waiting`` > ``limit`` (sk_acceptq_is_full), and ``limit`` is min(backlog of listen(), somaxconn). ``half_open``
    ones are in SYN_RECV. ``overflows`` and ``drops`` are TcpExt.ListenOverflows and ListenDrops, of the whole host since its
    start.
    """

    port: int
    waiting: int
    limit: int
    half_open: int
    overflows: int
    drops: int

    @property
    def full(self) -> bool:
        return self.waiting > self.limit


# Sockets


def sockets(run: Run, host: str) -> list[Socket]:
    """Every TCP and UDP socket of a host."""
    return parse_sockets(run(["ss", "-H", "-n", "-O", "-a", "-t", "-u", "-e", "-o", "-p"]).check(where=f"host {host}").text)


def parse_sockets(text: str) -> list[Socket]:
    """What `ss -H -n -O -a -t -u -e -o -p` writes: a line a socket."""
    return [_socket(line) for line in text.splitlines() if line.strip()]


def chosen(
    found: Iterable[Socket],
    *,
    port: int | None = None,
    peer_port: int | None = None,
    state: str | None = None,
    protocol: Protocol | None = None,
    address: Address | str | None = None,
) -> list[Socket]:
    """Those of a local ``port``, a peer's port, in a state (however it is written), of a protocol, with a local address.

    Raises :class:`InputError` for a state, protocol or address that is none.
    """
    its_state = None if state is None else read_state(state)
    its_address = None if address is None else _read_address(address)
    if protocol not in (None, *get_args(Protocol)):
        raise InputError(f"there is no protocol '{protocol}' here", hint="tcp or udp")
    return [
        one
        for one in found
        if port in (None, one.local.port)
        and (peer_port is None or (one.peer is not None and one.peer.port == peer_port))
        and its_state in (None, one.state)
        and protocol in (None, one.protocol)
        and its_address in (None, one.local.address, _as_ipv4(one.local.address))
    ]


def read_state(text: str) -> State:
    """A state of a socket as the kernel calls it, from any way to write it: TIME_WAIT, time-wait, ESTAB."""
    found = _state(text)
    if found is None:
        names = get_args(State)
        raise InputError(f"there is no state '{text}' of a socket{did_you_mean(text.upper(), names)}", hint=f"one of: {', '.join(names)}")
    return found


def _state(text: str) -> State | None:
    word = text.upper().replace("-", "_")
    return _ALIASES.get(word) or next((one for one in get_args(State) if one == word), None)


def _as_ipv4(address: Address) -> Address:
    """The IPv4 address that an IPv6 socket shows as ::ffff:10.0.0.1; any other as it is."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def _read_address(value: Address | str) -> Address:
    try:
        return ip_address(value)
    except ValueError:
        raise InputError(f"'{value}' is not an address", hint="like 10.1.0.5 or fd00::5") from None


def _socket(line: str) -> Socket:
    protocol, state, receive_queue, send_queue, local, peer, details = [*line.split(None, 6), *[""] * 7][:7]
    its_state = _state(state)
    if protocol not in ("tcp", "udp") or its_state is None:
        raise LabError(f"ss wrote a line that is not understood: {line.strip()!r}")
    endpoint, interface = _endpoint(local)
    its_peer, _ = _endpoint(peer)
    number = _number_after("ino", details)
    return Socket(
        protocol="tcp" if protocol == "tcp" else "udp",
        family="IPv4" if endpoint.address.version == 4 else "IPv6",
        state=its_state,
        local=endpoint,
        peer=its_peer if its_peer.port else None,
        receive_queue=int(receive_queue),
        send_queue=int(send_queue),
        owners=tuple(SocketOwner(name, int(pid), int(fd)) for name, pid, fd in _OWNER.findall(details)),
        timer=_timer(details),
        inode=number or None,
        uid=_number_after("uid", details) or 0,
        interface=interface,
        dual_stack=_number_after("v6only", details) == 0,
    )


_OWNER = re.compile(r'\("([^"]*)",pid=(\d+),fd=(\d+)\)')
_ENDPOINT = re.compile(r"\[?(?P<address>[^\]%]*)\]?(?:%(?P<interface>\S+))?:(?P<port>\d+|\*)")
_TIMER = re.compile(r"\btimer:\((\w+),([^,]*),(\d+)\)")
# 119min, 1min58sec, 29sec, 984ms, and 9.876ms, which are 9 seconds and 876 milliseconds (print_ms_timer of iproute2).
_DURATION = re.compile(r"(?:(\d+)min)?(?:(\d+)(?:sec|\.))?(?:(\d+)ms)?")


def _endpoint(text: str) -> tuple[Endpoint, str]:
    """ADDRESS[%INTERFACE]:PORT, with an address of IPv6 in brackets, * for :: that takes IPv4 too, and * for no port."""
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise LabError(f"ss wrote an address that is not understood: '{text}'")
    address = IPv6Address("::") if match["address"] == "*" else ip_address(match["address"])
    return Endpoint(address, 0 if match["port"] == "*" else int(match["port"])), match["interface"] or ""


def _timer(details: str) -> Timer | None:
    found = _TIMER.search(details)
    duration = _DURATION.fullmatch(found[2]) if found else None
    if found is None or duration is None:
        return None
    minutes, seconds, milliseconds = (int(one or 0) for one in duration.groups())
    return Timer(found[1], minutes * 60 + seconds + milliseconds / 1000, int(found[3]))


def _number_after(word: str, details: str) -> int | None:
    found = re.search(rf"\b{word}:(\d+)", details)
    return int(found[1]) if found else None


# Who listens


def is_listening(run: Run, host: str, port: int, protocol: Protocol, *, own_kernel: bool) -> bool:
    """Whether something listens on a TCP port of the host, over IPv4 or IPv6, or is bound to a UDP port and to no peer.

    For /proc/net/tcp a kernel goes through all of its table of connections, which is large on a machine (262144 entries: 10 ms
    of it) and small in a guest; ss asks it for those that listen alone (2.5 ms), but is three times the work for a guest's emulator.
    """
    if own_kernel:
        return port in listening_sockets(run, protocol)
    state = "listening" if protocol == "tcp" else "unconnected"
    asked = ["ss", "-H", "-n", f"--{protocol}", "state", state, f"sport = :{port}"]
    return bool(run(asked).check(where=f"host {host}").text.strip())


def listening_sockets(run: Run, protocol: Protocol = "tcp") -> dict[int, set[int]]:
    """The inodes of the sockets that listen, by TCP port, over IPv4 or IPv6; of those that are bound to no peer, by UDP port."""
    shown = run(["cat", f"/proc/net/{protocol}", f"/proc/net/{protocol}6"])
    return parse_listening(shown.text, _LISTEN if protocol == "tcp" else _UNCONNECTED)


def parse_listening(text: str, state: str = _LISTEN) -> dict[int, set[int]]:
    """Port -> inodes of the sockets in a state in /proc/net/tcp or udp. Ports are written as numbers there, alike on every byte order."""
    found: dict[int, set[int]] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 9 and fields[3] == state:
            found.setdefault(int(fields[1].rpartition(":")[2], 16), set()).add(int(fields[9]))
    return found


def open_sockets(run: Run, pid: int) -> set[int]:
    """The inodes of the sockets that a process has open; none of one that is gone."""
    shown = run(["find", f"/proc/{pid}/fd", "-printf", "%l\n"]).text
    return {int(inode) for inode in re.findall(r"^socket:\[(\d+)\]$", shown, re.MULTILINE)}


@dataclass(frozen=True)
class Holders:
    """The processes that hold a port, as far as they are known; ``ours``: one of them is of a certain command, or none is known."""

    named: str
    ours: bool


def holders(run: Run, host: str, port: int, protocol: Protocol, leader: int, *, own_kernel: bool) -> Holders | None:
    """Who listens on a TCP port, or is bound to a UDP port; None when nobody is. ``leader`` is the command's first process."""
    if own_kernel:
        # Most often it is the leader itself, which is asked for a fifth of what ss costs a guest's emulator.
        inodes = listening_sockets(run, protocol).get(port, set())
        if not inodes:
            return None
        if inodes & open_sockets(run, leader):
            return Holders("", ours=True)
    elif not is_listening(run, host, port, protocol, own_kernel=False):
        return None
    found = chosen(sockets(run, host), port=port, protocol=protocol, state="LISTEN" if protocol == "tcp" else "CLOSE")
    owners = [owner for one in found for owner in one.owners]
    named = ", ".join(dict.fromkeys(f"{one.name} (process {one.pid})" for one in owners))
    return Holders(named, not owners or any(is_of(run, one.pid, leader) for one in owners)) if found else None


def check_port(port: int) -> int:
    """A TCP or UDP port, or :class:`InputError`."""
    if not 1 <= port <= 65535:
        raise InputError(f"there is no port {port}", hint="ports are 1 to 65535")
    return port


def is_of(run: Run, pid: int, leader: int) -> bool:
    """Whether a process is ``leader``, of its process group or session, or was started by it or its children."""
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        if pid == leader:
            return True
        seen.add(pid)
        parent, group, session = parse_stat(run(["cat", f"/proc/{pid}/stat"]).text) or (0, 0, 0)
        if leader in (group, session):
            return True
        pid = parent
    return False


def parse_stat(text: str) -> tuple[int, int, int] | None:
    """Parent, process group and session of a process, from its /proc/PID/stat; None without one. Its name may hold anything."""
    fields = text.rpartition(")")[2].split()
    return (int(fields[1]), int(fields[2]), int(fields[3])) if len(fields) > 3 else None


def listen_queue(
    found: Sequence[Socket], host: str, port: int, *, overflows: int, drops: int, address: Address | str | None = None
) -> ListenQueue:
    """The queue of the one socket among ``found`` that listens on the port. Raises :class:`LabError` when there is none, and
    :class:`InputError` when there are several."""
    listening = chosen(found, state="LISTEN", protocol="tcp")
    here = chosen(listening, port=port, address=address)
    if not here:
        where = f" at {address}" if address is not None and chosen(listening, port=port) else ""
        hint = f"listened on: {', '.join(dict.fromkeys(_described(one) for one in listening))}" if listening else "nothing listens there"
        raise LabError(f"nobody listens on TCP port {port}{where} of host {host}", hint=hint)
    if len(here) > 1:
        hint = f"address=, one of: {', '.join(str(one.local.address) for one in here)}"
        if len({one.local for one in here}) < len(here):
            hint = f"they share it by SO_REUSEPORT; sockets(port={port}, state='LISTEN') gives each"
        raise InputError(f"{len(here)} sockets listen on TCP port {port} of host {host}; which one?", hint=hint)
    (one,) = here
    half_open = [other for other in chosen(found, port=port, state="SYN_RECV") if _reaches(other.local.address, one)]
    return ListenQueue(port, one.receive_queue, one.send_queue, len(half_open), overflows, drops)


def _described(one: Socket) -> str:
    return f"{one.local.port} ({one.owners[0].name})" if one.owners else str(one.local.port)


def _reaches(address: Address, listener: Socket) -> bool:
    """Whether a connection to this local address is one of the listening socket's."""
    its = listener.local.address
    if not its.is_unspecified:
        return _as_ipv4(address) == _as_ipv4(its)
    return _as_ipv4(address).version == its.version or listener.dual_stack
