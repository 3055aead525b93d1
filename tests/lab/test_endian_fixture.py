"""The fixture `endian` in somebody's own tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.process import run_local
from tests.lab.support import warm_command

TESTS = """
SENDS = "import socket, struct; socket.socket(type=socket.SOCK_DGRAM).sendto(struct.pack('{}I', 4711), ('server', 7000))"

def test_right(endian):
    outcome = endian.compare(script=f'python3 -c "{SENDS.format("!")}"', repeat=2)
    assert outcome.judgement.compared == 4

def test_wrong(endian):
    endian.compare(script=f'python3 -c "{SENDS.format("=")}"', repeat=2)

def test_without_a_program(endian):
    endian.compare(script="none.py")
"""


@pytest.mark.long
def test_a_test_fails_with_the_finding_as_its_message(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    argv = [*warm_command(), "pytest", "-p", "testbed.pytest_plugin", "-p", "no:cacheprovider"]
    result = run_local(argv, directory=tmp_path, environment=environment, timeout_s=120)
    assert "2 failed, 1 passed" in result.text, result.text
    assert "offset 0, 4 bytes, sent in host order: 67 12 00 00 from the little-endian host" in result.text
    assert "--script: there is no file 'none.py'" in result.text
    assert "Traceback" not in result.text
    assert "pytest_endian.py" not in result.text
