"""The suite of snapshotters with both of the supervisor's, in a separate process, and with the fake's."""

import asyncio
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from engine.api.client import Engine
from engine.api.tests.fake import FakeServer
from engine.supervisor.tests import processes
from engine.supervisor.tests.snapshotters import SnapshotterSuite

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

TESTS = [name for name, _ in inspect.getmembers(SnapshotterSuite, inspect.iscoroutinefunction)]


@pytest.fixture(scope="module")
def server() -> Iterator[processes.Server]:
    with processes.server("wharf") as running:
        yield running


@pytest.mark.parametrize("name", TESTS)
def test_the_fake(name: str, tmp_path: Path) -> None:
    async def main() -> None:
        await getattr(SnapshotterSuite(), name)(FakeServer(tmp_path).client())

    asyncio.run(main())


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
@pytest.mark.parametrize("name", TESTS)
def test_suite(server: processes.Server, snapshotter: str, name: str) -> None:
    async def main() -> None:
        engine = Engine(server.address, namespace=f"t{uuid4().hex[:12]}", snapshotter=snapshotter)
        try:
            plugins = await engine.introspection.plugins([f"type==io.containerd.snapshotter.v1,id=={snapshotter}"])
            if plugins[0].error:
                pytest.skip(plugins[0].error)
            # Another test's collection may run at any moment.
            async with engine.leases.acquire():
                await getattr(SnapshotterSuite(), name)(engine)
        finally:
            await engine.close()

    asyncio.run(main())
