"""The programs of images/programs, compiled for this machine as they are for hosts and tried over loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed import images
from testbed.architecture import ARCHITECTURES
from testbed.process import run_local

LIMIT_S = 20
MINE = sys.byteorder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    run_local(["make", "-C", str(images.directory()), "all", f"OUT={folder}"]).check()
    return folder


class Conversation:
    """A program that is talked to line by line."""

    def __init__(self, argv: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen([str(one) for one in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, command: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.line()

    def end(self) -> tuple[int, str]:
        """Its exit code and what it printed last; the end of its standard input is what ends a listener or connector."""
        output, _ = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, output


Start = Callable[..., Conversation]


@pytest.fixture
def start(programs: Path) -> Iterator[Start]:
    with ExitStack() as cleanup:

        def start(name: str, *arguments: str) -> Conversation:
            conversation = Conversation([programs / name, *arguments])
            cleanup.enter_context(conversation.process)
            cleanup.callback(conversation.process.kill)
            return conversation

        yield start


@pytest.fixture
def port() -> str:
    """One that is free for IPv6 and IPv4 now."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
        return str(probe.getsockname()[1])


def run(programs: Path, name: str, *arguments: str) -> tuple[int, str, str]:
    done = run_local([str(programs / name), *arguments], timeout_s=LIMIT_S)
    return done.exit_code, done.text, done.error_text


def facts(output: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in output.splitlines())


@pytest.mark.parametrize("architecture", [ARCHITECTURES["amd64"], ARCHITECTURES["s390x"]], ids=lambda one: one.name)
def test_every_program_compiles_without_a_warning(architecture: object, tmp_path: Path) -> None:
    compiler = getattr(architecture, "compiler")  # noqa: B009
    done = run_local(["make", "-s", "-C", str(images.directory()), "all", f"CC={compiler}", f"OUT={tmp_path}"])
    assert (done.exit_code, done.text, done.error_text) == (0, "", "")


def test_struct_layout_tells_size_and_offset_of_every_member(programs: Path) -> None:
    code, output, _ = run(programs, "struct-layout")
    layout = facts(output)
    assert code == 0
    assert layout["sockaddr_in"] == "size 16"
    assert layout["sockaddr"] == "size 16"
    assert layout["sockaddr_in6"] == "size 28"
    assert layout["sockaddr_storage"] == "size 128"
    assert layout["in_addr"] == "size 4"
    assert layout["sockaddr_in.sin_family"] == "offset 0 size 2"
    assert layout["sockaddr_in.sin_port"] == "offset 2 size 2"
    assert layout["sockaddr_in.sin_addr"] == "offset 4 size 4"
    assert layout["sockaddr_in.sin_zero"] == "offset 8 size 8"


def test_byte_order_tells_how_this_machine_holds_numbers(programs: Path) -> None:
    code, output, _ = run(programs, "byte-order")
    told = facts(output)
    assert code == 0
    assert told["byte-order"] == MINE
    assert told["memory"] == "0x01020304 " + (0x01020304).to_bytes(4, MINE).hex(" ")
    assert told["network"] == "0x01020304 01 02 03 04"
    assert told["htonl"] == f"0x01020304 0x{socket.htonl(0x01020304):08x}"
    assert told["ntohl"] == f"0x01020304 0x{socket.ntohl(0x01020304):08x}"
    assert told["htons"] == f"0x0102 0x{socket.htons(0x0102):04x}"
    assert told["ntohs"] == f"0x0102 0x{socket.ntohs(0x0102):04x}"
    assert told["forgotten-htons"] == f"8001 {socket.htons(8001)}"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_the_exchange_carries_integer_and_text(programs: Path, start: Start, port: str, address: str) -> None:
    server = start("exchange-server", port)
    assert server.line() == f"listening {port}"
    code, output, _ = run(programs, "exchange-client", address, port, "16909060", "Grüße")
    told = facts(output)
    wire = (16909060).to_bytes(4, "big") + len("Grüße".encode()).to_bytes(2, "big") + "Grüße".encode()
    assert code == 0
    assert told == {
        "byte-order": MINE,
        "integer": "16909060",
        "memory": (16909060).to_bytes(4, MINE).hex(" "),
        "text": "Grüße",
        "sent": wire.hex(" "),
        "acknowledged": "yes",
    }
    code, output = server.end()
    told = facts(output)
    client = told.pop("client")
    assert code == 0
    assert client.split()[0] == ("::1" if address == "::1" or client.startswith("::1") else "127.0.0.1")
    assert told == {
        "byte-order": MINE,
        "received": wire.hex(" "),
        "integer": "16909060",
        "memory": (16909060).to_bytes(4, MINE).hex(" "),
        "length": "7",
        "text": "Grüße",
        "complete": "yes",
    }


