"""The command against a real lab: what goes in and comes out, byte by byte, and with which exit code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dpkt  # type: ignore[import-untyped]
import pytest

from testbed.process import run_local, wait_until
from tests.lab.support import COMMAND, LIMIT_S, Labs, needs_guest, run_testbed, started, status
from tests.pseudo_terminal import terminal

EVERY_BYTE = bytes(range(256))
SOLO = f"solo{uuid.uuid4().hex[:8]}"  # no other lab of this machine has a host of that name
# The server's command repeats the words that are written into /tmp/words.
TALKING = "echo to the output; echo to the errors >&2; mkfifo /tmp/words; while read word </tmp/words; do echo $word; done"
TALKS = f"networks: [lan], command: [sh, -c, '{TALKING}'], ready: {{log: to the output}}"
CONTAINERS = f"""
networks:
  lan:
  other:
hosts:
  client: {{networks: [lan, other], environment: {{COLOUR: green}}}}
  server: {{{TALKS}}}
  big: {{kind: emulated, environment: {{COLOUR: green}}, {TALKS}}}
"""
EVERYTHING = f"""{CONTAINERS}
  guest: {{kind: vm, arch: s390x, environment: {{COLOUR: green}}, {TALKS}}}
"""
# The way to an emulated host is that to a native one: what runs there differs, and not what the command does.
EVERY_KIND = pytest.mark.parametrize("host", ["client", pytest.param("big", marks=pytest.mark.long), "guest"])
WITH_A_COMMAND = pytest.mark.parametrize("host", ["server", "big", "guest"])
OTHER = f"networks:\n  lan:\nhosts:\n  client:\n  {SOLO}:\n"


@pytest.fixture(scope="module")
def lab_of_containers(module_labs: Labs) -> str:
    return module_labs.up(CONTAINERS).name


@pytest.fixture(scope="module")
def everything(module_labs: Labs) -> str:
    """The name of a lab with a guest too, of the tests that need one. They come last, as an idle guest costs."""
    return module_labs.up(EVERYTHING).name


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> str:
    """The name of the lab that these tests share."""
    name: str = request.getfixturevalue("everything" if needs_guest(request.node) else "lab_of_containers")
    return name


@pytest.fixture(scope="module")
def other(module_labs: Labs) -> str:
    return module_labs.up(OTHER).name


# exec


@EVERY_KIND
@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)])
def test_exec_leaves_with_the_commands_own_exit_code(lab: str, host: str, script: str, code: int) -> None:
    done = run_testbed("exec", f"{lab}/{host}", "sh", "-c", script)
    assert (done.exit_code, done.stdout, done.stderr) == (code, b"", b"")


@EVERY_KIND
def test_exec_passes_every_byte_both_ways_and_keeps_the_two_outputs_apart(lab: str, host: str) -> None:
    data = EVERY_BYTE * 4
    done = run_testbed("exec", f"{lab}/{host}", "sh", "-c", "tee /dev/stderr; printf end >&2", stdin=data)
    assert (done.exit_code, done.stdout, done.stderr) == (0, data, data + b"end")


@EVERY_KIND
def test_exec_carries_much_data_both_ways_at_once(lab: str, host: str) -> None:
    data = os.urandom(1 << 20) * 12
    done = run_testbed("exec", f"{lab}/{host}", "cat", stdin=data)
    assert done.exit_code == 0
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


@EVERY_KIND
def test_exec_runs_under_a_user_in_a_directory_with_variables(lab: str, host: str) -> None:
    script = 'id -u; pwd; echo "$COLOUR $TASTE"'
    done = run_testbed(
        "exec", "-u", "nobody", "-w", "/usr/lib", "-e", "TASTE=sweet and sour", "-e", "EMPTY=", f"{lab}/{host}", "sh", "-c", script
    )
    assert done.check().text == "65534\n/usr/lib\ngreen sweet and sour\n"


@EVERY_KIND
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-u", "nobdy"], "nobdy"),
        (["-w", "/no/such/place"], "/no/such/place"),
    ],
)
def test_exec_says_which_option_is_wrong(lab: str, host: str, options: list[str], words: str) -> None:
    refused = run_testbed("exec", *options, f"{lab}/{host}", "true")
    assert refused.exit_code == 2
    assert words in refused.error_text
    assert "Traceback" not in refused.error_text


@pytest.mark.parametrize(("options", "words"), [(["-e", "TASTE"], "'TASTE' is not NAME=VALUE"), (["--timeout", "0"], "--timeout")])
def test_an_option_of_exec_that_makes_no_sense_is_named(lab: str, options: list[str], words: str) -> None:
    refused = run_testbed("exec", *options, f"{lab}/client", "true")
    assert refused.exit_code == 2
    assert words in refused.error_text


@EVERY_KIND
def test_exec_of_a_program_that_is_not_there_is_an_error_that_names_it(lab: str, host: str) -> None:
    refused = run_testbed("exec", f"{lab}/{host}", "no-such-program", "--verbose")
    assert refused.exit_code == 2
    assert "no-such-program" in refused.error_text


def test_options_after_the_host_are_the_commands(lab: str) -> None:
    assert run_testbed("exec", f"{lab}/client", "echo", "--help", "-u", "x").check().text == "--help -u x\n"


@EVERY_KIND
def test_exec_ends_a_command_and_its_children_after_its_timeout(lab: str, host: str, module_labs: Labs) -> None:
    mark = f"77{uuid.uuid4().int % 10**6:06}"
    done = run_testbed("exec", "--timeout", "1", f"{lab}/{host}", "sh", "-c", f"echo begun; sleep {mark} & sleep {mark}", timeout_s=60)
    assert done.exit_code == 3
    assert done.stdout == b"begun\n"
    assert "not within 1 s" in done.error_text
    left = run_testbed("exec", f"{lab}/{host}", "ps", "-eo", "args").check().text
    assert f"sleep {mark}" not in left.splitlines()


@EVERY_KIND
@pytest.mark.parametrize(
    ("script", "number", "code"),
    [
        ("trap 'echo caught; exit 42' INT; echo begun; while :; do sleep 0.05; done", signal.SIGINT, 42),
        ("trap 'echo caught; exit 43' TERM; echo begun; while :; do sleep 0.05; done", signal.SIGTERM, 43),
        ("echo begun; exec sleep 1000", signal.SIGINT, 130),
    ],
)
def test_a_signal_to_exec_goes_to_the_command(lab: str, host: str, script: str, number: signal.Signals, code: int) -> None:
    with started("exec", f"{lab}/{host}", "sh", "-c", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"begun\n"
        running.send_signal(number)
        output, errors = running.communicate(timeout=LIMIT_S)
    assert running.returncode == code
    assert output == (b"caught\n" if code < 128 else b"")
    assert b"Traceback" not in errors


@EVERY_KIND
def test_ctrl_c_during_much_output_ends_it(lab: str, host: str) -> None:
    """The command writes without end, so that the signal finds exec in the midst of its work."""
    for _ in range(3):
        with started("exec", f"{lab}/{host}", "yes") as running:
            assert running.stdout is not None
            assert running.stdout.read(1 << 20)
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=LIMIT_S)
        assert running.returncode == 130


@EVERY_KIND
def test_exec_with_closed_or_useless_standard_input_gives_the_command_none(lab: str, host: str) -> None:
    for redirection in ("<&-", "</dev/null"):
        done = run_local(["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, "exec", f"{lab}/{host}", "sh", "-c", "cat; echo end"])
        assert (done.exit_code, done.text, done.error_text) == (0, "end\n", ""), redirection


@EVERY_KIND
def test_exec_with_closed_outputs_still_runs_the_command(lab: str, host: str) -> None:
    done = run_local(["sh", "-c", '"$@" >&- 2>&-', "sh", *COMMAND, "exec", f"{lab}/{host}", "sh", "-c", "echo x; echo y >&2; exit 5"])
    assert done.exit_code == 5


@EVERY_KIND
def test_exec_does_not_read_an_input_that_the_command_leaves(lab: str, host: str) -> None:
    """A terminal, or a pipe that stays open, does not keep exec from ending."""
    reading, writing = os.pipe()
    try:
        done = subprocess.run([*COMMAND, "exec", f"{lab}/{host}", "true"], stdin=reading, timeout=LIMIT_S, capture_output=True)
    finally:
        os.close(reading)
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# Output that nobody reads


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["schema"], 0), (["status"], 0), (["exec", "{lab}/client", "yes"], 141), (["logs", "{lab}/server"], 0)],
)
def test_a_closed_pipe_is_no_error_to_talk_about(lab: str, arguments: list[str], code: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen([*COMMAND, *(one.format(lab=lab) for one in arguments)], stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code
    assert not re.search(b"Traceback|Exception|Broken", errors)


@pytest.mark.parametrize("arguments", [["schema"], ["exec", "{lab}/client", "yes"]])
def test_a_full_disk_under_the_output_is_said_in_one_line(lab: str, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [*COMMAND, *(one.format(lab=lab) for one in arguments)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=LIMIT_S)
    assert (done.returncode, done.stderr) == (3, b"testbed: No space left on device\n")


# shell


@EVERY_KIND
def test_a_shell_has_a_terminal_a_prompt_and_its_own_exit_code(lab: str, host: str) -> None:
    with terminal(*COMMAND, "shell", f"{lab}/{host}") as there:
        there.expect(f"^{host}:/# ")  # and no complaint before it: "can't access tty"
        there.type("cd /usr/lib; tty; echo $TERM; stty size\n")
        there.expect(r"/dev/pts/\d+\s+xterm\s+30 90\s")
        there.expect(f"{host}:/usr/lib# ")
        there.type("exit 9\n")
        assert there.process.wait(timeout=LIMIT_S) == 9
        assert there.settings() == there.settings_before


@EVERY_KIND
def test_a_shell_learns_of_a_new_size_at_once_and_gets_ctrl_c(lab: str, host: str) -> None:
    with terminal(*COMMAND, "shell", f"{lab}/{host}") as there:
        there.expect(f"{host}:/# ")
        # Nothing is typed after the new size: the shell has to be told without that. (The sum is not in the echo.)
        there.type("sh -c 'trap \"echo now; stty size\" WINCH; echo armed $((40 + 2)); while :; do sleep 0.05; done'\n")
        there.expect("armed 42")
        there.resize(50, 132)
        there.expect(r"now\s+50 132\s")
        there.type("\x03")
        there.expect(f"{host}:/# ")
        there.type("echo still here\n")
        there.expect(f"still here\r?\n{host}:/# ")
        there.type("\x04")
        assert there.process.wait(timeout=LIMIT_S) in (0, 130)  # dash leaves with the code of its last command


@EVERY_KIND
def test_a_shell_stops_and_goes_on_with_its_jobs(lab: str, host: str) -> None:
    with terminal(*COMMAND, "shell", f"{lab}/{host}") as there:
        there.expect(f"{host}:/# ")
        there.type("cat\n")
        there.type("there\n")
        there.expect(r"there\s+there\s")  # the echo, and cat
        there.type("\x1a")
        there.expect(rf"Stopped.*\s+{host}:/# ")
        there.type("fg\n")
        there.expect(r"fg\s+cat\s")
        there.type("again\n")
        there.expect(r"again\s+again\s")
        there.type("\x04")
        there.expect(f"{host}:/# ")
        there.type("exit\n")
        assert there.process.wait(timeout=LIMIT_S) == 0


@EVERY_KIND
def test_a_shell_and_what_runs_in_it_end_with_its_client(lab: str, host: str) -> None:
    mark = "31415"
    with terminal(*COMMAND, "shell", f"{lab}/{host}") as there:
        there.expect(f"{host}:/# ")
        there.type(f"sleep {mark}\n")
        wait_until(lambda: processes(f"{lab}/{host}", mark), timeout_s=30, what="the sleeper")
        assert processes(f"{lab}/{host}", "sh")
        there.process.kill()
        wait_until(lambda: not processes(f"{lab}/{host}", mark), timeout_s=30, what="the end of the sleeper")
        wait_until(lambda: not processes(f"{lab}/{host}", "sh"), timeout_s=30, what="the end of the shell")


def processes(host: str, last_argument: str) -> list[str]:
    """The numbers of a host's processes whose last argument this is."""
    rows = [line.split() for line in run_testbed("exec", host, "ps", "-eo", "pid,args").check().text.splitlines()]
    return [row[0] for row in rows if row[-1] == last_argument]


