"""The host that a program alone sends to: every TCP connection is taken, whatever its address and port, and nothing is answered.

Run on that host by Python. Its packet filter brings everything that arrives to two sockets. Prints `ready`, and ends with its input.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys

RULES = """
table inet sink {
    chain arriving {
        type nat hook prerouting priority dstnat;
        meta l4proto tcp redirect to :%d
        meta l4proto udp redirect to :%d
    }
}
"""


def main() -> None:
    tcp = socket.create_server(("::", 0), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", 0))
    rules = RULES % (tcp.getsockname()[1], udp.getsockname()[1])
    subprocess.run(["nft", "-f", "-"], input=rules.encode(), check=True)
    with selectors.DefaultSelector() as chosen:
        for one in (tcp, udp, sys.stdin):
            chosen.register(one, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in chosen.select():
                if key.fileobj is tcp:
                    chosen.register(tcp.accept()[0], selectors.EVENT_READ)
                elif key.fileobj is udp:
                    udp.recv(1 << 16)
                elif isinstance(key.fileobj, socket.socket):
                    if not _reads_on(key.fileobj):
                        chosen.unregister(key.fileobj)
                        key.fileobj.close()
                else:
                    return


def _reads_on(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1 << 16))
    except OSError:  # it was reset
        return False


if __name__ == "__main__":
    main()
