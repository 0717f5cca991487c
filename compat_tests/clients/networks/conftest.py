"""Fixtures of the tests of networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat_tests.clients.networks.scenario import Scenario
from compat_tests.support.engines import Engine


@pytest.fixture
def scenario(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Scenario]:
    scenario = Scenario(engine, request.node.name.partition("[")[0].removeprefix("test_").replace("_", "-")[:40])
    yield scenario
    scenario.clear()
