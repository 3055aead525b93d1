"""Every kernel that a vm host can have, of both architectures, comes up, is what it says, and talks to a native host."""

from __future__ import annotations

import re

import pytest

from testbed.guest import KERNELS, MODELS
from tests.lab.support import Labs, run_testbed, status

pytestmark = pytest.mark.long

BUILDING_S = 900  # the first time the kernel is fetched, and its guest booted and saved
RELEASES = {"bookworm": r"6\.1\.", "bookworm-backports": r"6\.1[2-9]\.", "trixie": r"6\.12\."}
BYTE_ORDER = {"s390x": "big", "amd64": "little"}
BACKWARDS = """
import socket
listener = socket.create_server(("", 8001))
print("listening", flush=True)
connection, _ = listener.accept()
connection.sendall(connection.recv(99)[::-1])
"""


@pytest.mark.timeout(BUILDING_S)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("arch", MODELS)
def test_a_guest_with_this_kernel_is_a_host(labs: Labs, arch: str, kernel: str) -> None:
    file = labs.file(f"networks:\n  lan:\nhosts:\n  native:\n  guest: {{kind: vm, arch: {arch}, kernel: {kernel}}}\n")
    run_testbed("up", file, timeout_s=BUILDING_S).check()
    row = status(file.stem)["guest"]
    assert (row["arch"], row["byte_order"], row["kernel_of"]) == (arch, BYTE_ORDER[arch], "its own")
    assert row["state"].startswith("running (restored, "), row["state"]
    with labs.lab(file) as lab:
        guest, native = lab.host("guest"), lab.host("native")
        release = guest.run(["uname", "-r"]).check().text.strip()
        assert re.match(RELEASES[kernel], release), release
        assert row["kernel"] == release
        assert guest.run(["python3", "-c", "import sys; print(sys.byteorder)"]).check().text.strip() == BYTE_ORDER[arch]
        for server, client in ((guest, native), (native, guest)):
            with server.start(["python3", "-c", BACKWARDS]) as process:
                process.wait_for_line("^listening$")
                talk = client.run(["nc", "-N", "-w", "20", server.name, "8001"], stdin=b"olleh").check()
                assert talk.stdout == b"hello"
                process.result()
        # Modules are there, and are loaded by who needs them.
        guest.run(["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "1ms"]).check()
        assert "netem" in guest.run(["tc", "qdisc", "show", "dev", "eth0"]).check().text
