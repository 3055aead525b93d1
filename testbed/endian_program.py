"""The two programs that `testbed endian` runs: C sources, compiled here for each architecture, or a command with files."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from testbed.architecture import Architecture
from testbed.endian_messages import ROLES, Role
from testbed.errors import InputError, LabError
from testbed.process import run_local, search_path
from testbed.shipped import setup_command

DIRECTORY = "/root"  # where files are put, and programs run
COMPILE_S = 120.0
FLAGS = ("-O1",)


@dataclass(frozen=True)
class Program:
    """A role's program as the user gave it: ``sources`` to compile, or none, and the words of its command. The first word of a compiled
    one is where it is put."""

    role: Role
    sources: tuple[Path, ...]
    argv: tuple[str, ...]


def read(role: Role, text: str, *, option: str = "") -> Program:
    """A program out of an option's text: C files first, if any, then the arguments; else a command.

    Raises :class:`InputError` for a text without words, or a C file that is not there.
    """
    option = option or role
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"--{option} '{text}': {error}", hint="quote it as for a shell") from None
    if not words:
        raise InputError(f"--{option} is empty", hint=f"for example --{role} {role}.c, or --{role} 'python3 {role}.py' --file {role}.py")
    count = next((number for number, word in enumerate(words) if not word.endswith(".c")), len(words))
    sources = tuple(Path(word) for word in words[:count])
    for one in sources:
        if not one.is_file():
            raise InputError(f"--{option}: there is no file '{one}'", hint="C files come first, then the program's arguments")
    return Program(role, sources, (f"{DIRECTORY}/{role}", *words[count:]) if sources else tuple(words))


def read_script(text: str) -> tuple[Program, tuple[Path, ...]]:
    """A program that runs alone, as the client, and the files that it is: a script and its arguments, C files, or a command.

    Raises :class:`InputError` as :func:`read` does, and for a file that nothing says how to run.
    """
    program = read("client", text, option="script")
    script = Path(program.argv[0])
    if program.sources or not script.is_file():
        if not program.sources and script.suffix in (".py", ".sh"):
            raise InputError(f"--script: there is no file '{script}'", hint="a script of this machine, and its arguments")
        return program, ()
    here = f"{DIRECTORY}/{script.name}"
    if script.suffix == ".py":
        return Program("client", (), ("python3", here, *program.argv[1:])), (script,)
    if script.suffix == ".sh":
        return Program("client", (), ("sh", here, *program.argv[1:])), (script,)
    if not script.stat().st_mode & 0o111:
        raise InputError(f"--script: '{script}' is neither a .py, .sh or .c file nor executable", hint="or a command: 'python3 FILE'")
    return Program("client", (), (here, *program.argv[1:])), (script,)


def check_files(files: Iterable[Path], programs: Sequence[Program]) -> None:
    """Raise :class:`InputError` for a file that is not there, or one that a command names and that is not given."""
    names = set()
    for one in files:
        if not one.is_file():
            raise InputError(f"--file: there is no file '{one}'", hint="a file of this machine, which all hosts get")
        if one.name in ROLES and any(program.sources and program.role == one.name for program in programs):
            raise InputError(f"--file: '{one}' has the name of the compiled {one.name}", hint="call it something else")
        names.add(one.name)
    for program in programs:
        for word in () if program.sources else program.argv:
            if "/" not in word and word not in names and Path(word).is_file():
                raise InputError(
                    f"the {program.role}'s command names {word}, which the hosts do not have", hint=f"--file {word} puts it there"
                )


def compiled(
    programs: Iterable[Program], architectures: Iterable[Architecture], flags: Sequence[str], into: Path
) -> dict[tuple[Role, str], Path]:
    """Compile the programs that have sources for each architecture; the paths of the executables by role and architecture's name.

    Raises :class:`InputError` with the compiler's words when it refuses, :class:`LabError` when there is no compiler.
    """
    todo = [(program, one) for program in programs if program.sources for one in architectures]
    for _, one in todo:
        if shutil.which(one.compiler, path=search_path()) is None:
            raise LabError(f"{one.compiler} is not on this machine", hint=f"run: {setup_command()}")
    with ThreadPoolExecutor(max(len(todo), 1)) as pool:
        made = pool.map(lambda job: _compile(job[0], job[1], flags, into), todo)
        return {(program.role, one.name): path for (program, one), path in zip(todo, made, strict=True)}


def _compile(program: Program, architecture: Architecture, flags: Sequence[str], into: Path) -> Path:
    """In the user's own directory, so that his flags and the compiler's messages mean his files. Libraries (-l) come after the sources."""
    made = into / f"{program.role}-{architecture.name}"
    options, libraries = ([one for one in flags if one.startswith("-l") == wanted] for wanted in (False, True))
    argv = [architecture.compiler, *FLAGS, *options, "-o", str(made), *map(str, program.sources), *libraries]
    result = run_local(argv, timeout_s=COMPILE_S)
    if result.exit_code != 0:
        lines = "\n".join(f"  | {line}" for line in result.error_text.strip().splitlines()[:20])
        raise InputError(f"the {program.role} does not compile for {architecture.name} ({architecture.byte_order}-endian):\n{lines}")
    return made