@EVERY_KIND
def test_a_shell_without_a_terminal_reads_a_script(lab: str, host: str) -> None:
    done = run_testbed("shell", f"{lab}/{host}", stdin=b"echo one\nexit 4\n")
    assert (done.exit_code, done.stdout) == (4, b"one\n")


# logs


@WITH_A_COMMAND
def test_logs_shows_what_the_hosts_command_wrote(lab: str, host: str) -> None:
    done = run_testbed("logs", f"{lab}/{host}").check()
    assert done.text.startswith("to the output\n")
    assert "to the errors\n" in done.error_text


@WITH_A_COMMAND
def test_logs_goes_on_with_follow_and_ends_with_ctrl_c(lab: str, host: str) -> None:
    word = uuid.uuid4().hex
    with started("logs", "-f", f"{lab}/{host}") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"to the output\n"
        run_testbed("exec", f"{lab}/{host}", "sh", "-c", f"echo {word} >/tmp/words").check()
        while running.stdout.readline() != f"{word}\n".encode():
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=LIMIT_S)
    assert b"Traceback" not in errors
    assert running.returncode in (0, 130)


# put and get


@EVERY_KIND
def test_files_and_directories_keep_their_content_and_modes(lab: str, host: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "sub" / "script").write_bytes(b"#!/bin/sh\nexit 3\n")
    (tree / "sub" / "script").chmod(0o751)
    (tree / "a name with blanks").write_bytes(EVERY_BYTE)
    (tree / "link").symlink_to("sub/script")
    run_testbed("put", tree, f"{lab}/{host}:/root/").check()
    assert run_testbed("exec", f"{lab}/{host}", "/root/tree/sub/script").exit_code == 3
    run_testbed("get", f"{lab}/{host}:/root/tree", tmp_path / "back").check()
    back = tmp_path / "back"
    assert (back / "a name with blanks").read_bytes() == EVERY_BYTE
    assert (back / "sub" / "script").stat().st_mode & 0o7777 == 0o751
    assert (back / "link").readlink() == Path("sub/script")
    assert (back / "sub" / "empty").is_dir()


