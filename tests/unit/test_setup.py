"""setup/setup.sh on machines made up for it: fake commands in PATH, fake files below SETUP_ROOT, nothing real is changed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).parents[2]
# What the script may use of the real machine.
REAL = (
    *("bash", "cat", "cp", "dirname", "env", "flock", "grep", "mkdir", "mktemp", "rm"),
    *("sed", "setsid", "sha256sum", "sleep", "tail", "touch", "tr"),
)

# Every fake writes how it was called into $FAKE/calls.
FAKES = {
    "python3": """
        case "$*" in
        *ask_engine.py) head -n 1 "$FAKE/engine"
            # the lines are the answers one after the other; the last one stays
            [ "$(grep -c . "$FAKE/engine")" = 1 ] || sed -i 1d "$FAKE/engine" ;;
        "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/new" ;;
        "-m pip "*) if [ -e "$FAKE/no-network" ]; then echo 'NewConnectionError: Network is unreachable'; exit 1; fi
            case "$*" in *--editable*) cp "$0" "${0%python}testbed" ;; esac ;;
        *"version_info < (3, 11)"*) [ ! -e "$FAKE/old-python" ] ;;
        *ensurepip*) [ ! -e "$FAKE/no-ensurepip" ] ;;
        *version_info*) echo 3.11 ;;
        --version) echo Python 3.9.2 ;;
        esac""",
    "apt-get": """
        case "$*" in *" install "*) ;; *) exit 0 ;; esac
        if [ -e "$FAKE/apt-fails" ]; then cat "$FAKE/apt-fails"; exit 100; fi
        if [ -e "$FAKE/dpkg-interrupted" ]; then echo 'E: dpkg was interrupted' >&2; exit 100; fi
        for word in "$@"; do
            sed -n "s/^$word //p" "$FAKE/packages" | while IFS= read -r file; do
                mkdir -p "$(dirname "$file")"; cp "$FAKE/nothing" "$file"
            done
            case $word in docker.io) cp "$FAKE/dockerd" "$BIN/dockerd" ;; *-venv) rm -f "$FAKE/no-ensurepip" ;; esac
        done""",
    "dpkg": 'rm -f "$FAKE/dpkg-interrupted"',
    "id": 'cat "$FAKE/uid"',
    "uname": 'cat "$FAKE/uname"',
    "modprobe": "exit 1",
    "mount": """
        if [ "$2" = binfmt_misc ]; then mkdir -p "$4"; echo enabled >"$4/status"; : >"$4/register"; fi""",
    # The kernel's part: it is called before each look at binfmt_misc, and turns what was written into what is registered.
    "head": """
        binfmt=$SETUP_ROOT/proc/sys/fs/binfmt_misc
        if [ -s "$binfmt/register" ]; then
            cp "$binfmt/register" "$FAKE/registered"
            interpreter=$(cut -d: -f7 "$binfmt/register") flags=$(cut -d: -f8 "$binfmt/register")
            printf 'enabled\\ninterpreter %s\\nflags: %s\\n' "$interpreter" "$flags" >"$binfmt/qemu-s390x"
            : >"$binfmt/register"
        fi
        exec "$HEAD" "$@" """,
}
DOCKERD = """#!/bin/bash
echo dockerd >>"$FAKE/calls"
echo $$ >"$FAKE/dockerd.pid"
[ ! -e /proc/$$/fd/9 ] || echo 'dockerd holds the lock' >>"$FAKE/calls"
if [ -e "$FAKE/dockerd-fails" ]; then echo 'failed to start daemon: no room'; exit 1; fi
[ -e "$FAKE/dockerd-is-mute" ] || echo 'answers here 1.41' >"$FAKE/engine"
exec sleep 20
"""
PACKAGES = {
    "iptables": "{bin}/iptables",
    "qemu-user-static": "{bin}/qemu-s390x-static",
    "mmdebstrap": "{bin}/mmdebstrap",
    "debian-archive-keyring": "{root}/usr/share/keyrings/debian-archive-keyring.gpg",
    "iproute2": "{bin}/ip",
    "xz-utils": "{bin}/xz",
    "squashfs-tools": "{bin}/sqfstar",
    "kmod": "{bin}/depmod",
    "gcc": "{bin}/x86_64-linux-gnu-gcc",
    "libc6-dev": "{root}/usr/include/stdio.h",
    "gcc-s390x-linux-gnu": "{bin}/s390x-linux-gnu-gcc",
    "libc6-dev-s390x-cross": "{root}/usr/s390x-linux-gnu/include/stdio.h",
    "docker-compose": "{bin}/docker-compose",
}
REGISTERED = "enabled\ninterpreter /usr/libexec/qemu-binfmt/s390x-binfmt-P\nflags: POF\n"
CONF = ":qemu-s390x:M::\\x7fELF:\\xff:/usr/libexec/qemu-binfmt/s390x-binfmt-P:{flags}\n"


class FakeMachine:
    """A Debian 12 with nothing installed, root at the keyboard, and no engine."""

    def __init__(self, directory: Path) -> None:
        # A space in every path: users have them too.
        self.fake, self.bin, self.root, self.checkout = (directory / f"a {name}" for name in ("fake", "bin", "root", "checkout"))
        for one in (self.fake, self.bin, self.root, self.checkout):
            one.mkdir()
        shutil.copytree(CHECKOUT / "setup", self.checkout / "setup", ignore=shutil.ignore_patterns("__pycache__"))
        (self.checkout / "requirements.txt").write_text("click==8.1\ndocker==7.1\n")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        for name in REAL:
            path = shutil.which(name)
            assert path, name
            (self.bin / name).symlink_to(path)
        for name, body in {**FAKES, "nothing": ""}.items():
            where = self.fake if name == "nothing" else self.bin
            (where / name).write_text(
                f'#!/bin/bash\nPATH=$PATH:/usr/bin:/bin\n[ -z "{name}" ] || echo "{name} $*" >>"$FAKE/calls"\n{body}\n'
            )
            (where / name).chmod(0o755)
        self.write(self.fake / "dockerd", DOCKERD).chmod(0o755)
        self.write(self.fake / "packages", "".join(f"{package} {self.brings(package)}\n" for package in PACKAGES))
        self.write(self.fake / "uid", "0\n")
        self.write(self.fake / "uname", "x86_64\n")
        self.write(self.fake / "engine", "silent unix:///var/run/docker.sock\n")
        self.write(self.fake / "calls", "")
        self.write(self.root / "etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
        self.write(self.root / "proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
        self.write(self.root / "var/log/.there", "")

    def brings(self, package: str) -> Path:
        return Path(PACKAGES[package].format(bin=self.bin, root=self.root))

    @staticmethod
    def write(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def complete(self) -> FakeMachine:
        """Everything of the machine's part is there already, installed by other means than Debian's packages."""
        for package in PACKAGES:
            self.write(self.brings(package), "#!/bin/bash\n").chmod(0o755)
        self.binfmt(REGISTERED)
        self.write(self.fake / "engine", "answers here 1.41\n")
        return self

    def binfmt(self, entry: str | None) -> None:
        directory = self.root / "proc/sys/fs/binfmt_misc"
        self.write(directory / "status", "enabled\n")
        self.write(directory / "register", "")
        if entry is not None:
            self.write(directory / "qemu-s390x", entry)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        head = shutil.which("head")
        assert head
        known = {"PATH": str(self.bin), "FAKE": str(self.fake), "BIN": str(self.bin), "SETUP_ROOT": str(self.root), "HEAD": head}
        return subprocess.Popen(
            [str(self.bin / "bash"), str(self.checkout / "setup/setup.sh"), *arguments],
            env={**known, "TMPDIR": str(self.fake), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """The exit code, and what was said. Afterwards ``calls`` holds only what this run called."""
        self.write(self.fake / "calls", "")
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    @property
    def calls(self) -> list[str]:
        return (self.fake / "calls").read_text().splitlines()

    def called(self, *commands: str) -> list[str]:
        return [call for call in self.calls if call.split(maxsplit=1)[0] in commands]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[FakeMachine]:
    made = FakeMachine(tmp_path)
    yield made
    if (made.fake / "dockerd.pid").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((made.fake / "dockerd.pid").read_text()), signal.SIGKILL)


CHANGES = ("apt-get", "dpkg", "mount", "modprobe", "dockerd", "systemctl")


def test_a_bare_machine_gets_all_at_once_and_the_second_run_does_nothing(machine: FakeMachine) -> None:
    code, output = machine.run()
    assert code == 0, output
    assert output.splitlines()[0] == "setup: making .venv with Python 3.11 (2 packages)"
    everything = [package for package in PACKAGES if package != "docker-compose"]
    assert output.splitlines()[1] == f"setup: installing docker.io {' '.join(everything)}"
    assert [call.split()[-1] for call in machine.called("apt-get") if " install " not in call] == ["update"]
    (install,) = [call for call in machine.called("apt-get") if " install " in call]
    assert "--no-install-recommends" in install
    assert machine.called("dockerd") == ["dockerd"], "started, once, and without the lock"
    code, output = machine.run()
    assert (code, output) == (0, "setup: everything is there\n")
    assert machine.called(*CHANGES) == []
    assert not [call for call in machine.calls if "pip" in call or "venv " in call]


def test_check_says_what_is_missing_and_changes_nothing(machine: FakeMachine) -> None:
    before = sorted(machine.checkout.rglob("*"))
    for arguments, environment in ((("--check",), {}), ((), {"SETUP": "check"})):
        code, output = machine.run(*arguments, **environment)
        assert code == 1
        assert machine.called(*CHANGES) == []
        assert sorted(machine.checkout.rglob("*")) == before
        for missing in (".venv", "docker.io", "mmdebstrap", "qemu-user-static", "a running Docker engine", "s390x registered"):
            assert f"setup: missing: {missing}" in output


def test_check_of_a_complete_machine_is_content(machine: FakeMachine) -> None:
    machine.complete()
    assert machine.run()[0] == 0
    assert machine.run("--check") == (0, "setup: everything is there\n")


def test_an_engine_that_answers_is_enough_even_without_a_docker_command(machine: FakeMachine) -> None:
    machine.write(machine.fake / "engine", "answers here 1.41\n")
    code, output = machine.run("machine")
    assert code == 0, output
    assert "docker.io" not in output
    assert machine.called("dockerd") == []


def test_python_alone_needs_no_engine(machine: FakeMachine) -> None:
    code, output = machine.run("python")
    assert code == 0, output
    assert machine.called(*CHANGES) == []
    assert not [call for call in machine.calls if "ask_engine" in call]


def test_compilers_can_be_had_without_an_engine(machine: FakeMachine) -> None:
    code, output = machine.run("compilers")
    assert code == 0, output
    assert output.splitlines()[0] == "setup: installing gcc libc6-dev gcc-s390x-linux-gnu libc6-dev-s390x-cross"
    assert machine.called("dockerd") == []


def test_docker_compose_comes_only_when_it_is_asked_for(machine: FakeMachine) -> None:
    code, output = machine.run("compose")
    assert (code, output.splitlines()[0]) == (0, "setup: installing docker-compose")


def test_with_systemd_the_engine_is_started_by_it(machine: FakeMachine) -> None:
    machine.complete()
    (machine.root / "run/systemd/system").mkdir(parents=True)
    machine.write(machine.bin / "dockerd", DOCKERD).chmod(0o755)
    machine.write(machine.bin / "systemctl", '#!/bin/bash\necho "systemctl $*" >>"$FAKE/calls"\n').chmod(0o755)
    machine.write(machine.fake / "engine", "silent unix:///var/run/docker.sock\n" * 4 + "answers here 1.41\n")
    code, output = machine.run("machine")
    assert code == 0, output
    assert machine.called("systemctl", "dockerd") == ["systemctl start docker"]


def test_an_engine_that_somebody_else_is_starting_is_waited_for(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.bin / "dockerd", DOCKERD).chmod(0o755)
    machine.write(machine.root / "var/run/docker.pid", "4711")
    machine.write(machine.root / "proc/4711/comm", "dockerd\n")
    machine.write(machine.fake / "engine", "silent unix:///var/run/docker.sock\n" * 4 + "answers here 1.41\n")
    code, output = machine.run("machine")
    assert code == 0, output
    assert "waiting for the Docker engine, which is starting" in output
    assert machine.called("dockerd") == []


def test_a_stale_pid_file_does_not_keep_the_engine_from_being_started(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.bin / "dockerd", DOCKERD).chmod(0o755)
    machine.write(machine.root / "var/run/docker.pid", "4711")
    machine.write(machine.root / "proc/4711/comm", "firefox\n")
    machine.write(machine.fake / "engine", "silent unix:///var/run/docker.sock\n")
    assert machine.run("machine")[0] == 0
    assert machine.called("dockerd") == ["dockerd"]


def test_an_engine_that_ends_at_once_shows_the_end_of_its_log(machine: FakeMachine) -> None:
    machine.write(machine.fake / "dockerd-fails", "")
    code, output = machine.run("machine")
    assert code == 3
    assert "the Docker engine ended at once" in output
    assert "  | failed to start daemon: no room" in output
    assert "usual reasons" in output


def test_an_engine_that_stays_silent_is_given_up(machine: FakeMachine) -> None:
    machine.write(machine.fake / "dockerd-is-mute", "")
    code, output = machine.run("machine", SETUP_ENGINE_TIMEOUT_S="1")
    assert code == 3
    assert "the Docker engine does not answer" in output


def test_cgroups_are_mounted_where_nobody_has(machine: FakeMachine) -> None:
    machine.write(machine.root / "proc/self/mounts", "proc /proc proc rw 0 0\n")
    assert machine.run("machine")[0] == 0
    assert f"mount -t cgroup2 cgroup2 {machine.root}/sys/fs/cgroup" in machine.called("mount")


def test_an_engine_named_by_the_user_is_not_replaced_by_ours(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.fake / "engine", "silent tcp://far:2375\n")
    code, output = machine.run("machine")
    assert code == 3
    assert "no Docker engine answers at tcp://far:2375" in output
    assert machine.called(*CHANGES) == []
    code, output = machine.run("--check", "machine")
    assert code == 1
    assert "setup: missing: a Docker engine that answers at tcp://far:2375\n" in output


def test_emulation_on_this_machine_does_not_matter_to_an_engine_elsewhere(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.fake / "engine", "answers elsewhere 1.47\n")
    (machine.root / "proc/sys/fs/binfmt_misc/qemu-s390x").unlink()
    assert machine.run("machine") == (0, "setup: everything is there\n")


def test_a_socket_that_may_not_be_used_is_told_with_the_group(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.fake / "engine", "denied /var/run/docker.sock\n")
    code, output = machine.run("machine")
    assert code == 3
    assert "you may not use its socket /var/run/docker.sock" in output
    assert 'sudo usermod -aG docker "$USER"' in output
    assert machine.run("--check", "machine")[0] == 1


def test_emulation_is_registered_as_the_package_says_with_f_added(machine: FakeMachine) -> None:
    machine.complete()
    machine.binfmt(None)
    (machine.root / "proc/sys/fs/binfmt_misc/qemu-s390x").unlink()
    machine.write(machine.root / "usr/lib/binfmt.d/qemu-s390x.conf", CONF.format(flags="OP"))
    code, output = machine.run("machine")
    assert code == 0, output
    assert "registering s390x with binfmt_misc" in output
    assert (machine.fake / "registered").read_text() == CONF.format(flags="OPF").strip()


def test_emulation_registered_without_f_is_registered_again(machine: FakeMachine) -> None:
    machine.complete()
    machine.binfmt(REGISTERED.replace("POF", "PO"))
    code, output = machine.run("machine")
    assert code == 0, output
    assert "again" in output
    registered = (machine.fake / "registered").read_text()
    assert registered.endswith(f":{machine.bin}/qemu-s390x-static:F")
    magic = registered.split(":")[4].encode().decode("unicode_escape").encode("latin-1")
    assert magic == bytes.fromhex("7f454c4602020100000000000000000000020016"), "an ELF file, 64 bits, big-endian, EM_S390"


def test_binfmt_misc_is_mounted_where_nobody_has(machine: FakeMachine) -> None:
    machine.complete()
    shutil.rmtree(machine.root / "proc/sys/fs/binfmt_misc")
    code, output = machine.run("machine")
    assert code == 0, output
    assert "mounting binfmt_misc" in output


def test_a_registration_that_the_mount_brings_into_sight_is_kept(machine: FakeMachine) -> None:
    machine.complete()
    shutil.rmtree(machine.root / "proc/sys/fs/binfmt_misc")
    mount = machine.bin / "mount"
    machine.write(mount, mount.read_text() + f"printf '%s' '{REGISTERED}' >\"$4/qemu-s390x\"\n")
    code, output = machine.run("machine")
    assert code == 0, output
    assert not (machine.fake / "registered").exists()


def test_an_s390x_machine_needs_no_emulation_and_no_cross_compiler(machine: FakeMachine) -> None:
    machine.write(machine.fake / "uname", "s390x\n")
    machine.write(machine.fake / "engine", "answers here 1.41\n")
    code, output = machine.run("--check", "machine")
    assert code == 1
    assert "a C compiler" in output
    assert "s390x" not in output, "neither gcc-s390x-linux-gnu nor qemu-s390x"


def test_another_system_is_told_what_is_needed_and_left_alone(machine: FakeMachine) -> None:
    machine.write(machine.root / "etc/os-release", "ID=fedora\n")
    code, output = machine.run("machine")
    assert code == 3
    assert "not Debian or Ubuntu" in output
    assert "a C compiler for s390x (Debian's package gcc-s390x-linux-gnu)" in output
    assert machine.called(*CHANGES) == []


def test_another_system_with_everything_goes_on(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.root / "etc/os-release", 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n')
    assert machine.run()[0] == 0


@pytest.mark.parametrize("release", ["ID=ubuntu\nID_LIKE=debian\n", 'ID=linuxmint\nID_LIKE="ubuntu debian"\n'])
def test_relatives_of_debian_count_as_debian(machine: FakeMachine, release: str) -> None:
    machine.write(machine.root / "etc/os-release", release)
    assert machine.run("machine")[0] == 0


def test_who_is_not_root_is_told_what_root_has_to_run(machine: FakeMachine) -> None:
    machine.write(machine.fake / "uid", "1000\n")
    code, output = machine.run()
    assert code == 3
    assert "sudo apt-get update && sudo apt-get install --no-install-recommends docker.io" in output
    assert machine.called(*CHANGES) == []
    machine.complete()
    machine.write(machine.fake / "engine", "silent unix:///var/run/docker.sock\n")
    machine.write(machine.bin / "dockerd", DOCKERD).chmod(0o755)
    code, output = machine.run()
    assert code == 3
    assert "only root may start the Docker engine" in output
    assert "/setup/setup.sh machine" in output
    assert machine.called("dockerd") == []
    code, output = machine.run("machine", SETUP_AS_ROOT="sudo python -m testbed setup")
    assert (code, output.splitlines()[-1].strip()) == (3, "sudo python -m testbed setup")


def test_who_is_not_root_goes_on_where_everything_is_there(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.fake / "uid", "1000\n")
    assert machine.run()[0] == 0


def test_programs_for_root_are_found_without_their_folders_in_the_path(machine: FakeMachine) -> None:
    machine.complete()
    machine.write(machine.fake / "uid", "1000\n")
    (machine.root / "usr/sbin").mkdir(parents=True)
    (machine.bin / "depmod").rename(machine.root / "usr/sbin/depmod")
    assert machine.run("--check", "machine") == (0, "setup: everything is there\n")


def test_packages_that_cannot_be_fetched_name_the_network(machine: FakeMachine) -> None:
    machine.write(machine.fake / "apt-fails", "Err:1 http://mirror Temporary failure resolving 'mirror'\n")
    code, output = machine.run("machine")
    assert code == 3
    assert "apt-get could not install: docker.io" in output
    assert "Temporary failure resolving" in output
    assert "is there a network" in output


def test_an_interrupted_installation_is_finished_first(machine: FakeMachine) -> None:
    machine.write(machine.fake / "dpkg-interrupted", "")
    code, output = machine.run("machine")
    assert code == 0, output
    assert machine.called("dpkg") == ["dpkg --configure -a"]


def test_python_too_old_is_named_with_its_version(machine: FakeMachine) -> None:
    machine.write(machine.fake / "old-python", "")
    code, output = machine.run()
    assert code == 3
    assert "Python 3.11 or newer is needed. python3 is Python 3.9.2." in output


def test_no_python_is_named(machine: FakeMachine) -> None:
    (machine.bin / "python3").unlink()
    code, output = machine.run()
    assert code == 3
    assert "There is no python3." in output


def test_debians_separate_venv_package_is_installed_where_it_lacks(machine: FakeMachine) -> None:
    machine.write(machine.fake / "no-ensurepip", "")
    code, output = machine.run("python")
    assert code == 0, output
    assert "setup: installing python3.11-venv" in output


def test_a_package_index_out_of_reach_is_named_and_the_next_run_repairs(machine: FakeMachine) -> None:
    machine.write(machine.fake / "no-network", "")
    code, output = machine.run("python")
    assert code == 3
    assert "is there a network" in output
    (machine.fake / "no-network").unlink()
    assert machine.run("--check", "python")[0] == 1, "half of it is not taken for all of it"
    assert machine.run("python")[0] == 0


def made_anew(machine: FakeMachine) -> bool:
    """Whether a run makes .venv from nothing."""
    (machine.checkout / ".venv/new").unlink(missing_ok=True)
    code, output = machine.run("python")
    assert code == 0, output
    return (machine.checkout / ".venv/new").exists()


def test_a_venv_is_made_anew_when_it_is_broken_or_the_lock_is_another(machine: FakeMachine) -> None:
    assert made_anew(machine)
    assert not made_anew(machine)
    machine.write(machine.checkout / ".venv/bin/python", "#!/bin/bash\nexit 1\n")
    assert made_anew(machine), "its interpreter does not run"
    (machine.checkout / ".venv/bin/python").unlink()
    assert made_anew(machine), "its interpreter is gone"
    machine.write(machine.checkout / "requirements.txt", "click==8.2\n")
    assert made_anew(machine), "another lock"
    moved = machine.checkout.with_name("another place")
    machine.checkout.rename(moved)
    machine.checkout = moved
    assert made_anew(machine), "its scripts name the old place"
    assert not made_anew(machine)


def test_a_changed_description_of_the_package_installs_only_the_package(machine: FakeMachine) -> None:
    assert made_anew(machine)
    machine.write(machine.checkout / "pyproject.toml", "[project]\nname = 'x'\n")
    assert not made_anew(machine)
    (machine.checkout / ".venv/bin/testbed").unlink()
    assert not made_anew(machine)
    (pip,) = [call for call in machine.calls if "-m pip" in call]
    assert "--editable" in pip
    assert not made_anew(machine)


def test_two_runs_at_once_make_one_venv(machine: FakeMachine) -> None:
    machine.write(machine.fake / "calls", "")
    with (machine.checkout / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        both = [machine.start("python") for _ in range(2)]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "setup: waiting for another setup that is at work\n"
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len([call for call in machine.calls if "-m venv" in call]) == 1


@pytest.mark.parametrize(("arguments", "environment"), [(("engine",), {}), ((), {"SETUP": "chek"})])
def test_a_wrong_call_is_told_the_right_one(machine: FakeMachine, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    code, output = machine.run(*arguments, **environment)
    assert code == 2
    assert "usage: setup/setup.sh" in output
    assert machine.calls == []


# ask_engine.py


@pytest.fixture(scope="module")
def asking() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ask_engine", CHECKOUT / "setup/ask_engine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answering_once(listener: socket.socket, body: bytes) -> threading.Thread:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(("body", "answer"), [(b'{"ApiVersion": "1.41"}', "answers here 1.41"), (b"hello", "silent "), (b"{}", "silent ")])
def test_an_engine_is_who_tells_its_api_version(asking: ModuleType, tmp_path: Path, body: bytes, answer: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        thread = answering_once(listener, body)
        assert asking.answer(f"unix://{tmp_path}/socket").startswith(answer)
        thread.join()


def test_an_engine_behind_tcp_is_elsewhere(asking: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = answering_once(listener, b'{"ApiVersion": "1.47"}')
        assert asking.answer(f"tcp://127.0.0.1:{listener.getsockname()[1]}") == "answers elsewhere 1.47"
        thread.join()


def test_nobody_there_is_silence(asking: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no docker command
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "stale"))
    for where in (f"unix://{tmp_path}/none", f"unix://{tmp_path}/stale", "tcp://127.0.0.1:1", "tcp://[", "nonsense"):
        assert asking.answer(where) == f"silent {where}"


def test_for_ssh_the_docker_command_is_asked(asking: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    FakeMachine.write(tmp_path / "docker", "#!/bin/sh\necho 1.45\n").chmod(0o755)
    assert asking.answer("ssh://lab@far") == "answers elsewhere 1.45"
    FakeMachine.write(tmp_path / "docker", "#!/bin/sh\nexit 1\n")
    assert asking.answer("ssh://lab@far") == "silent ssh://lab@far"


def test_a_socket_without_permission_is_denied(asking: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: object) -> None:
        raise PermissionError

    monkeypatch.setattr(asking.SocketConnection, "connect", refuse)
    assert asking.answer("unix:///var/run/docker.sock") == "denied /var/run/docker.sock"


def test_the_engine_is_looked_for_where_the_docker_command_would(
    asking: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert asking.endpoint() == "unix:///var/run/docker.sock"
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"far").hexdigest() / "meta.json"
    FakeMachine.write(meta, json.dumps({"Name": "far", "Endpoints": {"docker": {"Host": "tcp://far:2375"}}}))
    FakeMachine.write(tmp_path / "config.json", json.dumps({"currentContext": "far"}))
    assert asking.endpoint() == "tcp://far:2375"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert asking.endpoint() == "unix:///var/run/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere")
    assert asking.endpoint() == "unix:///elsewhere"


# Makefile


def make(*arguments: str) -> list[str]:
    """The lines that make prints; without what the make around this test, if any, handed down."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("M") and name != "SETUP"}
    done = subprocess.run(["make", *arguments], cwd=CHECKOUT, env=inherited, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_make_without_a_word_is_the_list_of_its_words() -> None:
    listed = [line.split()[0] for line in make() if line.strip()]
    assert {"topology", "test", "check", "images", "bench", "setup", "down", "clean", "help"} <= set(listed)


@pytest.mark.parametrize("target", ["topology", "test", "check", "images", "bench", "setup"])
def test_setup_check_asks_and_does_nothing_else(target: str) -> None:
    (only,) = make("--dry-run", target, "SETUP=check")
    assert only.split()[0] == "setup/setup.sh"


def test_linters_and_unit_tests_do_not_bring_an_engine() -> None:
    assert make("--dry-run", "check")[0] == "setup/setup.sh python compilers"
    assert make("--dry-run", "topology")[0] == "setup/setup.sh python machine"
