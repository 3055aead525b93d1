"""The layout is held: every module imports only those above it, and one module alone talks to Docker."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "testbed"

# From the ground up. A module may import those before it in this list, and no other. A new module gets its place here.
ORDER = (
    "errors",
    "shipped",
    "architecture",
    "guest",
    "process",
    "lock",
    "runs",
    "kvm",
    "sysctls",
    "topology_values",
    "topology_problems",
    "package_names",
    "topology_parts",
    "topology",
    "topology_schema",
    "topology_yaml",
    "topology_file",
    "exec_stream",
    "image_archive",
    "engine",
    "elf",
    "native_tools",
    "rootfs",
    "images",
    "network",
    "guest_image",
    "maintainer_scripts",
    "pip_fetch",
    "packages",
    "derived",
    "plan",
    "machine",
    "doctor",
    "transcript",
    "agent",
    "observe",
    "counters",
    "host_sysctls",
    "running",
    "transfer",
    "host",
    "lab",
    "host_container",
    "links",
    "ready",
    "reset",
    "change",
    "up",
    "capture",
    "recording",
    "evidence",
    "wire",
    "traffic",
    "drawing",
    "ladder",
    "chart",
    "exchange_verdict",
    "exchange",
    "graph",
    "testinfra_backend",
    "report",
    "arguments",
    "api",
    "endian_messages",
    "endian_words",
    "endian_text",
    "endian_longer",
    "endian_compare",
    "endian_fields",
    "endian_dissect",
    "endian_explain",
    "endian_runs",
    "endian_judge",
    "endian_records",
    "endian_groups",
    "endian_identity",
    "endian_program",
    "endian_binaries",
    "endian_sink",
    "endian_run",
    "endian_report",
    "endian_page",
    "endian",
    "experiment_stage",
    "experiment",
    "picture",
    "pictures_of_queues",
    "pictures_of_endings",
    "pictures_of_bytes",
    "experiment_listener",
    "experiment_restart",
    "experiments",
    "experiment_watch",
    "json_text",
    "experiment_run",
    "experiment_lanes",
    "sweep",
    "sweep_table",
    "sweep_folder",
    "sweep_run",
    "experiment_find",
    "experiment_page",
    "report_style",
    "experiment_results",
    "experiment_report",
    "experiment_pages",
    "png",
    "terminal",
    "progress",
    "verbs",
    "verbs_lab",
    "verbs_host",
    "verbs_machine",
    "verbs_endian",
    "verbs_experiment",
    "verbs_report",
    "verbs_sweep",
    "cli",
    "pytest_marker",
    "pytest_labs",
    "pytest_provider",
    "pytest_report",
    "pytest_run",
    "pytest_endian",
    "testinfra_plugin",
    "pytest_plugin",
)
FREE_OF_RULES = ("__init__", "__main__")  # the doors of the package: they import what they show
ONLY_ENGINE_IMPORTS = "docker"
# The one package inside the package: a file is a family of claims. It has one place, and its files do not import each other.
EXPERIMENTS = "experiments"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in FREE_OF_RULES)
FAMILIES = sorted(path.stem for path in (PACKAGE / EXPERIMENTS).glob("*.py"))


def imports(source: str) -> Iterator[str]:
    """Every module that a source imports, at the top or inside a function, by its full dotted name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            assert node.module is not None
            # `from testbed import errors` imports a module, `from testbed.errors import LabError` a name of one
            yield from ([f"testbed.{alias.name}" for alias in node.names] if node.module == "testbed" else [node.module])


def own_imports(source: str) -> set[str]:
    return {name.split(".")[1] for name in imports(source) if name.startswith("testbed.")}


def misplaced(module: str, source: str) -> list[str]:
    """What a module imports that does not stand above it."""
    return sorted(own_imports(source) - set(ORDER[: ORDER.index(module)]))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_place_and_imports_only_those_above_it(module: str) -> None:
    assert module in ORDER, f"testbed/{module}.py has no place in the list of this test"
    below = misplaced(module, (PACKAGE / f"{module}.py").read_text())
    assert not below, f"testbed/{module}.py imports {below}, which do not stand above it"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_claims_imports_only_what_stands_above_all_of_them(family: str) -> None:
    below = misplaced(EXPERIMENTS, (PACKAGE / EXPERIMENTS / f"{family}.py").read_text())
    assert not below, f"testbed/{EXPERIMENTS}/{family}.py imports {below}, which do not stand above it"


def test_the_claims_are_the_only_package_inside_the_package() -> None:
    assert [path.parent.name for path in PACKAGE.glob("*/__init__.py")] == [EXPERIMENTS]


@pytest.mark.parametrize("module", MODULES)
def test_only_the_engine_module_imports_docker(module: str) -> None:
    uses = ONLY_ENGINE_IMPORTS in {name.split(".")[0] for name in imports((PACKAGE / f"{module}.py").read_text())}
    assert uses == (module == "engine")


def test_the_order_names_each_module_once() -> None:
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize(
    "line",
    ["import testbed.cli", "from testbed import cli", "from testbed.cli import main", "def f():\n    from testbed import cli"],
)
def test_every_way_of_importing_is_seen(line: str) -> None:
    assert misplaced("host", line) == ["cli"]
    assert misplaced("host", "from testbed.errors import LabError\nimport json") == []
