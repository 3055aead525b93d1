"""testinfra's commands on their way to a host: whose they are, how they are quoted, which hosts an address means."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any, cast

import pytest
import testinfra
import testinfra.backend

from testbed import testinfra_backend
from testbed.engine import Container, Engine
from testbed.errors import DeadlineExceeded, InputError, LabError, UnknownName
from testbed.host import Host
from testbed.lab import Parts
from testbed.process import Result
from testbed.testinfra_backend import Address, Connections, as_testinfra, matching


class FakeHost:
    """A host that notes what it is to run."""

    def __init__(self, *errors: Exception, container: str = "1") -> None:
        self.lab, self.name, self.container = "pair", "server", container
        self.ran: list[tuple[tuple[str, ...], str | None, float | None]] = []
        self.errors = list(errors)
        self.closed = False

    def run(self, argv: list[str], *, user: str | None, timeout_s: float | None) -> Result:
        self.ran.append((tuple(argv), user, timeout_s))
        if self.errors:
            raise self.errors.pop(0)
        return Result(tuple(argv), 3, b"out \xc3\xa4", b"err", 0.0)

    def close(self) -> None:
        self.closed = True

    @property
    def users(self) -> list[str | None]:
        return [user for _, user, _ in self.ran]


@pytest.fixture
def fake() -> FakeHost:
    return FakeHost()


@pytest.fixture
def there(fake: FakeHost) -> Any:
    """testinfra's host, which has no types."""
    return as_testinfra(cast(Host, fake))


class TestCommand:
    def test_it_is_run_by_a_shell_with_its_arguments_quoted(self, fake: FakeHost, there: Any) -> None:
        done = there.run("ls -- %s", "two words; echo $HOME")
        assert fake.ran == [(("sh", "-c", "ls -- 'two words; echo $HOME'"), None, 60.0)]
        assert (done.rc, done.stdout, done.stdout_bytes, done.stderr) == (3, "out ä", b"out \xc3\xa4", "err")
        assert done.command == b"ls -- 'two words; echo $HOME'"

    def test_nothing_is_asked_of_the_host_to_decode_its_output(self, fake: FakeHost, there: Any) -> None:
        assert there.run("cat").stdout == "out ä"
        assert len(fake.ran) == 1

    def test_sudo_is_another_user_and_no_program(self, fake: FakeHost, there: Any) -> None:
        with there.sudo("user"):
            there.run("id %s", "a b")
        with there.sudo():
            there.run("id")
        there.run("id")
        assert [(argv[2], user) for argv, user, _ in fake.ran] == [("id 'a b'", "user"), ("id", "root"), ("id", None)]

    def test_of_nested_users_the_innermost_runs_it(self, fake: FakeHost, there: Any) -> None:
        with there.sudo("one"), there.sudo("two"):
            there.run("id")
        with there.sudo("one"), there.sudo():
            there.run("id")
        assert fake.users == ["two", "root"]

    @pytest.mark.parametrize(
        ("name", "options", "user"),
        [
            ("user@pair/server", {}, "user"),
            ("pair/server", {"sudo": True}, "root"),
            ("pair/server", {"sudo": True, "sudo_user": "daemon"}, "daemon"),
            ("user@pair/server", {"sudo": True}, "root"),
            ("pair/server", {"sudo_user": "daemon"}, None),
        ],
    )
    def test_the_user_comes_from_address_or_options(self, fake: FakeHost, name: str, options: dict[str, Any], user: str | None) -> None:
        backend = testinfra_backend.TestbedBackend(name, over=cast(Host, fake), **options)
        backend.run("id")
        assert fake.users == [user]

    def test_its_time_is_the_address_s(self, fake: FakeHost) -> None:
        testinfra_backend.TestbedBackend("pair/server", over=cast(Host, fake), timeout="1.5").run("id")
        assert fake.ran[0][2] == 1.5

    @pytest.mark.parametrize("timeout", ["soon", "0", "-1", "nan"])
    def test_a_time_that_is_none_is_told(self, fake: FakeHost, timeout: str) -> None:
        with pytest.raises(InputError, match=f"'{timeout}' is no time"):
            testinfra_backend.TestbedBackend("pair/server", over=cast(Host, fake), timeout=timeout)


def parts(lab: str, *hosts: str) -> Parts:
    made = {
        name: Container(f"{lab}.{name}", name, {"testbed.settings": '{"kind": "native", "arch": "amd64", "links": []}'}, "", "")
        for name in hosts
    }
    return Parts(lab, None, made, [], {})


