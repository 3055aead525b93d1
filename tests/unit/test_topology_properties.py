"""Whatever a topology file holds: a Topology or a TopologyError, never anything else, and an error that points into the file."""

import copy
import json
import re
import tempfile
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.errors import TopologyError
from testbed.topology import Topology
from testbed.topology_file import json_schema, load, parse

few = settings(max_examples=100)
many = settings(max_examples=250)

SHIPPED = [path.read_text() for path in sorted((Path(__file__).parents[2] / "topologies").glob("*.yaml"))]
RICH: dict[str, Any] = {
    "name": "rich",
    "description": "everything once",
    "networks": {
        "lan": {"subnet": "10.1.0.0/24", "gateway": "10.1.0.254", "subnet6": "fd00:1::/64", "gateway6": "fd00:1::fe", "mtu": 9000},
        "wan": {"external": True, "ipv6": True},
        "free": None,
    },
    "defaults": {"memory": "64M", "networks": ["lan"], "environment": {"A": "1"}},
    "hosts": {
        "a": {
            "kind": "emulated",
            "arch": "s390x",
            "networks": {"lan": {"address": "10.1.0.5", "address6": "fd00:1::5"}, "wan": None},
            "sysctls": {"net.ipv4.tcp_rmem": [4096, 131072, 6291456], "net.core.somaxconn": 4, "net.ipv4.tcp_syncookies": True},
            "environment": {"B": 2, "C": "x"},
            "files": {"/etc/motd": "hello", "/bin/x": {"content": "#!/bin/sh", "mode": "0755"}},
            "cpus": 0.5,
            "capabilities": ["NET_ADMIN", "cap_net_raw"],
            "routes": [{"to": "free", "via": "r"}, {"to": "default", "via": "10.1.0.7"}],
            "command": "serve --port 7",
            "ready": {"listening": 7, "timeout_s": 2},
        },
        "v": {
            "kind": "vm",
            "arch": "amd64",
            "kernel": "trixie",
            "networks": ["lan"],
            "sysctls": {"vm.swappiness": 1, "net.ipv4.tcp_mem": [1, 2, 3]},
        },
        "r": {"networks": ["lan", "free"], "forwarding": True, "command": ["sleep", "10"], "ready": {"log": "up"}},
        "c": {"count": 3},
    },
}

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["lan", "a", "10.1.0.5", "fd00::1", "10.1.0.0/24", "64M", "default", "s390x", "net.core.somaxconn", "/a", "0x1F"]),
)  # fmt: skip
known_keys = [*RICH, *RICH["hosts"]["a"], *RICH["networks"]["lan"], "count", "lan", "a"]
keys = st.one_of(st.text(max_size=5), st.sampled_from(known_keys))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12)
# What YAML is made of, in any order: much nearer to YAML than arbitrary text.
pieces = st.sampled_from(
    ["a", "hosts", "networks", "lan", "defaults", ":", ": ", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]", ", ", "&x ", "*x", "!!int ",
     "!t ", "|\n", ">\n", "'", '"', "#", " #", "? ", "<<", "---\n", "...\n", "%", "@", "`", "~", "\t", "\r", "\x85", "\u2028", "\0", "é",
     "1", "\\x00", "\\e"]
)  # fmt: skip


def outcome(text: str) -> Topology | TopologyError:
    try:
        return parse(text, file="lab.yaml", name="lab")
    except TopologyError as error:
        return error


def judge(text: str) -> Topology | None:
    """The topology, or nothing after a look at the error."""
    result = outcome(text)
    if isinstance(result, Topology):
        assert result.hosts
        assert all(host.networks.keys() <= result.networks.keys() for host in result.hosts.values())
        return result
    assert result.file == "lab.yaml"
    assert str(result).startswith("lab.yaml:")
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", text.removeprefix("\ufeff"))
    assert 0 <= result.line <= len(lines)
    assert (result.line == 0) == (result.column == 0)
    if result.line:
        assert 1 <= result.column <= len(lines[result.line - 1]) + 1
    assert all(line.isprintable() for line in str(result).split("\n")), "a terminal obeys no file"
    assert len(str(result)) < 20_000
    return None


@many
@given(st.text())
def test_any_text(text: str) -> None:
    judge(text)


@few
@given(st.binary(max_size=40), st.sampled_from([text.encode() for text in SHIPPED]), st.integers(0, 400))
def test_any_bytes(noise: bytes, shipped: bytes, place: int) -> None:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(shipped[:place] + noise + shipped[place:])
        file.flush()
        try:
            load(file.name)
        except TopologyError:
            return


@many
@given(st.lists(pieces, max_size=25))
def test_any_pieces_of_yaml(words: list[str]) -> None:
    judge("".join(words))


