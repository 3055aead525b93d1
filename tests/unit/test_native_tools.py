"""Which files of the machine's packages make its tools run on an emulated host."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from tarfile import DIRTYPE, REGTYPE, SYMTYPE, TarInfo

import pytest

from testbed import elf, images, rootfs
from testbed.architecture import ARCHITECTURES
from testbed.errors import ImageError
from testbed.native_tools import File, chosen, is_candidate, traced
from testbed.process import run_local

AMD64, ARM64 = ARCHITECTURES["amd64"], ARCHITECTURES["arm64"]


def program(*libraries: str, loader: str = "", order: str = "<") -> bytes:
    """The smallest ELF file that needs these: a header, two or three program headers, the dynamic section, its names."""
    segments = 3 if loader else 2
    names = b"\0" + b"".join(one.encode() + b"\0" for one in libraries)
    base, dynamic = 0x400000, 64 + 56 * segments
    starts = [1 + sum(len(one) + 1 for one in libraries[:index]) for index in range(len(libraries))]
    entries = [(1, start) for start in starts] + [(5, base + dynamic + 16 * (len(libraries) + 2)), (0, 0)]
    section = b"".join(struct.pack(f"{order}qQ", *one) for one in entries)
    size = dynamic + len(section) + len(names) + len(loader) + 1
    table = struct.pack(f"{order}IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    table += struct.pack(f"{order}IIQQQQQQ", 2, 6, dynamic, base + dynamic, 0, len(section), len(section), 8)
    if loader:
        table += struct.pack(f"{order}IIQQQQQQ", 3, 4, size - len(loader) - 1, 0, 0, len(loader) + 1, len(loader) + 1, 1)
    header = b"\x7fELF" + bytes([2, 1 if order == "<" else 2, 1]) + bytes(9)
    header += struct.pack(f"{order}HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, segments, 0, 0, 0)
    return header + table + section + names + loader.encode() + b"\0"


class TestElf:
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_loader_and_libraries_are_read_in_both_byte_orders(self, order: str) -> None:
        content = program("libmnl.so.0", "libc.so.6", loader="/lib/ld.so.1", order=order)
        assert elf.needs(content) == elf.Needs("/lib/ld.so.1", ("libmnl.so.0", "libc.so.6"))

    def test_what_is_no_program_needs_nothing(self) -> None:
        assert elf.needs(b"#!/bin/sh\n") == elf.needs(b"") == elf.Needs("", ())

    @pytest.mark.parametrize(("size", "words"), [(20, "cut short"), (100, "cut short"), (200, "cut short")])
    def test_a_file_that_is_cut_short_is_told(self, size: int, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            elf.needs(program("libc.so.6", loader="/lib/ld.so.1")[:size])

    def test_programs_of_this_machine_are_read_as_the_linker_made_them(self, tmp_path: Path) -> None:
        source = tmp_path / "main.c"
        source.write_text("#include <math.h>\nint main(int c, char **v) { (void)v; return (int)sin(c); }\n")
        for options, libraries in (((), ("libm.so.6", "libc.so.6")), (("-static",), ())):
            out = tmp_path / "out"
            run_local(["cc", "-o", str(out), str(source), *options, "-Wl,--no-as-needed", "-lm"]).check()
            found = elf.needs(out.read_bytes())
            assert found.libraries == libraries
            assert bool(found.loader) == bool(libraries)
            assert not found.loader or Path(found.loader).exists()


LIB, LIB_ARM = "./usr/lib/x86_64-linux-gnu", "./usr/lib/aarch64-linux-gnu"
PACKAGES = {
    "./lib": File(target="usr/lib"),
    "./lib64": File(target="usr/lib64"),
    "./usr/lib64/ld-linux-x86-64.so.2": File(target="/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
    f"{LIB}/ld-linux-x86-64.so.2": File(program()),
    f"{LIB}/libc.so.6": File(program("ld-linux-x86-64.so.2")),
    f"{LIB}/libmnl.so.0": File(target="libmnl.so.0.2.0"),
    f"{LIB}/libmnl.so.0.2.0": File(program("libc.so.6")),
    f"{LIB}/libnobody.so.1": File(program()),
    "./usr/bin/ss": File(program("libmnl.so.0", "libc.so.6", loader="/lib64/ld-linux-x86-64.so.2")),
    "./usr/bin/pgrep": File(program("libc.so.6", loader="/lib64/ld-linux-x86-64.so.2")),
    "./usr/bin/pkill": File(target="pgrep"),
    "./usr/sbin/broken": File(program("libnowhere.so.1")),
}
LOADER = {"./lib64", "./usr/lib64/ld-linux-x86-64.so.2", f"{LIB}/ld-linux-x86-64.so.2", "./lib"}


def member(path: str, file: File) -> TarInfo:
    made = TarInfo(path)
    made.type, made.linkname = (SYMTYPE, file.target) if file.target else (REGTYPE, "")
    return made


class TestChosen:
    def test_what_could_be_of_a_tool_is_kept_for_it(self) -> None:
        assert all(is_candidate(member(path, file), AMD64) for path, file in PACKAGES.items())
        others = ("./usr/share/doc/ss", "./etc/hosts", f"{LIB}/gconv/modules", f"{LIB_ARM}/libc.so.6")
        assert not any(is_candidate(member(path, File()), AMD64) for path in others)
        folder = TarInfo("./usr/bin/folder")
        folder.type = DIRTYPE
        assert not is_candidate(folder, AMD64)

    def test_a_tool_comes_with_what_it_needs_and_nothing_else(self) -> None:
        found = chosen(PACKAGES, ["ss"], [], AMD64)
        assert set(found) == {
            "./usr/lib/testbed/native/bin/ss",
            "./usr/local/bin/ss",
            f"{LIB}/libmnl.so.0",
            f"{LIB}/libmnl.so.0.2.0",
            f"{LIB}/libc.so.6",
            *LOADER,
        }
        assert found["./usr/lib/testbed/native/bin/ss"] == PACKAGES["./usr/bin/ss"]
        assert found["./usr/local/bin/ss"] == File(target="/usr/lib/testbed/native/bin/ss")

    def test_of_two_names_of_one_program_one_is_a_link_and_both_can_be_typed(self) -> None:
        found = chosen(PACKAGES, ["pgrep", "pkill"], ["pgrep", "pkill"], AMD64)
        assert found["./usr/lib/testbed/native/bin/pkill"] == File(target="pgrep")
        for name in ("pgrep", "pkill"):
            assert found[f"./usr/local/bin/{name}"] == File(target="/usr/lib/testbed/native/launch")

    def test_it_is_the_same_for_a_machine_whose_loader_is_elsewhere(self) -> None:
        packages = {
            "./lib": File(target="usr/lib"),
            "./usr/lib/ld-linux-aarch64.so.1": File(target="aarch64-linux-gnu/ld-linux-aarch64.so.1"),
            f"{LIB_ARM}/ld-linux-aarch64.so.1": File(program()),
            f"{LIB_ARM}/libc.so.6": File(program("ld-linux-aarch64.so.1")),
            "./usr/bin/ss": File(program("libc.so.6", loader="/lib/ld-linux-aarch64.so.1")),
        }
        assert all(is_candidate(member(path, file), ARM64) for path, file in packages.items())
        assert set(packages) - {"./usr/bin/ss"} < set(chosen(packages, ["ss"], [], ARM64))

    @pytest.mark.parametrize(("tool", "words"), [("nft", "no program nft"), ("broken", "libnowhere.so.1 is in none")])
    def test_what_is_missing_is_named(self, tool: str, words: str) -> None:
        with pytest.raises(ImageError, match=words):
            chosen(PACKAGES, [tool], [], AMD64)

    def test_a_program_that_cannot_be_read_is_named(self) -> None:
        with pytest.raises(ImageError, match=r"\./usr/bin/ss of amd64: an ELF file that is cut short"):
            chosen({"./usr/bin/ss": File(b"\x7fELF\x02\x01")}, ["ss"], [], AMD64)

    def test_a_circle_of_links_is_an_error(self) -> None:
        with pytest.raises(ImageError, match="/a is in none"):
            traced({"./a": File(target="b"), "./b": File(target="a")}, "/a")

    def test_links_lead_up_and_down(self) -> None:
        assert traced({"./usr/a/l": File(target="../b/f"), "./usr/b/f": File(b"x")}, "/usr/a/l") == ["./usr/a/l", "./usr/b/f"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    run_local(["make", "-s", "-C", str(images.directory()), "native", f"OUT={folder}"]).check()
    return folder / "own-argv.so"


class TestOwnArgv:
    """images/native/own-argv.c, loaded into this machine's own ps as it is on hosts."""

    @pytest.mark.parametrize(
        ("argv", "shown"),
        [
            (["sleep", "4711"], "sleep 4711"),
            # Without the flag P of binfmt_misc the kernel puts the emulator before the program's path. This process has no such flag.
            (["/usr/bin/qemu-s390x-static", "4711"], "4711"),
            (["/usr/libexec/qemu-binfmt/s390x-binfmt-P", "4711"], "4711"),
            (["/usr/bin/qemu-system-s390x", "4711"], "/usr/bin/qemu-system-s390x 4711"),
        ],
        ids=["native", "qemu", "binfmt", "system"],
    )
    def test_words_of_the_emulator_are_left_out_and_no_others(self, library: Path, argv: list[str], shown: str) -> None:
        with subprocess.Popen(argv, executable="/bin/sleep") as process:
            try:
                ps = ["ps", "-ww", "-o", "args=", "-p", str(process.pid)]
                own = run_local(["env", f"LD_PRELOAD={library}", *ps]).check().text.strip()
                plain = run_local(ps).check().text.strip()
            finally:
                process.kill()
        assert (own, plain) == (shown, " ".join(argv))

    def test_it_is_not_passed_on(self, library: Path) -> None:
        done = run_local(["env", f"LD_PRELOAD={library}", "sh", "-c", "echo loaded: $LD_PRELOAD"]).check()
        assert done.text == "loaded:\n"


def test_the_recipe_s_tools_are_those_that_talk_to_the_kernel() -> None:
    native = rootfs.Recipe.of(images.sources()).native
    assert set(native.launched) < set(native.tools)
    assert {"ip", "ss", "tc", "nft", "netstat", "sysctl", "ps", "ping"} <= set(native.tools)
