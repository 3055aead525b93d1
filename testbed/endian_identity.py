"""What a host says of itself is no difference in byte order: names and addresses of hosts become those of the little-endian pair. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from testbed.architecture import ByteOrder
from testbed.endian_messages import ROLES, Role, Turn
from testbed.endian_runs import Pair, Run
from testbed.network import Address, mac_of


def host_name(role: Role, order: ByteOrder) -> str:
    """The name of the host of a role; all are of one length."""
    return f"{role}-{'le' if order == 'little' else 'be'}"


def host_names(pair: Pair) -> dict[Role, str]:
    """The names of the hosts of a pair."""
    return {role: host_name(role, order) for role, order in zip(ROLES, pair, strict=True)}


def as_little(run: Run, pair: Pair, addresses: Mapping[str, Sequence[Address]]) -> Run:
    """A run of a pair as if its hosts were called, and had the ``addresses`` (by host), of the pair of little-endian ones: in messages also
    as the bytes of an address, either way round. What would change the length of a message is left as it is."""
    stand_ins: dict[bytes, bytes] = {}
    for role, order in zip(ROLES, pair, strict=True):
        here, there = (host_name(role, one) for one in (order, "little"))
        forms = [(here.encode(), there.encode()), *_forms(addresses[here], addresses[there])]
        stand_ins |= {own: other for own, other in forms if own != other and len(own) == len(other)}
    if not stand_ins:
        return run
    pattern = re.compile(b"|".join(re.escape(one) for one in sorted(stand_ins, key=len, reverse=True)))

    def changed(data: bytes) -> bytes:
        return pattern.sub(lambda match: stand_ins[match[0]], data)

    said = replace(
        run.said,
        messages={channel: data if channel.is_port else changed(data) for channel, data in run.said.messages.items()},
        turns=tuple(Turn(turn.role, changed(turn.data), turn.end) for turn in run.said.turns),
    )
    endings = {role: replace(ending, stdout=changed(ending.stdout.encode()).decode()) for role, ending in run.endings.items()}
    return Run(endings, said)


def mac_bytes(addresses: Sequence[Address]) -> bytes:
    """The MAC of a host with these addresses, which goes with the IPv4 one."""
    return next(bytes.fromhex(mac_of(one).replace(":", "")) for one in addresses if isinstance(one, IPv4Address))


def _forms(own: Sequence[Address], others: Sequence[Address]) -> list[tuple[bytes, bytes]]:
    """The ways to write each address, beside those of its stand-in."""
    macs = mac_bytes(own), mac_bytes(others)
    found = [macs]
    for separator in (":", "-", ""):  # also as the last digits of a UUID of version 1
        lower = [(one.hex(separator) if separator else one.hex()).encode() for one in macs]
        found += [(lower[0], lower[1]), (lower[0].upper(), lower[1].upper())]
    for here, there in zip(own, others, strict=True):
        found += [(str(here).encode(), str(there).encode()), (here.packed, there.packed), (here.packed[::-1], there.packed[::-1])]
    return found
