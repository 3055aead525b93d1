"""The single values of a topology: how each may be written, and what is refused.

Every reader takes what stands in a file (or in Python) and gives the value that the model holds. It raises
:class:`InputError` whose message ends the sentence "hosts.client.memory: ..." and whose hint says what may stand there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import PurePosixPath

from testbed.errors import InputError, did_you_mean

NAME_PATTERN = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
LONGEST_PATH = 4000  # the kernel's PATH_MAX is 4096
LONGEST_NAME = 63  # a host's name is a DNS label
ENVIRONMENT_PATTERN = "^[A-Za-z_][A-Za-z0-9_]*$"
MEMORY_PATTERN = r"^[0-9]+(\.[0-9]+)?\s*([KMGkmg]([Ii]?[Bb])?|[Bb])?$"
MODE_PATTERN = "^(0o?)?[0-7]{3,4}$"

# Docker refuses less.
LEAST_MEMORY = 6 * 2**20
# Less, and a guest's kernel does not come up; more is more than a machine with some guests has to give.
LEAST_GUEST_MEMORY, MOST_GUEST_MEMORY = 64 * 2**20, 4 * 2**30
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}

# Names that every host's /etc/hosts has already.
RESERVED_HOSTS = ("localhost", "ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters")
# `to: default` is a route to everywhere.
RESERVED_NETWORKS = ("default",)

DEFAULT_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETUID")
# capabilities(7), in the kernel's order.
# fmt: off
CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
    "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE", "ALL",
)
# fmt: on

# A lab's subnet hides the real one behind it from this machine; in these blocks nothing public can be hidden.
SUBNETS = tuple(
    IPv4Network(block)
    for block in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918, private
        "100.64.0.0/10",  # RFC 6598, carrier-grade NAT
        "198.18.0.0/15",  # RFC 2544, benchmarks
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),  # RFC 5737, documentation
    )
)
SUBNETS6 = (IPv6Network("fc00::/7"), IPv6Network("2001:db8::/32"))  # RFC 4193, unique local; RFC 3849, documentation
LONGEST_PREFIX, LONGEST_PREFIX6 = 30, 126  # with less there is no room for a gateway and a host

# What stands alone in a command line only when its author thinks that a shell reads it.
_SHELL_WORDS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "<<", "2>", "2>&1", "&>"})


def read_name(value: object, *, what: str = "name", reserved: Iterable[str] = ()) -> str:
    """A lab's, network's or host's name: lower-case letters, digits and hyphens, at most 63."""
    hint = f"a name is made of a-z, 0-9 and '-', begins and ends with a letter or digit, and has at most {LONGEST_NAME} characters"
    name = _text(value, hint)
    if not re.fullmatch(NAME_PATTERN, name) or "\n" in name:
        raise InputError(f"{shown(name)} is not a {what}{_suggestion(name)}", hint=hint)
    if len(name) > LONGEST_NAME:
        raise InputError(f"{shown(name)} has {len(name)} characters", hint=hint)
    if name in reserved:
        raise InputError(f"'{name}' is taken: it means something else", hint=f"any name but: {', '.join(reserved)}")
    return name


def read_host_name(value: object) -> str:
    """A host's name, which resolvers must not take for an address (``10`` is 0.0.0.10 to inet_aton)."""
    name = read_name(value, what="host name", reserved=RESERVED_HOSTS)
    if re.fullmatch("[0-9]+|0x[0-9a-f]+", name):
        raise InputError(f"'{name}' as a host name would be read as an address", hint=f"begin it with a letter: h{name}")
    return name


def read_network_name(value: object) -> str:
    return read_name(value, what="network name", reserved=RESERVED_NETWORKS)


