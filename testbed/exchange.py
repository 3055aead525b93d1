"""The main job: an integer and a text go from a C client to a C server on another host, for every pair of kinds of host.

The claim: sent in network byte order, both arrive the same, whatever the byte orders of the two hosts. What the client had
in memory and what the server read are the programs' own words; the bytes on the wire are captured at the client's port
of the lab's switch. Provoking, observing and judging are separate, so an observation can be judged again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from testbed.architecture import ByteOrder
from testbed.capture import ALL_PORTS, capture
from testbed.errors import InputError, TestbedError
from testbed.exchange_verdict import Observation, Party, Run, Verdict, judge
from testbed.host import Host
from testbed.lab import Lab, natural
from testbed.wire import Conversation, conversations, reassemble

INTEGER = 0x01020304
TEXT = "hello"
# Of the server of the first pair; the others follow. Below the ports that kernels give to clients (from 32768).
FIRST_PORT = 28080
TIMEOUT_S = 15.0  # longer than the server's own patience with a silent client (10 s)
LONGEST_TEXT = 65535  # bytes
COMBINATIONS: tuple[tuple[ByteOrder, ByteOrder], ...] = (("little", "little"), ("little", "big"), ("big", "little"), ("big", "big"))
KINDS = ("native", "emulated", "vm")  # in the order that they are shown in

Addresses = Mapping[str, tuple[IPv4Address | IPv6Address, ...]]


@dataclass(frozen=True)
class Candidate:
    """A host that may take part."""

    name: str
    kind: str
    byte_order: ByteOrder
    addresses: Addresses


@dataclass(frozen=True)
class Missing:
    """A combination of byte orders that the lab's hosts do not offer, and why."""

    client_order: ByteOrder
    server_order: ByteOrder
    reason: str


@dataclass(frozen=True)
class Exchange:
    """An observation and what it says about the claim."""

    observation: Observation
    verdict: Verdict

    def as_json(self) -> dict[str, object]:
        return {**self.observation.as_json(), "verdict": self.verdict.outcome, "reason": self.verdict.reason}


@dataclass(frozen=True)
class Exchanges:
    """The whole main job: an exchange for each pair of kinds of host, and the combinations of byte order that are not there."""

    lab: str
    host_order: bool
    exchanges: tuple[Exchange, ...]
    missing: tuple[Missing, ...]

    def as_json(self) -> dict[str, object]:
        return {
            "lab": self.lab,
            "host_order": self.host_order,
            "exchanges": [one.as_json() for one in self.exchanges],
            "missing": [vars(one) for one in self.missing],
        }


def as_json(results: Exchanges) -> dict[str, object]:
    return results.as_json()


def all_hold(results: Exchanges) -> bool:
    """Every exchange that was made holds."""
    return all(one.verdict.outcome == "HOLDS" for one in results.exchanges)


# Choosing who talks to whom


def choose(hosts: Sequence[Candidate]) -> tuple[list[tuple[Candidate, Candidate]], list[Missing]]:
    """A client and another host as its server for every two kinds of host, each way, and the combinations of byte order without one.

    Kinds of host differ in kind or in byte order. Of two kinds it is the first pair in the order of ``hosts`` that shares
    a network, else the first pair; of one kind it takes two hosts.
    """
    usable = [one for one in hosts if any(one.addresses.values())]
    of_kind: dict[tuple[ByteOrder, str], list[Candidate]] = {}
    for one in usable:
        of_kind.setdefault((one.byte_order, one.kind), []).append(one)
    pairs = [
        pair
        for client, server in sorted(product(of_kind, of_kind), key=_order_of_showing)
        if (pair := _first_pair(of_kind[client], of_kind[server]))
    ]
    there = {(client.byte_order, server.byte_order) for client, server in pairs}
    return pairs, [Missing(*orders, _why_missing(usable, *orders)) for orders in COMBINATIONS if orders not in there]


def _order_of_showing(pair: tuple[tuple[ByteOrder, str], tuple[ByteOrder, str]]) -> tuple[int, int, int]:
    (client_order, client_kind), (server_order, server_kind) = pair
    return COMBINATIONS.index((client_order, server_order)), KINDS.index(client_kind), KINDS.index(server_kind)


