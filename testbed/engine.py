"""The Docker engine in a few verbs; the only module that imports docker.

Everything that is ours carries the label ``testbed``; the labels are the only record of what there is.
Every failure of the engine leaves here as an :class:`EngineError` that says how to mend it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import docker
import docker.errors
import requests
import requests.exceptions
from docker.context import ContextAPI
from docker.tls import TLSConfig
from docker.types import IPAMConfig, IPAMPool
from docker.utils import kwargs_from_env

from testbed import image_archive
from testbed.errors import EngineError, SubnetTaken
from testbed.exec_stream import FRAME, STDERR, STDOUT, ExecStream
from testbed.shipped import setup_command

__all__ = ["STDERR", "STDOUT", "Container", "ContainerSpec", "ContainerState", "DockerNetwork", "Engine", "EngineInfo", "ExecStream"]

LABEL = "testbed"
TIMEOUT_S = 60

# Read-only in a container, as Docker would have it, except /proc/sys/net: what is there belongs to the
# container's own network namespace, and hosts set their sysctls themselves.
READ_ONLY_PATHS = [
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger",
    "/proc/sys/abi", "/proc/sys/crypto", "/proc/sys/debug", "/proc/sys/dev", "/proc/sys/fs",
    "/proc/sys/kernel", "/proc/sys/sunrpc", "/proc/sys/user", "/proc/sys/vm",
]  # fmt: skip


@dataclass(frozen=True)
class EngineInfo:
    """The engine and the machine that it runs on. ``kernel`` is that machine's release, ``machine`` its `uname -m`."""

    version: str
    api_version: str
    kernel: str
    machine: str
    storage_driver: str
    cgroup_version: str
    data_directory: str
    address: str
    local: bool


@dataclass(frozen=True)
class ContainerSpec:
    """A container to be made. ``memory`` in bytes, ``cpus`` in processors; None means without limit.

    ``network`` is Docker's name of one, or None for a network namespace that Docker has nothing to do with: no files of its
    resolver, half the time to start, and no lock of libnetwork, which Docker 20.10 takes in two orders when containers leave a network
    (also "none") at the same time, and then hangs for good.
    """

    name: str
    image: str
    argv: Sequence[str]
    labels: Mapping[str, str]
    hostname: str = ""
    network: str | None = None
    capabilities: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    cpus: float | None = None
    pid_mode: str | None = None
    devices: Sequence[str] = ()  # of the machine, under the same names
    mounts: bool = False  # its first process mounts file systems, which Docker's AppArmor profile forbids everybody


@dataclass(frozen=True)
class Container:
    """A container that is there: ``state`` is Docker's word (created, running, exited, ...), ``status`` its sentence."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    status: str


@dataclass(frozen=True)
class ContainerState:
    """``pid`` is that of its first process on the engine's machine, 0 when it does not run; times as Docker writes them."""

    running: bool
    pid: int
    exit_code: int
    started_at: str
    error: str


@dataclass(frozen=True)
class DockerNetwork:
    id: str
    name: str
    labels: Mapping[str, str]
    subnets: tuple[IPv4Network | IPv6Network, ...]


