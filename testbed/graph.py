"""A topology as a picture: the text of a Mermaid or Graphviz diagram. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from testbed.architecture import ARCHITECTURES, EMULATED
from testbed.errors import InputError
from testbed.topology import Attachment, Host, Network, Topology

_NETWORK_FILL = "#eeeeee"
# By kind of host: what fills its box, and the line around it.
_COLOURS = {"native": ("#dcebfa", "#36c"), "emulated": ("#fde9d0", "#c60"), "vm": ("#e2f2dc", "#383")}


def mermaid(topology: Topology) -> str:
    """A Mermaid flowchart: networks as rounded boxes, hosts hang on them, each kind in its own colour."""
    networks = {name: f"n{index}" for index, name in enumerate(topology.networks)}
    hosts = {name: f"h{index}" for index, name in enumerate(topology.hosts)}
    lines = ["flowchart TB"]
    lines += [f'    {networks[name]}(["{_lines(network_words(network), "<br/>")}"])' for name, network in topology.networks.items()]
    lines += [f'    {hosts[name]}["{_lines(host_words(host), "<br/>")}"]' for name, host in topology.hosts.items()]
    for name, host in topology.hosts.items():
        for place, attachment in host.networks.items():
            label = _addresses(attachment)
            lines.append(f"    {networks[place]} ---{f'|{label}|' if label else ''} {hosts[name]}")
    lines.append(f"    classDef network fill:{_NETWORK_FILL},stroke:#777,color:#111")
    lines.append(f"    class {','.join(networks.values())} network")
    for kind, (fill, stroke) in _COLOURS.items():
        of_kind = [hosts[name] for name, host in topology.hosts.items() if host.kind == kind]
        if of_kind:
            width = "" if kind == "native" else ",stroke-width:2px"
            lines.append(f"    classDef {kind} fill:{fill},stroke:{stroke},color:#111{width}")
            lines.append(f"    class {','.join(of_kind)} {kind}")
    return "\n".join(lines) + "\n"


def dot(topology: Topology) -> str:
    """A Graphviz graph of the same."""
    lines = [
        f'graph "{topology.name}" {{',
        '    graph [rankdir=TB, nodesep=0.4, ranksep=0.6, fontname="Helvetica"]',
        '    node [fontname="Helvetica", fontsize=11, style="filled,rounded", shape=box]',
        '    edge [fontname="Helvetica", fontsize=9, color="#555555"]',
    ]
    for name, network in topology.networks.items():
        words = _lines(network_words(network), "\\n")
        lines.append(f'    "network {name}" [label="{words}", shape=oval, fillcolor="{_NETWORK_FILL}"]')
    for name, host in topology.hosts.items():
        fill = _COLOURS[host.kind][0]
        lines.append(f'    "host {name}" [label="{_lines(host_words(host), chr(92) + "n")}", fillcolor="{fill}"]')
    for name, host in topology.hosts.items():
        for place, attachment in host.networks.items():
            label = _addresses(attachment)
            lines.append(f'    "network {place}" -- "host {name}"' + (f' [label="{label}"]' if label else ""))
    return "\n".join([*lines, "}", ""])


def as_json(topology: Topology) -> dict[str, object]:
    """What the picture shows, for programs: networks, hosts, and the links between them."""
    return {
        "networks": [{"name": name, "words": network_words(network)} for name, network in topology.networks.items()],
        "hosts": [{"name": name, "kind": host.kind, "words": host_words(host)} for name, host in topology.hosts.items()],
        "links": [{"host": name, "network": network} for name, host in topology.hosts.items() for network in host.networks],
    }


FORMATS: Mapping[str, Callable[[Topology], str]] = {"mermaid": mermaid, "dot": dot}


def draw(topology: Topology, form: str) -> str:
    """The picture in one of :data:`FORMATS`."""
    if form not in FORMATS:
        raise InputError(f"there is no format '{form}'", hint=f"formats: {', '.join(FORMATS)}")
    return FORMATS[form](topology)


def network_words(network: Network) -> list[str]:
    """What stands in a network's box."""
    subnets = [str(one) for one in (network.subnet, network.subnet6) if one is not None]
    extra = [] if network.mtu == 1500 else [f"MTU {network.mtu}"]
    return [network.name, *subnets, *extra, *(["external"] if network.external else [])]


def host_words(host: Host) -> list[str]:
    """What stands in a host's box."""
    arch = host.arch or (host.kind if host.kind == "native" else EMULATED.name)
    big = arch in ARCHITECTURES and ARCHITECTURES[arch].byte_order == "big"
    kernel = [f"kernel {host.own_kernel}"] if host.own_kernel else []
    return [
        host.name,
        f"{arch}, big-endian" if big else arch,
        *kernel,
        *(["forwards"] if host.forwarding else []),
        *([" ".join(host.command)[:40]] if host.command else []),
    ]


def _addresses(attachment: Attachment) -> str:
    return " ".join(str(one) for one in (attachment.address, attachment.address6) if one is not None)


def _lines(words: list[str], between: str) -> str:
    """Words as the lines of a label; what a label's quotes would end on is taken out."""
    return between.join(word.replace("\\", "/").replace('"', "'") for word in words)
