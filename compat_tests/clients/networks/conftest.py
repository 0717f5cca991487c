"""Fixtures of the tests of networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.clients.networks.stage import Stage
from compat_tests.support.engines import Engine


@pytest.fixture
def stage(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(engine, request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:40])
    yield stage
    stage.clear()
