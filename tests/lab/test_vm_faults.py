"""What goes wrong with a vm host is said at once, with the end of its console; nothing hangs, the others go on, `up` mends it."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import guest_image
from testbed.architecture import Architecture, of_machine
from testbed.engine import ContainerSpec, Engine
from testbed.errors import DeadlineExceeded, LabError
from testbed.guest import DIRECTORY, Guest
from testbed.host import Host
from testbed.lab import Lab
from testbed.process import run_local
from testbed.topology_file import load
from testbed.up import up
from tests.lab.support import Labs, qemu_of, run_testbed, status

PAIR = "networks:\n  lan:\nhosts:\n  other:\n  guest: {kind: vm, arch: s390x, networks: [lan]}\n"
AT_ONCE_S = 2.0  # a second, and what a machine that does other things as well may add


@pytest.fixture(scope="module")
def file(module_labs: Labs) -> Path:
    return module_labs.file(PAIR)


@pytest.fixture
def lab(labs: Labs, file: Path) -> Iterator[Lab]:
    """The lab of these tests, mended of what the one before has broken."""
    run_testbed("up", file).check()
    with labs.lab(file) as there:
        yield there


def kill_qemu(engine: Engine, guest: Host) -> None:
    os.kill(qemu_of(engine, guest), signal.SIGKILL)


def panic(engine: Engine, guest: Host) -> None:
    guest.start(["sh", "-c", "echo c > /proc/sysrq-trigger"], detached=True)


def kill_the_agent(engine: Engine, guest: Host) -> None:
    """The guest goes on without it, and nobody can reach it any more."""
    guest.start(["sh", "-c", "kill -9 $PPID"], detached=True)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param(kill_qemu, "vm: the guest is gone: signal 9 ended QEMU", marks=pytest.mark.long),
        (panic, "Kernel panic - not syncing: sysrq triggered crash"),
        pytest.param(kill_the_agent, "vm: the guest is gone", marks=pytest.mark.long),
    ],
)
def test_the_guests_end_is_said_at_once_and_mended_by_up(
    engine: Engine, labs: Labs, file: Path, lab: Lab, fault: Callable[[Engine, Host], None], words: str
) -> None:
    guest, other = lab.host("guest"), lab.host("other")
    running = guest.start(["sleep", "1000"])
    with other.start(["sleep", "1000"]) as untouched, ThreadPoolExecutor() as threads:
        waiting = [threads.submit(guest.run, ["sleep", "1000"], timeout_s=None) for _ in range(2)]
        fault(engine, guest)
        began = time.monotonic()
        for wait in (*(one.result for one in waiting), running.wait):
            with pytest.raises(LabError, match="host guest is gone: its container has ended with exit code 1") as caught:
                wait(30)
            assert "the end of its console:" in caught.value.message
            assert words in caught.value.message
        assert time.monotonic() - began < AT_ONCE_S
        with pytest.raises(LabError, match=r"host guest cannot be reached: .* is not running"):
            guest.run(["true"])
        assert untouched.exit_code is None
        assert other.run(["echo", "here"]).text == "here\n"
    row = status(lab.name)["guest"]
    assert row["state"].startswith("not running (Exited (1)")
    assert words in "\n".join(row["console"])
    shown = run_testbed("status", lab.name).check().text
    assert words in shown
    assert words in run_testbed("logs", f"{lab.name}/guest").check().error_text
    assert run_testbed("exec", f"{lab.name}/guest", "true").exit_code == 3
    container = other.container
    assert "guest: not running" in run_testbed("up", file).check().text
    assert status(lab.name)["guest"]["state"].startswith("running (restored, ")
    with labs.lab(file) as mended:
        assert mended.host("other").container == container
        assert mended.host("other").run(["ping", "-c", "1", "-W", "20", "guest"]).exit_code == 0


@pytest.mark.long
def test_a_command_that_wants_too_much_memory_is_killed_and_status_says_which(lab: Lab) -> None:
    guest = lab.host("guest")
    with guest.start(["sleep", "1000"]) as other:
        taken = guest.run(["python3", "-c", "data = []\nwhile True: data.append(bytearray(b'x') * (1 << 20))"], timeout_s=120)
        assert taken.exit_code == 137, taken.error_text
        assert other.exit_code is None
        assert guest.run(["echo", "here"]).text == "here\n"
    assert "out of memory: its kernel killed python3" in status(lab.name)["guest"]["state"]
    assert "Out of memory: Killed process" in run_testbed("logs", f"{lab.name}/guest").check().error_text


def test_a_guest_that_stands_still_uses_up_the_time_limit_and_goes_on_later(engine: Engine, lab: Lab) -> None:
    guest = lab.host("guest")
    guest.run(["true"]).check()
    qemu = qemu_of(engine, guest)
    os.kill(qemu, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            guest.run(["true"], timeout_s=1)
        assert time.monotonic() - began < 30
        assert lab.host("other").run(["echo", "here"]).text == "here\n"
        assert status(lab.name)["other"]["state"] == "running"
    finally:
        os.kill(qemu, signal.SIGCONT)
    assert guest.run(["echo", "again"]).text == "again\n"


def test_a_guest_whose_container_was_started_outside_its_lab_is_cut_off(engine: Engine, labs: Labs, file: Path, lab: Lab) -> None:
    """It waits for its links, which only `up` makes; nobody waits for it without end."""
    guest = lab.host("guest")
    engine.kill(guest.container)
    engine.start(guest.container)
    assert status(lab.name)["guest"]["state"].startswith("cut off")
    began = time.monotonic()
    with pytest.raises(LabError):
        guest.run(["true"])
    assert time.monotonic() - began < 40
    run_testbed("up", file).check()
    with labs.lab(file) as mended:
        assert mended.host("guest").run(["echo", "again"]).text == "again\n"


# A snapshot that cannot be used


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def of_another_machine(content: bytes) -> bytes:
    """QEMU writes down which machine it saved, by name and version."""
    assert b"s390-ccw-virtio" in content
    return content.replace(b"s390-ccw-virtio", b"s390-ccw-another")


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


@pytest.fixture
def spoilt(engine: Engine, labs: Labs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Callable[[bytes], bytes]], str]]:
    """Spoil a file of the snapshot from which the next guests are made; gives the image."""
    made: list[str] = []
    right = guest_image.reference

    def spoil(name: str, change: Callable[[bytes], bytes]) -> str:
        def wrong(guest: Guest, machine: Architecture) -> str:
            target = f"testbed/test-vm:{tag}"
            if target not in made:
                mark = f"test-vm-{tag}"
                container = engine.create_container(ContainerSpec(mark, right(guest, machine), [], {"testbed.test": mark}))
                try:
                    packed = io.BytesIO(b"".join(engine.get_archive(container, f"{DIRECTORY}/{name}")))
                    with tarfile.open(fileobj=packed) as archive:
                        member = archive.extractfile(name)
                        assert member is not None
                        content = change(member.read())
                    out = io.BytesIO()
                    with tarfile.open(fileobj=out, mode="w") as archive:
                        info = tarfile.TarInfo(name)
                        info.size, info.mode = len(content), 0o600
                        archive.addfile(info, io.BytesIO(content))
                    engine.put_archive(container, DIRECTORY, out.getvalue())
                    engine.commit(container, target, changes=["CMD []"])
                    made.append(target)
                finally:
                    engine.remove_container(container)
            return target

        tag = uuid.uuid4().hex[:8]
        monkeypatch.setattr(guest_image, "reference", wrong)
        return f"testbed/test-vm:{tag}"

    yield spoil
    labs.remove()
    for one in made:
        run_local(["docker", "image", "rm", one]).check()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "change"),
    [("state", half), ("state", zeros), ("state", of_another_machine), ("memory", half), ("memory", zeros)],
    ids=["state-truncated", "state-zeros", "state-of-another-machine", "memory-truncated", "memory-zeros"],
)
def test_a_guest_whose_snapshot_is_of_no_use_is_booted(
    engine: Engine,
    labs: Labs,
    spoilt: Callable[[str, Callable[[bytes], bytes]], str],
    name: str,
    change: Callable[[bytes], bytes],
) -> None:
    file = labs.file(PAIR)
    machine = of_machine(engine.machine)
    guest_image.build(engine, [], [guest_image.default(machine)], machine)
    spoilt(name, change)
    outcome = up(engine, load(file))
    with labs.lab(file) as lab:
        assert lab.host("other").run(["ping", "-c", "1", "-W", "20", "guest"]).exit_code == 0
        assert lab.host("guest").run(["echo", "here"]).text == "here\n"
    assert status(file.stem)["guest"]["state"].startswith("running (booted, ")
    logged = run_testbed("logs", f"{file.stem}/guest").check().error_text
    assert "vm: the snapshot could not be restored, so the guest is booted" in logged
    (warning,) = outcome.warnings
    assert "host 'guest' was booted" in warning


TWO_NETWORKS = """
networks: {near: , far: }
hosts:
  guest: {kind: vm, networks: [near, far]}
  near-by: {networks: [near]}
  far-off: {networks: [far]}
