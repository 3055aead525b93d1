"""What the engine's failures become, and which engine is asked, with a fake engine on a socket of the test's own."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from testbed import engine as module
from testbed.engine import ContainerSpec, Engine
from testbed.errors import EngineError
from tests.fake_engine import FakeEngine

# Which engine


def test_docker_host_says_which_engine(fake: FakeEngine, engine: Engine, tmp_path: Path) -> None:
    # docker-py writes the address of a unix socket so
    assert engine.address.endswith(f"//{tmp_path}/engine.sock")
    assert engine.local


@pytest.mark.parametrize(
    ("address", "words", "hint"),
    [
        ("unix:///no/such/socket", "no Docker engine answers at unix:///no/such/socket: no such file or directory", "make setup"),
        ("tcp://127.0.0.1:1", "no Docker engine answers at tcp://127.0.0.1:1: connection refused", "DOCKER_HOST"),
        ("nonsense://x", "nonsense://x", "DOCKER_HOST"),
    ],
)
def test_an_engine_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, address: str, words: str, hint: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(EngineError) as caught:
        Engine()
    assert words in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.status is None


def context(home: Path, current: str, **contexts: str) -> None:
    """A configuration of the docker command, as `docker context create` leaves it."""
    import hashlib

    home.mkdir()
    (home / "config.json").write_text(json.dumps({"currentContext": current} if current else {}))
    for name, address in contexts.items():
        folder = home / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
        folder.mkdir(parents=True)
        endpoints = {"docker": {"Host": address, "SkipTLSVerify": False}}
        (folder / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))


@pytest.mark.parametrize(
    ("current", "wanted"),
    [("", "unix:///var/run/docker.sock"), ("default", "unix:///var/run/docker.sock"), ("other", "unix:///run/other.sock")],
)
def test_without_docker_host_the_current_context_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, current: str, wanted: str) -> None:
    context(tmp_path / "docker", current, other="unix:///run/other.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    assert module._where()[0] == wanted


# What it refuses


@pytest.mark.parametrize(("status", "message"), [(409, "name is in use"), (500, "no space left on device"), (403, "not allowed")])
def test_a_refusal_has_the_engines_words_and_status(fake: FakeEngine, engine: Engine, status: int, message: str) -> None:
    fake.answers["POST /containers/x/start"] = (status, {"message": message})
    with pytest.raises(EngineError, match=f"the Docker engine refused: {message}") as caught:
        engine.start("x")
    assert caught.value.status == status
    assert caught.value.exit_code == 3


def test_what_is_gone_already_is_removed(fake: FakeEngine, engine: Engine) -> None:
    for status in (404, 409):
        fake.answers["DELETE /containers/x"] = (status, {"message": "no such container"})
        engine.remove_container("x")
    engine.remove_network("x")
    engine.kill("x")
    fake.answers["DELETE /containers/x"] = (500, {"message": "device is busy"})
    with pytest.raises(EngineError, match="device is busy"):
        engine.remove_container("x")


def test_an_image_is_there_or_not_and_everything_else_is_an_error(fake: FakeEngine, engine: Engine) -> None:
    assert not engine.image_exists("host:1")
    fake.answers["GET /images/host:1/json"] = (200, {"Id": "sha256:1"})
    assert engine.image_exists("host:1")
    fake.answers["GET /images/host:1/json"] = (500, {"message": "broken"})
    with pytest.raises(EngineError, match="broken"):
        engine.image_exists("host:1")


def test_the_version_of_the_api_is_asked_for_without_work_for_the_engine(fake: FakeEngine, engine: Engine) -> None:
    assert engine._client.api_version == "1.41"
    assert (fake.was_asked("GET /_ping"), fake.was_asked("GET /version")) == (1, 0)


def test_what_answers_and_is_no_engine_is_told(fake: FakeEngine, engine: Engine) -> None:
    fake.is_docker = False
    with pytest.raises(EngineError, match="it tells no version of its API"):
        Engine()


def test_an_engine_that_stops_in_between_is_an_error_with_a_way_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(engine._client, "networks", gone)
    with pytest.raises(EngineError, match=r"no Docker engine answers at .*: connection refused") as caught:
        engine.networks()
    assert "make setup" in caught.value.hint


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), TimeoutError("timed out"), OSError(5, "Input/output error")])
def test_no_error_of_the_socket_is_a_traceback(engine: Engine, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(engine._client, "info", fail)
    with pytest.raises(EngineError) as caught:
        engine.info()
    assert str(error.strerror or error).lower() in caught.value.message.lower()
    assert ("usermod -aG docker" in caught.value.hint) == isinstance(error, PermissionError)


# What it is asked


def test_a_container_gets_no_more_than_it_needs(fake: FakeEngine, engine: Engine) -> None:
    fake.answers["POST /containers/create"] = (201, {"Id": "x"})
    spec = ContainerSpec("testbed.lab.a", "host:1", ["--x"], {"testbed.lab": "lab"}, capabilities=["NET_ADMIN"], memory=1 << 26, cpus=0.5)
    assert engine.create_container(spec) == "x"
    asked = fake.asked[-1][1]
    host = asked["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["NET_ADMIN"])
    assert not host.get("Privileged")
    assert asked["NetworkDisabled"] is True
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1 << 26, 1 << 26, 500_000_000)
    assert "/proc/sys/net" not in host["ReadonlyPaths"]
    assert "/proc/sys/kernel" in host["ReadonlyPaths"]
    assert asked["Labels"] == {"testbed": "container", "testbed.lab": "lab"}
    engine.create_container(replace(spec, network="none"))
    asked = fake.asked[-1][1]
    assert (asked["HostConfig"]["NetworkMode"], asked["NetworkDisabled"]) == ("none", False)


def test_a_guests_container_gets_its_devices_and_nothing_else_gets_any(fake: FakeEngine, engine: Engine) -> None:
    fake.answers["POST /containers/create"] = (201, {"Id": "x"})
    spec = ContainerSpec("testbed.lab.a", "vm:1", ["run"], {}, devices=["/dev/net/tun"])
    engine.create_container(spec)
    given = {"PathOnHost": "/dev/net/tun", "PathInContainer": "/dev/net/tun", "CgroupPermissions": "rwm"}
    assert fake.asked[-1][1]["HostConfig"]["Devices"] == [given]
    engine.create_container(replace(spec, devices=()))
    assert not fake.asked[-1][1]["HostConfig"].get("Devices")


def test_a_container_that_has_ended_becomes_an_image(fake: FakeEngine, engine: Engine) -> None:
    fake.answers["POST /containers/x/wait"] = (200, {"StatusCode": 3, "Error": None})
    fake.answers["POST /commit"] = (201, {"Id": "sha256:1"})
    assert engine.wait("x", timeout_s=20) == 3
    engine.commit("x", "testbed/vm-s390x-bookworm:0123-1x128M-tcg", changes=["CMD []"])
    asked = fake.queries["POST /commit"]
    assert (asked["container"], asked["repo"], asked["tag"]) == ("x", "testbed/vm-s390x-bookworm", "0123-1x128M-tcg")
    assert asked["changes"] == "CMD []"


def test_images_are_listed_with_what_their_labels_say(fake: FakeEngine, engine: Engine) -> None:
    """In one question: one that is asked about later may be gone, as somebody else removes it."""
    said = {"testbed.base": "vm:1"}
    fake.answers["GET /images/json"] = (
        200,
        [{"Id": "sha256:1", "RepoTags": ["vm:2", "vm:3"], "Labels": said}, {"Id": "sha256:4", "RepoTags": None, "Labels": None}],
    )
    assert engine.labels_of_images() == {"vm:2": said, "vm:3": said, "sha256:4": {}}
    assert engine.list_images() == ["vm:2", "vm:3", "sha256:4"]


def test_networks_of_others_are_listed_with_their_subnets(fake: FakeEngine, engine: Engine) -> None:
    fake.answers["GET /networks"] = (
        200,
        [
            {"Id": "1", "Name": "bridge", "Labels": None, "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]}},
            {"Id": "2", "Name": "host", "Labels": {}, "IPAM": {"Config": None}},
            {"Id": "3", "Name": "none", "IPAM": None},
        ],
    )
    found = engine.networks()
    assert found[0].subnets == (IPv4Network("172.17.0.0/16"),)
    assert [one.subnets for one in found[1:]] == [(), ()]


def test_a_stream_that_was_closed_leaves_nothing_that_complains_when_it_goes(fake: FakeEngine, engine: Engine) -> None:
    fake.answers |= {"POST /containers/c/exec": (200, {"Id": "e"}), "POST /exec/e/start": (200, b"some output")}
    stream = engine.exec_stream("c", ["true"])
    answer = stream._connection._response.raw._fp  # http.client's
    assert not answer.isclosed()
    stream.close()
    answer.close()  # as Python does at its end
