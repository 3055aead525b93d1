"""A client and a server on hosts of both byte orders, all four pairs, several times, with everything that they send captured.

Hosts are new before each run. The two pairs of one byte order run at the same time, then the two mixed ones: no host is in both.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from testbed import architecture as architectures
from testbed.api import Lab
from testbed.architecture import Architecture, ByteOrder
from testbed.capture import ALL_PORTS, Packet, TooMuch, capture, read_pcap
from testbed.endian_binaries import by_order
from testbed.endian_dissect import PACKAGE, dissect
from testbed.endian_fields import Names
from testbed.endian_identity import as_little, host_name, host_names, mac_bytes
from testbed.endian_judge import COMPARED_MOST, NAMELESS, judge
from testbed.endian_messages import ROLES, Role, said
from testbed.endian_program import DIRECTORY, Program, check_files, compiled
from testbed.endian_runs import BIG, LATE, LITTLE, PAIRS, Ending, Judgement, Pair, Run, alone, where
from testbed.errors import DeadlineExceeded, InputError, LabError, writing
from testbed.host import Host, Process
from testbed.network import Address
from testbed.observe import Socket
from testbed.process import Deadline, Result
from testbed.recording import FILE_HEADER, RECORD_HEADER, records
from testbed.topology_values import DEFAULT_CAPABILITIES

REPEAT = 3
TIMEOUT_S = 10.0
TRIES = 2  # of a pair whose client does not end in time
TIMEOUT_OF_VM_S = 30.0  # translated programs on a busy machine: an interpreter alone may take ten seconds to start
TOGETHER: tuple[tuple[Pair, Pair], ...] = ((LITTLE, BIG), (("little", "big"), ("big", "little")))
# How long nothing may happen at a server that has nobody to serve any more until it counts as one that serves on and on.
SERVE_ON_S = 0.3
SERVE_ON_COMMAND_S = 1.0  # an interpreter takes its time, above all an emulated one
GRACE_S = 1.0
DISSECTOR = "dissector"  # the host that has tshark
SINK = "/run/testbed/sink.py"  # beside a user's own files
INPUT = "/run/testbed/input"
EVERY_S = 0.02  # from one look at its sockets to the next
FILTER = "inbound and not arp"  # of ALL_PORTS: each packet once, as its host sent it
COOKED_MAC = slice(12, 18)  # of who sent it, in a frame of a capture of all ports (Linux cooked v2)
# Multicast and broadcast, of programs that do not say which interface. With a longer prefix than 3 bits the kernel would send what is for a
# group to the gateway alone (__mkroute_output).
TO_ALL = "224.0.0.0/3"
OTHER: Mapping[Role, Role] = {"client": "server", "server": "client"}
ORDERS: tuple[ByteOrder, ByteOrder] = ("little", "big")

# What a server that somebody wrote for a usual machine may need more than other hosts' programs: it changes its root, drops what it may do.
MORE_CAPABILITIES = ("FSETID", "SETPCAP", "SYS_CHROOT")

Progress = Callable[[str, str], None]


@dataclass(frozen=True)
class Plan:
    """What is to be run: a client and a server, or a client alone, whose server takes everything and answers nothing.

    ``files`` go to both hosts, ``flags`` to the compiler; ``timeout_s`` is for each run, in seconds. ``packages`` of Debian and those of
    ``pip`` are on both hosts."""

    programs: Mapping[Role, Program]
    files: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    vm: bool = False
    ipv6: bool = False
    repeat: int = REPEAT
    timeout_s: float = TIMEOUT_S
    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    input: Path | None = None
    """What the client reads from its standard input; None for an empty one."""
    names: Names = NAMELESS
    protocol: str = ""
    """Of which Wireshark has the names of fields; empty for none."""

    @property
    def alone(self) -> bool:
        return "server" not in self.programs

    @property
    def client(self) -> tuple[str, ...]:
        """The client's command."""
        argv = self.programs["client"].argv
        return argv if self.input is None else ("sh", "-c", f'exec "$@" < {INPUT}', "sh", *argv)


