"""The servers that the tests of the engine's API run against."""

import shutil
from collections.abc import Iterator

import pytest

from engine.supervisor.tests import processes


@pytest.fixture(
    scope="module",
    params=[
        "wharf",
        pytest.param(
            "containerd",
            marks=[
                pytest.mark.stock,
                pytest.mark.skipif(shutil.which("containerd") is None, reason="needs a stock containerd"),
            ],
        ),
    ],
)
def server(request: pytest.FixtureRequest) -> Iterator[processes.Server]:
    with processes.server(request.param) as running:
        yield running
