"""Programs that the user has built: each host gets the one for its architecture, or none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from testbed.architecture import ARCHITECTURES, Architecture, ByteOrder
from testbed.endian import plan
from testbed.endian_binaries import by_order, machine_of, placed
from testbed.endian_program import DIRECTORY, read
from testbed.errors import InputError

OWN: dict[ByteOrder, Architecture] = {"little": ARCHITECTURES["amd64"], "big": ARCHITECTURES["s390x"]}
NUMBERS = {"x86_64": ("<", 62), "s390x": (">", 22), "aarch64": ("<", 183), "another": (">", 21)}


def built(path: Path, machine: str = "", *, mode: int = 0o755) -> Path:
    """The beginning of an ELF file, or a text."""
    path.parent.mkdir(exist_ok=True)
    order, number = NUMBERS.get(machine, ("<", 0))
    path.write_bytes(
        b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + bytes(10) + struct.pack(f"{order}HH", 2, number) if machine else b"text"
    )
    path.chmod(mode)
    return path


@pytest.mark.parametrize("machine", [*NUMBERS, ""])
def test_what_a_file_is_for_is_read_from_it(tmp_path: Path, machine: str) -> None:
    assert machine_of(built(tmp_path / "x", machine)) == machine


def test_each_host_gets_the_program_for_its_architecture_and_all_other_files(tmp_path: Path) -> None:
    little, big = built(tmp_path / "a" / "server", "x86_64"), built(tmp_path / "b" / "server", "s390x")
    text, payload = built(tmp_path / "text"), built(tmp_path / "payload", "x86_64", mode=0o644)
    for files in ([little, big, text, payload], [little, text, big, payload, text, tmp_path / "a" / ".." / "text"]):
        assert by_order(files, OWN) == {"little": (little, text, payload), "big": (big, text, payload)}


@pytest.mark.parametrize(
    ("machines", "words"),
    [
        (["x86_64"], r"program for x86_64 only, and big-endian hosts are s390x"),
        (["s390x"], r"program for s390x only, and little-endian hosts are x86_64"),
        (["x86_64", "x86_64"], "have the same name"),
        (["", ""], "have the same name"),
        (["x86_64", ""], "have the same name"),
        (["x86_64", "aarch64"], "program for no host that is here"),
        (["x86_64", "s390x", "another"], "program for no host that is here"),
    ],
)
def test_programs_that_are_not_one_for_each_are_refused(tmp_path: Path, machines: list[str], words: str) -> None:
    files = [built(tmp_path / str(number) / "server", machine) for number, machine in enumerate(machines)]
    with pytest.raises(InputError, match=words) as caught:
        by_order(files, OWN)
    assert caught.value.hint


def test_a_command_that_is_a_file_of_the_users_runs_where_hosts_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program, script = built(Path("out") / "server", "x86_64"), built(Path("run.sh"))
    assert placed(read("server", "out/server 7000"), []) == (read("server", f"{DIRECTORY}/server 7000"), (program,))
    assert placed(read("server", "server 7000"), [program]) == (read("server", f"{DIRECTORY}/server 7000"), ())
    assert placed(read("server", "run.sh"), [script]) == (read("server", f"{DIRECTORY}/run.sh"), ())
    for text in ("python3 out/server", "./run.sh", "/bin/ls", "nowhere", "./nowhere"):
        assert placed(read("server", text), [program]) == (read("server", text), ())
    what = plan(server="out/server", client="true", files=[Path("other") / "server"])
    assert what.files == (program, Path("other") / "server")