def slug(text: str) -> str:
    """The nearest legal name, or nothing when there is none: ``My_Lab`` gives ``my-lab``."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_NAME].strip("-")


def _suggestion(name: str) -> str:
    near = slug(name)
    # With characters lost, it would be another name.
    return f", did you mean '{near}'?" if near and len(near) == len(name) else ""


def read_address(value: object) -> IPv4Address:
    if isinstance(value, IPv4Address):
        return value
    hint = "four numbers from 0 to 255, like 10.1.0.5"
    try:
        return IPv4Address(_text(value, hint))
    except ValueError:
        raise InputError(f"{shown(value)} is not an IPv4 address", hint=hint) from None


def read_address6(value: object) -> IPv6Address:
    if isinstance(value, IPv6Address):
        return value
    hint = "like fd00:1::5"
    try:
        address = IPv6Address(_text(value, hint))
    except ValueError:
        raise InputError(f"{shown(value)} is not an IPv6 address", hint=hint) from None
    if address.scope_id is not None:
        raise InputError(f"{shown(value)} has a zone; an address in a topology has none", hint=f"write {str(address).split('%')[0]}")
    return address


def read_subnet(value: object) -> IPv4Network:
    """An IPv4 subnet of a block that hides nothing public, from /8 to /30."""
    hint = f"an address and a prefix of at most {LONGEST_PREFIX} from {', '.join(map(str, SUBNETS[:3]))}, like 10.1.0.0/24"
    if isinstance(value, IPv4Network):
        subnet = value
    else:
        text = _text(value, hint)
        try:
            if "/" not in text:
                raise ValueError
            subnet = IPv4Network(text, strict=False)
        except ValueError:
            raise InputError(f"{shown(value)} is not an IPv4 subnet", hint=hint) from None
        if str(subnet.network_address) != text.split("/")[0]:
            raise InputError(f"{shown(text)} is an address inside a subnet, did you mean '{subnet}'?", hint=hint)
    if subnet.prefixlen > LONGEST_PREFIX:
        raise InputError(f"{subnet} has no room for a gateway and a host", hint=hint)
    if not any(subnet.subnet_of(block) for block in SUBNETS):
        raise InputError(f"{subnet} {_what_it_is(subnet)}", hint=hint)
    return subnet


def read_subnet6(value: object) -> IPv6Network:
    """A unique local or documentation IPv6 subnet, at most /126."""
    hint = f"an address and a prefix of at most {LONGEST_PREFIX6} from {' or '.join(map(str, SUBNETS6))}, like fd00:1::/64"
    if isinstance(value, IPv6Network):
        subnet = value
    else:
        text = _text(value, hint)
        try:
            if "/" not in text or "%" in text:
                raise ValueError
            subnet = IPv6Network(text, strict=False)
        except ValueError:
            raise InputError(f"{shown(value)} is not an IPv6 subnet", hint=hint) from None
        if subnet.network_address != IPv6Address(text.split("/")[0]):
            raise InputError(f"{shown(text)} is an address inside a subnet, did you mean '{subnet}'?", hint=hint)
    if subnet.prefixlen > LONGEST_PREFIX6:
        raise InputError(f"{subnet} has no room for a gateway and a host", hint=hint)
    if not any(subnet.subnet_of(block) for block in SUBNETS6):
        raise InputError(f"{subnet} {_what_it_is(subnet)}", hint=hint)
    return subnet


def _what_it_is(subnet: IPv4Network | IPv6Network) -> str:
    if subnet.is_multicast:
        return "is for multicast groups"
    if subnet.is_loopback:
        return "is the loopback of every host"
    if subnet.is_link_local:
        return "is link-local"
    if subnet.version == 4 and subnet.overlaps(IPv4Network("0.0.0.0/8")):
        return "holds 0.0.0.0/8, 'this host'"
    if subnet.version == 4 and subnet.overlaps(IPv4Network("240.0.0.0/4")):
        return "is reserved (240.0.0.0/4)"
    return "holds public addresses: this machine would lose its way to the real ones"


def misplaced(address: IPv4Address | IPv6Address, subnet: IPv4Network | IPv6Network) -> str:
    """Why an address cannot be a host's in that subnet, or nothing."""
    if address not in subnet:
        return f"{address} is not in {subnet}"
    if address == subnet.network_address:
        return f"{address} is the address of {subnet} itself"
    if subnet.version == 4 and address == subnet.broadcast_address:
        return f"{address} is the broadcast address of {subnet}"
    return ""


def last_address(subnet: IPv4Network | IPv6Network) -> IPv4Address | IPv6Address:
    """The last address that a host may have."""
    return subnet[-2] if subnet.version == 4 else subnet[-1]


def read_memory(value: object) -> int:
    """Bytes: a number, or one with K, M or G (powers of 1024, as Docker has it)."""
    hint = "bytes, or a number with K, M or G, like 64M; at least 6M"
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else _text(value, hint)
    text = text.strip().lower()
    if len(text) > 30 or not re.fullmatch(MEMORY_PATTERN, text):
        raise InputError(f"{shown(value)} is not a size", hint=hint)
    number, unit = re.fullmatch(r"([0-9.]+)\s*([kmg]?).*", text).groups()  # type: ignore[union-attr]  # the line above matched
    size = int(number) * _UNITS[unit] if number.isdigit() else int(float(number) * _UNITS[unit])
    if size < LEAST_MEMORY:
        raise InputError(f"{shown(value)} is less than the 6 MiB that Docker asks for", hint=hint)
    if size >= 2**62:
        raise InputError(f"{shown(value)} is more than any machine has", hint=hint)
    return size


def not_a_guests_memory(size: int) -> str:
    """Why so many bytes cannot be the memory of a vm, or nothing."""
    if size % 2**20:
        return f"{size} bytes are not a whole number of MiB"
    if size < LEAST_GUEST_MEMORY:
        return f"{size >> 20} MiB are too little for a vm"
    if size > MOST_GUEST_MEMORY:
        return f"{size >> 20} MiB are more than a vm can have"
    return ""


