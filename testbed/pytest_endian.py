"""The fixture `endian`: a test fails with the findings about a program's byte order as its message, and without a traceback."""

from __future__ import annotations

from typing import Unpack

import pytest

from testbed.endian import Options, assert_same
from testbed.endian_run import Outcome
from testbed.errors import TestbedError


class Endian:
    """What a test is given."""

    def compare(self, **options: Unpack[Options]) -> Outcome:
        """Run a client and a server, or a script, on both byte orders, and fail with the findings if there are any, or when nothing was
        sent, or it cannot be run. Files are looked for in the directory that pytest was started in; see :class:`testbed.endian.Options`."""
        try:
            return assert_same(**options)
        except TestbedError as error:
            pytest.fail(str(error), pytrace=False)
