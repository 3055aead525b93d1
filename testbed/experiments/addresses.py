"""Family A: socket addresses and byte order. They are about user space and the system calls' edge, so every kind of host shows them."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence

from testbed import pictures_of_bytes
from testbed.experiment import KINDS, Cell, CellRun, Claim, Experiment, Facts, Parameter, Prediction, Scalar, Seen, Value, Verdict
from testbed.experiment_stage import Stage

# bind() and getsockname() as C has them: Python's own would put an address right before the kernel sees it.
C_CALLS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)

def sockaddr_in(port, address="0.0.0.0", family=socket.AF_INET, zero=bytes(8)):
    return struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(address) + zero

def bind(s, address, length):
    if libc.bind(s.fileno(), ctypes.create_string_buffer(address, 128), length):
        raise OSError(ctypes.get_errno(), "bind")

def getsockname(s):
    address, length = ctypes.create_string_buffer(128), ctypes.c_uint32(128)
    if libc.getsockname(s.fileno(), address, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockname")
    return address.raw[:length.value].hex()
"""


def only(runs: Sequence[CellRun]) -> Seen:
    """What was seen of an experiment that has one cell."""
    (run,) = runs
    return run.seen


def idle(_: Stage, __: Cell) -> None:
    """For what need not be provoked, only looked at."""


# A1


def observe_layout(stage: Stage, _: Cell) -> Seen:
    """What the C compiler of that architecture made of struct sockaddr_in: offset/size of each member."""
    text = stage.hosts["server"].run(["struct-layout"]).check(where="the server").text
    seen: dict[str, Value] = {}
    if found := re.search(r"^sockaddr_in size (\d+)$", text, re.MULTILINE):
        seen["size"] = int(found[1])
    for member, offset, size in re.findall(r"^sockaddr_in\.(\w+) offset (\d+) size (\d+)$", text, re.MULTILINE):
        seen[member] = f"{offset}/{size}"
    return seen


def layout_was_seen(run: CellRun) -> str:
    missing = [name for name in ("size", "sin_family", "sin_port", "sin_addr", "sin_zero") if name not in run.seen]
    return f"struct-layout said nothing of: {', '.join(missing)}" if missing else ""


