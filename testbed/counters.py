"""The counters of a host's kernel and interfaces, and what happened between two looks at them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches

from testbed.errors import UnknownName
from testbed.process import Result

_OF_IPV6 = "/proc/net/snmp6"  # a kernel without IPv6 has none
_FILES = ("/proc/net/snmp", "/proc/net/netstat", "/proc/net/dev", _OF_IPV6)
NEAR = 8  # how many names an error offers

_RECEIVED = ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")
_SENT = ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")
_OF_INTERFACE = (*(f"rx_{name}" for name in _RECEIVED), *(f"tx_{name}" for name in _SENT))
_GROUP_OF_SNMP6 = re.compile(r"(Ip6|Icmp6|Udp6|UdpLite6)(?=[A-Z])")


class Counters(Mapping[str, int]):
    """The counters at one moment, or with ``later - earlier`` what each rose by in between.

    Names are those of nstat(8) and RFC 4293 with their group: ``TcpExt.ListenOverflows``, ``Tcp.RetransSegs``, ``Ip6.InReceives``,
    and of an interface ``eth0.rx_packets``. A few are no counters but levels (``Tcp.CurrEstab``), and may fall. The kernel's are
    64 bits wide and do not wrap in a lab's life; all start at 0 again when a host is made anew. One that a host does not show
    until it happens (``IcmpMsg.OutType3``) counts as 0 in a difference.

    The text of one has only what is not 0. Raises :class:`UnknownName` for a name that is none; ``get`` does not.
    """

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> int:
        try:
            return self._values[name]
        except KeyError:
            raise UnknownName("counter", name, _near(name, self._values)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str, default: int = 0) -> int:  # type: ignore[override]  # a counter that is not there has counted nothing
        """The counter, or ``default`` when there is none of that name."""
        return self._values.get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters({name: value - earlier.get(name) for name, value in self._values.items()})

    @property
    def changed(self) -> dict[str, int]:
        """Those that are not 0; of a difference, what happened."""
        return {name: value for name, value in self._values.items() if value}

    def __repr__(self) -> str:
        return f"Counters({', '.join(f'{name}={value}' for name, value in self.changed.items())})"


def counters(run: Callable[[Sequence[str]], Result], host: str) -> Counters:
    """All counters of a host at this moment."""
    result = run(["cat", *_FILES])
    if not all(_OF_IPV6 in line for line in result.error_text.splitlines()):
        result.check(where=f"host {host}")
    return parse_counters(result.text)


def parse_counters(text: str) -> Counters:
    """/proc/net/snmp, netstat, dev and snmp6, one after the other.

    The first two have their names in one line and the values in the next, with the group before both; dev has a line an interface,
    snmp6 a line a counter.
    """
    values: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for line in text.splitlines():
        group, colon, rest = line.partition(":")
        words, group = rest.split(), group.strip()
        if not colon:
            one = line.split()
            if len(one) == 2 and one[1].isdigit():
                values[_GROUP_OF_SNMP6.sub(r"\1.", one[0], count=1)] = int(one[1])
        elif words and not _is_number(words[0]):
            names[group] = words
        elif group in names:
            values |= {f"{group}.{name}": int(value) for name, value in zip(names[group], words, strict=True)}
        elif len(words) == len(_OF_INTERFACE):
            values |= {f"{group}.{name}": int(value) for name, value in zip(_OF_INTERFACE, words, strict=True)}
    return Counters(values)


def _is_number(word: str) -> bool:
    return word.removeprefix("-").isdigit()


def _near(name: str, known: Mapping[str, int]) -> list[str]:
    """The known names whose last part is like that of ``name``, whatever their group; else all."""
    last = name.rpartition(".")[2].lower()
    by_last: dict[str, list[str]] = {}
    for one in known:
        by_last.setdefault(one.rpartition(".")[2].lower(), []).append(one)
    alike = [one for close in get_close_matches(last, by_last, n=3, cutoff=0.8) for one in by_last[close]]
    return alike[:NEAR] or list(known)