def read_mode(value: object) -> int:
    """A file's permissions; text is octal, as chmod has it: ``755``, ``0755`` and ``0o755`` are the same."""
    hint = "three or four octal digits as for chmod, like 0644 or 0755"
    if isinstance(value, int) and not isinstance(value, bool):
        mode = value
    else:
        text = _text(value, hint)
        if not re.fullmatch(MODE_PATTERN, text):
            raise InputError(f"{shown(value)} is not a file mode", hint=hint)
        mode = int(text.removeprefix("0o"), 8)
    if not 0 <= mode <= 0o7777:
        raise InputError(f"{mode:#o} is not a file mode", hint=hint)
    return mode


def read_path(value: object) -> str:
    """An absolute path on a host where a file can be put."""
    hint = "an absolute path on the host, like /etc/app.conf"
    path = _text(value, hint)
    if len(path) > LONGEST_PATH:
        raise InputError(f"{shown(path)} has {len(path)} characters", hint=f"{hint}; at most {LONGEST_PATH}")
    if not path.startswith("/"):
        raise InputError(f"{shown(path)} is not an absolute path, did you mean {shown('/' + path.removeprefix('./'))}?", hint=hint)
    parts = PurePosixPath(path).parts
    if path.endswith("/") or path.startswith("//") or ".." in parts or str(PurePosixPath(path)) != path:
        raise InputError(f"{shown(path)} is not the plain path of a file", hint=f"{hint}; no '..', '.' or '//' in it, no '/' at its end")
    if len(parts) > 1 and parts[1] in ("proc", "sys", "dev"):
        raise InputError(
            f"{shown(path)}: the kernel makes the files of /{parts[1]}", hint=f"{hint}; kernel parameters belong under sysctls:"
        )
    if path == "/etc/hosts":
        raise InputError(f"{shown(path)}: testbed writes this file", hint=f"{hint}; every host of the lab is in /etc/hosts already")
    return path


def read_command(value: object) -> tuple[str, ...]:
    """A program and its arguments: a list, or one string that is split as a shell does."""
    hint = "a list like [echo-server, --port, 7], or a string like 'echo-server --port 7'"
    if isinstance(value, list | tuple):
        words = tuple(_text(word, hint) if isinstance(word, str) else _number(word, hint) for word in value)
    else:
        text = _text(value, hint)
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise InputError(f"{shown(text)} cannot be split into words: {str(error).lower()}", hint=hint) from None
        strange = next((word for word in words if word in _SHELL_WORDS), None)
        if strange:
            raise InputError(f"no shell reads a command, so '{strange}' would be an argument", hint=f"write: [sh, -c, {text!r}]")
    if not words or not words[0]:
        raise InputError("the command is empty", hint=hint)
    return words


def read_capabilities(value: object) -> tuple[str, ...]:
    """Names of capabilities(7), with or without ``CAP_``, in either case; each once."""
    hint = f"a list of: {', '.join(CAPABILITIES)}"
    if not isinstance(value, list | tuple):
        raise InputError(f"{shown(value)} is not a list", hint="a list like [NET_ADMIN, NET_RAW], or [] for none")
    names: dict[str, None] = {}
    for one in value:
        name = _text(one, hint).upper().removeprefix("CAP_")
        if name not in CAPABILITIES:
            raise InputError(f"{shown(one)} is not a capability of Linux{did_you_mean(name, CAPABILITIES)}", hint=hint)
        names[name] = None
    return tuple(names)


def read_pattern(value: object) -> str:
    """A regular expression of Python's re, kept as text."""
    hint = "write a plain word, or escape: \\. \\( \\["
    text = _text(value, hint)
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"{shown(text)} is not a regular expression: {error}", hint=hint) from None
    return text


def read_variable(name: object, value: object) -> str:
    """The value of the environment variable ``name``; numbers become their text, true and false too."""
    if not isinstance(name, str) or not re.fullmatch(ENVIRONMENT_PATTERN, name) or "\n" in name:
        raise InputError(f"{shown(name)} is not the name of an environment variable", hint="letters, digits and '_', no digit first")
    if isinstance(value, bool):
        return str(value).lower()
    hint = 'text or a number; write "" for an empty value'
    return _text(value, hint) if isinstance(value, str) else _number(value, hint)


def _text(value: object, hint: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{shown(value)} is not text", hint=hint)
    if "\0" in value:
        raise InputError(f"{shown(value)} has a NUL in it", hint=hint)
    return value


def _number(value: object, hint: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{shown(value)} is neither text nor a number", hint=hint)
    return str(value)


def shown(value: object) -> str:
    """What the user wrote, short, in the words of YAML rather than of Python."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
