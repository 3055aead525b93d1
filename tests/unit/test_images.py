"""Which image belongs to which content, what is built, and how a tar of Debian's becomes a tar of ours."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from testbed import images, rootfs
from testbed.architecture import ARCHITECTURES, Architecture, of_machine
from testbed.errors import EngineError, ImageError
from testbed.native_tools import File

AMD64, ARM64, S390X = (ARCHITECTURES[name] for name in ("amd64", "arm64", "s390x"))
RECIPE = """
suite = "bookworm"
source_date_epoch = 1735689600
packages = ["python3"]
trim = ["./dev/*", "./usr/share/doc*"]
links = { "./usr/bin/nc" = "nc.openbsd" }
directories = { "./tmp" = "1777" }
native = { packages = ["iproute2"], tools = ["ip", "ss"], launched = [] }
"""
SOURCES = {"Makefile": b"all:", "host/recipe.toml": RECIPE.encode(), "host/files/etc/hosts": b"127.0.0.1 localhost\n"}


class Store:
    """The engine's images, in memory."""

    def __init__(self, *references: str) -> None:
        self.images: dict[str, bytes] = dict.fromkeys(references, b"")
        self.platforms: dict[str, str] = {}
        self.error: Exception | None = None

    def image_exists(self, reference: str) -> bool:
        return reference in self.images

    def list_images(self) -> Sequence[str]:
        return list(self.images)

    def import_image(self, tar: BinaryIO, reference: str, *, platform: str, changes: Sequence[str]) -> str:
        content = tar.read()
        if self.error:
            raise self.error
        self.images[reference] = content
        self.platforms[reference] = platform
        return "sha256:1"

    def remove_image(self, reference: str) -> None:
        del self.images[reference]


class TestReference:
    def test_it_names_architecture_and_content(self) -> None:
        assert re.fullmatch(r"testbed/host-s390x:[0-9a-f]{12}", images.host_image(S390X).reference)
        assert images.host_image(S390X).platform == "linux/s390x"

    def test_the_same_content_has_the_same_reference(self) -> None:
        again = dict(reversed(list(SOURCES.items())))
        assert images.host_image(S390X, AMD64, SOURCES) == images.host_image(S390X, AMD64, again)

    @pytest.mark.parametrize("path", SOURCES)
    def test_a_change_of_any_source_changes_it(self, path: str) -> None:
        changed = {**SOURCES, path: SOURCES[path] + b" "}
        assert images.host_image(S390X, AMD64, SOURCES).reference != images.host_image(S390X, AMD64, changed).reference

    def test_a_source_more_or_of_another_name_changes_it(self) -> None:
        renamed = {path.replace("hosts", "host"): content for path, content in SOURCES.items()}
        references = {images.host_image(S390X, AMD64, one).reference for one in (SOURCES, renamed, {**SOURCES, "init/init.c": b""})}
        assert len(references) == 3

    def test_the_machine_changes_it_because_init_is_the_machine_s_own(self) -> None:
        assert images.host_image(S390X, AMD64, SOURCES).reference != images.host_image(S390X, ARM64, SOURCES).reference


class TestSources:
    def test_all_that_an_image_is_made_of_is_among_them(self) -> None:
        assert {"Makefile", "host/recipe.toml", "host/files/etc/passwd", "init/init.c", "programs/net.h"} <= set(images.sources())

    def test_what_a_compilation_leaves_there_is_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, content in SOURCES.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        for litter in ("build/init", "host/.recipe.toml.swp", "host/net.o", "other/README"):
            (tmp_path / litter).parent.mkdir(exist_ok=True)
            (tmp_path / litter).write_bytes(b"litter")
        monkeypatch.setattr(images, "directory", lambda: tmp_path)
        assert images.sources.__wrapped__() == SOURCES

    def test_the_recipe_can_be_read(self) -> None:
        recipe = rootfs.Recipe.of(images.sources())
        assert "python3" in recipe.packages
        assert recipe.directories["./tmp"] == 0o1777
        assert b"root:x:0:0:" in recipe.files["./etc/passwd"]
        assert recipe.keeps("./usr/bin/python3.11")
        assert not recipe.keeps("./usr/share/man/man1/ls.1.gz")