@EVERY_KIND
def test_put_and_get_into_a_directory_keep_the_name(lab: str, host: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    into = tmp_path / "into"
    into.mkdir()
    run_testbed("put", tmp_path / "file", f"{lab}/{host}:/tmp").check()  # a directory, though no slash says so
    run_testbed("put", tmp_path / "file", f"{lab}/{host}:/tmp/renamed").check()
    run_testbed("get", f"{lab}/{host}:/tmp/file", into).check()
    assert (into / "file").read_text() == "content"
    here = {"PYTHONPATH": str(Path.cwd())}
    run_local([*COMMAND, "get", f"{lab}/{host}:/tmp/renamed"], directory=into, environment={**os.environ, **here}).check()
    assert (into / "renamed").read_text() == "content"
    run_testbed("get", f"{lab}/{host}:/etc/hosts", tmp_path / "other-name").check()
    assert "localhost" in (tmp_path / "other-name").read_text()


@EVERY_KIND
def test_put_of_this_directory_has_its_name(lab: str, host: str, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("content")
    here = {"PYTHONPATH": str(Path.cwd())}
    run_local([*COMMAND, "put", ".", f"{lab}/{host}:/tmp"], directory=tmp_path / "mine", environment={**os.environ, **here}).check()
    assert run_testbed("exec", f"{lab}/{host}", "cat", "/tmp/mine/file").check().text == "content"


@EVERY_KIND
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["put", "{here}/file", "{lab}/{host}:/no/such/directory/x"], "/no/such/directory/x"),
        (["get", "{lab}/{host}:/missing", "{here}"], "/missing"),
        (["get", "{lab}/{host}:/etc/hosts", "{here}/no/such/place"], "No such file or directory"),
    ],
)
def test_what_cannot_be_copied_is_named(lab: str, host: str, tmp_path: Path, arguments: list[str], words: str) -> None:
    check_copy_is_refused(lab, host, tmp_path, arguments, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["put", "{here}/missing", "{lab}/{host}:/tmp/x"], "missing: No such file or directory"),
        (["put", "{here}/file", "{lab}/{host}:relative"], "it begins with /"),
        (["put", "{here}/file", "{lab}/{host}"], "is not HOST:PATH"),
        (["put", "{here}/file", ":/tmp/x"], "is not HOST:PATH"),
        (["get", "{lab}/clint:/etc/hosts", "{here}"], "did you mean 'client'?"),
    ],
)
def test_what_names_no_place_to_copy_is_said(lab: str, tmp_path: Path, arguments: list[str], words: str) -> None:
    check_copy_is_refused(lab, "client", tmp_path, arguments, words)