LABS: Mapping[str, Parts] = {
    "pair": parts("pair", "server", "client-1", "client-2"),
    "other": parts("other", "server"),
    "empty": parts("empty"),
}


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("pair/server", ["pair/server"]),
            ("pair/*", ["pair/server", "pair/client-1", "pair/client-2"]),
            ("pair/client-[2-9]", ["pair/client-2"]),
            ("*/server", ["pair/server", "other/server"]),
            ("o*/*", ["other/server"]),
        ],
    )
    def test_patterns_of_labs_and_hosts(self, text: str, found: list[str]) -> None:
        assert ["/".join(one) for one in matching(Address.of(text), LABS)] == found

    @pytest.mark.parametrize(
        ("text", "message", "hint"),
        [
            (
                "par/server",
                "no lab is called 'par', did you mean 'pair'?",
                "there is: empty, other, pair; `testbed up FILE` brings a lab up",
            ),
            ("pair/serve", "no host of lab 'pair' is called 'serve', did you mean 'server'?", "there is: client-1, client-2, server; "),
            ("*/x", "no host of the labs pair, other, empty is called 'x'", "there is: "),
            ("empty/*", "no host of lab 'empty' is called '*'", "there is no host of lab 'empty' at all"),
        ],
    )
    def test_a_name_that_nothing_has_is_told_with_those_there_are(self, text: str, message: str, hint: str) -> None:
        with pytest.raises(UnknownName) as caught:
            matching(Address.of(text), LABS)
        assert caught.value.message == message
        assert hint in caught.value.hint

    @pytest.mark.parametrize("text", ["", "pair", "pair/", "/server", "pair/server/more", "user@pair"])
    def test_what_names_no_host_is_told_with_an_example(self, text: str) -> None:
        with pytest.raises(InputError, match="names no host") as caught:
            Address.of(text)
        assert "testbed://LAB/*" in caught.value.hint

    def test_it_is_written_as_it_was(self) -> None:
        for text in ("pair/server", "user@pair/*"):
            assert str(Address.of(text)) == text


class TestSpecification:
    def test_testinfra_finds_the_backend_and_the_host_s_name(self) -> None:
        assert testinfra.backend.get_backend_class("testbed") is testinfra_backend.TestbedBackend
        parsed = testinfra.backend.parse_hostspec("testbed://user@pair/client-*?sudo=true&timeout=5")
        assert parsed == ("user@pair/client-*", {"connection": "testbed", "sudo": True, "timeout": "5"})

    @pytest.mark.parametrize("spec", ["ssh://host/path", "docker://name", "local://", "host", "salt://*"])
    def test_those_of_others_are_read_as_before(self, spec: str) -> None:
        script = f"import testinfra.backend as b; print(b.parse_hostspec({spec!r}))"
        before = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert f"{testinfra.backend.parse_hostspec(spec)}\n" == before

    def test_registering_again_changes_nothing(self) -> None:
        before = testinfra.backend.parse_hostspec
        testinfra_backend.register()
        assert testinfra.backend.parse_hostspec is before

    def test_it_costs_no_engine_until_it_is_used(self) -> None:
        script = (
            "import sys, testbed.testinfra_plugin; print([m for m in ('docker', 'yaml', 'pydantic', 'testbed.lab') if m in sys.modules])"
        )
        assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestHostOfALabThatWasMadeAnew:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> list[FakeHost]:
        """What the engine has of pair/server, one after the other as it is looked for."""
        made: list[FakeHost] = []

        def make_host(engine: Engine, lab: str, name: str, container: str, settings: Mapping[str, Any]) -> FakeHost:
            return made[0]

        monkeypatch.setattr("testbed.lab.make_host", make_host)
        return made

    @pytest.fixture
    def connections(self, made: list[FakeHost], monkeypatch: pytest.MonkeyPatch) -> Connections:
        connections = Connections()
        connections._engine = cast(Engine, object())

        def labs() -> Mapping[str, Parts]:
            container = Container(
                made[0].container, "server", {"testbed.settings": '{"kind": "native", "arch": "amd64", "links": []}'}, "", ""
            )
            return {"pair": Parts("pair", None, {"server": container}, [], {})}

        monkeypatch.setattr(connections, "labs", labs)
        return connections

    def run(self, connections: Connections) -> Any:
        return connections.try_on(Address("pair", "server"), lambda host: host.run(["id"], user=None, timeout_s=1))

    def test_one_object_serves_as_long_as_the_host_is_the_same(self, connections: Connections, made: list[FakeHost]) -> None:
        made.append(FakeHost())
        for _ in range(3):
            self.run(connections)
        assert len(made[0].ran) == 3

    def test_the_command_goes_to_the_new_one(self, connections: Connections, made: list[FakeHost]) -> None:
        old, new = FakeHost(container="1"), FakeHost(container="2")
        made.append(old)
        self.run(connections)
        made[0] = new
        old.errors.append(LabError("host server cannot be reached"))
        assert self.run(connections).exit_code == 3
        assert (len(old.ran), len(new.ran), old.closed) == (2, 1, True)

    def test_an_error_of_the_same_host_is_raised_and_nothing_is_done_twice(self, connections: Connections, made: list[FakeHost]) -> None:
        made.append(FakeHost(LabError("host server is gone")))
        with pytest.raises(LabError, match="is gone"):
            self.run(connections)
        assert len(made[0].ran) == 1

    def test_a_command_that_takes_too_long_is_not_tried_again(self, connections: Connections, made: list[FakeHost]) -> None:
        made.append(FakeHost(container="1"))
        connections.to(Address("pair", "server"))
        old, made[0] = made[0], FakeHost(container="2")
        old.errors.append(DeadlineExceeded("the end of it", 1))
        with pytest.raises(DeadlineExceeded):
            self.run(connections)
        assert made[0].ran == []

    def test_several_hosts_are_no_host(self, connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(connections, "labs", lambda: LABS)
        with pytest.raises(InputError, match=r"'testbed://pair/\*' means 3 hosts") as caught:
            connections.to(Address("pair", "*"))
        assert "get_hosts" in caught.value.hint