@dataclass(frozen=True)
class Outcome:
    """What came of it. ``hosts`` are kinds by role and byte order; ``pcap`` has every packet of all runs. Of a client ``alone`` the pairs
    with one client's byte order are the same runs."""

    runs: Mapping[Pair, Sequence[Run]]
    judgement: Judgement
    hosts: Mapping[str, str]
    pcap: bytes
    spans: Mapping[Pair, tuple[tuple[float, float], ...]]
    """Of each run: when it began and ended, in seconds since 1970, by the clock of the packets."""
    addresses: Mapping[str, tuple[Address, ...]]
    """Of each host, by its name."""
    alone: bool = False

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Those that have runs of their own."""
        return TOGETHER[0] if self.alone else PAIRS

    def pcap_of(self, pair: Pair) -> bytes:
        """The packets that the hosts of a pair sent in its runs, as a pcap file."""
        return _part_of(self.pcap, pair, self.addresses, self.spans[pair])


def _part_of(pcap: bytes, pair: Pair, addresses: Mapping[str, Sequence[Address]], spans: Sequence[tuple[float, float]]) -> bytes:
    own = {mac_bytes(addresses[name]) for name in host_names(pair).values()}
    kept = [
        record
        for time_s, record in records(pcap)
        if any(begin <= time_s <= end for begin, end in spans) and record[RECORD_HEADER:][COOKED_MAC] in own
    ]
    return pcap[:FILE_HEADER] + b"".join(kept)


def endian(plan: Plan, *, progress: Progress = lambda *_: None, name: str = "") -> Outcome:
    """Run a client and a server on all four pairs of byte orders in a lab of their own (``name``), and judge what they sent.

    Raises :class:`InputError` when the programs cannot be what they should be, other :class:`TestbedError` when the lab breaks.
    """
    check_files(plan.files, list(plan.programs.values()))
    if plan.input and not plan.input.is_file():
        raise InputError(f"--input: there is no file '{plan.input}'", hint="a file that the client reads as its standard input")
    machine = architectures.of_machine()
    if machine.byte_order == "big":
        raise LabError("this needs a little-endian machine, as big-endian ones are emulated")
    own: dict[ByteOrder, Architecture] = {"little": machine, "big": architectures.EMULATED}
    files = by_order(plan.files, own)
    with tempfile.TemporaryDirectory(prefix="testbed-endian-") as folder:
        progress("programs", "compiling")
        made = compiled(plan.programs.values(), own.values(), plan.flags, Path(folder))
        topology = _topology(
            plan,
            files,
            {(role, order): made[role, own[order].name] for role in ROLES for order in ORDERS if (role, own[order].name) in made},
        )
        from testbed import topology_file

        parsed = topology_file.parse(topology, name=name or f"endian-{uuid4().hex[:8]}", directory=Path(folder))
        with Lab.from_topology(parsed, progress=progress) as lab:
            try:
                return _in_lab(lab, plan, progress)
            except TooMuch as error:
                hint = f"let the program send less: fewer bytes, or for a shorter time; of a message {COMPARED_MOST >> 10} KiB are compared"
                raise LabError(error.message, hint=hint) from None


def _topology(plan: Plan, files: Mapping[ByteOrder, Sequence[Path]], made: Mapping[tuple[Role, ByteOrder], Path]) -> str:
    """The text of the lab's topology file, which is YAML as well as JSON."""

    def put(role: Role, order: ByteOrder) -> dict[str, object]:
        given = {
            f"{DIRECTORY}/{one.name}": {"source": str(one.resolve()), "mode": f"{one.stat().st_mode & 0o777:04o}"} for one in files[order]
        }
        own = {plan.programs[role].argv[0]: {"source": str(made[role, order]), "mode": "0755"}} if (role, order) in made else {}
        if plan.input and role == "client":
            own[INPUT] = {"source": str(plan.input.resolve())}
        return {**given, **own}

    def host(role: Role, order: ByteOrder) -> dict[str, object]:
        if plan.alone and role == "server":
            return {"files": {SINK: {"source": str(Path(__file__).with_name("endian_sink.py"))}}}
        kind = "native" if order == "little" else "vm" if plan.vm else "emulated"
        # Whatever a client alone sends to whomever, the other host takes it. For others a kernel wants to know where all hosts are.
        routes = [{"to": "default" if plan.alone else TO_ALL, "via": host_name(OTHER[role], order)}]
        given: dict[str, object] = {"kind": kind, "files": put(role, order), "routes": routes}
        if kind != "vm":  # whose commands are root of their own kernel
            given["capabilities"] = [*DEFAULT_CAPABILITIES, *MORE_CAPABILITIES]
        return {**given, "packages": list(plan.packages), "pip": list(plan.pip)}

    hosts = {host_name(role, order): host(role, order) for role in ROLES for order in ORDERS}
    if plan.protocol:
        hosts[DISSECTOR] = {"packages": PACKAGE}
    return json.dumps({"networks": {"lan": {"ipv6": True} if plan.ipv6 else None}, "hosts": hosts})


# Runs


@dataclass(frozen=True)
class _Seen:
    """A run before its packets are looked at."""

    endings: Mapping[Role, Ending]
    listening: tuple[int, ...]
    span: tuple[float, float]