def _first_pair(clients: Sequence[Candidate], servers: Sequence[Candidate]) -> tuple[Candidate, Candidate] | None:
    """The first two different hosts on one network, else the first two."""
    found = ((client, server) for client, server in product(clients, servers) if client.name != server.name)
    first = next(found, None)
    if first is None or _share_a_network(first):
        return first
    return next(filter(_share_a_network, found), first)


def _share_a_network(pair: tuple[Candidate, Candidate]) -> bool:
    client, server = pair
    return not client.addresses.keys().isdisjoint(server.addresses.keys())


def _why_missing(usable: Sequence[Candidate], client_order: ByteOrder, server_order: ByteOrder) -> str:
    for order in (client_order, server_order):
        if not any(one.byte_order == order for one in usable):
            return f"the lab has no {order}-endian host on a network"
    return f"the lab has one {client_order}-endian host only"


def server_address(client: Addresses, server: Addresses) -> IPv4Address | IPv6Address:
    """Where the client finds the server: on a network of its own if there is one, over IPv4 if it has that."""
    networks = sorted(server, key=lambda network: network not in client)
    return next(address for network in networks for address in sorted(server[network], key=lambda one: one.version))


def check_message(integer: int, text: str) -> bytes:
    """The text in bytes. Raises :class:`InputError` for a message that cannot be sent, or would show nothing."""
    if not 0 <= integer < 1 << 32:
        raise InputError(f"the integer {integer} does not fit into 4 bytes", hint="it is from 0 to 4294967295")
    if integer.to_bytes(4, "big") == integer.to_bytes(4, "little"):
        raise InputError(
            f"the integer {integer:#010x} has the same bytes in both byte orders, so it would show nothing",
            hint=f"for example: {INTEGER:#010x}",
        )
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InputError("the text is not valid UTF-8") from error
    if b"\0" in encoded:
        raise InputError("the text has a NUL character, which no program can be given as an argument")
    if len(encoded) > LONGEST_TEXT:
        raise InputError(f"the text has {len(encoded)} bytes, and the longest message holds {LONGEST_TEXT}")
    return encoded


# Provoking and observing


def exchange(lab: Lab, *, host_order: bool = False, integer: int = INTEGER, text: str = TEXT, timeout_s: float = TIMEOUT_S) -> Exchanges:
    """Let hosts of ``lab`` exchange ``integer`` (4 bytes) and ``text`` (UTF-8), one pair for every two kinds of host, all at once.

    With ``host_order`` the client forgets htonl() and htons(). ``timeout_s`` is for each client, and for its server.
    Raises :class:`InputError` when the lab has no two hosts that could talk, or the message cannot be sent, and
    :class:`LabError` when the capture is not whole. A program that crashes, a host that is gone, or nothing on the wire is an
    inconclusive exchange.
    """
    encoded = check_message(integer, text)
    names = sorted(lab.hosts, key=natural)
    pairs, missing = choose(
        [Candidate(name, one.kind, one.byte_order, one.addresses) for name, one in ((name, lab.hosts[name]) for name in names)]
    )
    if not pairs:
        raise InputError(f"lab {lab.name} has no two hosts that could talk to each other", hint="; ".join({one.reason for one in missing}))
    ports = range(FIRST_PORT, FIRST_PORT + len(pairs))
    listening: Future[None] = Future()  # whether the capture runs, or cannot
    with lab.switch as switch, ThreadPoolExecutor(2 * len(pairs) + 3) as pool:
        talks = [
            pool.submit(
                _talk,
                lab.host(client.name),
                lab.host(server.name),
                port,
                [*(["-r"] if host_order else []), str(server_address(client.addresses, server.addresses)), str(port), str(integer), text],
                listening,
                timeout_s,
            )
            for (client, server), port in zip(pairs, ports, strict=True)
        ]
        devices = pool.submit(_devices, switch)
        kernels = {
            host: pool.submit(_kernel, host, timeout_s)
            for host in {_whose_kernel(lab.host(one.name), switch) for pair in pairs for one in pair}
        }
        pool.submit(_load_dpkt)
        try:
            with capture(switch, ALL_PORTS, filter=f"inbound and tcp portrange {ports[0]}-{ports[-1]}") as captured:
                listening.set_result(None)
                runs = [one.result() for one in talks]
        finally:
            if not listening.done():
                listening.cancel()
        on_wire = conversations(captured.packets())
        exchanges = []
        for (client, server), port, (client_run, server_run) in zip(pairs, ports, runs, strict=True):
            client_ports = {devices.result().get(lab.port(client.name, network)) for network in client.addresses}
            wire, problem = _sent_by_client(on_wire, client, port, client_ports)
            parties = [_party(lab.host(one.name), kernels[_whose_kernel(lab.host(one.name), switch)].result()) for one in (client, server)]
            seen = Observation(parties[0], parties[1], port, integer, encoded, host_order, client_run, server_run, wire, problem)
            exchanges.append(Exchange(seen, judge(seen)))
    return Exchanges(lab.name, host_order, tuple(exchanges), tuple(missing))


