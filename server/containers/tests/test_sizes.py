"""Sizes of layers: which are cached, which are measured again, and which requests share a measurement."""

import asyncio
from collections.abc import AsyncIterator, Collection
from types import SimpleNamespace
from typing import Any

from api_models.container import ContainerConfig, HostConfig
from engine.api.types import SnapshotInfo, SnapshotKind, Usage
from engine.common.errors import not_found
from server.containers.layersize import LayerSize
from server.containers.model import Container
from server.containers.sizes import LayerSizes


class Snapshots:
    """Snapshots in memory that count the calls."""

    def __init__(self, snapshotter: str = "overlayfs") -> None:
        self.snapshotter = snapshotter
        self.parents = {"base": "", "top": "base", "top-init": "top"}
        self.sizes = {"base": 100, "top": 10, "top-init": 1}
        self.asked: list[str] = []
        self.measuring = asyncio.Event()  # a container's own layer
        self.resume = asyncio.Event()  # the answers are sent
        self.resume.set()

    def add(self, key: str, *, size: int = 4) -> None:
        self.parents[key], self.sizes[key] = "top-init", size

    async def usages(self, keys: Collection[str]) -> dict[str, Usage]:
        self.asked += keys
        found = {}
        for key in keys:
            if key in self.sizes:
                found[key] = Usage(self.sizes[key], 1)
        if any(key.startswith("c") for key in keys):
            self.measuring.set()
            await self.resume.wait()
        return found

    async def stat(self, key: str) -> SnapshotInfo:
        self.asked.append(f"stat {key}")
        if key not in self.parents:
            raise not_found(key)
        return self._info(key)

    async def walk(self) -> AsyncIterator[SnapshotInfo]:
        self.asked.append("walk")
        for key in self.parents:
            yield self._info(key)

    def _info(self, key: str) -> SnapshotInfo:
        kind = SnapshotKind.COMMITTED if key in ("base", "top", "top-init") else SnapshotKind.ACTIVE
        return SnapshotInfo(kind, key, self.parents[key], {}, 0, 0)


def world(
    count: int, *, pristine: bool, snapshotter: str = "overlayfs"
) -> tuple[LayerSizes, Snapshots, list[Container]]:
    snapshots = Snapshots(snapshotter)
    containers = []
    for number in range(count):
        container = Container(
            id=f"c{number}", name=f"n{number}", created_ns=1, config=ContainerConfig(), host_config=HostConfig()
        )
        if pristine:
            container.layer = LayerSize(parent="top-init", pristine=True)
        snapshots.add(container.id)
        containers.append(container)
    engine: Any = SimpleNamespace(snapshots=snapshots)
    return LayerSizes(engine), snapshots, containers


def test_one_of_the_layers_without_writes_is_measured() -> None:
    async def play() -> None:
        sizes, snapshots, containers = world(800, pristine=True)
        found = await sizes.get_all(containers)
        assert found == {one.id: (4, 115) for one in containers}
        assert len(snapshots.asked) < 12
        snapshots.asked.clear()
        assert await sizes.get_all(containers) == found
        assert snapshots.asked == []

    asyncio.run(play())


def test_another_snapshotter_measures_each_layer() -> None:
    async def play() -> None:
        sizes, snapshots, containers = world(20, pristine=True, snapshotter="devmapper")
        snapshots.sizes["c7"] = 9
        assert (await sizes.get_all(containers))["c7"] == (9, 120)

    asyncio.run(play())


def test_after_a_restart_of_the_daemon_each_layer_is_measured_once() -> None:
    async def play() -> None:
        sizes, snapshots, containers = world(100, pristine=False)
        for number, container in enumerate(containers):
            snapshots.sizes[container.id] = number
        found = await sizes.get_all(containers)
        assert found["c99"] == (99, 210)
        assert snapshots.asked.count("walk") == 1
        snapshots.asked.clear()
        assert await sizes.get_all(containers) == found
        assert snapshots.asked == []

    asyncio.run(play())


def test_a_layer_is_measured_again_after_a_write() -> None:
    async def play() -> None:
        sizes, snapshots, containers = world(3, pristine=True)
        one, two, three = containers
        await sizes.get_all(containers)
        with one.layer.writing():
            snapshots.sizes[one.id] = 50
            assert await sizes.get(one) == (50, 161)
            snapshots.sizes[one.id] = 60
        assert await sizes.get(one) == (60, 171)
        # while it runs, and after it
        with two.layer.writing():
            two.state.running = True
        for size in (70, 80):
            snapshots.sizes[two.id] = size
            assert (await sizes.get(two))[0] == size
        two.state.running = False
        assert await sizes.get(two) == (80, 191)
        assert await sizes.get(three) == (4, 115)

    asyncio.run(play())


def test_a_write_during_the_measurement_invalidates_it() -> None:
    async def play() -> None:
        sizes, snapshots, containers = world(2, pristine=True)
        snapshots.resume.clear()
        asked = asyncio.create_task(sizes.get_all(containers))
        await snapshots.measuring.wait()
        for container in containers:
            with container.layer.writing():
                snapshots.sizes[container.id] = 500
        snapshots.resume.set()
        await asked
        assert await sizes.get_all(containers) == {"c0": (500, 611), "c1": (500, 611)}

    asyncio.run(play())


def test_concurrent_requests_share_a_measurement() -> None:
    async def play() -> None:
        sizes, snapshots, (stopped, running) = world(2, pristine=False)
        running.state.running = True
        await sizes.get_all((stopped, running))
        snapshots.asked.clear()
        snapshots.resume.clear()
        snapshots.measuring.clear()
        first = asyncio.create_task(sizes.get(running))
        await snapshots.measuring.wait()
        snapshots.sizes[running.id] = 9
        with stopped.layer.writing():
            snapshots.sizes[stopped.id] = 8
        later = [asyncio.create_task(sizes.get_all((stopped, running))) for _ in range(5)]
        await asyncio.sleep(0)
        later.pop().cancel()  # a client that closes its connection
        snapshots.resume.set()
        assert (await first)[0] == 4
        for each in later:
            assert await each == {stopped.id: (8, 119), running.id: (9, 120)}
        assert sorted(snapshots.asked) == [stopped.id, running.id, running.id]

    asyncio.run(play())


def test_a_removed_layer_has_size_zero() -> None:
    async def play() -> None:
        sizes, snapshots, containers = world(6, pristine=False)
        for key in ("c3", "top"):
            del snapshots.sizes[key], snapshots.parents[key]
        found = await sizes.get_all(containers)
        assert found["c3"] == (0, 0)
        assert found["c4"] == (4, 4)

    asyncio.run(play())