@few
@given(st.sampled_from(SHIPPED), st.lists(pieces, max_size=3), st.integers(0, 400), st.integers(0, 20))
def test_any_pieces_of_yaml_in_a_topology(text: str, words: list[str], place: int, left_out: int) -> None:
    judge(text[:place] + "".join(words) + text[place + left_out :])


@many
@given(values)
def test_any_value_of_yaml(value: Any) -> None:
    judge(yaml.safe_dump(value, allow_unicode=True))


@few
@given(values, values, values)
def test_any_values_where_a_topology_has_them(networks: Any, hosts: Any, defaults: Any) -> None:
    judge(yaml.safe_dump({"networks": networks, "hosts": hosts, "defaults": defaults}))
    judge(yaml.safe_dump({"networks": {"lan": networks}, "hosts": {"a": hosts, "b": defaults}}))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside, its own not among them."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [one for key, child in inner for one in ((*path, key), *places(child, (*path, key)))]


PLACES = places(RICH)


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


@many
@given(st.data())
def test_any_change_of_a_topology(data: st.DataObject) -> None:
    changed = copy.deepcopy(RICH)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(places(changed) or PLACES[:1]))
        parent, key = at(changed, path[:-1]), path[-1]
        match data.draw(st.sampled_from(["drop", "replace", "swap", "rename"])):
            case "drop":
                del parent[key]
            case "replace":
                parent[key] = data.draw(values)
            case "swap":
                parent[key] = copy.deepcopy(at(changed, data.draw(st.sampled_from(places(changed)))))
            case "rename" if isinstance(parent, dict):
                parent[data.draw(keys)] = parent.pop(key)
    # Sharing would become aliases, and a swap may have put a value into itself: JSON is YAML without either.
    judge(yaml.safe_dump(json.loads(json.dumps(changed)), sort_keys=False))


@few
@given(st.integers(0, 60), st.integers(0, 60))
def test_any_line_twice(line: int, place: int) -> None:
    lines = yaml.safe_dump(RICH, sort_keys=False).splitlines()
    lines.insert(place % len(lines), lines[line % len(lines)])
    judge("\n".join(lines))


@few
@given(
    st.dictionaries(
        st.one_of(keys, st.integers(), st.none(), st.binary(max_size=2), st.tuples(st.integers())), values | st.binary(max_size=3)
    )
)
def test_any_data_of_python(data: dict[Any, Any]) -> None:
    for one in (data, {"name": "x", "networks": {"lan": {}}, "hosts": data}, {"name": "x", "networks": data, "hosts": {"a": data}}):
        try:
            topology = Topology.build(one)
        except TopologyError:
            continue
        assert topology.hosts