def _talk(
    client: Host, server: Host, port: int, arguments: Sequence[str], listening: Future[None], timeout_s: float
) -> tuple[Run | None, Run]:
    """Run the server, wait for the capture, run the client; what both left."""
    client_run = None
    try:
        with server.start(["exchange-server", str(port)]) as process:
            try:
                process.wait_for_line(rf"^listening {port}$", timeout_s)
                listening.result()
                client_run = _client(client, arguments, timeout_s)
                if b"\nsent " not in client_run.stdout:
                    process.kill()  # nobody will come
                result = process.result(timeout_s)
                return client_run, Run(result.exit_code, result.stdout, result.stderr)
            except TestbedError as error:
                exit_code, problem = process.exit_code, error.message
                process.kill()
                result = process.result(timeout_s)
                return client_run, Run(exit_code, result.stdout, result.stderr, "" if result.stderr else problem)
    except TestbedError as error:  # the host is gone, or cannot start it
        return client_run, Run(None, b"", b"", error.message)


def _client(client: Host, arguments: Sequence[str], timeout_s: float) -> Run:
    try:
        result = client.run(["exchange-client", *arguments], timeout_s=timeout_s)
    except TestbedError as error:
        return Run(None, b"", b"", error.message)
    return Run(result.exit_code, result.stdout, result.stderr)


def _sent_by_client(seen: Sequence[Conversation], client: Candidate, port: int, devices: set[int | None]) -> tuple[bytes | None, str]:
    """What came in from the client at its own ports of the switch (``devices``, by index) for this server port; or None, and why."""
    own = {address for of_network in client.addresses.values() for address in of_network}
    streams = [
        reassemble(one for one in talk.segments if one.source == talk.client and one.interface in devices)
        for talk in seen
        if talk.server.port == port and talk.client.address in own
    ]
    carrying = [one for one in streams if one.data or one.whole]
    if not carrying:
        return None, "no data was captured at the client's port"
    if len(carrying) > 1:
        return None, f"{len(carrying)} connections with data were captured at the client's port, and one was expected"
    (stream,) = carrying
    if not stream.whole:
        return None, f"the capture at the client's port has only a part of the stream: {len(stream.data)} bytes and no clean end"
    return stream.data, ""


def _devices(switch: Host) -> dict[str, int]:
    """The index of every device of the switch, by name."""
    found = json.loads(switch.run(["ip", "-json", "link"]).check(where=switch.name).stdout)
    return {one["ifname"]: one["ifindex"] for one in found}


def _whose_kernel(host: Host, switch: Host) -> Host:
    """Whom to ask for the kernel of a host: a native program of the same kernel answers soonest, and no emulator speaks for it."""
    return host if host.kind == "vm" else switch


def _kernel(host: Host, timeout_s: float) -> str:
    """The release of its kernel. Of a guest that is gone nobody knows it; what that means for the claim, its exchanges say."""
    try:
        return host.run(["uname", "-r"], timeout_s=timeout_s).check(where=host.name).text.strip()
    except TestbedError:
        return "unknown"


def _party(host: Host, kernel: str) -> Party:
    return Party(host.name, host.kind, host.arch, host.byte_order, "its own" if host.kind == "vm" else "the machine's", kernel)


def _load_dpkt() -> None:
    """While the programs run, so that reading the capture need not wait for it."""
    import dpkt  # type: ignore[import-untyped] # noqa: F401