def check_copy_is_refused(lab: str, host: str, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "file").write_text("content")
    refused = run_testbed(*(one.format(here=tmp_path, lab=lab, host=host) for one in arguments))
    assert refused.exit_code == 2, refused.error_text
    assert words in refused.error_text
    assert "Traceback" not in refused.error_text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


# capture


@pytest.fixture
def pinging(module_labs: Labs, lab: str) -> Iterator[None]:
    """The client asks the server, and the hosts of other kinds, all the time."""
    with module_labs.lab(module_labs.folder / f"{lab}.yaml") as there, ExitStack() as running:
        for name in there.hosts.keys() - {"client"}:
            running.enter_context(there.host("client").start(["ping", "-i", "0.1", name]))
        yield


@WITH_A_COMMAND
def test_capture_writes_a_line_a_packet(lab: str, host: str, pinging: None) -> None:
    done = run_testbed("capture", "--count", "4", f"{lab}/{host}", "icmp")
    assert done.exit_code == 0, done.error_text
    lines = done.text.splitlines()
    assert len(lines) == 4
    assert all("ICMP echo re" in one for one in lines)


@WITH_A_COMMAND
def test_capture_writes_a_pcap_file_or_stream(lab: str, host: str, tmp_path: Path, pinging: None) -> None:
    run_testbed("capture", "-w", tmp_path / "trace.pcap", "-c", "3", f"{lab}/{host}", "icmp").check()
    stream = run_testbed("capture", "-w", "-", "-c", "3", "-n", "lan", f"{lab}/client", "icmp").check()
    for data in ((tmp_path / "trace.pcap").read_bytes(), stream.stdout):
        packets = [dpkt.ethernet.Ethernet(frame) for _, frame in dpkt.pcap.Reader(io.BytesIO(data))]
        assert len(packets) == 3
        assert all(isinstance(one.data.data, dpkt.icmp.ICMP) for one in packets)


