"""Fixtures of the tests of containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine


@pytest.fixture
def box(engine: Engine) -> Iterator[str]:
    """A running container with a name of its own environment, working directory and user."""
    with container(
        engine, Cmd=["sleep", "600"], Env=["OWN=1", "BOTH=container"], WorkingDir="/tmp", Hostname="boxhost"
    ) as identity:
        yield identity
