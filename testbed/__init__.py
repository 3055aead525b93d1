"""Client and server socket code on several real hosts, of both byte orders, on one machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.api import Capture, Lab
    from testbed.capture import Packet
    from testbed.counters import Counters
    from testbed.errors import (
        CheckFailed,
        CommandFailed,
        DeadlineExceeded,
        EngineError,
        ImageError,
        InputError,
        LabError,
        TestbedError,
        TopologyError,
        UnknownName,
    )
    from testbed.host import Host
    from testbed.host_sysctls import Sysctls
    from testbed.network import Endpoint
    from testbed.observe import ListenQueue, Socket, SocketOwner, Timer
    from testbed.process import Result, wait_until
    from testbed.running import Process
    from testbed.topology import Attachment, File, Network, Ready, Route, Topology
    from testbed.topology import Host as HostSpec
    from testbed.wire import Conversation, Datagram, Segment, Stream

__all__ = [
    "Attachment",
    "Capture",
    "CheckFailed",
    "CommandFailed",
    "Conversation",
    "Counters",
    "Datagram",
    "DeadlineExceeded",
    "Endpoint",
    "EngineError",
    "File",
    "Host",
    "HostSpec",
    "ImageError",
    "InputError",
    "Lab",
    "LabError",
    "ListenQueue",
    "Network",
    "Packet",
    "Process",
    "Ready",
    "Result",
    "Route",
    "Segment",
    "Socket",
    "SocketOwner",
    "Stream",
    "Sysctls",
    "TestbedError",
    "Timer",
    "Topology",
    "TopologyError",
    "UnknownName",
    "wait_until",
]

# Where each name is, and what it is called there. Loaded at the first use: importing `testbed` costs nothing, so that its
# command is quick.
_HOMES = {
    "api": ("Capture", "Lab"),
    "capture": ("Packet",),
    "counters": ("Counters",),
    "errors": (
        *("CheckFailed", "CommandFailed", "DeadlineExceeded", "EngineError", "ImageError", "InputError", "LabError"),
        *("TestbedError", "TopologyError", "UnknownName"),
    ),
    "host": ("Host",),
    "host_sysctls": ("Sysctls",),
    "network": ("Endpoint",),
    "observe": ("ListenQueue", "Socket", "SocketOwner", "Timer"),
    "process": ("Result", "wait_until"),
    "running": ("Process",),
    "topology": ("Attachment", "File", "HostSpec", "Network", "Ready", "Route", "Topology"),
    "wire": ("Conversation", "Datagram", "Segment", "Stream"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_CALLED = {"HostSpec": "Host"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'testbed' has no attribute '{name}'")
    value = getattr(import_module(f"testbed.{_HOME[name]}"), _CALLED.get(name, name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