@WITH_A_COMMAND
@pytest.mark.parametrize("options", [[], ["-w", "-"]])
def test_capture_ends_after_its_seconds(lab: str, host: str, options: list[str]) -> None:
    done = run_testbed("capture", *options, "--seconds", "0.5", f"{lab}/{host}", "udp", "port", "9")
    assert done.exit_code == 0, done.error_text
    assert len(done.stdout.strip()) == (24 if options else 0)  # a pcap file's header alone


@WITH_A_COMMAND
def test_capture_ends_well_with_ctrl_c(lab: str, host: str, pinging: None) -> None:
    with started("capture", f"{lab}/{host}", "icmp") as running:
        assert running.stdout is not None
        assert b"ICMP" in running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=LIMIT_S)
    assert (running.returncode, errors) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{lab}/server", "prot", "80"], "refuses the filter 'prot 80'"),
        (["{lab}/client"], "--network, one of: lan, other"),
        (["-n", "lam", "{lab}/client"], "did you mean 'lan'?"),
        (["-n", "other", "{lab}/server"], "other"),
        (["-w", "/no/such/directory/x", "{lab}/server"], "/no/such/directory/x"),
        (["-c", "0", "{lab}/server"], "--count"),
    ],
)
def test_capture_says_what_is_wrong_with_its_arguments(lab: str, arguments: list[str], words: str) -> None:
    refused = run_testbed("capture", *(one.format(lab=lab) for one in arguments))
    assert refused.exit_code == 2, refused.error_text
    assert words in refused.error_text
    assert "Traceback" not in refused.error_text


# Which lab, which host, which verb


