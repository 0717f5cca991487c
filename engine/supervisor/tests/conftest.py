"""The servers for the tests of the engine's API."""

from collections.abc import Iterator

import pytest

from engine.supervisor.tests import processes


@pytest.fixture(scope="module", params=["wharf", pytest.param("containerd", marks=processes.STOCK)])
def server(request: pytest.FixtureRequest) -> Iterator[processes.Server]:
    with processes.server(request.param) as running:
        yield running
