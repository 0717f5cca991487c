"""The servers for the tests of the engine's API."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from engine.api.client import Engine
from engine.api.tests.fake import FakeServer
from engine.supervisor.tests import processes
from engine.supervisor.tests.calls import Body, Connect, Run


@pytest.fixture(scope="module", params=["wharf", pytest.param("containerd", marks=processes.STOCK)])
def server(request: pytest.FixtureRequest) -> Iterator[processes.Server]:
    with processes.server(request.param) as running:
        yield running


@pytest.fixture(
    scope="module",
    params=[
        "fake",
        pytest.param("wharf", marks=processes.ROOT),
        pytest.param("containerd", marks=[*processes.ROOT, *processes.STOCK]),
    ],
)
def connect(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connect]:
    """Makes clients of one server."""
    if request.param == "fake":
        fake = FakeServer(tmp_path_factory.mktemp("fake"))
        yield lambda namespace, snapshotter: fake.client(namespace=namespace, snapshotter=snapshotter)
        return
    with processes.server(request.param) as server:
        yield lambda namespace, snapshotter: Engine(server.address, namespace=namespace, snapshotter=snapshotter)


@pytest.fixture
def run(connect: Connect) -> Run:
    """Runs a coroutine with a client in its own namespace."""

    def work(body: Body) -> None:
        async def main() -> None:
            engine = connect(f"t{uuid4().hex[:12]}", "overlayfs")
            try:
                await body(engine)
            finally:
                await engine.close()

        asyncio.run(main())

    return work
