"""The ways: each test that takes one runs over the extensions and over containerd's own calls."""

import shutil
from collections.abc import Iterator

import pytest

from engine.supervisor.tests import processes
from engine.supervisor.tests.extensions.ways import Way

_STOCK = [
    pytest.mark.stock,
    pytest.mark.skipif(shutil.which("containerd") is None, reason="needs a stock containerd"),
]


@pytest.fixture(scope="module")
def own() -> Iterator[processes.Server]:
    """Our supervisor."""
    with processes.server("wharf") as running:
        yield running


@pytest.fixture(scope="module")
def stock() -> Iterator[processes.Server]:
    with processes.server("containerd") as running:
        yield running


@pytest.fixture(params=["extension", "standard", pytest.param("containerd", marks=_STOCK)])
def way(request: pytest.FixtureRequest) -> Way:
    """Blobs and execs: the extension, the standard calls on our supervisor, the standard calls on containerd."""
    kind: str = request.param
    server: processes.Server = request.getfixturevalue("stock" if kind == "containerd" else "own")
    return Way(server, extended=kind == "extension")


@pytest.fixture(params=["extension", "standard"])
def own_way(request: pytest.FixtureRequest, own: processes.Server) -> Way:
    """The same without containerd, for what looks into the supervisor's folders."""
    return Way(own, extended=request.param == "extension")