def _in_lab(lab: Lab, plan: Plan, progress: Progress) -> Outcome:
    addresses = {name: tuple(_addresses(host, plan)) for name, host in lab.hosts.items()}
    hosts_files = {name: host.read("/etc/hosts") for name, host in lab.hosts.items()}
    seen: dict[Pair, list[_Seen]] = {pair: [] for pair in PAIRS}
    with lab.running.switch as switch, ThreadPoolExecutor(4) as pool, capture(switch, ALL_PORTS, filter=FILTER) as captured:
        for number in range(plan.repeat):
            for pairs in TOGETHER[:1] if plan.alone else TOGETHER:
                # What did not end in time twice will not another time, and waiting for it is long.
                todo = [pair for pair in pairs if len(seen[pair]) < TRIES or not all(one.endings["client"].late for one in seen[pair])]
                if not todo:
                    continue
                if number or pairs != TOGETHER[0]:
                    lab.reset([name for pair in todo for name in host_names(pair).values()])
                progress(f"run {number + 1} of {plan.repeat}", _words(plan, todo))
                for pair, one in zip(todo, pool.map(lambda pair: _run(lab, plan, pair, addresses, hosts_files), todo), strict=True):
                    seen[pair].append(one)
    packets = read_pcap(captured.pcap)

    def run(pair: Pair, one: _Seen) -> Run:
        own = {role: addresses[name] for role, name in host_names(pair).items()}
        if plan.alone:
            del own["server"]
        macs = {mac_bytes(of_role): role for role, of_role in own.items()}
        heard = said(_of_pair(packets, pair, one.span, addresses), own, one.listening, macs=macs, others="server" if plan.alone else None)
        if not heard.payload:
            return Run({**one.endings, "client": one.endings["client"].of_silence(plan.timeout_s)}, heard)
        return Run(one.endings, heard)

    runs: Mapping[Pair, Sequence[Run]] = {pair: tuple(run(pair, one) for one in seen[pair]) for pair in PAIRS}
    alike: Mapping[Pair, Sequence[Run]] = {pair: [as_little(run, pair, addresses) for run in runs[pair]] for pair in PAIRS}
    if plan.alone:
        runs, alike = alone(runs[LITTLE], runs[BIG]), alone(alike[LITTLE], alike[BIG])
    names = plan.names
    if plan.protocol:
        first = seen[LITTLE][0].span
        own = _part_of(captured.pcap, LITTLE, addresses, [first])
        names = dissect(lab.host(DISSECTOR), plan.protocol, own, read_pcap(own), runs[LITTLE][0].said.messages)
    return Outcome(
        runs=runs,
        judgement=judge(alike, names, emulated=not plan.vm),
        alone=plan.alone,
        hosts={name: host.kind for name, host in lab.hosts.items() if name != DISSECTOR},
        pcap=captured.pcap,
        spans={pair: tuple(one.span for one in seen[pair]) for pair in PAIRS},
        addresses=addresses,
    )


def _run(lab: Lab, plan: Plan, pair: Pair, addresses: Mapping[str, Sequence[Address]], hosts_files: Mapping[str, bytes]) -> _Seen:
    """One run: the server, then, once it listens, the client. ``hosts_files`` are each host's /etc/hosts as it is when new."""
    client, server = (lab.host(name) for name in host_names(pair).values())
    names = "".join(f"{addresses[one.name][0]}\t{role}\n" for role, one in (("client", client), ("server", server)))
    for host in (client, server):
        host.write("/etc/hosts", hosts_files[host.name] + names.encode())
        host.run(["nft", "-f", "-"], stdin=_deaf_to(addresses[name] for name in addresses if name not in (client.name, server.name)))
    if plan.alone:
        return _run_alone(client, server, plan)
    begin = time.time()
    with server.start(plan.programs["server"].argv, directory=DIRECTORY) as serving:
        serving.stdin.close()
        listening = _wait_listening(server, serving, Deadline(plan.timeout_s))
        if serving.exit_code is not None and not listening:
            ending = _ended(serving.result(), " before it listened")
            endings: dict[Role, Ending] = {"client": Ending(None, problem="was not run, as the server had ended"), "server": ending}
            return _Seen(endings, (), (begin, time.time()))
        deadline = Deadline(plan.timeout_s)
        with client.start(plan.client, directory=DIRECTORY) as asking:
            asked = _end_of_client(asking, deadline)
        patience_s = SERVE_ON_S if plan.programs["server"].sources else SERVE_ON_COMMAND_S
        served = _end_of_server(server, serving, patience_s, deadline)
    return _Seen({"client": asked, "server": served}, listening, (begin, time.time()))


def _deaf_to(others: Iterable[Sequence[Address]]) -> bytes:
    """Rules of a packet filter: what the other pair, which runs at the same time, sends to everybody is not for this one. A kernel without
    packet filter hears it."""
    macs = ", ".join(mac_bytes(one).hex(":") for one in others)
    return f"table inet apart {{ chain arriving {{ type filter hook prerouting priority raw; ether saddr {{ {macs} }} drop; }}; }}".encode()


