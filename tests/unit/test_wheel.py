"""The wheel: all that testbed needs is in it, nothing else, and it is the same whoever builds it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from testbed import architecture, guest_image, images, shipped
from tests.unit.test_layout import MODULES, PACKAGE, imports

CHECKOUT = Path(__file__).parents[2]
BESIDE = ("images", "setup", "topologies")  # the package in a checkout; inside it in the wheel


def build(folder: Path) -> Path:
    """The wheel of a copy of this checkout."""
    for name in ("testbed", *BESIDE):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
    for name in ("pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(CHECKOUT / name, folder)
    return build_in(folder)


def build_in(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (wheel,) = (folder / "dist").iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder with what is in the wheel, as in site-packages, with folders of other packages that are called as ours."""
    folder = wheel.parent / "site-packages"
    zipfile.ZipFile(wheel).extractall(folder)
    for name in BESIDE:
        (folder / name).mkdir()
    return folder


def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


def test_it_holds_what_is_needed_and_nothing_that_was_built(wheel: Path) -> None:
    own = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {f"testbed/{path.relative_to(PACKAGE)}" for path in own}
    for name in BESIDE:
        files = [path for path in (CHECKOUT / name).rglob("*") if path.is_file() and not {"build", "__pycache__"} & set(path.parts)]
        wanted |= {f"testbed/{path.relative_to(CHECKOUT)}" for path in files if not path.name.startswith(".")}
    assert {name for name in names(wheel) if ".dist-info/" not in name} == wanted
    assert "testbed/images/agent/agent.c" in wanted


def test_another_build_gives_the_same_bytes_whatever_else_is_in_the_checkout(wheel: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == wheel.read_bytes()
    (tmp_path / "dist" / wheel.name).unlink()
    for junk in ("images/build/agent", "images/build/.objects/net.o", "testbed/__pycache__/cli.cpython-311.pyc", "setup/__pycache__/x.pyc"):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).touch()
    for path in tmp_path.rglob("*"):
        path.touch()
    assert build_in(tmp_path).read_bytes() == wheel.read_bytes()


SCRIPT = """
from testbed import architecture, guest_image, images, shipped
print(*[images.host_image(one).reference for one in architecture.ARCHITECTURES.values()])
print(guest_image.base_reference(guest_image.default(architecture.of_machine()), architecture.of_machine()))
print(*shipped.names())
print(shipped.find("pair"))
print(shipped.setup_command())
"""


def test_installed_it_finds_what_it_brings_and_uses_the_same_images(installed: Path, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    machine = architecture.of_machine()
    assert done.stdout.splitlines() == [
        " ".join(images.host_image(one).reference for one in architecture.ARCHITECTURES.values()),
        guest_image.base_reference(guest_image.default(machine), machine),
        " ".join(shipped.names()),
        str(installed / "testbed/topologies/pair.yaml"),
        "testbed setup",
    ]
    assert shipped.setup_command() == "make setup"


def test_an_incomplete_installation_says_so(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(installed / "testbed", tmp_path / "testbed", ignore=shutil.ignore_patterns("images"))
    call = "from testbed import images; images.sources()"
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", call], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert "the folder images/ is not there" in done.stderr
    assert "reinstall testbed" in done.stderr


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_that_is_imported_is_required(wheel: Path) -> None:
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names(wheel) if name.endswith("/METADATA"))).decode()
    required = {normalized(found[1]) for found in re.finditer(r"^Requires-Dist: ([\w.-]+)[^;\n]*$", metadata, re.MULTILINE)}
    used = {name.split(".")[0] for module in MODULES for name in imports((PACKAGE / f"{module}.py").read_text())}
    distributions = packages_distributions()
    brought_by = {name: {normalized(one) for one in distributions[name]} for name in used - sys.stdlib_module_names - {"testbed"}}
    brought_by.pop("pydantic_core", None)  # a part of pydantic, which wants one version of it
    assert {name: by for name, by in brought_by.items() if not by & required} == {}


def test_the_lock_has_what_the_package_and_its_tests_require() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["test"]]
    lines = (CHECKOUT / "requirements.in").read_text().splitlines()
    locked = {normalized(re.split("[=<>]", line)[0]) for line in lines if line and not line.startswith("#")}
    assert {normalized(re.split("[=<>]", one)[0]) for one in wanted} - locked == set()
    (backend,) = project["build-system"]["requires"]
    assert backend in lines, "setup builds with the version that the wheel is built with"
    assert f"\n{backend} \\" in (CHECKOUT / "requirements.txt").read_text()
