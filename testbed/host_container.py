"""What a host's container is made of, and what its first process says when it gives up. Pure."""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from testbed import sysctls
from testbed.engine import ContainerSpec
from testbed.errors import EngineError, InputError, LabError, TestbedError
from testbed.guest import FILES
from testbed.host import OWN_CAPABILITIES, own_capabilities
from testbed.lab import HOST, HOST_ROLE, LAB, ROLE, SETTINGS, container_name
from testbed.plan import Settings, guest_from, init_arguments, names_for, to_label

_INIT_ERROR = re.compile(rb"init: (sysctl|route|address) (.*)")
_RUNC_SYSCTL = re.compile(r"/proc/sys/([\w/.-]+): (.*)")
INIT = "/usr/lib/testbed/init"
RESOLVER = "/etc/resolv.conf"


def host_spec(lab: str, name: str, settings: Settings, hosts: Mapping[str, Settings]) -> ContainerSpec:
    """The container of a host; a guest runs in one that has nothing of the host but its links."""
    guest = guest_from(settings)
    init = ["--hosts", hosts_file(settings, hosts), *init_arguments(settings)]
    return ContainerSpec(
        name=container_name(lab, name),
        image=settings["image"],
        argv=guest.runner_arguments("run", init) if guest else ["--own", own_capabilities(settings["capabilities"]), *init],
        labels={LAB: lab, ROLE: HOST_ROLE, HOST: name, SETTINGS: to_label(settings)},
        hostname=name,
        capabilities=settings["capabilities"] if guest else sorted({*settings["capabilities"], *OWN_CAPABILITIES}),
        mounts=not guest,
        environment=settings["environment"],
        # Those of the IPC namespace; the network's are set by the host's first process.
        sysctls={one: value for one, value in settings["sysctls"].items() if not one.startswith("net.") and not guest},
        memory=None if guest else settings["memory"],
        devices=guest.devices if guest else (),
        cpus=settings["cpus"],
    )


def hosts_file(viewer: Settings, hosts: Mapping[str, Settings]) -> str:
    """A host's /etc/hosts."""
    lines = [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "ff00::0\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        *(f"{address}\t{name}" for name, address in names_for(viewer, hosts)),
    ]
    return "\n".join([*lines, ""])


def files_archive(contents: Mapping[str, bytes], settings: Settings, resolver: bytes = b"") -> bytes:
    """A host's files, as a tar to be unpacked in its container's root; for a guest one that holds the tar for the guest's.

    ``resolver`` is the content of /etc/resolv.conf for a host with a way out of the lab, unless the file gives it one.
    """
    labels = dict(settings["files"])
    if settings["external"] and resolver and RESOLVER not in contents:
        contents, labels[RESOLVER] = {**contents, RESOLVER: resolver}, ["", 0o644]
    packed = tar(contents, labels)
    return tar({FILES: packed}, {FILES: ("", 0o600)}) if settings["guest"] else packed


def tar(contents: Mapping[str, bytes], labels: Mapping[str, Sequence[Any]]) -> bytes:
    """A host's files as the engine takes them; ``labels`` hold a digest and the mode of each."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in contents.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode, member.mtime = len(content), labels[path][1], int(time.time())
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def why_not_started(name: str, error: EngineError, settings: Settings) -> TestbedError:
    """The sysctls of the IPC namespace are set by the engine, before there is a process that could tell."""
    found = _RUNC_SYSCTL.search(error.message)
    if found is None:
        return error
    sysctl = found[1].replace("/", ".")
    words, way_out = sysctls.why_refused(sysctl, "EINVAL" if "invalid argument" in found[2] else found[2])
    return InputError(f"host '{name}': sysctl {sysctl} = {settings['sysctls'].get(sysctl, '?')}: {words}", hint=way_out)


def why_init_ended(name: str, wrote: bytes, settings: Settings) -> TestbedError:
    """What the host's first process said before it gave up, in the user's terms."""
    found = _INIT_ERROR.search(wrote)
    if found is None:
        return LabError(f"host '{name}' ended before it was ready{tail(wrote)}")
    what, said = found[1].decode(), text(found[2])
    if what == "sysctl":
        sysctl, _, reason = said.partition(": ")
        guest = guest_from(settings)
        words, way_out = sysctls.why_refused(sysctl, reason, whose=guest.kernel if guest else "")
        return InputError(f"host '{name}': sysctl {sysctl} = {settings['sysctls'].get(sysctl, '?')}: {words}", hint=way_out)
    return LabError(f"host '{name}': {what} {said}")


def text(data: bytes) -> str:
    """Output as text; bytes that are not UTF-8 stay visible as escapes."""
    return data.decode(errors="backslashreplace").strip()


def tail(wrote: bytes) -> str:
    """The last lines of an output, as they are quoted in an error."""
    lines = text(wrote).splitlines()[-10:]
    return ":\n" + "\n".join(f"  | {line}" for line in lines) if lines else " and wrote nothing"