names = st.from_regex("[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True).filter(lambda name: name not in ("localhost", "default"))


@st.composite
def valid(draw: st.DrawFn) -> dict[str, Any]:
    """The data of a topology that is right: each network has its own /24, each fixed address its own host."""
    networks: dict[str, Any] = {}
    for number, name in enumerate(draw(st.lists(names, min_size=1, max_size=3, unique=True))):
        options = {"mtu": st.integers(1280, 65535), "external": st.booleans(), "ipv6": st.booleans()}
        networks[name] = draw(st.fixed_dictionaries({}, optional=options))
        if draw(st.booleans()):
            networks[name]["subnet"] = f"10.{draw(st.integers(0, 255))}.{number}.0/24"
    hosts: dict[str, Any] = {}
    for number, name in enumerate(draw(st.lists(names, min_size=1, max_size=4, unique=True))):
        chosen = draw(st.lists(st.sampled_from(sorted(networks)), min_size=1, unique=True))
        fixed = [one for one in chosen if "subnet" in networks[one] and draw(st.booleans())]
        address = {one: networks[one]["subnet"].replace("0/24", str(number + 2)) for one in fixed}
        parts: dict[str, st.SearchStrategy[Any]] = {
            "kind": st.sampled_from(["native", "emulated"]),
            "memory": st.one_of(st.integers(6 * 2**20, 2**40), st.integers(6, 1000).map(lambda size: f"{size}M")),
            "cpus": st.floats(0.01, 64),
            "environment": st.dictionaries(
                st.from_regex("[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), st.text(st.characters(codec="ascii", min_codepoint=32))
            ),
            "files": st.dictionaries(st.from_regex("/[a-c]{1,3}", fullmatch=True), st.text(st.characters(codec="ascii", min_codepoint=32))),
            "sysctls": st.fixed_dictionaries({"net.core.somaxconn": st.integers(0, 65535)}),
            "forwarding": st.booleans(),
            "command": st.lists(st.from_regex("[a-z]+", fullmatch=True), min_size=1),
        }
        if draw(st.booleans()):
            parts |= {
                "arch": st.sampled_from(["s390x", "amd64"]),
                "kernel": st.sampled_from(["bookworm", "bookworm-backports", "trixie"]),
                "memory": st.one_of(
                    st.integers(64, 4096).map(lambda size: size * 2**20), st.integers(64, 4096).map(lambda size: f"{size}M")
                ),
                "sysctls": st.fixed_dictionaries({"vm.swappiness": st.integers(0, 100), "net.core.rmem_max": st.integers(2304, 2**30)}),
            }
            hosts[name] = {"kind": "vm"}
            del parts["kind"]
        hosts[name] = (
            hosts.get(name, {}) | draw(st.fixed_dictionaries({}, optional=parts)) | {"networks": {one: address.get(one) for one in chosen}}
        )
        if not fixed and draw(st.booleans()):
            hosts[name]["count"] = draw(st.integers(1, 5))
    return {"networks": networks, "hosts": hosts}


VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def names_of(data: dict[str, Any]) -> list[str]:
    return [
        name if "count" not in host else f"{name}-{number + 1}"
        for name, host in data["hosts"].items()
        for number in range(host.get("count", 1))
    ]


@few
@given(valid())
def test_what_is_right_is_taken_by_parser_and_schema(data: dict[str, Any]) -> None:
    expected = names_of(data)
    topology = judge(yaml.safe_dump(data, sort_keys=False))
    if len(set(expected)) < len(expected):
        assert topology is None  # `a` with a count beside an `a-1`
        return
    assert topology is not None
    assert list(topology.hosts) == expected
    assert topology == parse(json.dumps(data), name="lab"), "JSON is YAML"
    VALIDATOR.validate(data)


def refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(TopologyError, match=re.escape(message)) as caught:
        parse(yaml.safe_dump(data, sort_keys=False), file="lab.yaml", name="lab")
    assert caught.value.line > 0


subnets = st.builds(lambda block, prefix: IPv4Network((int(IPv4Network("10.0.0.0/8")[0]) + block, prefix), strict=False),
                    st.integers(0, 2**24 - 1), st.integers(9, 30))  # fmt: skip


def on(subnet: IPv4Network, *addresses: object) -> dict[str, Any]:
    hosts = {f"h{number}": {"networks": {"lan": str(address)}} for number, address in enumerate(addresses)}
    return {"networks": {"lan": {"subnet": str(subnet)}}, "hosts": hosts}


@few
@given(subnets, st.integers(0, 2**32 - 1))
def test_every_address_is_judged_by_its_subnet(subnet: IPv4Network, number: int) -> None:
    inside = subnet[number % subnet.num_addresses]
    outside = subnet.broadcast_address + 1 + number % 1000
    refused(on(subnet, outside), f"{outside} is not in {subnet}")
    refused(on(subnet, subnet[0]), "itself")
    refused(on(subnet, subnet[-1]), "is the broadcast address")
    refused(on(subnet, subnet[1]), "is the gateway")
    if inside in (subnet[0], subnet[1], subnet[-1]):
        return
    assert str(parse(yaml.safe_dump(on(subnet, inside)), name="lab").hosts["h0"].networks["lan"].address) == str(inside)
    if subnet.prefixlen < 30:
        refused(on(subnet, inside, inside), f"host 'h0' has {inside} on network 'lan' already")
    moved = on(subnet, inside)
    moved["networks"]["lan"]["gateway"] = str(inside)
    refused(moved, "is the gateway")
    moved["networks"]["lan"]["gateway"] = str(outside)
    refused(moved, f"{outside} is not in {subnet}")


@few
@given(subnets, subnets)
def test_two_subnets_are_refused_exactly_when_they_overlap(one: IPv4Network, other: IPv4Network) -> None:
    for first, second in ((one, other), (one, next(iter(one.subnets()) if one.prefixlen < 30 else iter([one])))):
        data = {"networks": {"l": {"subnet": str(first)}, "r": {"subnet": str(second)}}, "hosts": {"a": {"networks": ["l"]}}}
        if first.overlaps(second):
            refused(data, f"{second} overlaps {first} of network 'l'")
        else:
            assert parse(yaml.safe_dump(data), name="lab")


@few
@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_a_subnet_is_taken_exactly_in_the_private_blocks(number: int, prefix: int) -> None:
    subnet = IPv4Network((number, prefix), strict=False)
    blocks = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15"]
    blocks += ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]
    data = {"networks": {"lan": {"subnet": str(subnet)}}, "hosts": {"a": None}}
    if prefix <= 30 and any(subnet.subnet_of(IPv4Network(block)) for block in blocks):
        assert parse(yaml.safe_dump(data), name="lab")
    else:
        refused(data, f"networks.lan.subnet: {subnet} ")
