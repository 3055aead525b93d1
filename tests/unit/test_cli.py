"""The command line without an engine: its help, its arguments, what errors become."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from testbed import cli, shipped
from testbed.arguments import assignments, split_remote, with_a_name
from testbed.errors import CheckFailed, EngineError, InputError, TestbedError, TopologyError

VERBS = [
    *(
        "up",
        "down",
        "reset",
        "status",
        "exec",
        "shell",
        "logs",
        "put",
        "get",
        "capture",
        "exchange",
        "endian",
        "experiment",
        "sweep",
        "report",
    ),
    *("validate", "schema", "graph", "images", "doctor", "setup"),
]


def verbs(group: click.Group = cli.testbed, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from verbs(command, (*above, name))


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    out, err = capsys.readouterr()
    return int(str(left.value.code)), out, err


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own signal handlers stay."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def test_the_verbs_come_in_the_order_in_which_one_meets_them() -> None:
    assert list(cli.testbed.commands) == VERBS


@pytest.mark.parametrize("verb", list(verbs()), ids=" ".join)
def test_every_help_has_an_example_and_is_read_in_a_terminal(verb: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli.testbed, [*verb, "--help"], terminal_width=100)
    assert shown.exit_code == 0
    assert "Example" in shown.output
    assert f"testbed {' '.join(verb)}" in shown.output.split("Example", 1)[1]
    assert max(map(len, shown.output.splitlines())) <= 130


@pytest.mark.parametrize("verb", ["status", "logs", "capture", "exchange", "endian", "validate", "graph", "images", "doctor"])
def test_every_verb_that_reads_speaks_json(verb: str) -> None:
    assert "--json" in CliRunner().invoke(cli.testbed, [verb, "--help"]).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["stauts"], "there is no verb 'stauts', did you mean 'status'?"),
        (["images", "biuld"], "there is no verb 'biuld', did you mean 'build'?"),
        (["up"], "Missing argument 'FILE'"),
        (["exec", "host"], "Missing argument 'COMMAND...'"),
        (["up", "--fast", "pair"], "No such option"),
        (["exchange", "--integer", "4294967296"], "--integer"),
        (["graph", "pair", "--format", "svg"], "there is no format 'svg'"),
        (["graph", "piar"], "did you mean 'pair'?"),
        (["validate", "/no/such.yaml"], "/no/such.yaml"),
    ],
)
def test_a_wrong_argument_is_exit_code_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(*arguments, capsys=capsys)
    assert (code, out) == (2, "")
    assert words in err


def test_help_and_version_are_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--help", capsys=capsys)
    assert code == 0
    assert all(f"  {verb} " in out for verb in VERBS)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("wrong", hint="do this"), 2, "testbed: wrong\n  do this\n"),
        (TopologyError("wrong", file="x.yaml", line=3, column=4), 2, "testbed: x.yaml:3:4: wrong\n"),
        (CheckFailed("no"), 1, "testbed: no\n"),
        (EngineError("gone"), 3, "testbed: gone\n"),
        (OSError(28, "No space left on device"), 3, "testbed: No space left on device\n"),
        (PermissionError(13, "Permission denied", "/x"), 3, "testbed: /x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "testbed: interrupted\n"),
        (click.Abort(), 130, "testbed: interrupted\n"),
    ],
)
def test_an_error_is_a_message_and_an_exit_code(error: BaseException, code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert cli._run(fail) == code
    assert capsys.readouterr().err == says


def test_what_is_a_mistake_of_ours_is_not_hidden() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli._run(fail)


def test_validate_judges_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("networks:\n  lan:\nhosts:\n  a: {kind: virtual}\n")
    files = ["nosuch", "pair", str(wrong), str(tmp_path / "missing.yaml")]
    code, out, _ = run("validate", "--json", *files, capsys=capsys)
    assert code == 2
    told = json.loads(out)
    assert [one["file"] for one in told] == files
    assert [one["ok"] for one in told] == [False, True, False, False]
    assert (told[2]["line"], told[1]["hosts"]) == (4, 2)
    code, out, err = run("validate", *files, capsys=capsys)
    assert code == 2
    assert out == "pair: right: hosts: 2, networks: 1\n"
    assert err.count("testbed: ") == 3


def test_validate_of_right_files_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("validate", *shipped.names(), capsys=capsys)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == len(shipped.names())


def test_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("schema", capsys=capsys)
    assert code == 0
    assert "hosts" in json.loads(out)["properties"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_reason_to_fail(closed: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-m", "testbed", "validate", "pair"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_loads_neither_docker_nor_pydantic() -> None:
    script = "import sys, testbed.cli; print(*[one for one in ('docker', 'pydantic', 'rich', 'requests') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    assert done.stdout == "\n"


# Arguments


@pytest.mark.parametrize(("remote", "parts"), [("a:/x", ("a", "/x")), ("lab/a:/x:y", ("lab/a", "/x:y"))])
def test_a_remote_path_has_two_parts(remote: str, parts: tuple[str, str]) -> None:
    assert split_remote(remote) == parts


@pytest.mark.parametrize("remote", ["", "a", "a:", ":/x", "/x"])
def test_what_is_no_remote_path_is_refused(remote: str) -> None:
    with pytest.raises(InputError, match="is not HOST:PATH"):
        split_remote(remote)


def test_variables_end_at_their_first_equals_sign() -> None:
    assert assignments(["A=b=c", "E="]) == {"A": "b=c", "E": ""}
    with pytest.raises(TestbedError, match="'A' is not NAME=VALUE"):
        assignments(["A"])


def test_this_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_a_name(Path()).name == tmp_path.name
    assert with_a_name(Path("..")).name == tmp_path.parent.name
    assert with_a_name(Path("x/y")) == Path("x/y")
