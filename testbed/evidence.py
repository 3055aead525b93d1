"""What a lab tells at the moment when something failed in it, as files: for every host its sockets, counters, processes, what was run on
it and what that wrote, its console; for every network a pcap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.engine import STDERR
from testbed.errors import InputError, LabError, TestbedError
from testbed.host import Host
from testbed.lab import Lab, side_by_side
from testbed.recording import Recording, Saved
from testbed.transcript import MOST_OUTPUT, STREAMS, Entry

QUESTION_S = 10.0
# File -> the commands whose output it holds. nstat: absolute values, and it is to leave its history alone.
QUESTIONS: Mapping[str, Sequence[Sequence[str]]] = {
    "sockets.txt": (("ss", "-tuwanpemi"),),
    "counters.txt": (("nstat", "-as"), ("ip", "-s", "-s", "link")),
    "network.txt": (
        *(("ip", "address"), ("ip", "route"), ("ip", "-6", "route"), ("ip", "neighbour")),
        *(("tc", "-s", "qdisc"), ("nft", "list", "ruleset")),
    ),
    "processes.txt": (("ps", "-eo", "pid,ppid,user,stat,etimes,args"),),
}
TRANSCRIPT, CONSOLE, LOG, GONE = "commands.txt", "console.txt", "log.txt", "gone.txt"
MOST_OF_A_LOG = 256 * 1024
# What a summary shows of each thing.
HOSTS, COMMANDS, LINES = 8, 4, 6


@dataclass(frozen=True)
class Evidence:
    """What was found. ``texts`` and ``pcaps`` are by the file's name in ``directory``; ``summary`` is a page of it for a terminal."""

    directory: Path
    summary: str
    texts: Mapping[str, str]
    pcaps: Mapping[str, Saved]


def gather(lab: Lab, directory: Path, *, recording: Recording | None = None) -> Evidence:
    """Ask all hosts of a lab, and write what they say under ``directory``, which is made. A host that is gone is no error but a file
    that says so. Raises :class:`LabError` when the files cannot be written."""
    found = side_by_side(lambda host: _ask(lab, host), lab.hosts.values())
    texts = {f"{name}/{file}": text for name, files in zip(lab.hosts, found, strict=True) for file, text in files.items() if text}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (directory / file).parent.mkdir(exist_ok=True)
            (directory / file).write_text(text, encoding="utf-8")
        pcaps = {one.file.name: one for one in recording.save(directory).values()} if recording else {}
    except OSError as error:
        raise LabError(f"what the lab tells cannot be written to {directory}: {error.strerror or error}") from error
    summary = [line for host in list(lab.hosts.values())[:HOSTS] for line in _about(host, texts)]
    if len(lab.hosts) > HOSTS:
        summary.append(f"and {len(lab.hosts) - HOSTS} more hosts")
    for name, saved in pcaps.items():
        summary.append(f"{name}: {saved.packets} packets{f' ({saved.note})' if saved.note else ''}")
    summary.append(f"all of it: {directory}")
    return Evidence(directory, "\n".join(summary), texts, pcaps)


def _ask(lab: Lab, host: Host) -> dict[str, str]:
    """File -> what it is to hold."""
    files = {TRANSCRIPT: host.transcript.text() if host.transcript else ""}
    entries = host.transcript.entries if host.transcript else []
    host.transcript, noted = None, host.transcript  # what is asked here is no part of it
    try:
        files[CONSOLE if host.kind == "vm" else LOG] = _log(lab, host)
        for file, commands in QUESTIONS.items():
            files[file] = "\n".join(_answer(host, argv) for argv in commands)
        files[TRANSCRIPT] += "".join(_detached_output(host, one) for one in entries if any(one.files))
    except TestbedError as error:
        files[GONE] = f"{error}\n"
    finally:
        host.transcript = noted
    return files


def _log(lab: Lab, host: Host) -> str:
    """What the host's container has written: a guest's console, what init and the host's `command:` say."""
    written = lab.engine.written(host.container, stream=STDERR if host.kind == "vm" else None)
    return written[-MOST_OF_A_LOG:].decode(errors="backslashreplace").replace("\r\n", "\n")


def _answer(host: Host, argv: Sequence[str]) -> str:
    try:
        result = host.run(argv, timeout_s=QUESTION_S)
    except InputError as error:  # a host without that command
        return f"$ {' '.join(argv)}\n{error.message}\n"
    ending = f"(exit code {result.exit_code})\n" if result.exit_code else ""
    return f"$ {' '.join(argv)}\n{result.text}{result.error_text}{ending}"


def _detached_output(host: Host, entry: Entry) -> str:
    """What a detached command wrote, which is in files of the host."""
    lines = [f"{' '.join(entry.argv)}, detached:"]
    for file in filter(None, entry.files):
        end = host.run(["tail", "-c", str(MOST_OUTPUT), file], timeout_s=QUESTION_S).text
        lines += [f"  {file}:", *(f"  | {line}" for line in end.splitlines())]
    return "\n".join([*lines, ""])


def _about(host: Host, texts: Mapping[str, str]) -> list[str]:
    """A host in a few lines."""
    lines = [f"{host.name} ({host.kind} {host.arch}):"]
    if gone := texts.get(f"{host.name}/{GONE}"):
        return [*lines, *(f"  {_cut(line)}" for line in gone.splitlines())]
    lines += [f"  {line}" for line in _sockets_in_brief(texts.get(f"{host.name}/sockets.txt", ""))]
    entries = host.transcript.entries if host.transcript else []
    if len(entries) > COMMANDS:
        lines.append(f"  ({len(entries) - COMMANDS} commands before these)")
    for entry in entries[-COMMANDS:]:
        lines.append(f"  {_cut(' '.join(' '.join(entry.argv).split()))}: {entry.ending or 'runs'}")
        for stream in STREAMS:
            lines += [f"    | {_cut(line)}" for line in entry.output(stream)[0].splitlines()[-LINES:]]
    return lines


def _sockets_in_brief(shown: str) -> list[str]:
    """Of what ss says, protocol, state, queues and addresses of the first sockets."""
    rows = [line.split()[:6] for line in shown.splitlines() if line.startswith(("tcp", "udp"))]
    more = [f"and {len(rows) - LINES} more sockets"] if len(rows) > LINES else []
    return [" ".join(row) for row in rows[:LINES]] + more


def _cut(text: str, most: int = 120) -> str:
    """The beginning, with nothing in it that a terminal would obey."""
    shown = "".join(one if one.isprintable() or one == "\t" else f"\\x{ord(one):02x}" for one in text[:most])
    return f"{shown}..." if len(text) > most else shown