def _words(plan: Plan, pairs: Sequence[Pair]) -> str:
    return " and ".join(where(pair, alone=plan.alone) for pair in pairs)


def _run_alone(client: Host, sink: Host, plan: Plan) -> _Seen:
    """One run of a client with a host that takes everything and answers nothing."""
    with sink.start(["python3", SINK]) as taking:
        if taking.stdout.readline(timeout_s=plan.timeout_s) != b"ready\n":
            raise LabError(f"the host that takes what the client sends did not come up: {taking.result().error_text.strip()}")
        begin = time.time()
        with client.start(plan.client, directory=DIRECTORY) as asking:
            ending = _end_of_client(asking, Deadline(plan.timeout_s))
        if ending.late:  # it may well have waited for an answer
            ending = replace(ending, stopped=True, waited=True, late=False, problem="")
        taking.stdin.close()
        taking.result()
    return _Seen({"client": ending, "server": Ending(0)}, (), (begin, time.time()))


def _sockets(host: Host) -> list[Socket]:
    return [one for one in host.sockets() if one.state != "TIME_WAIT"]


def _wait_listening(host: Host, process: Process, deadline: Deadline) -> tuple[int, ...]:
    """The ports that it listens on, or of UDP is bound to, once two looks agree; none when it ends before, or the time is over.

    The host is new, so whatever listens there is the server, or was started by it.
    """
    last: tuple[int, ...] = ()
    while True:
        over = process.exit_code is not None or deadline.passed  # asked first: a daemon's parent ends when it listens
        now = tuple(sorted({one.local.port for one in _sockets(host) if one.peer is None}))
        if over or (now and now == last):
            return now
        last = now
        if not now:
            time.sleep(EVERY_S)


def _ended(result: Result, when: str = "") -> Ending:
    problem = f"ended{when} with exit code {result.exit_code}" if when else ""
    return Ending(result.exit_code, problem=problem, stdout=result.text, stderr=result.error_text)


def _end_of_client(process: Process, deadline: Deadline) -> Ending:
    try:
        return _ended(process.result(timeout_s=deadline.left_s))
    except DeadlineExceeded:
        process.kill()
        result = process.result()
        problem = f"{LATE} {deadline.timeout_s:g} s"
        return Ending(None, late=True, problem=problem, stdout=result.text, stderr=result.error_text)


def _end_of_server(host: Host, process: Process, patience_s: float, deadline: Deadline) -> Ending:
    """Wait until it ends, or nothing happens at its sockets for some time; then end it."""
    before: list[Socket] = []
    quiet = Deadline(patience_s)
    while process.exit_code is None and not quiet.passed and not deadline.passed:
        now = _sockets(host)
        if now != before:
            before, quiet = now, Deadline(patience_s)
        time.sleep(EVERY_S)
    if process.exit_code is not None:
        return _ended(process.result())
    process.send_signal(signal.SIGTERM)
    try:
        result = process.result(timeout_s=GRACE_S)
    except DeadlineExceeded:
        process.kill()
        result = process.result()
    return Ending(None, stopped=True, stdout=result.text, stderr=result.error_text)


def _addresses(host: Host, plan: Plan) -> Iterator[Address]:
    """A host's addresses, the one first that names lead to."""
    everything = [address for of_network in host.addresses.values() for address in of_network]
    yield from sorted(everything, key=lambda one: one.version, reverse=plan.ipv6)


def _of_pair(packets: Sequence[Packet], pair: Pair, span: tuple[float, float], addresses: Mapping[str, Sequence[Address]]) -> list[Packet]:
    """The packets of a run, without those of the pair that ran at the same time: both may send from the same address, such as 0.0.0.0."""
    own = host_names(pair).values()
    others = {mac_bytes(of_host) for name, of_host in addresses.items() if name not in own}
    return [one for one in packets if span[0] <= one.time_s <= span[1] and one.source_mac not in others]


def keep_packets(outcome: Outcome, directory: Path) -> list[Path]:
    """Write the packets of each pair, all of its runs, as CLIENT-to-SERVER.pcap, of a client alone as CLIENT.pcap; gives the files.

    Raises :class:`InputError`."""
    names = {pair: pair[0] if outcome.alone else f"{pair[0]}-to-{pair[1]}" for pair in outcome.pairs}
    return [write(directory / f"{name}.pcap", outcome.pcap_of(pair)) for pair, name in names.items()]


def write(file: Path, data: bytes) -> Path:
    """Write a file that the user asked for. Raises :class:`InputError` when that cannot be."""
    with writing(f"'{file}'"):
        file.write_bytes(data)
    return file
