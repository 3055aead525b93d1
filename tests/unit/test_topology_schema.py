"""The schema for editors says what the parser says."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from testbed.errors import TopologyError
from testbed.topology import Attachment, File, Host, Network, Ready, Route
from testbed.topology_file import json_schema, parse

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

HOST = "networks: {lan: }\nhosts:\n  a:\n    "
NETWORK = "hosts: {a: }\nnetworks:\n  lan:\n    "


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_published_schema_is_the_one_of_this_version() -> None:
    published = json.loads((ROOT / "docs" / "topology.schema.json").read_text())
    assert published == SCHEMA, "run: python -m testbed.topology_schema > docs/topology.schema.json"


@pytest.mark.parametrize("path", sorted((ROOT / "topologies").glob("*.yaml")), ids=lambda path: str(path.name))
def test_the_shipped_topologies_agree_with_it(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


def test_it_has_every_key_of_the_model_and_describes_each() -> None:
    host = SCHEMA["properties"]["hosts"]["additionalProperties"]["properties"]
    parts: list[tuple[dict[str, Any], set[str]]] = [
        (SCHEMA["properties"], {"name", "description", "networks", "hosts", "defaults"}),
        (SCHEMA["properties"]["networks"]["additionalProperties"]["properties"], set(Network.model_fields) - {"name"}),
        (host, (set(Host.model_fields) - {"name"}) | {"count"}),
        (SCHEMA["properties"]["defaults"]["properties"], set(Host.model_fields) - {"name"}),
        (host["networks"]["anyOf"][1]["additionalProperties"]["anyOf"][2]["properties"], set(Attachment.model_fields)),
        (host["files"]["additionalProperties"]["anyOf"][1]["properties"], set(File.model_fields)),
        (host["routes"]["items"]["properties"], set(Route.model_fields)),
        (host["ready"]["properties"], set(Ready.model_fields)),
    ]
    for properties, keys in parts:
        assert set(properties) == keys
        assert all(len(one["description"]) > 10 for one in properties.values()), properties.keys()


@pytest.mark.parametrize(
    "text",
    [
        HOST + "command: server 7",
        HOST + "command: [sleep, 10]",
        HOST + "networks: {lan: }",
        HOST + "networks: [lan]",
        HOST + "count: 3",
        HOST + "files: {/a: text, /b: {content: x, mode: 0755}, /c: {content: x, mode: '0755'}}",
        HOST + "environment: {A: 1, B: x, C: true}",
        HOST + "memory: 1.5G",
        HOST + "sysctls: {net.ipv4.tcp_rmem: [4096, 131072, 6291456], net.core.somaxconn: 5, net.ipv4.tcp_syncookies: true}",
        HOST + "capabilities: [cap_net_raw, ALL]",
        HOST + "command: x\n    ready: {log: up, timeout_s: 0.5}",
        HOST + "memory: null\n    kind: null",
        HOST + "kind: vm",
        HOST + "kind: vm\n    arch: amd64\n    kernel: bookworm-backports\n    memory: 256M\n    sysctls: {vm.swappiness: 0}",
        NETWORK + "subnet: 10.1.0.0/24\n    subnet6: 'fd00::/64'\n    gateway6: 'fd00::7'\n    mtu: 9000",
    ],
)
def test_what_the_parser_takes_the_schema_takes(text: str) -> None:
    parse(text, name="x")
    VALIDATOR.validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "hosts: {a: }",
        "networks: {lan: }",
        "networks: {}\nhosts: {a: }",
        "networks: {lan: }\nhosts: {}",
        "networks: {lan: }\nhosts: {a: }\nother: 1",
        "networks: {lan: }\nhosts: {a: }\nname: Not_A_Name",
        "networks: {lan: }\nhosts: {a: }\ndefaults: {count: 2}",
        "networks: {lan: }\nhosts: {a: }\ndefaults: 5",
        "networks: {default: }\nhosts: {a: }",
        "networks: [lan]\nhosts: {a: }",
        "networks: {lan: }\nhosts: [a]",
        "networks: {lan: }\nhosts: {localhost: }",
        "networks: {lan: }\nhosts: {a_b: }",
        "networks: {lan: }\nhosts: {10: }".replace("10", "'10'"),
        "networks: {lan: }\nhosts: {" + "a" * 64 + ": }",
        "networks: {lan: }\nhosts: {a: text}",
        HOST + "memroy: 64M",
        HOST + "name: b",
        HOST + "count: 0",
        HOST + "count: 501",
        HOST + "count: many",
        HOST + "kind: vmm",
        HOST + "arch: sparc",
        HOST + "kind: vm\n    kernel: bullseye",
        HOST + "memory: 64X",
        HOST + "memory: 5000",
        HOST + "cpus: 0",
        HOST + "cpus: two",
        HOST + "networks: lan",
        HOST + "networks: [Lan]",
        HOST + "networks: [lan, lan]",
        HOST + "networks: {lan: [10.1.0.5]}",
        HOST + "networks: {lan: {adress: 10.1.0.5}}",
        HOST + "sysctls: {somaxconn: 1}",
        HOST + "sysctls: {net.core.somaxconn: {a: b}}",
        HOST + "environment: {1A: x}",
        HOST + "environment: [A]",
        HOST + "files: {relative: x}",
        HOST + "files: {/a: {content: x, source: y}}",
        HOST + "files: {/a: {mode: 0644}}",
        HOST + "files: {/a: {content: x, mode: rw}}",
        HOST + "capabilities: NET_RAW",
        HOST + "capabilities: [NET-RAW]",
        HOST + "routes: {to: default, via: b}",
        HOST + "routes: [{to: default}]",
        HOST + "forwarding: maybe",
        HOST + "command: []",
        HOST + "command: ''",
        HOST + "command: {a: b}",
        HOST + "command: a\n    ready: {}",
        HOST + "command: a\n    ready: {listening: 80, log: x}",
        HOST + "command: a\n    ready: {listening: 65536}",
        HOST + "command: a\n    ready: {listening: 80, timeout_s: 0}",
        NETWORK + "subnet: 10.1.0.0",
        NETWORK + "subnet: [10.1.0.0/24]",
        NETWORK + "subnet6: 10.1.0.0/24",
        NETWORK + "gateway: first",
        NETWORK + "mtu: 100",
        NETWORK + "mtu: large",
        NETWORK + "ipv6: sure",
        NETWORK + "external: 5",
        NETWORK + "subent: 10.1.0.0/24",
    ],
)
def test_what_the_schema_refuses_the_parser_refuses(text: str) -> None:
    assert not VALIDATOR.is_valid(yaml.safe_load(text))
    with pytest.raises(TopologyError):
        parse(text, name="x")
