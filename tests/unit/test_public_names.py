"""What `from testbed import ...` gives: typed, complete, and loaded only when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import testbed

PACKAGE = Path(testbed.__file__).parent


def named_for_type_checkers() -> set[str]:
    """What the imports under TYPE_CHECKING call by its public name."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.parametrize("name", testbed.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(testbed, name).__doc__
    assert name in dir(testbed)


def test_type_checkers_see_the_same_names() -> None:
    assert named_for_type_checkers() == set(testbed.__all__) == set(testbed._HOME)
    assert (PACKAGE / "py.typed").exists(), "without it they look at nothing"


def test_a_host_of_a_topology_is_not_a_host_of_a_lab() -> None:
    assert testbed.HostSpec.__module__ == "testbed.topology_parts"
    assert testbed.Host.__module__ == "testbed.host"


def test_the_package_alone_loads_nothing_but_pythons_own() -> None:
    script = """if True:
        import sys
        import testbed
        print(sorted(name for name in sys.modules if name.partition('.')[0] == 'testbed' or 'pydantic' in name or 'docker' in name))
    """
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert loaded == "['testbed']\n"


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'testbed' has no attribute 'Labb'"):
        testbed.Labb  # noqa: B018
    with pytest.raises(ImportError):
        exec("from testbed import Labb")