class TestPlan:
    def test_what_is_there_is_not_built_again(self) -> None:
        one, two = images.host_image(AMD64), images.host_image(S390X)
        assert images.plan([one, two], [two.reference, "other:1"]) == images.Plan(present=(two,), missing=(one,))

    def test_an_image_wanted_twice_is_built_once(self) -> None:
        one = images.host_image(S390X)
        assert images.plan([one, one], []) == images.Plan(present=(), missing=(one,))


Pieces = Generator[bytes, None, None]
Shared = Future[Mapping[str, File]] | None


def small_tar(*_: object) -> Pieces:
    yield b"a tar"


class TestBuild:
    def test_only_what_is_missing_is_built(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rootfs, "root_file_system", small_tar)
        there, missing = images.host_image(AMD64), images.host_image(S390X)
        store, steps = Store(there.reference), []
        assert images.build(store, [AMD64, S390X, S390X], lambda name, step: steps.append((name, step))) == (there, missing)
        assert store.images == {there.reference: b"", missing.reference: b"a tar"}
        assert store.platforms == {missing.reference: "linux/s390x"}
        assert steps == [("host-s390x", "done")]

    def test_a_failure_amid_the_tar_leaves_no_image_and_is_the_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: object) -> Pieces:
            yield b"half a"
            raise ImageError("unpacking failed", hint="mend it")

        monkeypatch.setattr(rootfs, "root_file_system", broken)
        store = Store()
        with pytest.raises(ImageError, match="unpacking failed"):
            images.build(store, [S390X])
        assert store.images == {}

    def test_what_the_engine_says_of_a_broken_tar_does_not_hide_the_cause(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Translating(Store):
            def import_image(self, tar: BinaryIO, reference: str, *, platform: str, changes: Sequence[str]) -> str:
                try:
                    return super().import_image(tar, reference, platform=platform, changes=changes)
                except ImageError:
                    raise EngineError("unexpected EOF") from None

        def broken(*_: object) -> Pieces:
            yield b"half a"
            raise ImageError("unpacking failed")

        monkeypatch.setattr(rootfs, "root_file_system", broken)
        with pytest.raises(ImageError, match="unpacking failed"):
            images.build(Translating(), [S390X])

    def test_a_full_disk_of_the_engine_is_an_image_error_with_a_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rootfs, "root_file_system", small_tar)
        store = Store()
        store.error = EngineError("write /usr/bin/python3.11: no space left on device")
        with pytest.raises(ImageError, match="no space left") as caught:
            images.build(store, [S390X])
        assert "docker system df" in caught.value.hint

    def test_a_failure_of_one_stops_the_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stopped = threading.Event()
        monkeypatch.setattr(rootfs.Workbench, "stop", lambda bench: stopped.set())

        def one_fails(bench: rootfs.Workbench, sources: object, architecture: object, *_: object) -> Pieces:
            if architecture == AMD64:
                raise ImageError("the first failed")
            assert stopped.wait(20)
            yield b"a tar"

        monkeypatch.setattr(rootfs, "root_file_system", one_fails)
        with pytest.raises(ImageError, match="the first failed"):
            images.build(Store(), [AMD64, S390X])


