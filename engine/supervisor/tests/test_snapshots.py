"""The suite of snapshotters over both of ours, in a supervisor of their own."""

import asyncio
import inspect
import os
from collections.abc import Iterator
from uuid import uuid4

import pytest

from engine.api.client import Engine
from engine.supervisor.tests import processes
from engine.supervisor.tests.snapshotters import SnapshotterSuite

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

TESTS = [name for name, _ in inspect.getmembers(SnapshotterSuite, inspect.iscoroutinefunction)]


@pytest.fixture(scope="module")
def server() -> Iterator[processes.Server]:
    with processes.server("wharf") as running:
        yield running


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
@pytest.mark.parametrize("name", TESTS)
def test_suite(server: processes.Server, snapshotter: str, name: str) -> None:
    async def main() -> None:
        engine = Engine(server.address, namespace=f"t{uuid4().hex[:12]}", snapshotter=snapshotter)
        try:
            plugins = await engine.introspection.plugins([f"type==io.containerd.snapshotter.v1,id=={snapshotter}"])
            if plugins[0].error:
                pytest.skip(plugins[0].error)
            # Another test's collection may come at any moment.
            async with engine.leases.hold():
                await getattr(SnapshotterSuite(), name)(engine)
        finally:
            await engine.close()

    asyncio.run(main())
