"""What a user does who has no checkout: a virtual environment, the wheel, a project of their own, pytest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "examples" / "length-prefixed"
LIMIT_S = 600
# Nothing of the checkout reaches what runs here.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV", "COV_"))}

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with a virtual environment, in which the wheel has been installed by its own requirements."""
    folder = tmp_path_factory.mktemp("user")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    # Which packages come is the wheel's own doing; of which versions, the lock's: so that it is the same every time.
    locked = re.findall(r"^[\w.-]+==\S+", (CHECKOUT / "requirements.txt").read_text(), re.MULTILINE)
    (folder / "constraints.txt").write_text("\n".join(locked))
    venv.create(folder / "venv", with_pip=True)
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--constraint", "constraints.txt", str(wheel)], cwd=folder, env=ENVIRONMENT, check=True, timeout=LIMIT_S)
    return folder


@pytest.fixture
def project(folder: Path) -> Iterator[Path]:
    """The example project, copied beside it."""
    project = folder / "project"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    yield project
    shutil.rmtree(project)


def run(folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    programs = (folder.parent if folder.name == "project" else folder) / "venv/bin"
    return subprocess.run(
        [str(programs / command), *arguments], cwd=folder, env=ENVIRONMENT, check=False, capture_output=True, text=True, timeout=LIMIT_S
    )


def test_the_command_works_without_a_checkout(folder: Path) -> None:
    assert run(folder, "python", "-c", "import testbed; print(testbed.__file__)").stdout.startswith(str(folder / "venv"))
    doctor = run(folder, "testbed", "doctor", "--json")
    assert [one for one in json.loads(doctor.stdout)["findings"] if not one["ok"]] == []
    assert run(folder, "testbed", "validate", "pair", "star", "cross-endian").returncode == 0
    assert run(folder, "testbed", "setup", "--check").stdout == "setup: everything is there\n"
    images = run(folder, "testbed", "images", "--json")
    ours = subprocess.run([sys.executable, "-m", "testbed", "images", "--json"], cwd=CHECKOUT, check=True, capture_output=True, text=True)
    assert json.loads(images.stdout) == json.loads(ours.stdout), "images that were built from the checkout are those of the wheel"


def test_a_machine_that_lacks_something_is_told_the_command_there_is(folder: Path) -> None:
    done = subprocess.run(
        [folder / "venv/bin/testbed", "status"],
        env={**ENVIRONMENT, "DOCKER_HOST": "unix:///nonexistent"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "testbed setup" in done.stderr


def outcomes(project: Path) -> dict[str, set[str]]:
    """Which tests of the project passed and failed."""
    done = run(project, "pytest", "-rA", "-p", "no:cacheprovider")
    found: dict[str, set[str]] = {"PASSED": set(), "FAILED": set()}
    for outcome, test in re.findall(r"^(PASSED|FAILED|ERROR) \S+::(\S+)", done.stdout, re.MULTILINE):
        found.setdefault(outcome, set()).add(test)
    assert done.returncode == (1 if found["FAILED"] else 0), done.stdout
    return found


BETWEEN = {"test_memos_arrive[little-1-big-1]", "test_memos_arrive[big-1-little-1]"}


def test_the_example_s_tests_pass_and_find_the_fault_that_is_planted(project: Path) -> None:
    right = outcomes(project)
    assert right["FAILED"] == set()
    assert right["PASSED"] > BETWEEN
    shutil.copy(project / "faulty" / "frames.py", project / "memo" / "frames.py")
    faulty = outcomes(project)
    assert faulty["FAILED"] == BETWEEN
    assert faulty["PASSED"] == right["PASSED"] - BETWEEN