def test_a_host_may_be_named_alone_where_one_lab_has_it(lab: str, other: str) -> None:
    assert run_testbed("exec", SOLO, "hostname").check().text == f"{SOLO}\n"
    ambiguous = run_testbed("exec", "client", "true")
    assert ambiguous.exit_code == 2
    assert "several labs have a host 'client'" in ambiguous.error_text
    assert f"{lab}/client" in ambiguous.error_text
    assert f"{other}/client" in ambiguous.error_text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["exec", "{lab}/servr", "true"], "did you mean 'server'?"),
        (["exec", "{lab}x/server", "true"], "did you mean '{lab}'?"),
        (["exec", "{lab}/", "true"], "no host of lab '{lab}' is called ''"),
        (["shell", "{solo}x"], "did you mean '{solo}'?"),
        (["status", "{lab}x"], "did you mean '{lab}'?"),
        (["exchange", "{lab}x"], "did you mean '{lab}'?"),
        (["down", "{lab}x"], "did you mean '{lab}'?"),
        (["down", "a/b"], "no lab is called 'a/b'"),
        (["down", "../escape"], "no lab is called '../escape'"),
        (["down", "x" * 300], "no lab is called"),
        (["down"], "which lab is to be removed?"),
        (["down", "--all", "{lab}"], "which lab is to be removed?"),
    ],
)
def test_a_slip_of_the_keyboard_gets_the_nearest_name(lab: str, other: str, arguments: list[str], words: str) -> None:
    refused = run_testbed(*(one.format(lab=lab, solo=SOLO) for one in arguments))
    assert refused.exit_code == 2, refused.error_text
    assert words.format(lab=lab, solo=SOLO) in refused.error_text
    assert "Traceback" not in refused.error_text


# What reads


@pytest.mark.usefixtures("everything")
def test_status_shows_every_host_for_people_and_for_programs(lab: str) -> None:
    rows = status(lab)
    assert set(rows) == {"client", "server", "big", "guest"}
    assert (rows["big"]["kind"], rows["big"]["arch"], rows["big"]["byte_order"]) == ("emulated", "s390x", "big")
    assert (rows["guest"]["kind"], rows["guest"]["arch"], rows["guest"]["byte_order"]) == ("vm", "s390x", "big")
    assert rows["client"]["kernel"] == rows["big"]["kernel"] == os.uname().release
    assert rows["guest"]["kernel"] == run_testbed("exec", f"{lab}/guest", "uname", "-r").text.strip() != os.uname().release
    assert [rows[one]["kernel_of"] for one in ("client", "big", "guest")] == ["the machine's", "the machine's", "its own"]
    assert rows["guest"]["state"].startswith("running (restored, ")
    assert set(rows["client"]["addresses"]) == {"lan", "other"}
    text = run_testbed("status", lab).check().text
    for row in rows.values():
        assert all(word in text for word in (row["host"], row["kind"], row["arch"], row["byte_order"], row["kernel"], row["state"]))
        assert all(one.partition("/")[0] in text for of_network in row["addresses"].values() for one in of_network)


@pytest.mark.usefixtures("lab_of_containers")
def test_images_are_listed() -> None:
    listed = json.loads(run_testbed("images", "--json").check().text)
    assert {"s390x"} < {one["architecture"] for one in listed["images"]}
    assert all(one["present"] for one in listed["images"])
    text = run_testbed("images").check().text
    assert all(f"{one['reference']}  there" in text for one in listed["images"])


def test_doctor_says_the_same_to_people_and_programs() -> None:
    told = run_testbed("doctor", "--json")
    findings = json.loads(told.text)
    assert told.exit_code == (0 if findings["ok"] else 3)
    assert {"check", "ok", "found", "mend"} == set(findings["findings"][0])
    for_people = run_testbed("doctor")
    assert for_people.exit_code == told.exit_code
    assert all(one["check"] in for_people.text for one in findings["findings"])


@pytest.mark.usefixtures("everything")
def test_exchange_holds_and_shows_a_forgotten_htonl(lab: str) -> None:
    told = run_testbed("exchange", lab, "--json")
    assert told.exit_code == 0, told.error_text + told.text
    json.loads(told.text)
    forgotten = run_testbed("exchange", lab, "--host-order", "--integer", "258", "--text", "hi")
    assert forgotten.exit_code == 1, forgotten.error_text
    assert "REFUTED" in forgotten.text
    assert "HOLDS" in forgotten.text
