"""The archive that `docker load` takes (Docker image specification 1.2), for an image whose layers the engine has already. Pure."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any


def of_architecture(image: Mapping[str, Any], architecture: str, reference: str) -> tuple[str, bytes]:
    """An image like ``image`` (as the engine inspects it) but for ``architecture``: its id, and the archive that makes it.

    The engine takes a layer that it has from there, so the archive holds no layer, only two small files.
    """
    layers = image["RootFS"]["Layers"]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": image["Os"],
            "created": image["Created"],
            "config": image["Config"],
            "rootfs": {"type": "layers", "diff_ids": layers},
            "history": [{"created": image["Created"]} for _ in layers],
        }
    ).encode()
    digest = hashlib.sha256(config).hexdigest()
    names = [f"{index}/layer.tar" for index, _ in enumerate(layers)]
    manifest = json.dumps([{"Config": f"{digest}.json", "RepoTags": [reference], "Layers": names}]).encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in ((f"{digest}.json", config), ("manifest.json", manifest)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return f"sha256:{digest}", archive.getvalue()
