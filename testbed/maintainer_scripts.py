"""What Debian packages' scripts would do when they are configured, read from their text and never run. Pure.

Only commands whose words are known without running anything are understood: literal ones, variables that are set to such words, loops
over such lists. So nothing of a package runs, on this machine or under emulation.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from pathlib import PurePosixPath

BETWEEN = re.compile(r"[;&|()]+")  # commands of one line
BEFORE = {"if", "then", "elif", "else", "do", "!", "{"}
SET = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
COMBINATIONS_MOST = 100  # of words that nested loops are over

# Options of adduser, addgroup (adduser(8)), useradd and groupadd that have a value.
VALUED = {
    *("--home", "--home-dir", "--base-dir", "-d", "-b", "--shell", "-s", "--gecos", "--comment", "-c", "--uid", "-u", "--gid", "-g"),
    *("--ingroup", "--groups", "-G", "--firstuid", "--lastuid", "--firstgid", "--lastgid", "--conf", "--expiredate", "-e", "--inactive"),
    *("-f", "--skel", "-k", "--key", "-K", "--password", "-p", "--root", "-R", "--prefix", "-P", "--selinux-user", "-Z", "--home-mode"),
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\$?")
FIRST_ID = 101
NOWHERE, NO_LOGIN = "/nonexistent", "/usr/sbin/nologin"


@dataclass(frozen=True)
class Account:
    """A user that a script makes, with the ``group`` that it is in, its own when that has its name. Or, unless it ``is_user``, a group."""

    name: str
    group: str
    home: str = NOWHERE
    shell: str = NO_LOGIN
    is_user: bool = True


@dataclass(frozen=True)
class Link:
    """A name that several packages may have, for the file of the one whose ``priority`` is the highest."""

    path: str
    target: str
    priority: int


def commands(script: str) -> Iterator[list[str]]:
    """Every command of a shell script, whatever its conditions are, once for each round of the loops that it is in. Words that are not
    known have a ``$`` or a backquote in them."""
    known: dict[str, str] = {}
    loops: list[tuple[str, list[str]]] = []
    for line in re.sub(r"\\\n", " ", script).splitlines():
        for words in _of_line(line):
            while words and words[0] in BEFORE:
                del words[0]
            if not words:
                continue
            assigned = SET.fullmatch(words[0]) if len(words) == 1 else None
            if assigned:
                value = _filled(assigned[2], known)
                if _is_known(value):  # one that is not leaves what was known, as it may be set under a condition
                    known[assigned[1]] = value
            elif words[0] == "for" and words[2:3] == ["in"]:
                loops.append((words[1], " ".join(_filled(word, known) for word in words[3:]).split()))
            elif words[0] in ("for", "while", "until"):
                loops.append(("", [""]))
            elif words[0] == "done":
                del loops[-1:]
            else:
                yield from _rounds(words, known, loops)


def _of_line(line: str) -> list[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    try:
        for word in lexer:
            if BETWEEN.fullmatch(word):
                found.append([])
            else:
                found[-1].append(word)
    except ValueError:  # a quotation that goes on in the next line
        return []
    return found


def _rounds(words: Sequence[str], known: Mapping[str, str], loops: Sequence[tuple[str, Sequence[str]]]) -> Iterator[list[str]]:
    names = [name for name, _ in loops]
    for number, values in enumerate(product(*(values for _, values in loops))):
        if number == COMBINATIONS_MOST:
            return
        yield [_filled(word, {**known, **dict(zip(names, values, strict=True))}) for word in words]


def _filled(word: str, known: Mapping[str, str]) -> str:
    return VARIABLE.sub(lambda found: known.get(found[1] or found[2], found[0]), word)


def alternatives(script: str) -> list[Link]:
    """The links that ``update-alternatives --install`` would make, each with those that follow it (``--slave``)."""
    found = []
    for words in commands(script):
        if PurePosixPath(words[0]).name != "update-alternatives" or "--install" not in words:
            continue
        link, _, target, priority = (*words[words.index("--install") + 1 :], *[""] * 4)[:4]
        if not re.fullmatch(r"-?\d+", priority):
            continue
        found.append(Link(link, target, int(priority)))
        for at, word in enumerate(words):
            if word in ("--slave", "--follower") and len(words) > at + 3:
                found.append(Link(words[at + 1], words[at + 3], int(priority)))
    return [one for one in found if _is_known(one.path) and _is_known(one.target)]


def _is_known(word: str) -> bool:
    return not {"$", "`"} & {*word}


def accounts(script: str) -> list[Account]:
    """The users and groups that ``adduser``, ``addgroup``, ``useradd`` and ``groupadd`` would make."""
    found = []
    for command, *arguments in commands(script):
        program = PurePosixPath(command).name
        if program in ("adduser", "addgroup", "useradd", "groupadd"):
            options, names = _options(arguments)
            if len(names) == 1 and NAME.fullmatch(names[0]):
                found.append(_account(program, names[0], options))
    return found


def _options(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, those without one with an empty one; and the other words, as far as no redirection or so follows."""
    options: dict[str, str] = {}
    names: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if re.match(r"\d*[<>]", word):
            break
        if not word.startswith("-"):
            names.append(word)
        elif "=" in word:
            name, _, options[name] = word.partition("=")
        else:
            options[word] = next(rest, "") if word in VALUED else ""
    return options, names


def _account(program: str, name: str, options: Mapping[str, str]) -> Account:
    if program in ("addgroup", "groupadd"):
        return Account(name, name, is_user=False)

    def value(*of: str, default: str) -> str:
        return next((options[one] for one in of if one in options and _is_known(options[one])), default)

    own = name if program == "useradd" or "--group" in options else "nogroup"  # adduser --system, useradd with USERGROUPS_ENAB
    return Account(
        name,
        group=value("--ingroup", "--gid", "-g", default=own),
        home=value("--home", "--home-dir", "-d", default=NOWHERE),
        shell=value("--shell", "-s", default=NO_LOGIN),
    )


def with_accounts(passwd: str, group: str, made: Iterable[Account]) -> tuple[str, str]:
    """/etc/passwd and /etc/group with those that are not in them yet, under the first ids that are free."""
    users, groups = _ids(passwd), _ids(group)
    lines_of_users, lines_of_groups = passwd.splitlines(), group.splitlines()
    for one in made:
        new = next(number for number in count(FIRST_ID) if number not in {*users.values(), *groups.values()})
        if one.group not in groups and not one.group.isdigit():
            groups[one.group] = new
            lines_of_groups.append(f"{one.group}:x:{new}:")
        if one.is_user and one.name not in users:
            users[one.name] = new
            of = int(one.group) if one.group.isdigit() else groups[one.group]
            lines_of_users.append(f"{one.name}:x:{new}:{of}::{one.home}:{one.shell}")
    return "\n".join(lines_of_users) + "\n", "\n".join(lines_of_groups) + "\n"


def _ids(table: str) -> dict[str, int]:
    return {name: int(number) for name, _, number, *_ in (line.split(":") for line in table.splitlines() if line)}
