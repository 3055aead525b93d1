"""A topology as a picture: the text of a Mermaid or Graphviz diagram. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from testbed.errors import InputError
from testbed.topology import Attachment, Host, Network, Topology

_EMULATED_FILL, _NATIVE_FILL, _NETWORK_FILL = "#fde9d0", "#dcebfa", "#eeeeee"


def mermaid(topology: Topology) -> str:
    """A Mermaid flowchart: networks as rounded boxes, hosts hang on them, big-endian hosts in their own colour."""
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
    lines.append(f"    classDef native fill:{_NATIVE_FILL},stroke:#36c,color:#111")
    lines.append(f"    classDef emulated fill:{_EMULATED_FILL},stroke:#c60,color:#111,stroke-width:2px")
    lines.append(f"    class {','.join(networks.values())} network")
    for kind in ("native", "emulated"):
        of_kind = [hosts[name] for name, host in topology.hosts.items() if host.kind == kind]
        if of_kind:
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
        fill = _EMULATED_FILL if host.kind == "emulated" else _NATIVE_FILL
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
    kind = "s390x, big-endian" if host.kind == "emulated" else (host.arch or "native")
    return [host.name, kind, *(["forwards"] if host.forwarding else []), *([" ".join(host.command)[:40]] if host.command else [])]


def _addresses(attachment: Attachment) -> str:
    return " ".join(str(one) for one in (attachment.address, attachment.address6) if one is not None)


def _lines(words: list[str], between: str) -> str:
    """Words as the lines of a label; what a label's quotes would end on is taken out."""
    return between.join(word.replace("\\", "/").replace('"', "'") for word in words)