def judge_layout(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    family = only(runs)["sin_family"]
    if family == "1/1":
        return Verdict("HOLDS")
    return Verdict("REFUTED", f"sin_family has offset/size {family}: there is no room for a sin_len before it")


STRUCTURE = Experiment(
    id="A1",
    name="sockaddr-in-layout",
    claim=Claim(
        "struct sockaddr_in has five members: sin_len, sin_family, sin_port, sin_addr and sin_zero.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 3.2",
    ),
    linux="There is no sin_len on Linux; the BSDs have it, one byte, before a family of one byte. It is 16 bytes on every architecture.",
    prediction=Prediction(
        "offset/size: sin_family 0/2, sin_port 2/2, sin_addr 4/4, sin_zero 8/8; 16 bytes",
        ("include/uapi/linux/in.h: struct sockaddr_in", "glibc: sysdeps/unix/sysv/linux/bits/sockaddr.h"),
        lambda _, __: {"size": 16, "sin_family": "0/2", "sin_port": "2/2", "sin_addr": "4/4", "sin_zero": "8/8"},
    ),
    provoke=idle,
    observe=observe_layout,
    took_effect=layout_was_seen,
    judge=judge_layout,
    kinds=KINDS,
)

# A2

LENGTHS = (14, 15, 16, 17, 128, 129)


def lengths(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [Cell(f"length {length}", {"length": length}) for length in LENGTHS]


def provoke_bind_of_a_length(stage: Stage, cell: Cell) -> None:
    player = stage.on("server")
    player.do(C_CALLS)
    player.do(f"address = struct.pack('=H14s', socket.AF_INET, struct.pack('!H', {stage.port}) + bytes(12))  # a sockaddr with its sa_data")
    player.do("s = socket.socket()")
    player.do(f"def try_it(): bind(s, address, {cell.values['length']})")


def observe_bind(stage: Stage, _: Cell) -> Seen:
    player = stage.on("server")
    outcome = player.outcome("try_it()")
    return {"bind": outcome, "bound": player.do("getsockname(s)"), "wanted": player.do(f"sockaddr_in({stage.port}).hex()")}


def judge_interchangeable(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    (right,) = [run for run in runs if run.values["length"] == 16]
    if right.seen["bind"] == "ok" and right.seen["bound"] == right.seen["wanted"]:
        return Verdict("HOLDS")
    return Verdict("REFUTED", f"bind() of a struct sockaddr: {right.seen['bind']}")


def predict_lengths(_: Facts, run: CellRun) -> Mapping[str, Value]:
    return {"bind": "ok" if 16 <= run.values["length"] <= 128 else "EINVAL"}


INTERCHANGEABLE = Experiment(
    id="A2",
    name="sockaddr-generic",
    claim=Claim(
        "struct sockaddr, whose sa_data has 14 bytes, and struct sockaddr_in can stand for each other; one is cast to the other.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 3.2",
    ),
    linux="Holds. The kernel looks at the length, which must be 16 bytes or more, up to 128 (struct sockaddr_storage).",
    prediction=Prediction(
        "bind() of length n: EINVAL unless 16 <= n <= 128",
        ("net/ipv4/af_inet.c: inet_bind_sk, addr_len < sizeof(struct sockaddr_in)", "net/socket.c: move_addr_to_kernel"),
        predict_lengths,
    ),
    cells=lengths,
    provoke=provoke_bind_of_a_length,
    observe=observe_bind,
    judge=judge_interchangeable,
    kinds=KINDS,
)

# A3


def provoke_garbage(stage: Stage, _: Cell) -> None:
    player = stage.on("server")
    player.do(C_CALLS)
    player.do(f"zero = bytes.fromhex({stage.parameters['sin_zero']!r})")
    player.do(f"address = sockaddr_in({stage.port}, zero=zero)")
    player.do("s = socket.socket()")
    player.do("def try_it(): bind(s, address, 16)")


def observe_zero(stage: Stage, cell: Cell) -> Seen:
    seen = observe_bind(stage, cell)
    return {"bind": seen["bind"], "sin_zero given": stage.on("server").do("zero.hex()"), "sin_zero from getsockname": seen["bound"][16:]}


def was_garbage(run: CellRun) -> str:
    return "" if set(run.seen["sin_zero given"]) != {"0"} else "sin_zero was 0, so nothing was tried"


def judge_zero(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    seen = only(runs)
    if seen["bind"] == "ok":
        return Verdict("REFUTED", f"bind() takes a sin_zero of {seen['sin_zero given']}")
    return Verdict("HOLDS", f"bind() of a sin_zero of {seen['sin_zero given']}: {seen['bind']}")


ZERO = Experiment(
    id="A3",
    name="sin-zero",
    claim=Claim("The bytes of sin_zero must be 0.", "common in textbooks; Stevens (section 3.2) only says that one does so by convention"),
    linux="They need not be: the kernel does not look at them in bind(), and hands out zeros in getsockname().",
    prediction=Prediction(
        "bind: ok; getsockname: 8 bytes of 0",
        ("net/ipv4/af_inet.c: __inet_bind does not read sin_zero", "net/ipv4/af_inet.c: inet_getname sets it to 0"),
        lambda _, __: {"bind": "ok", "sin_zero from getsockname": "00" * 8},
    ),
    provoke=provoke_garbage,
    observe=observe_zero,
    took_effect=was_garbage,
    judge=judge_zero,
    parameters={"sin_zero": Parameter("deadbeefdeadbeef", "the eight bytes of sin_zero, in hexadecimal digits")},
    kinds=KINDS,
)

# A4


def families(_: Mapping[str, Scalar]) -> Sequence[Cell]:
    return [
        Cell("AF_INET", {"family": "socket.AF_INET", "address": "0.0.0.0"}),
        Cell("AF_UNSPEC, INADDR_ANY", {"family": "socket.AF_UNSPEC", "address": "0.0.0.0"}),
        Cell("AF_UNSPEC, 127.0.0.1", {"family": "socket.AF_UNSPEC", "address": "127.0.0.1"}),
        Cell("AF_INET6", {"family": "socket.AF_INET6", "address": "0.0.0.0"}),
        Cell("htons(AF_INET)", {"family": "socket.htons(socket.AF_INET)", "address": "0.0.0.0"}),
    ]


def provoke_family(stage: Stage, cell: Cell) -> None:
    player = stage.on("server")
    player.do(C_CALLS)
    player.do(f"address = sockaddr_in({stage.port}, {cell.values['address']!r}, {cell.values['family']})")
    player.do("s = socket.socket()")
    player.do("def try_it(): bind(s, address, 16)")


def observe_family(stage: Stage, _: Cell) -> Seen:
    player = stage.on("server")
    number = player.do("struct.unpack('=H', address[:2])[0]")
    # SELinux, where it is on, looks at an address before the protocol does; its file system is there only then.
    selinux = "selinuxfs" in stage.hosts["server"].run(["cat", "/proc/filesystems"]).check(where="the server").text
    return {"sin_family": number, "bind": player.outcome("try_it()"), "SELinux": selinux}


def predict_family(facts: Facts, run: CellRun) -> Mapping[str, Value]:
    number = {
        "socket.AF_INET": socket.AF_INET.value,
        "socket.AF_UNSPEC": socket.AF_UNSPEC.value,
        "socket.AF_INET6": socket.AF_INET6.value,
        "socket.htons(socket.AF_INET)": 2 if facts.byte_order == "big" else 0x200,
    }[run.values["family"]]
    allowed = number == 2 or (number == 0 and run.values["address"] == "0.0.0.0")
    refusal = "EINVAL" if run.seen["SELinux"] and number == socket.AF_INET6 else "EAFNOSUPPORT"
    return {"sin_family": number, "bind": "ok" if allowed else refusal}


def judge_family(_: Facts, runs: Sequence[CellRun]) -> Verdict:
    others = [run.cell for run in runs if run.seen["bind"] == "ok" and run.seen["sin_family"] != 2]
    if others:
        return Verdict("REFUTED", f"bind() takes another one as well: {', '.join(others)}")
    return Verdict("HOLDS")


FAMILY = Experiment(
    id="A4",
    name="sin-family",
    claim=Claim(
        "sin_family must be AF_INET for an IPv4 socket.", "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 3.2"
    ),
    linux=(
        "AF_UNSPEC with INADDR_ANY is taken as well, for old programs. htons(AF_INET), a slip of the pen, fails on "
        "little-endian hosts only."
    ),
    prediction=Prediction(
        "EAFNOSUPPORT unless the family is 2, or 0 with address 0.0.0.0; htons(2) is 512 where the host is little-endian, and 2 where "
        "it is big. "
        "Where SELinux is on, AF_INET6 in 16 bytes is EINVAL: too short for one",
        ("net/ipv4/af_inet.c: __inet_bind, 'Compatibility games'", "security/selinux/hooks.c: selinux_socket_bind"),
        predict_family,
    ),
    cells=families,
    provoke=provoke_family,
    observe=observe_family,
    judge=judge_family,
    kinds=KINDS,
)

# A5

ON_WIRE = 28_080


def provoke_byte_orders(stage: Stage, _: Cell) -> None:
    """The subject connects to port 28080 of the other host, which listens to the wire; and it listens without htons()."""
    client, server = stage.on("client"), stage.on("server")
    client.do("wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)")
    server.do(C_CALLS)
    server.do("s = socket.socket()")
    server.do(f"s.setblocking(False); number = s.connect_ex(({stage.addresses['client']!r}, {ON_WIRE}))")
    server.do("forgetful = socket.socket()")
    port = stage.parameters["port"]
    server.do(f"bind(forgetful, struct.pack('=HH12s', socket.AF_INET, {port}, bytes(12)), 16)  # htons() forgotten")
    server.do("forgetful.listen()")


def observe_byte_orders(stage: Stage, _: Cell) -> Seen:
    server, client = stage.on("server"), stage.on("client")
    client.do("wire.settimeout(10)")
    packet = bytes.fromhex(client.do("wire.recv(100).hex()"))
    segment = packet[4 * (packet[0] & 15) :]
    listening = sorted({one.local.port for one in stage.hosts["server"].sockets(state="LISTEN")})
    return {
        "0x01020304 in memory": server.do("struct.pack('=I', 0x01020304).hex()"),
        "0x01020304 after htonl, in memory": server.do("struct.pack('=I', socket.htonl(0x01020304)).hex()"),
        f"port {ON_WIRE} on the wire": segment[2:4].hex(),
        "listens without htons on": listening,
    }


def predict_byte_orders(facts: Facts, _: CellRun) -> Mapping[str, Value]:
    little = facts.byte_order == "little"
    port = int(facts.parameters["port"])
    return {
        "0x01020304 in memory": "04030201" if little else "01020304",
        "0x01020304 after htonl, in memory": "01020304",
        f"port {ON_WIRE} on the wire": "6db0",
        "listens without htons on": [int.from_bytes(port.to_bytes(2, "little"), "big") if little else port],
    }


def judge_byte_orders(facts: Facts, runs: Sequence[CellRun]) -> Verdict:
    seen = only(runs)
    memory = {"little": "04030201", "big": "01020304"}[facts.byte_order]
    if seen["0x01020304 in memory"] == memory and seen[f"port {ON_WIRE} on the wire"] == ON_WIRE.to_bytes(2, "big").hex():
        return Verdict("HOLDS")
    return Verdict("REFUTED", f"in memory {seen['0x01020304 in memory']}, on the wire {seen[f'port {ON_WIRE} on the wire']}")


def something_listens(run: CellRun) -> str:
    return "" if run.seen["listens without htons on"] else "nothing listened"


BYTE_ORDER = Experiment(
    id="A5",
    name="byte-order",
    claim=Claim(
        "x86 is little-endian, other machines are big-endian, and what is on the network is big-endian everywhere.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 3.4; RFC 1700, 'Data Notation'",
    ),
    linux="Holds. So who forgets htons(8001) listens on port 16671 on a little-endian host, and on 8001, as meant, on a big-endian one.",
    prediction=Prediction(
        "memory: the host's byte order; wire: 6d b0 for 28080; without htons, port p is bound as (p mod 256) * 256 + p div 256 where the "
        "host is little-endian",
        ("RFC 9293, section 3.1: header format", "net/ipv4/af_inet.c: __inet_bind, ntohs(addr->sin_port)"),
        predict_byte_orders,
    ),
    provoke=provoke_byte_orders,
    observe=observe_byte_orders,
    took_effect=something_listens,
    judge=judge_byte_orders,
    others=("client",),
    picture=pictures_of_bytes.forgotten_htons,
    parameters={"port": Parameter(8001, "the port to be bound without htons()")},
    kinds=KINDS,
)

# A6

CONVERSIONS = {"htonl": 0x01020304, "ntohl": 0x01020304, "htons": 0x0102, "ntohs": 0x0102}


def observe_conversions(stage: Stage, _: Cell) -> Seen:
    player = stage.on("server")
    seen: dict[str, Value] = {name: f"{player.do(f'socket.{name}({value:#x})'):#x}" for name, value in CONVERSIONS.items()}
    return {**seen, "back and forth": player.do("[hex(socket.ntohl(socket.htonl(0x01020304))), hex(socket.ntohs(socket.htons(0x0102)))]")}


def predict_conversions(facts: Facts, _: CellRun) -> Mapping[str, Value]:
    four, two = ("0x4030201", "0x201") if facts.byte_order == "little" else ("0x1020304", "0x102")
    return {"htonl": four, "ntohl": four, "htons": two, "ntohs": two, "back and forth": ["0x1020304", "0x102"]}


def judge_conversions(facts: Facts, runs: Sequence[CellRun]) -> Verdict:
    seen = only(runs)
    on_wire = [int(seen["htonl"], 16).to_bytes(4, facts.byte_order).hex(), int(seen["htons"], 16).to_bytes(2, facts.byte_order).hex()]
    if on_wire == ["01020304", "0102"] and seen["back and forth"] == ["0x1020304", "0x102"]:
        return Verdict("HOLDS")
    return Verdict("REFUTED", f"what htonl and htons give lies in memory as {' and '.join(on_wire)}")


CONVERSION = Experiment(
    id="A6",
    name="htonl",
    claim=Claim(
        "htonl, htons, ntohl and ntohs convert between the host's byte order and the network's.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 3.4",
    ),
    linux="Holds: they turn the bytes round on a little-endian host, and do nothing on a big-endian one.",
    prediction=Prediction("turned round if little-endian, else the same", ("POSIX: htonl()",), predict_conversions),
    provoke=idle,
    observe=observe_conversions,
    judge=judge_conversions,
    kinds=KINDS,
)

# A7

ADDRESS = "192.168.6.222"
ODD = {
    "10": "0000000a",
    "192.168.1710": "c0a806ae",
    "0x7f.1": "7f000001",
    "010.0.0.1": "08000001",
    "1.2.3.4 x": "01020304",
    "1.2.3.256": "EINVAL",
}

TEXTS = """
import ctypes
libc = ctypes.CDLL(None)
libc.inet_addr.restype = ctypes.c_uint32
class in_addr(ctypes.Structure):
    _fields_ = [("s_addr", ctypes.c_uint32)]
libc.inet_ntoa.argtypes, libc.inet_ntoa.restype = [in_addr], ctypes.c_void_p

def inet_addr(text):
    return libc.inet_addr(text.encode())

def inet_aton(text):
    found = in_addr()
    return bytes(found).hex() if libc.inet_aton(text.encode(), ctypes.byref(found)) else "EINVAL"

def inet_pton(text):
    found = in_addr()
    return bytes(found).hex() if libc.inet_pton(socket.AF_INET, text.encode(), ctypes.byref(found)) == 1 else "EINVAL"

def inet_ntoa(number):
    return libc.inet_ntoa(in_addr(number))
"""


def provoke_texts(stage: Stage, _: Cell) -> None:
    stage.on("server").do(TEXTS)


def observe_texts(stage: Stage, _: Cell) -> Seen:
    player = stage.on("server")
    player.do(f"first = inet_ntoa(inet_addr({ADDRESS!r})); text = ctypes.string_at(first).decode()")
    player.do("second = inet_ntoa(inet_addr('10.0.0.1'))")
    seen: dict[str, Value] = {
        "inet_aton": player.do(f"inet_aton({ADDRESS!r})"),
        "inet_addr": player.do(f"inet_addr({ADDRESS!r})"),
        "inet_ntoa": player.do("text"),
        "inet_addr of 255.255.255.255": player.do("hex(inet_addr('255.255.255.255'))"),
        "inet_addr of nonsense": player.do("hex(inet_addr('nonsense'))"),
        "inet_ntoa's first result after a second call": player.do("ctypes.string_at(first).decode()"),
    }
    for text in ODD:
        seen[f"inet_aton of '{text}'"] = player.do(f"inet_aton({text!r})")
        seen[f"inet_pton of '{text}'"] = player.do(f"inet_pton({text!r})")
    return seen


def predict_texts(facts: Facts, _: CellRun) -> Mapping[str, Value]:
    return {
        "inet_aton": "c0a806de",
        "inet_addr": int.from_bytes(bytes.fromhex("c0a806de"), facts.byte_order),
        "inet_ntoa": ADDRESS,
        "inet_addr of 255.255.255.255": "0xffffffff",
        "inet_addr of nonsense": "0xffffffff",
        "inet_ntoa's first result after a second call": "10.0.0.1",
        **{f"inet_aton of '{text}'": value for text, value in ODD.items()},
        **{f"inet_pton of '{text}'": "EINVAL" for text in ODD},
    }


def judge_texts(facts: Facts, runs: Sequence[CellRun]) -> Verdict:
    seen = only(runs)
    memory = int(seen["inet_addr"]).to_bytes(4, facts.byte_order).hex()
    if (memory, seen["inet_aton"], seen["inet_ntoa"]) == ("c0a806de", "c0a806de", ADDRESS):
        return Verdict("HOLDS")
    return Verdict("REFUTED", f"{ADDRESS} lies in memory as {memory} and {seen['inet_aton']}, and comes back as {seen['inet_ntoa']}")


TEXT = Experiment(
    id="A7",
    name="inet-aton",
    claim=Claim(
        "inet_aton and inet_addr make of an address in dotted decimals the 32 bits in network byte order, and inet_ntoa the text again.",
        "Stevens, Fenner, Rudoff: UNIX Network Programming, volume 1, section 3.6",
    ),
    linux=(
        "Holds. But inet_addr cannot tell 255.255.255.255 from an error, inet_aton takes much that is no dotted decimal, and "
        "inet_ntoa has one buffer, so a second call changes the first result."
    ),
    prediction=Prediction(
        "192.168.6.222 is c0 a8 06 de in memory everywhere: 3724978368 as a number on a little-endian host, 3232237278 on a big-endian one",
        ("inet(3)", "glibc: resolv/inet_addr.c"),
        predict_texts,
    ),
    provoke=provoke_texts,
    observe=observe_texts,
    judge=judge_texts,
    kinds=KINDS,
)

EXPERIMENTS = (STRUCTURE, INTERCHANGEABLE, ZERO, FAMILY, BYTE_ORDER, CONVERSION, TEXT)
