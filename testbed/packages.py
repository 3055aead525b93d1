"""What packages add to a host's file system, as a layer over that of its image: unpacked, with what they depend on. None of it runs.

Debian's come out of the archive of the image's suite, chosen by apt for the host's architecture with the image's packages as those that are
installed; PyPI's by pip (:mod:`testbed.pip_fetch`). All of that happens on this machine, in a place that goes away with its process.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed import rootfs
from testbed.architecture import Architecture
from testbed.errors import ImageError, InputError, TestbedError, did_you_mean
from testbed.maintainer_scripts import accounts, alternatives, with_accounts
from testbed.package_names import Extras
from testbed.rootfs import Step, Workbench

STATUS, PASSWD, GROUP = "var/lib/dpkg/status", "etc/passwd", "etc/group"
MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr on every host
UNUSED = re.compile(r"usr/share/(doc|doc-base|man|info|locale|lintian|bug|bash-completion|help|gtk-doc)(/|$)")
UNUSED_ETC = re.compile(r"etc/(init\.d|rc.\.d|cron|logrotate|apparmor|pam\.d|systemd)")
# What a package's own script would have done that its files alone are not.
MAKES = {
    "users": re.compile(r"\b(adduser|addgroup|useradd|groupadd|systemd-sysusers|deb-systemd-helper-sysusers)\b"),
    "alternatives": re.compile(r"\bupdate-alternatives\b"),
    "owners of files": re.compile(r"\b(chown|chgrp|install +-o)\b"),
}

# apt takes what the image has as installed. Perl's interpreter is essential in Debian, so nobody depends on it, and trimmed from the image.
_DEBIAN = r"""
set -e
export PACKAGES="$1" ARCHITECTURE="$2" SUITE="$3" PYTHON="$4"
shift 4
mkdir -p /tmp/out/root/usr /tmp/out/about /tmp/out/scripts /tmp/more
for one in bin sbin lib lib64; do mkdir -p /tmp/out/root/usr/$one; ln -s usr/$one /tmp/out/root/$one; done
cat > /tmp/status
mmdebstrap --mode=root --variant=custom --skip=check/qemu,chroot/mount --architectures="$ARCHITECTURE" --format=null \
--customize-hook='
    set -e
    cp /tmp/status "$1/var/lib/dpkg/status"
    export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
    take="apt-get -q -y -o APT::Sandbox::User=root --no-install-recommends --download-only"
    if ! $take --allow-downgrades install $PACKAGES > /tmp/out/log 2>&1; then
        apt-cache pkgnames > /tmp/out/names
        exit 0
    fi
    unpack() {
        for deb in "$@"; do
            test -e "$deb" || continue
            name=$(dpkg-deb --field "$deb" Package)
            dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C /tmp/out/root
            dpkg-deb --field "$deb" > "/tmp/out/about/$name"
            dpkg-deb --ctrl-tarfile "$deb" | tar -x -O ./postinst > "/tmp/out/scripts/$name" 2> /dev/null || true
        done
    }
    unpack "$1"/var/cache/apt/archives/*.deb
    if ! test -e /tmp/out/about/perl-base && grep -rIlqE "^#! ?/usr/bin/(env )?perl" /tmp/out/root/usr/bin /tmp/out/root/usr/sbin; then
        (cd /tmp/more && apt-get -q -o APT::Sandbox::User=root download perl-base >&2)
        unpack /tmp/more/*.deb
    fi' "$SUITE" - "$@" >&2
if test -x "$PYTHON"; then
    "$PYTHON" -m compileall -q -s /tmp/out/root -p / --invalidation-mode unchecked-hash /tmp/out/root/usr/lib/python3 > /dev/null || true
fi
exec tar -c -C /tmp/out .
"""
# What unpacked packages miss, and apt would mend first: /bin and its like are links into /usr from the beginning.
MERGED_ALREADY = "Package: usr-is-merged\nStatus: install ok installed\nArchitecture: all\nVersion: 99\n\n"
APT_ADVICE = re.compile(r"^(E: .*|.* : (Depends|Conflicts|Breaks).*|.*but it is not .*)$", re.MULTILINE)


@dataclass(frozen=True)
class Layer:
    """``files`` is a tar of what is to be over the image, ``versions`` names what it is of (``iperf3 3.12-1``), ``left_out`` what the
    packages' scripts would have made, and nobody did."""

    files: bytes
    versions: tuple[str, ...]
    left_out: tuple[str, ...]


def layer(bench: Workbench, extras: Extras, architecture: Architecture, recipe: rootfs.Recipe, status: str, step: Step) -> Layer:
    """The layer for a host whose image is made after ``recipe`` and has the dpkg ``status``.

    Raises :class:`InputError` for packages that are not there, or cannot be on such a host, :class:`ImageError` for what fails here.
    """
    packed = io.BytesIO()
    versions: list[str] = []
    left_out: list[str] = []
    seen: set[str] = set()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if extras.packages:
            step(f"fetching Debian packages: {', '.join(extras.packages)}")
            found, texts = _debian(bench, extras, architecture, recipe.suite, status)
            add(tar, found, seen)
            stanzas = {name.removeprefix("about/"): text for name, text in texts.items() if name.startswith("about/")}
            _put(tar, STATUS, merged_status(status, stanzas).encode())
            versions += [f"{name} {version_in(text)}" for name, text in sorted(stanzas.items())]
            scripts = {name.removeprefix("scripts/"): text for name, text in texts.items() if name.startswith("scripts/")}
            configure(tar, scripts, recipe, seen)
            left_out += not_done(scripts)
        if extras.pip:
            step(f"fetching Python packages: {', '.join(extras.pip)}")
            found, names = _python(bench, extras, architecture, python_of(status))
            add(tar, found, seen)
            versions += names
    return Layer(packed.getvalue(), tuple(versions), tuple(left_out))


# What is wanted of Debian


def _debian(bench: Workbench, extras: Extras, architecture: Architecture, suite: str, status: str) -> tuple[bytes, dict[str, str]]:
    python = _interpreter() if python_of(status) == f"{sys.version_info.major}.{sys.version_info.minor}" else ""
    argv = ["sh", "-c", _DEBIAN, "sh", " ".join(extras.packages), architecture.name, suite, python, *rootfs.apt_sources(suite)]
    with bench.tool(f"fetching Debian packages for {architecture.name}", argv, stdin=(status + MERGED_ALREADY).encode()) as tool:
        whole = tool.output.read()
    texts = dict(_texts(whole))
    if "names" in texts:
        raise debian_refusal(texts["log"], texts["names"].split(), suite, architecture.name)
    return whole, texts


def _texts(whole: bytes) -> Iterator[tuple[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isreg() and not name.startswith("root/"):
                yield name, rootfs.content_of(tar, member).decode(errors="backslashreplace")


def debian_refusal(log: str, names: list[str], suite: str, architecture: str) -> TestbedError:
    """Why apt did not take the packages, out of what it wrote, and with the names of all that there are."""
    archive = f"Debian {suite} for {architecture}"
    if unknown := re.search(r"E: Unable to locate package (\S+)", log):
        near = did_you_mean(unknown[1], names)
        return InputError(f"there is no package '{unknown[1]}' in {archive}{near}", hint="packages: names as in Debian's archive")
    if version := re.search(r"E: Version '(\S+)' for '(\S+)' was not found", log):
        hint = f"leave the version out to have the one of {suite}; its archive keeps no older ones"
        return InputError(f"{archive} has no version {version[1]} of package '{version[2]}'", hint=hint)
    if virtual := re.search(r"E: Package '(\S+)' has no installation candidate", log):
        return InputError(
            f"package '{virtual[1]}' is a mere name in {archive}, or not built for it", hint="name a package that provides it"
        )
    if "Failed to fetch" in log or "Could not resolve" in log:
        return ImageError(f"packages of {archive} could not be fetched:\n{_quoted(log)}", hint="is the Debian mirror reachable?")
    return InputError(
        f"the packages cannot be together on a host, says apt of {archive}:\n{_quoted(log)}", hint="fewer packages, or other versions"
    )


def _quoted(log: str) -> str:
    lines = [found[0] for found in APT_ADVICE.finditer(log)] or log.strip().splitlines()[-8:]
    return "\n".join(f"  | {line.strip()}" for line in lines[-12:])


def version_in(stanza: str) -> str:
    found = re.search(r"^Version: (.+)$", stanza, re.MULTILINE)
    return found[1] if found else ""


def python_of(status: str) -> str:
    """The version of Python on a host, such as 3.11, out of the list of its packages."""
    found = re.search(r"^Package: python(3\.\d+)-minimal$", status, re.MULTILINE)
    return found[1] if found else f"{sys.version_info.major}.{sys.version_info.minor}"


def merged_status(status: str, stanzas: Mapping[str, str]) -> str:
    """A dpkg status in which some packages are new, or of another version; all count as installed."""
    kept = [one for one in re.split(r"\n\n+", status.strip()) if not any(one.startswith(f"Package: {name}\n") for name in stanzas)]
    new = [
        re.sub(r"^(Package: .*)$", r"\1\nStatus: install ok installed", text.strip(), count=1, flags=re.MULTILINE)
        for text in stanzas.values()
    ]
    return "\n\n".join([*kept, *new]) + "\n\n"


def configure(tar: tarfile.TarFile, scripts: Mapping[str, str], recipe: rootfs.Recipe, seen: set[str]) -> None:
    """Add the users and the links that the packages' scripts, by package, would have made. What the image itself has stays."""
    texts = [text for _, text in sorted(scripts.items())]
    if made := [account for text in texts for account in accounts(text)]:
        tables = [recipe.files[f"./{path}"].decode() for path in (PASSWD, GROUP)]
        for path, table in zip((PASSWD, GROUP), with_accounts(tables[0], tables[1], made), strict=True):
            _put(tar, path, table.encode())
            seen.add(path)
    for link in sorted((link for text in texts for link in alternatives(text)), key=lambda one: -one.priority):
        path, target = _merged(link.path), _merged(link.target)
        if f"./{path}" not in recipe.links and path not in seen and target in seen:
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, f"/{target}"
            tar.addfile(member)
            seen.add(path)


def _merged(path: str) -> str:
    """A path without its first slash, where it is on a host: /bin is a link into /usr."""
    path = path.lstrip("/")
    return f"usr/{path}" if path.split("/")[0] in MERGED else path


def not_done(scripts: Mapping[str, str]) -> list[str]:
    """What the packages' scripts, by package, would have made that files alone are not, and that could not be made here either."""
    found = []
    for name, text in sorted(scripts.items()):
        done = {"users": bool(accounts(text)), "alternatives": bool(alternatives(text))}
        if missing := [what for what, pattern in MAKES.items() if pattern.search(text) and not done.get(what)]:
            found.append(f"{name}: {' and '.join(missing)}")
    return found


# What is wanted of PyPI


def _python(bench: Workbench, extras: Extras, architecture: Architecture, python: str) -> tuple[bytes, list[str]]:
    interpreter = _interpreter()
    if not interpreter:
        raise ImageError(f"this Python, {sys.executable}, is in /tmp, where nothing finds it that makes images", hint="one outside /tmp")
    wanted = json.dumps({"requirements": extras.pip, "machine": architecture.machine, "python": python})
    given = {"own/pip_fetch.py": Path(__file__).with_name("pip_fetch.py").read_bytes()}
    if interpreter != sys.executable:
        given |= _own_pip()
    argv = ["sh", "-c", 'tar -x && PYTHONPATH="$PWD/own" exec "$0" own/pip_fetch.py "$1"', interpreter, wanted]
    with bench.tool(f"fetching Python packages for {architecture.name}", argv, stdin=rootfs.tar_of(given)) as tool:
        whole = tool.output.read()
    said: dict[str, Any] = json.loads(dict(_texts(whole))["said.json"])
    if "error" in said:
        raise pip_refusal(said["error"], said["package"], said["detail"], architecture, python)
    return whole, said["versions"]


def _interpreter() -> str:
    """This Python, by a path that is there where tools run, whose /tmp is their own: that of a virtual environment in /tmp is the one that
    the environment was made from. Empty when that one is in /tmp too."""
    if not _is_hidden(sys.prefix):
        return sys.executable
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return str(base) if base.exists() and not _is_hidden(sys.base_prefix) else ""


def _is_hidden(folder: str) -> bool:
    return Path(folder).resolve().is_relative_to("/tmp")


def _own_pip() -> dict[str, bytes]:
    """The files of this Python's pip, by the paths that they are given at; none when it has no pip."""
    found = importlib.util.find_spec("pip")
    folder = Path(found.origin).parent if found and found.origin else None
    files = () if folder is None else (one for one in folder.rglob("*") if one.is_file() and one.suffix != ".pyc")
    return {f"own/{one.relative_to(folder.parent)}": one.read_bytes() for one in files if folder}


def pip_refusal(kind: str, package: str, detail: str, architecture: Architecture, python: str) -> TestbedError:
    """Why pip did not take the packages (see :class:`testbed.pip_fetch.Refused`)."""
    quoted = "\n".join(f"  | {line}" for line in detail.splitlines())
    if kind == "unknown" and not detail:
        return InputError(f"there is no Python package '{package}'", hint="pip: names as in the Python Package Index")
    if kind == "unknown":
        known = [one.strip() for one in detail.split(",")]
        shown = ", ".join(known[-12:]) if len(known) <= 12 else f"..., {', '.join(known[-12:])}"
        return InputError(f"there is no version of a Python package that is '{package}'", hint=f"there are: {shown}")
    if kind == "python":
        return InputError(
            f"'{package}' is not for Python {python}, which hosts have", hint=f"versions for others: {detail}; name an older one"
        )
    if kind == "compiled":
        hint = "packages of Debian are compiled for every architecture: packages: [python3-...]"
        return InputError(
            f"Python package '{package}' has compiled parts, and no wheel for {architecture.name}: built here it is {detail}", hint=hint
        )
    if kind == "conflict":
        return InputError(f"the Python packages cannot be together on a host:\n{quoted}", hint="fewer packages, or other versions")
    if kind == "network":
        return ImageError(
            f"the Python Package Index does not answer:\n{quoted}", hint="PIP_INDEX_URL names another index, PIP_PROXY a way to it"
        )
    if kind == "no-pip":
        return ImageError("this Python has no pip, which fetches Python packages", hint=f"{sys.executable} -m ensurepip")
    what = f"'{package}' has no wheel and could not be built" if package else "pip failed"
    return ImageError(f"{what}:\n{quoted}", hint="a version with a wheel, or Debian's package of it: packages: [python3-...]")


# The layer


def add(tar: tarfile.TarFile, whole: bytes, seen: set[str]) -> None:
    """Add what is below ``root/`` of a tar: everything root's, without what nobody needs on a host, links into /usr left as they are."""
    with tarfile.open(fileobj=io.BytesIO(whole)) as found:
        for member in found:
            path = member.name.removeprefix("./").removeprefix("root").strip("/")
            if not member.name.removeprefix("./").startswith("root") or not path or path in MERGED or path in seen:
                continue
            if UNUSED.match(path) or UNUSED_ETC.match(path) or (member.isdir() and path.count("/") == 0):
                continue
            content = found.extractfile(member) if member.isreg() else None
            member.name, member.pax_headers = path, {}  # which would have the old name where that was long
            if member.islnk():
                member.linkname = member.linkname.removeprefix("./").removeprefix("root").lstrip("/")
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            tar.addfile(member, content)
            seen.add(path)


def _put(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))
