"""Whether a Docker engine answers, asked without any package, because setup runs before there is one.

Prints one line and always exits with 0:

    answers here 1.41      through a socket of this machine (1.41: the newest version of its API)
    answers elsewhere 1.41 on another machine
    denied PATH            the socket is there, and this user may not use it
    silent ENDPOINT        nobody answers there
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT = "unix:///var/run/docker.sock"
TIMEOUT_S = 5.0


def endpoint() -> str:
    """Where the docker command would look: DOCKER_HOST, then the context in use, then the default socket."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    context = os.environ.get("DOCKER_CONTEXT") or str(read_json(folder / "config.json").get("currentContext", ""))
    if context in ("", "default"):
        return DEFAULT
    meta = read_json(folder / "contexts" / "meta" / hashlib.sha256(context.encode()).hexdigest() / "meta.json")
    return str(meta.get("Endpoints", {}).get("docker", {}).get("Host") or f"context '{context}'")


def read_json(file: Path) -> dict[str, dict[str, dict[str, str]]]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class SocketConnection(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def api_version(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/version")
    return str(json.loads(connection.getresponse().read())["ApiVersion"])


def api_version_by_command() -> str:
    """For ssh and TLS the docker command knows the keys."""
    if not shutil.which("docker"):
        raise OSError("no docker command")
    command = ["docker", "version", "--format", "{{.Server.APIVersion}}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=True, stdin=subprocess.DEVNULL)
    return done.stdout.strip()


def answer(where: str) -> str:
    path = ""
    try:
        url = urlsplit(where)
        path = url.path
        place = "here" if url.scheme == "unix" else "elsewhere"
        if url.scheme == "unix":
            version = api_version(SocketConnection(path))
        elif url.scheme in ("tcp", "http") and not os.environ.get("DOCKER_TLS_VERIFY"):
            version = api_version(http.client.HTTPConnection(url.hostname or "localhost", url.port or 2375, timeout=TIMEOUT_S))
        else:
            version = api_version_by_command()
    except PermissionError:
        return f"denied {path}"
    except (OSError, ValueError, KeyError, http.client.HTTPException, subprocess.SubprocessError):
        return f"silent {where}"
    return f"answers {place} {version}"


if __name__ == "__main__":
    print(answer(endpoint()))
