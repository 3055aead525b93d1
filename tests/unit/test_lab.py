"""What `status` tells of a lab, above all of guests: from their labels, their states and their consoles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.engine import Engine
from testbed.errors import LabError, UnknownName
from testbed.host import Host, HostFacts, last_words
from testbed.lab import Console, status, what_is_wrong
from tests.fake_engine import FakeEngine
from tests.unit.test_host_container import settings

STARTED_AT = "2026-01-02T03:04:05.678901234Z"
GUEST = {"arch": "s390x", "kernel": "bookworm", "memory": 128 << 20, "networks": 1, "accelerator": "tcg"}
OUT_OF_MEMORY = "[   12.3] Out of memory: Killed process {} ({}) total-vm:90000kB, anon-rss:70000kB\n"


def vm(**changed: Any) -> dict[str, Any]:
    return settings(**{"kind": "vm", "arch": "s390x", "guest": GUEST, **changed})


class OneLab:
    """A lab as the engine tells it: its switch, and hosts whose settings, states and error outputs are given."""

    def __init__(self, fake: FakeEngine) -> None:
        self.fake = fake
        self.containers: list[dict[str, Any]] = []
        fake.answers["GET /networks"] = (200, [])
        fake.answers["GET /info"] = (
            200,
            {
                "ServerVersion": "20.10.24",
                "KernelVersion": "6.18.0",
                "Architecture": "x86_64",
                "Driver": "overlay2",
                "DockerRootDir": "/var/lib/docker",
            },
        )
        self._add("s", "testbed.lab", {"testbed.role": "switch"}, "init: ready\n")

    def host(self, name: str, its_settings: dict[str, Any], said: str, *, state: str = "running", status: str = "Up 5 seconds") -> None:
        labels = {"testbed.role": "host", "testbed.host": name, "testbed.settings": json.dumps(its_settings)}
        self._add(name, f"testbed.lab.{name}", labels, said, state, status)

    def _add(self, id_: str, name: str, labels: dict[str, str], said: str, state: str = "running", status: str = "Up") -> None:
        labels = {"testbed": "container", "testbed.lab": "lab", **labels}
        self.containers.append({"Id": id_, "Names": [f"/{name}"], "Labels": labels, "State": state, "Status": status})
        self.fake.answers["GET /containers/json"] = (200, self.containers)
        running = state == "running"
        inspected = {"Running": running, "Pid": 4711 if running else 0, "ExitCode": 0, "StartedAt": STARTED_AT, "Error": ""}
        self.fake.answers[f"GET /containers/{id_}/json"] = (200, {"State": inspected})
        self.fake.writes(id_, (2, said.encode()), (1, b"vm: restored of-the-output\n"))


@pytest.fixture
def lab(fake: FakeEngine) -> OneLab:
    return OneLab(fake)


def console_of(engine: Engine, container: str) -> Console:
    (found,) = [one for one in engine.containers() if one.id == container]
    return Console.read(engine, found)


# --- the console


@pytest.mark.parametrize(
    ("said", "kernel", "how"),
    [
        ("init: waiting\nvm: restored 6.1.0-40-s390x\ninit: ready\n", "6.1.0-40-s390x", "restored"),
        (
            "init: waiting\nvm: the snapshot could not be restored, so the guest is booted\nvm: booted 6.12.1\ninit: ready\n",
            "6.12.1",
            "booted",
        ),
        ("", "unknown", "not up"),
        ("init: waiting\n", "unknown", "not up"),
        ("a program says: vm: restored 1.2\n", "unknown", "not up"),
        ("vm: restored 6.1\n" + OUT_OF_MEMORY.format(77, "python3"), "6.1", "restored, out of memory: its kernel killed python3"),
        (
            "vm: booted 6.1\n" + "".join(OUT_OF_MEMORY.format(number, f"p{number}") for number in range(5)),
            "6.1",
            "booted, out of memory: its kernel killed p2, p3, p4",
        ),
    ],
)
def test_a_console_tells_how_its_guest_came_up_and_what_its_kernel_killed(
    lab: OneLab, engine: Engine, said: str, kernel: str, how: str
) -> None:
    lab.host("a", vm(), said)
    console = console_of(engine, "a")
    assert (console.kernel, console.how, list(console.lines)) == (kernel, how, said.splitlines())


def test_only_what_the_console_says_since_the_last_start_counts(lab: OneLab, engine: Engine) -> None:
    lab.host("a", vm(), "")
    console_of(engine, "a")
    since = float(lab.fake.queries["GET /containers/a/logs"]["since"])
    assert since == pytest.approx(1767323045.678901, abs=1e-5)


def test_a_console_with_bytes_that_are_no_text_is_read_all_the_same(lab: OneLab, engine: Engine) -> None:
    lab.fake.writes("s", (2, b"\xff\xfe\nvm: restored 6.1\n"))
    assert console_of(engine, "s").lines == ["\\xff\\xfe", "vm: restored 6.1"]
    assert console_of(engine, "s").how == "restored"


# --- rows of status


def test_a_guest_that_is_up_says_how_and_on_what(lab: OneLab, engine: Engine) -> None:
    lab.host("a", vm(), "init: waiting\nvm: restored 6.1.0-40-s390x\ninit: ready\n")
    (row,) = status(engine, "lab")
    assert (row.kind, row.arch, row.byte_order) == ("vm", "s390x", "big")
    assert (row.kernel_of, row.kernel, row.state) == ("its own", "6.1.0-40-s390x", "running (restored, tcg)")
    assert row.console == ()
    assert row.as_json()["host"] == "a"


def test_a_host_without_a_kernel_of_its_own_has_the_machines_and_its_console_is_not_asked_for(lab: OneLab, engine: Engine) -> None:
    lab.host("a", settings(), "init: ready\nvm: restored 1.2\n")
    (row,) = status(engine)
    assert (row.kernel_of, row.kernel, row.state, row.console) == ("the machine's", "6.18.0", "running", ())


def test_a_guest_that_is_gone_is_told_with_the_end_of_its_console_and_the_others_are_not_touched(lab: OneLab, engine: Engine) -> None:
    said = "".join(f"line {number}\n" for number in range(20)) + "Kernel panic\nvm: the guest is gone: QEMU ended with exit code 0\n"
    lab.host("a", vm(), "init: waiting\nvm: restored 6.1\ninit: ready\n" + said, state="exited", status="Exited (1) 2 seconds ago")
    lab.host("b", settings(), "init: ready\n")
    gone, other = status(engine)
    assert gone.state == "not running (Exited (1) 2 seconds ago)"
    assert (gone.kernel_of, gone.kernel) == ("its own", "6.1")
    assert list(gone.console) == said.splitlines()[-12:]
    assert (other.name, other.state, other.console) == ("b", "running", ())


def test_a_guest_that_has_lost_its_memory_still_runs_and_says_so(lab: OneLab, engine: Engine) -> None:
    lab.host("a", vm(), "vm: booted 6.1\ninit: ready\n" + OUT_OF_MEMORY.format(5, "python3"))
    (row,) = status(engine)
    assert row.state == "running (booted, out of memory: its kernel killed python3, tcg)"


def test_a_guest_that_is_not_ready_is_no_host(lab: OneLab, engine: Engine) -> None:
    lab.host("a", vm(), "init: waiting\nvm: restored 6.1\n")
    (row,) = status(engine)
    assert row.state.startswith("cut off")
    assert row.console == ["init: waiting", "vm: restored 6.1"]


def test_a_lab_that_is_not_there_is_unknown(lab: OneLab, engine: Engine) -> None:
    with pytest.raises(UnknownName, match="no lab is called 'lib', did you mean 'lab'"):
        status(engine, "lib")


# --- the end of a guest, in an error


def test_the_last_words_of_a_guest_are_the_end_of_its_console(lab: OneLab, engine: Engine) -> None:
    lab.host("a", vm(), "".join(f"line {number}\n" for number in range(20)), state="exited")
    facts = HostFacts("lab", "a", "vm", "s390x", "big", "a", {})
    assert last_words(engine, facts).splitlines() == ["; the end of its console:", *(f"  | line {number}" for number in range(8, 20))]
    assert last_words(engine, HostFacts("lab", "a", "native", "amd64", "little", "a", {})) == ""


def test_a_container_that_is_being_removed_has_no_last_words_and_that_is_all(
    lab: OneLab, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.host("a", vm(), "", state="exited")
    said = "can not get logs from container which is dead or marked for removal"
    lab.fake.answers["GET /containers/a/logs"] = (409, {"message": said})

    class Gone:
        def give_up_sending_after(self, timeout_s: float) -> None: ...
        def send(self, data: bytes) -> None: ...
        def close(self) -> None: ...
        def frames(self) -> Iterator[tuple[int, bytes]]:
            return iter(())

    monkeypatch.setattr(engine, "exec_stream", lambda container, argv: Gone())
    host = Host.in_container(HostFacts("lab", "a", "vm", "s390x", "big", "a", {}), engine)
    with pytest.raises(LabError, match=said):
        host.run(["true"])


def test_a_container_that_ran_before_is_judged_by_its_last_start(lab: OneLab, engine: Engine) -> None:
    lab.host("a", vm(), "init: ready\n")
    (container,) = [one for one in engine.containers("testbed.host") if one.id == "a"]
    assert what_is_wrong(engine, container) == ""
    assert "since" in lab.fake.queries["GET /containers/a/logs"]
