"""The page about the topology file tells the truth: its examples are right, and its tables are complete."""

import re
from pathlib import Path

import pytest

from testbed.errors import TopologyError
from testbed.topology import Host, Network
from testbed.topology_file import parse

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "topology-file.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", blocks("yaml"))
def test_every_example_is_a_topology(example: str) -> None:
    assert parse(example, name="example").hosts


def test_there_are_examples() -> None:
    assert len(blocks("yaml")) == 6


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    exec(compile(example, "topology-file.md", "exec"), {})


def test_the_tables_have_every_key() -> None:
    keys = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    missing = (Host.model_fields.keys() | Network.model_fields.keys() | {"count", "defaults"}) - keys
    assert not missing


def test_the_errors_shown_are_those_that_come() -> None:
    text = "networks:\n  lan:\nhosts:\n  client:\n  server:\n    memroy: 64M\n    sysctls: {net.core.rmem_max: 1}\n"
    with pytest.raises(TopologyError) as caught:
        parse(text, file="lab.yaml", name="lab")
    assert str(caught.value) == next(block for block in blocks("text") if "memroy" in block).rstrip()
