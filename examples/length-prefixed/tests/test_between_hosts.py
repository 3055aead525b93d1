"""Client and server on hosts of the same byte order, and of different ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed import Lab

PROJECT = Path(__file__).parents[1]
PORT = 8001
PAIRS = [("little-1", "little-2"), ("little-1", "big-1"), ("big-1", "little-1"), ("big-1", "big-2")]

pytestmark = pytest.mark.topology("byte-orders.yaml")
each_pair = pytest.mark.parametrize(("client", "server"), PAIRS)


def install(lab: Lab, host: str, frames: Path) -> None:
    """The program as it is here, with ``frames`` as its protocol."""
    lab.host(host).put(PROJECT / "memo", "/tmp/memo")
    lab.host(host).put(frames, "/tmp/memo/frames.py")


def talk(lab: Lab, client: str, server: str, *texts: str) -> tuple[str, str]:
    """Send memos from one host to the other; gives what the client printed, and its complaint."""
    with lab.host(server).start(["python3", "-m", "memo.server", str(PORT)], directory="/tmp") as process:
        process.wait_listening(PORT)
        sent = lab.host(client).run(["python3", "-m", "memo.client", server, str(PORT), *texts], directory="/tmp")
    return sent.text, sent.error_text


@each_pair
def test_memos_arrive(lab: Lab, client: str, server: str) -> None:
    for host in (client, server):
        install(lab, host, PROJECT / "memo" / "frames.py")
    assert talk(lab, client, server, "hello", "größer") == ("1: hello\n2: größer\n", "")


@each_pair
def test_a_length_in_the_hosts_own_order_is_noticed_between_byte_orders_alone(lab: Lab, client: str, server: str) -> None:
    """faulty/frames.py forgets the ! of struct.pack("!I", ...)."""
    for host in (client, server):
        install(lab, host, PROJECT / "faulty" / "frames.py")
    answer, complaint = talk(lab, client, server, "hello")
    if lab.host(client).byte_order == lab.host(server).byte_order:
        assert (answer, complaint) == ("1: hello\n", "")
    else:
        assert answer == ""
        assert complaint in ("memo: the server hung up\n", "memo: [Errno 104] Connection reset by peer\n")