"""


@pytest.fixture
def plugged_in_backwards(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """QEMU plugs the second of two network devices in first. The snapshot of such a guest goes when the test is over."""
    real = Guest.qemu_arguments

    def backwards(guest: Guest) -> list[str]:
        words = real(guest)
        devices = [place for place, word in enumerate(words) if word.startswith("virtio-net-")]
        if len(devices) == 2:
            first, second = devices
            words[first], words[second] = words[second], words[first]
        return words

    monkeypatch.setattr(Guest, "qemu_arguments", backwards)
    machine = of_machine(engine.machine)
    reference = guest_image.reference(replace(guest_image.default(machine), networks=2), machine)
    yield
    if engine.image_exists(reference):
        engine.remove_image(reference)


@pytest.mark.long
@pytest.mark.timeout(600)  # a snapshot is made
@pytest.mark.usefixtures("plugged_in_backwards")
def test_a_guests_devices_are_on_their_networks_in_whatever_order_its_kernel_finds_them(engine: Engine, labs: Labs) -> None:
    """On s390x the order is not the same at every boot."""
    file = labs.file(TWO_NETWORKS)
    up(engine, load(file))
    with labs.lab(file) as lab:
        for neighbour in ("near-by", "far-off"):
            lab.host("guest").run(["ping", "-c", "1", "-W", "20", neighbour]).check()
    run_testbed("down", file).check()