class Engine:
    """A Docker engine found as the docker command finds it: DOCKER_HOST, else the current context."""

    def __init__(self) -> None:
        self.address, tls = _where()
        self._client: Any  # docker-py is typed in part, and not where it is used here
        with _translated(self.address):
            self._client = _Client(base_url=self.address, tls=tls or False, version="auto", timeout=TIMEOUT_S, num_pools=16)

    @cached_property
    def machine(self) -> str:
        """`uname -m` of the machine that the engine runs on; it does not change, so it is asked for once."""
        return self.info().machine

    @property
    def local(self) -> bool:
        """Whether the engine runs on this machine."""
        return urlsplit(self.address).scheme in ("unix", "http+unix")

    @property
    def socket(self) -> Path | None:
        """Where it is reached on this machine; None when it is on another one."""
        return Path(urlsplit(self.address).path) if self.local else None

    def close(self) -> None:
        self._client.close()

    def info(self) -> EngineInfo:
        with self._errors():
            info = self._client.info()
        return EngineInfo(
            version=info["ServerVersion"],
            api_version=self._client.api_version,
            kernel=info["KernelVersion"],
            machine=info["Architecture"],
            storage_driver=info["Driver"],
            cgroup_version=info.get("CgroupVersion", "1"),
            data_directory=info["DockerRootDir"],
            address=self.address,
            local=self.local,
        )

    # Containers

    def containers(self, *labels: str) -> list[Container]:
        """All containers, running or not, that carry every one of ``labels`` ("key" or "key=value")."""
        with self._errors():
            found = self._client.containers(all=True, filters={"label": [LABEL, *labels]})
        return [_container(one) for one in found if one["Names"]]

    def create_container(self, spec: ContainerSpec) -> str:
        """Make a container, not yet started, and give its id."""
        host_config = self._client.create_host_config(
            network_mode=spec.network,
            cap_drop=["ALL"],
            cap_add=list(spec.capabilities),
            sysctls=dict(spec.sysctls),
            mem_limit=spec.memory,
            # no swap beside the memory, else a limit is no limit
            memswap_limit=spec.memory,
            nano_cpus=None if spec.cpus is None else int(spec.cpus * 1e9),
            pid_mode=spec.pid_mode,
            devices=list(spec.devices),
            security_opt=["apparmor=unconfined"] if spec.mounts else None,
            log_config={"type": "json-file", "config": {"max-size": "16m", "max-file": "2"}},
        )
        host_config["ReadonlyPaths"] = READ_ONLY_PATHS
        with self._errors():
            made = self._client.create_container(
                spec.image,
                list(spec.argv),
                name=spec.name,
                hostname=spec.hostname or None,
                labels={LABEL: "container", **spec.labels},
                environment=dict(spec.environment),
                network_disabled=spec.network is None,
                host_config=host_config,
            )
        return str(made["Id"])

    def start(self, container: str) -> None:
        with self._errors():
            self._client.start(container)

    def inspect(self, container: str) -> ContainerState:
        with self._errors():
            state = self._client.inspect_container(container)["State"]
        return ContainerState(state["Running"], state["Pid"], state["ExitCode"], state["StartedAt"], state["Error"])

    def wait(self, container: str, *, timeout_s: float) -> int | None:
        """Wait until a container ends; gives its exit code, None when it runs on after that time."""
        try:
            with self._errors():
                return int(self._client.wait(container, timeout=timeout_s)["StatusCode"])
        except EngineError as error:
            if (
                isinstance(error.__cause__, requests.exceptions.Timeout | requests.exceptions.ConnectionError)
                and self.inspect(container).running
            ):
                return None
            raise

    def kill(self, container: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the first process of a container; one that has ended already is fine."""
        with self._errors(fine=(404, 409)):
            self._client.kill(container, signal)

    def rename(self, container: str, name: str) -> None:
        with self._errors():
            self._client.rename(container, name)

    def remove_container(self, container: str) -> None:
        """Kill and remove a container; one that is gone already, or being removed, is fine."""
        with self._errors(fine=(404, 409)):
            self._client.remove_container(container, force=True, v=True)

    def output(self, container: str, *, follow: bool, since: float | None = None) -> Iterator[tuple[int, bytes]]:
        """What the container's first process wrote and, with ``follow``, writes, until it ends."""
        with self._errors():
            response = self._client.follow_logs(container, follow=follow, since=since)
        with response:
            while header := response.raw.read(FRAME.size):
                kind, size = FRAME.unpack(header)
                yield kind, response.raw.read(size)

    def written(self, container: str, *, stream: int | None = None, since: float | None = None) -> bytes:
        """What the container's first process has written so far, to one stream or both."""
        return b"".join(data for kind, data in self.output(container, follow=False, since=since) if stream in (None, kind))

    def exec_stream(self, container: str, argv: Sequence[str]) -> ExecStream:
        """Start a command in a running container, with its standard streams connected."""
        with self._errors():
            made = self._client.exec_create(container, list(argv), stdin=True)
            return ExecStream(self._client.exec_start(made["Id"], socket=True))

    def put_archive(self, container: str, directory: str, tar: bytes | BinaryIO) -> None:
        """Unpack a tar archive into a directory of the container."""
        with self._errors():
            self._client.put_archive(container, directory, tar)

    def get_archive(self, container: str, path: str) -> Iterator[bytes]:
        """A file or directory of the container as the chunks of a tar archive."""
        with self._errors():
            chunks, _ = self._client.get_archive(container, path)
        return cast("Iterator[bytes]", chunks)

    # Networks

    def networks(self) -> list[DockerNetwork]:
        """Every network of the engine, ours or not."""
        with self._errors():
            found = self._client.networks()
        return [_network(one) for one in found]

    def create_network(
        self,
        name: str,
        *,
        labels: Mapping[str, str],
        subnets: Sequence[tuple[str, str | None]],
        mtu: int,
        internal: bool,
        ipv6: bool,
    ) -> str:
        """Make a bridge network; ``subnets`` are (subnet, gateway) pairs. Raises :class:`SubnetTaken` when one is somebody's."""
        pools = [IPAMPool(subnet=subnet, gateway=gateway) for subnet, gateway in subnets]
        try:
            with self._errors():
                made = self._client.create_network(
                    name,
                    driver="bridge",
                    ipam=IPAMConfig(pool_configs=pools),
                    options={"com.docker.network.driver.mtu": str(mtu)},
                    labels={LABEL: "network", **labels},
                    internal=internal,
                    enable_ipv6=ipv6,
                    check_duplicate=True,
                )
        except EngineError as error:
            if "overlaps" in error.message:
                raise SubnetTaken(error.message, hint=error.hint, status=error.status) from error
            raise
        return str(made["Id"])

    def connect(self, network: str, container: str) -> None:
        with self._errors():
            self._client.connect_container_to_network(container, network)

    def disconnect(self, network: str, container: str) -> None:
        """Take a container off a network; one that is not on it is fine."""
        with self._errors(fine=(404,)):
            self._client.disconnect_container_from_network(container, network, force=True)

    def remove_network(self, network: str) -> None:
        """Remove a network; one that is gone already is fine."""
        with self._errors(fine=(404,)):
            self._client.remove_network(network)

    # Images

    def image_exists(self, reference: str) -> bool:
        try:
            with self._errors():
                self._client.inspect_image(reference)
        except EngineError as error:
            if error.status == 404:
                return False
            raise
        return True

    def image_in_use(self, reference: str) -> bool:
        """Whether a container, running or not, is made from it."""
        with self._errors():
            return bool(self._client.containers(all=True, filters={"ancestor": reference}))

    def list_images(self) -> list[str]:
        """The references of all images of ours, the id of one that has none."""
        return list(self.labels_of_images())

    def labels_of_images(self) -> dict[str, Mapping[str, str]]:
        """The labels of all images of ours, as they are at one moment, by what :meth:`list_images` gives."""
        with self._errors():
            found = self._client.images(filters={"label": [LABEL]})
        return {reference: one["Labels"] or {} for one in found for reference in _references(one)}

    def import_image(self, tar: BinaryIO, reference: str, *, platform: str, changes: Sequence[str]) -> str:
        """Make an image of a root file system, read from ``tar`` as it comes; gives the image's id."""
        with self._errors():
            text = self._client.import_stream(_Chunks(tar), reference, platform, changes)
        last = text.strip().splitlines()[-1] if text.strip() else ""
        if '"error"' in last:
            raise EngineError(f"the engine could not import {reference}: {last}")
        imported = str(json.loads(last).get("status", ""))
        with self._errors():
            return self._with_platform(imported, reference, platform)

    def _with_platform(self, image: str, reference: str, platform: str) -> str:
        """Engines before 23 import every image as one of their own architecture: say whose it is, by an image with the same layer."""
        found = self._client.inspect_image(image)
        architecture = platform.partition("/")[2]
        if found["Architecture"] == architecture:
            return image
        renamed, archive = image_archive.of_architecture(found, architecture, reference)
        for answer in self._client.load_image(archive):
            if "error" in answer:
                raise EngineError(f"the engine could not say that {reference} is for {platform}: {answer['error']}")
        self._client.remove_image(image)  # the tag has moved on; the layer stays with its new owner
        return renamed

    def commit(self, container: str, reference: str, *, changes: Sequence[str]) -> None:
        """Make an image of a container that has ended, with all that it wrote."""
        repository, tag = reference.rsplit(":", 1)
        with self._errors():
            self._client.commit(container, repository, tag, changes=list(changes))

    def remove_image(self, reference: str) -> None:
        with self._errors(fine=(404,)):
            self._client.remove_image(reference, force=True)

    def _errors(self, *, fine: Sequence[int] = ()) -> Any:
        return _translated(self.address, fine=fine)


class _Client(docker.APIClient):
    """What docker-py's client lacks: an image of a platform read from a stream, and logs as the frames they come in."""

    def _retrieve_server_version(self) -> str:
        """The API's version, out of the answer to a ping. docker-py asks for /version, for which the engine runs two programs each time
        to tell their versions too: 20 ms of every command."""
        try:
            response = self._get(self._url("/_ping", versioned_api=False), timeout=TIMEOUT_S)  # type: ignore[attr-defined]
            return str(response.headers["Api-Version"])
        except KeyError:
            raise docker.errors.DockerException("it tells no version of its API, so it is something else") from None

    def import_stream(self, chunks: _Chunks, reference: str, platform: str, changes: Sequence[str]) -> str:
        repository, tag = reference.rsplit(":", 1)
        parameters = {"fromSrc": "-", "repo": repository, "tag": tag, "platform": platform, "changes": list(changes)}
        headers = {"Content-Type": "application/tar"}
        response = self._post(self._url("/images/create"), params=parameters, data=chunks, headers=headers, timeout=None)  # type: ignore[attr-defined]
        return str(self._result(response))  # type: ignore[attr-defined]

    def follow_logs(self, container: str, *, follow: bool, since: float | None) -> requests.Response:
        parameters: dict[str, Any] = {"stdout": 1, "stderr": 1, "follow": int(follow)}
        if since is not None:
            parameters["since"] = f"{since:.9f}"
        url = self._url("/containers/{0}/logs", container)  # type: ignore[attr-defined]
        response = self._get(url, params=parameters, stream=True, timeout=None if follow else TIMEOUT_S)  # type: ignore[attr-defined]
        self._raise_for_status(response)  # type: ignore[attr-defined]
        return cast(requests.Response, response)


class _Chunks:
    """A file as chunks, so that requests sends it as it is read, whatever its size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._file.read(1 << 20), b"")


def _container(one: Mapping[str, Any]) -> Container:
    return Container(one["Id"], one["Names"][0].lstrip("/"), one["Labels"] or {}, one["State"], one["Status"])


def _references(image: Mapping[str, Any]) -> list[str]:
    return [tag for tag in image["RepoTags"] or [] if tag != "<none>:<none>"] or [image["Id"]]


def _network(one: Mapping[str, Any]) -> DockerNetwork:
    pools = (one.get("IPAM") or {}).get("Config") or []
    subnets = tuple(ip_network(pool["Subnet"]) for pool in pools if pool.get("Subnet"))
    return DockerNetwork(one["Id"], one["Name"], one.get("Labels") or {}, subnets)


def _where() -> tuple[str, TLSConfig | None]:
    """The engine's address and how to be sure of it, as the docker command would choose them."""
    host, chosen = os.environ.get("DOCKER_HOST"), os.environ.get("DOCKER_CONTEXT")
    if host:
        with _translated(host):
            environment = kwargs_from_env()
        return environment.get("base_url", host), environment.get("tls")
    with _translated(f"the docker context {chosen or ''}".strip()):
        context = ContextAPI.get_context(chosen) if chosen else ContextAPI.get_current_context()
    if chosen and context is None:
        raise EngineError(f"there is no docker context '{chosen}'", hint="DOCKER_CONTEXT names it; docker context ls lists those there are")
    if context is None or context.name == "default":
        return "unix:///var/run/docker.sock", None
    return context.Host or "unix:///var/run/docker.sock", context.TLSConfig


@contextmanager
def _translated(address: str, *, fine: Sequence[int] = ()) -> Iterator[None]:
    """Turn what docker and requests raise into EngineError; HTTP statuses in ``fine`` are no error at all."""
    try:
        yield
    except docker.errors.APIError as error:
        if error.status_code in fine:
            return
        raise EngineError(f"the Docker engine refused: {_explanation(error)}", status=error.status_code) from error
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise EngineError(f"no Docker engine answers at {address}: {_cause(error)}", hint=_way_out(error)) from error


def _explanation(error: docker.errors.APIError) -> str:
    text: object = error.explanation or error  # docker-py says str, and gives bytes at times
    return (text.decode(errors="replace") if isinstance(text, bytes) else str(text)).strip()


def _cause(error: BaseException) -> str:
    """The innermost reason in words; docker and urllib3 wrap it several times."""
    text = str(error)
    for words in ("Permission denied", "Connection refused", "No such file or directory", "timed out", "Connection aborted"):
        if words in text:
            return words.lower()
    return text


def _way_out(error: BaseException) -> str:
    if "Permission denied" in str(error):
        return "be in the group of the engine's socket: sudo usermod -aG docker $USER, then log in again"
    return f"start it with: {setup_command()} (or name another one in DOCKER_HOST); testbed doctor tells more"