def test_a_client_without_htonl_is_read_as_what_its_bytes_say(programs: Path, start: Start, port: str) -> None:
    server = start("exchange-server", port)
    server.line()
    code, output, _ = run(programs, "exchange-client", "-r", "127.0.0.1", port, "1", "hello")
    wire = (1).to_bytes(4, MINE) + (5).to_bytes(2, MINE) + b"hello"
    whole = MINE == "big"
    assert facts(output)["sent"] == wire.hex(" ")
    assert facts(output)["acknowledged"] == ("yes" if whole else "no")
    assert code == (0 if whole else 1)
    code, output = server.end()
    told = facts(output)
    assert told["received"] == wire.hex(" ")
    assert told["integer"] == str(int.from_bytes(wire[:4], "big"))
    assert told["length"] == str(int.from_bytes(wire[4:6], "big"))
    assert told["text"] == "hello"
    assert told["complete"] == ("yes" if whole else "no")
    assert code == (0 if whole else 1)


def test_the_exchange_server_puts_a_message_together_from_single_bytes(start: Start, port: str) -> None:
    server = start("exchange-server", port)
    server.line()
    with socket.create_connection(("127.0.0.1", int(port)), timeout=LIMIT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"\0\0\0\x07\0\x02hi":
            client.send(bytes([byte]))
        assert client.recv(1) == b"\x06"
    code, output = server.end()
    assert (code, facts(output)["integer"], facts(output)["text"]) == (0, "7", "hi")


@pytest.mark.parametrize(
    ("sent", "received", "length"),
    [(b"", "", None), (b"\0\0\0\x07\0", "00 00 00 07 00", None), (b"\0\0\0\x07\xff\xffhi", "00 00 00 07 ff ff 68 69", "65535")],
    ids=["nothing", "half a header", "a length beyond what comes"],
)
def test_the_exchange_server_says_what_is_missing(start: Start, port: str, sent: bytes, received: str, length: str | None) -> None:
    server = start("exchange-server", port)
    server.line()
    with socket.create_connection(("127.0.0.1", int(port)), timeout=LIMIT_S) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b"\x15"
    code, output = server.end()
    told = dict(line.partition(" ")[::2] for line in output.splitlines())
    assert code == 1
    assert told["received"] == received
    assert told.get("length") == length
    assert told["complete"] == "no"


def test_an_answer_survives_bytes_after_the_message(start: Start, port: str) -> None:
    server = start("exchange-server", port)
    server.line()
    with socket.create_connection(("127.0.0.1", int(port)), timeout=LIMIT_S) as client:
        client.sendall(b"\0\0\0\x07\0\x02hi" + b"and more" * 1000)
        assert client.recv(1) == b"\x06"
    assert server.end()[0] == 0


def test_the_exchange_server_serves_as_many_clients_as_told(programs: Path, start: Start, port: str) -> None:
    server = start("exchange-server", "-n", "3", port)
    server.line()
    for number in ("0", "4294967295", "7"):
        assert run(programs, "exchange-client", "127.0.0.1", port, number, "")[0] == 0
    code, output = server.end()
    assert code == 0
    assert [line for line in output.splitlines() if line.startswith("integer")] == ["integer 0", "integer 4294967295", "integer 7"]


def test_text_that_would_break_a_line_is_shown_escaped(programs: Path, start: Start, port: str) -> None:
    server = start("exchange-server", port)
    server.line()
    _, output, _ = run(programs, "exchange-client", "127.0.0.1", port, "1", "a\nb\\c")
    assert facts(output)["text"] == facts(server.end()[1])["text"] == r"a\x0ab\x5cc"


def test_the_echo_comes_back(programs: Path, start: Start, port: str) -> None:
    server = start("echo-server", "-1", port)
    assert server.line() == f"listening {port}"
    assert run(programs, "echo-client", "127.0.0.1", port, "hello") == (0, "echo hello\n", "")
    code, output = server.end()
    assert code == 0
    assert output.splitlines()[1:] == ["echoed 5"]


def test_the_echo_server_outlives_its_clients(programs: Path, start: Start, port: str) -> None:
    server = start("echo-server", port)
    server.line()
    for text in ("one", "two"):
        assert run(programs, "echo-client", "::1", port, text)[0] == 0
    assert server.process.poll() is None


def test_an_echo_that_differs_is_a_failure(programs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as wrong:
        client = subprocess.Popen(
            [programs / "echo-client", "127.0.0.1", str(wrong.getsockname()[1]), "hello"], stdout=subprocess.PIPE, text=True
        )
        connection, _ = wrong.accept()
        with connection:
            connection.sendall(b"HELLO")
        output, _ = client.communicate(timeout=LIMIT_S)
    assert (client.returncode, output) == (1, "echo HELLO\n")


def test_a_listener_accepts_when_told_and_in_order(start: Start, port: str) -> None:
    listener = start("listener", "-b", "3", "-r", port)
    assert listener.line() == f"listening {port} backlog 3"
    assert listener.ask("accept") == "accepted nothing (EAGAIN)"
    with (
        socket.create_connection(("127.0.0.1", int(port)), timeout=LIMIT_S) as first,
        socket.create_connection(("::1", int(port)), timeout=LIMIT_S) as second,
    ):
        assert listener.ask("accept") == f"accepted 127.0.0.1 {first.getsockname()[1]}"
        assert listener.ask("accept") == f"accepted ::1 {second.getsockname()[1]}"
        assert listener.ask("close") == f"closed 127.0.0.1 {first.getsockname()[1]}"
        assert first.recv(1) == b""
    assert listener.ask("listen 7") == f"listening {port} backlog 7"
    assert listener.ask("dance").startswith("unknown command")
    assert listener.ask("quit") == "quit"
    assert listener.end() == (0, "")


def test_a_connector_reports_every_change_of_its_connections(start: Start, port: str) -> None:
    listener = start("listener", port)
    listener.line()
    connector = start("connector", "127.0.0.1", port, "3")
    lines = sorted(connector.line() for _ in range(6))
    assert [line for line in lines if line.endswith("connected")] == [f"connection {i} connected" for i in (1, 2, 3)]
    assert connector.ask("state") == "connecting 0 connected 3 failed 0 closed 0"
    listener.ask("accept")
    listener.ask("close")
    assert connector.line() == "connection 1 closed"
    assert listener.end()[0] == 0  # two connections were never accepted: their clients are reset
    assert sorted(connector.line() for _ in range(2)) == [f"connection {i} failed ECONNRESET" for i in (2, 3)]
    assert connector.ask("state") == "connecting 0 connected 0 failed 2 closed 1"
    assert connector.end() == (0, "")


def test_a_connector_says_when_nobody_listens(start: Start, port: str) -> None:
    connector = start("connector", "127.0.0.1", port, "1")
    assert connector.line().startswith("connection 1 connecting ")
    assert connector.line() == "connection 1 failed ECONNREFUSED"
    assert connector.ask("quit") == ""
    assert connector.end() == (0, "")


def test_a_port_in_use_is_named_by_its_errno(programs: Path, start: Start, port: str) -> None:
    start("listener", port).line()
    code, _, error = run(programs, "listener", port)
    assert (code, error) == (1, "listener: bind: Address already in use (EADDRINUSE)\n")


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("struct-layout x", "it takes no arguments"),
        ("byte-order x", "it takes no arguments"),
        ("echo-server", "it takes one PORT"),
        ("echo-server -2 80", "option -2 is unknown or lacks its value"),
        ("echo-server 0", "PORT '0' is not a number from 1 to 65535"),
        ("echo-client localhost 80", "it takes HOST, PORT and TEXT"),
        ("echo-client localhost http x", "PORT 'http' is not a number from 1 to 65535"),
        ("listener -b many 80", "BACKLOG 'many' is not a number from -1 to 1000000"),
        ("listener -b", "option -b is unknown or lacks its value"),
        ("listener 65536", "PORT '65536' is not a number from 1 to 65535"),
        ("connector localhost 80 0", "N '0' is not a number from 1 to 1000"),
        ("connector localhost 80", "it takes HOST, PORT and N"),
        ("exchange-server -n 0 80", "COUNT '0' is not a number from 1 to 1000000"),
        ("exchange-server 80 81", "it takes one PORT"),
        ("exchange-client localhost 80 4294967296 x", "INTEGER '4294967296' is not a number from 0 to 4294967295"),
        ("exchange-client localhost 80 -1 x", "INTEGER '-1' is not a number from 0 to 4294967295"),
        ("exchange-client localhost 80 1", "it takes HOST, PORT, INTEGER and TEXT"),
        ("exchange-client localhost 80 1x y", "INTEGER '1x' is not a number from 0 to 4294967295"),
    ],
)
def test_bad_arguments_are_named_with_the_usage(programs: Path, call: str, complaint: str) -> None:
    name, *arguments = call.split()
    code, output, error = run(programs, name, *arguments)
    assert (code, output) == (2, "")
    first, usage = error.splitlines()
    assert first == f"{name}: {complaint}"
    assert usage.startswith(f"usage: {name}")


def test_a_text_that_no_message_holds_is_refused(programs: Path) -> None:
    code, _, error = run(programs, "exchange-client", "localhost", "80", "1", "x" * 65536)
    assert code == 2
    assert "65536 bytes" in error


def test_every_program_tells_its_usage(programs: Path) -> None:
    names = [one.name for one in programs.iterdir() if one.is_file() and one.name != "init"]
    assert len(names) == 8
    for name in names:
        code, output, _ = run(programs, name, "--help")
        assert (code, output.startswith(f"usage: {name}")) == (0, True)
