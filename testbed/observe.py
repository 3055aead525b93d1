"""What a host's kernel says of itself: one command and one pure parser each."""

from __future__ import annotations

from testbed.host import Host

LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp writes states


def listening_ports(host: Host) -> set[int]:
    """The TCP ports that something on the host listens on, over IPv4 or IPv6."""
    shown = host.run(["cat", "/proc/net/tcp", "/proc/net/tcp6"])
    return parse_listening(shown.text)


def parse_listening(text: str) -> set[int]:
    """The ports in state LISTEN of /proc/net/tcp. Ports are written as numbers, so this holds for every byte order."""
    ports = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[3] == LISTEN:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports
