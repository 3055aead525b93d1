"""The JSON Schema of a topology file, for editors: completion, descriptions, and red lines under what the parser refuses too.

It describes the file with its short forms, not the model. What a schema cannot say (an address inside its subnet, a
name that exists) the parser alone says.

    python -m testbed.topology_schema > docs/topology.schema.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_args

from testbed.package_names import MOST_PACKAGES, PACKAGE_PATTERN, REQUIREMENT_PATTERN
from testbed.topology import MOST_HOSTS, MOST_NETWORKS, MOST_OF_A_COUNT, ArchitectureName, KernelName, Kind
from testbed.topology_values import (
    CAPABILITIES,
    ENVIRONMENT_PATTERN,
    LONGEST_NAME,
    MEMORY_PATTERN,
    NAME_PATTERN,
    RESERVED_HOSTS,
    RESERVED_NETWORKS,
)

Schema = dict[str, Any]

_V4 = r"^([0-9]{1,3}\.){3}[0-9]{1,3}$"
_V4_SUBNET = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9.]+$"
_V6 = "^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$"
_V6_SUBNET = "^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/[0-9]{1,3}$"


def json_schema() -> Schema:
    """A new dict, JSON Schema draft 2020-12."""
    host = _host()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "testbed topology",
        "description": "Networks and the hosts on them: what `testbed up` brings up.",
        "type": "object",
        "additionalProperties": False,
        "required": ["networks", "hosts"],
        "properties": {
            "name": _name("What the lab is called. Without it, the name of the file."),
            "description": {"type": ["string", "null"], "description": "One sentence for whoever reads the file or the status."},
            "networks": {
                "type": "object",
                "description": "The bridge networks by name. `lan:` alone is enough: its subnet is then chosen.",
                "minProperties": 1,
                "maxProperties": MOST_NETWORKS,
                "propertyNames": {**_name(), "not": {"enum": list(RESERVED_NETWORKS)}},
                "additionalProperties": _or_nothing(_network()),
            },
            "hosts": {
                "type": "object",
                "description": "The hosts by name. A host finds another by that name.",
                "minProperties": 1,
                "maxProperties": MOST_HOSTS,
                "propertyNames": {**_name(), "not": {"anyOf": [{"enum": list(RESERVED_HOSTS)}, {"pattern": "^([0-9]+|0x[0-9a-f]+)$"}]}},
                "additionalProperties": _or_nothing(host),
            },
            "defaults": {
                **_or_nothing({**host, "properties": {key: one for key, one in host["properties"].items() if key != "count"}}),
                "description": "What every host has unless it says otherwise. Mappings are merged key by key, lists are replaced.",
            },
        },
    }


def _network() -> Schema:
    return _object(
        {
            "subnet": _text("Its IPv4 subnet, like 10.1.0.0/24. Without it, a free one is chosen when the lab comes up.", _V4_SUBNET),
            "gateway": _text("The address of the machine's end of the bridge. Without it, the first of the subnet.", _V4),
            "ipv6": _flag("Hosts have IPv6 addresses as well; implied by subnet6.", default=False),
            "subnet6": _text("Its IPv6 subnet, like fd00:1::/64. Without it (and ipv6: true), a free one is chosen.", _V6_SUBNET),
            "gateway6": _text("The IPv6 address of the machine's end of the bridge. Without it, the first of the subnet.", _V6),
            "mtu": {
                **_number("The largest packet in bytes; with IPv6 at least 1280.", "integer"),
                "minimum": 576,
                "maximum": 65535,
                "default": 1500,
            },
            "external": _flag("Hosts reach what this machine reaches. Otherwise nobody outside the lab is reachable.", default=False),
        }
    )


def _host() -> Schema:
    address = {"anyOf": [{"pattern": _V4}, {"pattern": _V6}]}
    attachment = _object({"address": _text("A fixed IPv4 address.", _V4), "address6": _text("A fixed IPv6 address.", _V6)})
    sysctl = {"type": ["string", "integer", "boolean"]}
    return _object(
        {
            "count": {
                **_number("So many hosts alike: `client` with count: 3 makes client-1, client-2 and client-3.", "integer"),
                "minimum": 1,
                "maximum": MOST_OF_A_COUNT,
            },
            "kind": _choice(
                "native: a container of this machine's architecture. emulated: an s390x container, big-endian, on this machine's kernel. "
                "vm: a QEMU guest with a kernel of its own.",
                get_args(Kind),
            ),
            "arch": _choice(
                "The architecture. Without it, this machine's for a native host, s390x for an emulated one and a vm (s390x or amd64).",
                get_args(ArchitectureName),
            ),
            "kernel": _choice("The Debian kernel of a vm. Without it, bookworm. Only with kind: vm.", get_args(KernelName)),
            "networks": {
                "description": "The networks it is on (a vm at most 16): a list of names, or names with fixed addresses. "
                "Not needed where there is only one.",
                "anyOf": [
                    {"type": "array", "items": _name(), "uniqueItems": True},
                    {
                        "type": "object",
                        "additionalProperties": {"anyOf": [{"type": "null"}, {"type": "string", **address}, attachment]},
                    },
                    {"type": "null"},
                ],
            },
            "sysctls": _mapping(
                "Kernel parameters. One that is not per network namespace is refused, except on a vm, whose kernel is its own.",
                {"anyOf": [sysctl, {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1}, {"type": "null"}]},
                {"pattern": r"^[a-z][a-z0-9_-]*(\.[A-Za-z0-9_-]+)+$"},
            ),
            "environment": _mapping(
                "Environment variables of every command on it.",
                {"type": ["string", "number", "boolean", "null"]},
                {"pattern": ENVIRONMENT_PATTERN},
            ),
            "files": _mapping(
                "Files put on it before its command runs, by absolute path: the text, or a mapping.",
                {"anyOf": [{"type": ["string", "number", "boolean", "null"]}, _file()]},
                {"pattern": "^/."},
            ),
            "packages": _packages("Debian packages that it has beside those of its image: names, or name=version.", PACKAGE_PATTERN),
            "pip": _packages("Packages of the Python Package Index, like scapy==2.5.0.", REQUIREMENT_PATTERN),
            "memory": {
                "description": "Its limit of memory: bytes, or a number with K, M or G (powers of 1024); at least 6M. "
                "The memory of a vm: whole MiB from 64M to 4G, 128M without it.",
                "anyOf": [{"type": "integer", "minimum": 6 * 2**20}, {"type": "string", "pattern": MEMORY_PATTERN}, {"type": "null"}],
            },
            "cpus": {**_number("Its share of processors, like 0.5 or 2.", "number"), "minimum": 0.01, "maximum": 1024},
            "capabilities": {
                "type": ["array", "null"],
                "description": "Exactly the capabilities that its processes have; [] for none. Not on a vm.",
                "items": {"anyOf": [{"enum": list(CAPABILITIES)}, {"pattern": "^([Cc][Aa][Pp]_)?[A-Za-z_]+$"}], "type": "string"},
            },
            "routes": {
                "type": ["array", "null"],
                "description": "Routes besides those to its own networks.",
                "items": _object(
                    {
                        "to": {"type": "string", "description": "A subnet like 10.2.0.0/24, `default`, or a network's name."},
                        "via": {"type": "string", "description": "An address, or the name of a host on a network that both share."},
                    },
                    required=["to", "via"],
                ),
            },
            "forwarding": _flag("It forwards packets between its networks: a router.", default=False),
            "command": _command("What runs on it: a list, or a string that is split as a shell does (no shell runs it)."),
            "ready": _or_nothing(_ready()),
        }
    )


def _file() -> Schema:
    schema = _object(
        {
            "content": {"type": ["string", "number", "boolean", "null"], "description": "The text of the file."},
            "source": {"type": ["string", "null"], "description": "The file that is copied; relative to the topology file."},
            "mode": {
                "description": "Its permissions in octal, like 0644 (the default) or 0755.",
                "anyOf": [{"type": "string", "pattern": "^(0o?)?[0-7]{3,4}$"}, {"type": "integer"}, {"type": "null"}],
            },
        }
    )
    return {**schema, "oneOf": [{"required": ["content"]}, {"required": ["source"]}]}


def _ready() -> Schema:
    schema = _object(
        {
            "listening": {**_number("A TCP port that something listens on.", "integer"), "minimum": 1, "maximum": 65535},
            "command": _command("A command that ends with exit code 0."),
            "log": {"type": ["string", "null"], "description": "A regular expression found in the output of the host's command."},
            "timeout_s": {
                **_number("Seconds until `up` gives up.", "number"),
                "exclusiveMinimum": 0,
                "maximum": 3600,
                "default": 10,
            },
        }
    )
    one_of = [{"required": [key]} for key in ("listening", "command", "log")]
    return {**schema, "description": "When it counts as up: exactly one condition.", "oneOf": one_of}


def _object(properties: Schema, *, required: list[str] | None = None) -> Schema:
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "required": required} if required else schema


def _or_nothing(schema: Schema) -> Schema:
    return {**schema, "type": ["object", "null"]}


def _name(description: str = "") -> Schema:
    schema: Schema = {"type": "string", "pattern": NAME_PATTERN, "maxLength": LONGEST_NAME}
    return {**schema, "type": ["string", "null"], "description": description} if description else schema


def _text(description: str, pattern: str) -> Schema:
    return {"type": ["string", "null"], "description": description, "pattern": pattern}


def _flag(description: str, *, default: bool) -> Schema:
    return {"type": ["boolean", "null"], "description": description, "default": default}


def _number(description: str, kind: str) -> Schema:
    return {"type": [kind, "null"], "description": description}


def _choice(description: str, allowed: Sequence[str]) -> Schema:
    return {"enum": [*allowed, None], "description": description}


def _command(description: str) -> Schema:
    words = {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1}
    return {"description": description, "anyOf": [{"type": "string", "minLength": 1}, words, {"type": "null"}]}


def _packages(description: str, pattern: str) -> Schema:
    one = {"type": "string", "pattern": pattern}
    return {"description": description, "anyOf": [one, {"type": "array", "items": one, "maxItems": MOST_PACKAGES}, {"type": "null"}]}


def _mapping(description: str, value: Schema, names: Schema) -> Schema:
    return {"type": ["object", "null"], "description": description, "propertyNames": names, "additionalProperties": value}


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