class TestMachineSToolsForTheOtherImage:
    """They come out of the packages of the machine's own image, where that is built at the same time."""

    def test_they_are_handed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[object] = []

        def build(
            bench: object, sources: object, architecture: Architecture, machine: Architecture, step: object, shared: Shared
        ) -> Pieces:
            assert shared
            if architecture == machine:
                shared.set_result({"./usr/bin/ss": File(b"its own")})
            else:
                given.append(shared.result(20))
            yield b"a tar"

        monkeypatch.setattr(rootfs, "root_file_system", build)
        images.build(Store(), [of_machine(), S390X])
        assert given == [{"./usr/bin/ss": File(b"its own")}]

    def test_there_is_nothing_to_wait_for_when_the_machine_s_own_image_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Shared] = []

        def build(*arguments: object) -> Pieces:
            given.append(cast(Shared, arguments[-1]))
            yield b"a tar"

        monkeypatch.setattr(rootfs, "root_file_system", build)
        images.build(Store(images.host_image(of_machine()).reference), [of_machine(), S390X])
        assert given == [None]

    @pytest.mark.parametrize("moment", ["before", "amid"])
    def test_a_failure_of_the_machine_s_own_is_the_error_and_nobody_waits_for_it(
        self, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        told: list[str] = []

        def build(
            bench: object, sources: object, architecture: Architecture, machine: Architecture, step: object, shared: Shared
        ) -> Pieces:
            assert shared
            if architecture != machine:
                error = shared.exception(20)
                assert error
                told.append(str(error))
                raise error
            yield b"a tar"
            raise ImageError("the machine's own failed")

        class Refusing(Store):
            def import_image(self, tar: BinaryIO, reference: str, *, platform: str, changes: Sequence[str]) -> str:
                if moment == "before" and "s390x" not in reference:
                    raise EngineError("the machine's own failed")  # without having read any of it
                return super().import_image(tar, reference, platform=platform, changes=changes)

        monkeypatch.setattr(rootfs, "root_file_system", build)
        with pytest.raises(ImageError, match="the machine's own failed"):
            images.build(Refusing(), [of_machine(), S390X])
        assert "the machine's own failed" in told[0]


class TestStale:
    def test_images_of_other_contents_are_stale_and_nobody_else_s(self) -> None:
        current = images.host_image(S390X).reference
        store = Store(current, "testbed/host-s390x:000000000000", "my/own:1", "testbed/guest:1")
        assert images.stale(store) == ["testbed/host-s390x:000000000000"]
        assert images.remove_stale(store) == ["testbed/host-s390x:000000000000"]
        assert list(store.images) == [current, "my/own:1", "testbed/guest:1"]


def debian_tar(*members: tuple[str, bytes, bytes]) -> tarfile.TarFile:
    """A tar of (path, type, content) as mmdebstrap would write it, to be read once from front to back."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, kind, content in members:
            member = tarfile.TarInfo(path)
            member.type, member.size, member.mode = kind, len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
    packed.seek(0)
    return tarfile.open(fileobj=packed, mode="r|")


def unpacked(pieces: Iterator[bytes]) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Members and their contents by path."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces) + bytes(1024))) as tar:
        return {one.name: (one, rootfs.content_of(tar, one) if one.isreg() else b"") for one in tar}


def unheard(member: tarfile.TarInfo, content: bytes) -> None:
    """For those who do not want to be told."""


class TestTar:
    recipe = rootfs.Recipe.of(SOURCES)

    def test_what_is_trimmed_or_replaced_does_not_come_along(self) -> None:
        debian = debian_tar(
            ("./usr/bin/true", tarfile.REGTYPE, b"program" * 1000),
            ("./usr/share/doc/true/README", tarfile.REGTYPE, b"text"),
            ("./etc/hosts", tarfile.REGTYPE, b"theirs"),
            ("./dev/null", tarfile.CHRTYPE, b""),
            ("./usr/lib", tarfile.DIRTYPE, b""),
        )
        kept = unpacked(rootfs.kept(debian, self.recipe, unheard))
        assert {path: content for path, (_, content) in kept.items()} == {"./usr/bin/true": b"program" * 1000, "./usr/lib": b""}

    def test_a_module_of_python_gets_its_bytecode(self) -> None:
        path = f"./usr/lib/python3.{sys.version_info.minor}/answer.py"
        other = "./usr/share/answer.py"
        kept = unpacked(
            rootfs.kept(debian_tar((path, tarfile.REGTYPE, b"answer = 42"), (other, tarfile.REGTYPE, b"no module")), self.recipe, unheard)
        )
        compiled = f"./usr/lib/python3.{sys.version_info.minor}/__pycache__/answer.cpython-3{sys.version_info.minor}.pyc"
        assert set(kept) == {path, other, compiled}

    def test_python_takes_the_bytecode(self, tmp_path: Path) -> None:
        source = tmp_path / "answer.py"
        source.write_bytes(b"answer = 'source'")
        cached = tmp_path / "__pycache__" / f"answer.{sys.implementation.cache_tag}.pyc"
        cached.parent.mkdir()
        cached.write_bytes(rootfs._bytecode("./answer.py", b"answer = 'bytecode'"))
        done = subprocess.run([sys.executable, "-c", "import answer; print(answer.answer)"], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == "bytecode\n"

    def test_bytecode_is_the_same_whatever_else_the_process_has_done(self) -> None:
        source = b"seldom = '\\x7f'\n"
        before = rootfs._bytecode.__wrapped__("./seldom.py", source)
        sys.intern("\x7f")  # as anything may do with a character
        assert rootfs._bytecode.__wrapped__("./seldom.py", source) == before

    def test_files_links_and_directories_are_added_with_their_modes_and_one_date(self) -> None:
        files = {**self.recipe.files, "./usr/local/bin/byte-order": b"program"}
        added = unpacked(rootfs.additions(self.recipe, files))
        assert {path: (one.mode, one.type, one.linkname, content) for path, (one, content) in added.items()} == {
            "./tmp": (0o1777, tarfile.DIRTYPE, "", b""),
            "./usr/bin/nc": (0o777, tarfile.SYMTYPE, "nc.openbsd", b""),
            "./etc/hosts": (0o644, tarfile.REGTYPE, "", b"127.0.0.1 localhost\n"),
            "./usr/local/bin/byte-order": (0o755, tarfile.REGTYPE, "", b"program"),
        }
        assert {one.mtime for one, _ in added.values()} == {1735689600}

    def test_the_machine_s_tools_come_beside_what_is_there_and_no_path_comes_twice(self) -> None:
        present: set[str] = set()
        debian = debian_tar(("./usr", tarfile.DIRTYPE, b""), ("./usr/lib", tarfile.DIRTYPE, b""), ("./lib", tarfile.SYMTYPE, b""))
        assert (
            set(unpacked(rootfs.kept(debian, self.recipe, lambda member, content: present.add(member.name))))
            == present
            == {"./usr", "./usr/lib", "./lib"}
        )
        tools = {"./lib": File(target="usr/lib"), "./usr/lib/a/b/libc.so": File(b"code"), "./usr/local/bin/ss": File(target="/there")}
        added = unpacked(rootfs.tools_beside(tools, 5, present | {"./usr/local/bin"}))
        assert {path: (one.type, one.mode, one.linkname, content) for path, (one, content) in added.items()} == {
            "./usr/lib/a": (tarfile.DIRTYPE, 0o755, "", b""),
            "./usr/lib/a/b": (tarfile.DIRTYPE, 0o755, "", b""),
            "./usr/local": (tarfile.DIRTYPE, 0o755, "", b""),
            "./usr/lib/a/b/libc.so": (tarfile.REGTYPE, 0o755, "", b"code"),
            "./usr/local/bin/ss": (tarfile.SYMTYPE, 0o777, "/there", b""),
        }
        assert {one.mtime for one, _ in added.values()} == {5}

    def test_the_date_can_be_set_from_outside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
        assert rootfs.Recipe.of(SOURCES).epoch == 1000


class TestSourcesOfPackages:
    def test_which_mirror_is_debian_s_own_is_left_to_mmdebstrap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(rootfs.MIRROR_VARIABLE, raising=False)
        assert rootfs.apt_sources("bookworm") == []

    def test_a_mirror_of_the_user_s_is_used_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(rootfs.MIRROR_VARIABLE, "http://mirror.example/debian")
        assert rootfs.apt_sources("bookworm") == ["deb http://mirror.example/debian bookworm main"]


@pytest.mark.parametrize(
    ("output", "word"),
    [
        ("tar: ./usr: Cannot write: No space left on device", "memory"),
        ("E: Failed to fetch http://mirror.example/debian/dists/bookworm/InRelease  Could not connect", rootfs.MIRROR_VARIABLE),
        ("Temporary failure resolving 'mirror.example'", rootfs.MIRROR_VARIABLE),
    ],
)
def test_a_known_failure_of_a_tool_comes_with_a_way_out(output: str, word: str) -> None:
    assert word in rootfs._hint_for(output)


def test_who_may_not_make_namespaces_is_told_what_root_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "unshare: unshare failed: Operation not permitted"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "sudo" in rootfs._hint_for(said)
    assert "-m testbed images build" in rootfs._hint_for(said)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert rootfs._hint_for(said) == ""


def test_everything_belongs_to_root_and_lends_no_group_s_rights() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        member = tarfile.TarInfo("./usr/bin/wall")
        member.gid, member.uid, member.mode = 5, 6, 0o6755
        tar.addfile(member)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        kept = b"".join(rootfs.kept(tar, rootfs.Recipe.of(images.sources()), lambda *_: None))
    with tarfile.open(fileobj=io.BytesIO(kept + bytes(1024))) as tar:
        (member,) = tar.getmembers()
    assert (member.uid, member.gid, member.mode) == (0, 0, 0o4755)
