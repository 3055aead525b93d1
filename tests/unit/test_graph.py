"""A topology as the text of a picture."""

from __future__ import annotations

import pytest

from testbed import shipped, topology_file
from testbed.errors import InputError
from testbed.graph import FORMATS, draw, host_words
from testbed.topology import Topology

LAB = Topology.build(
    {
        "name": "lab",
        "networks": {"lan": {"subnet": "10.5.0.0/24", "mtu": 1400, "external": True}, "far": {}},
        "hosts": {
            "client": {"networks": {"lan": "10.5.0.7"}, "command": ["sh", "-c", 'echo "x" \\ y']},
            "router": {"networks": ["lan", "far"], "forwarding": True},
            "big": {"kind": "emulated", "networks": ["far"]},
            "own": {"kind": "vm", "networks": ["far"]},
            "little": {"kind": "vm", "arch": "amd64", "kernel": "trixie", "networks": ["far"]},
        },
    }
)


def test_mermaid_draws_every_host_network_and_link() -> None:
    lines = [line.strip() for line in draw(LAB, "mermaid").splitlines()]
    assert lines[0] == "flowchart TB"
    assert 'n0(["lan<br/>10.5.0.0/24<br/>MTU 1400<br/>external"])' in lines
    assert 'h1["router<br/>native<br/>forwards"]' in lines
    assert "n0 ---|10.5.0.7| h0" in lines
    assert [line for line in lines if " --- h" in line] == ["n0 --- h1", "n1 --- h1", "n1 --- h2", "n1 --- h3", "n1 --- h4"]
    assert "class h0,h1 native" in lines
    assert "class h2 emulated" in lines
    assert "class h3,h4 vm" in lines
    drawn = {line.split(" ")[1] for line in lines if line.startswith("classDef ")}
    assert drawn == {"network", "native", "emulated", "vm"}


def test_a_vm_says_its_byte_order_and_its_kernel() -> None:
    assert host_words(LAB.host("own")) == ["own", "s390x, big-endian", "kernel bookworm"]
    assert host_words(LAB.host("little")) == ["little", "amd64", "kernel trixie"]


def test_each_kind_of_host_has_its_own_colour() -> None:
    fills = [
        line.split("fillcolor=")[1] for line in draw(LAB, "dot").splitlines() if line.strip().startswith('"host ') and "fillcolor" in line
    ]
    client, router, big, own, little = fills
    assert client == router
    assert own == little
    assert len({client, big, own}) == 3


def test_dot_draws_every_host_network_and_link() -> None:
    text = draw(LAB, "dot")
    assert text.startswith('graph "lab" {')
    assert text.rstrip().endswith("}")
    assert '"network lan" -- "host client" [label="10.5.0.7"]' in text
    assert '"network far" -- "host big"\n' in text
    assert 's390x, big-endian"' in text


@pytest.mark.parametrize("form", FORMATS)
def test_no_word_ends_a_label_early(form: str) -> None:
    for line in draw(LAB, form).splitlines():
        assert line.count('"') % 2 == 0
    assert "'x' / y" in draw(LAB, form)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", shipped.names())
def test_every_shipped_topology_is_drawn(name: str, form: str) -> None:
    topology = topology_file.load(shipped.find(name))
    text = draw(topology, form)
    assert all(host in text for host in topology.hosts)


def test_an_unknown_format_lists_the_known() -> None:
    with pytest.raises(InputError, match="there is no format 'svg'") as caught:
        draw(LAB, "svg")
    assert caught.value.hint == "formats: mermaid, dot"
