"""pytest knows ``--hosts='testbed://LAB/*'`` and ``testinfra_hosts = ["testbed://LAB/HOST"]`` where testinfra is installed."""

from __future__ import annotations

from collections.abc import Generator
from importlib.util import find_spec

import pytest

from testbed.errors import TestbedError

if find_spec("testinfra"):
    from testbed import testinfra_backend

    testinfra_backend.register()


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, None, None]:  # noqa: ARG001  # pytest goes by the name
    """A lab or host that is not there is told in words, not with the way through testinfra and pytest to it."""
    try:
        yield
    except TestbedError as error:
        raise pytest.Collector.CollectError(str(error)) from None
