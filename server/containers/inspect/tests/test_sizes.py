"""Sizes of layers: which are cached, which are measured again, and how many are measured concurrently."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

from api_models.container import ContainerConfig, HostConfig
from engine.api.types import SnapshotInfo, SnapshotKind, Usage
from engine.common.errors import not_found
from server.containers.context import ContainerContext
from server.containers.inspect import sizes
from server.containers.layersize import LayerSize
from server.containers.model import Container


class Snapshots:
    """Snapshots in memory that count the calls."""

    def __init__(self, snapshotter: str = "overlayfs") -> None:
        self.snapshotter = snapshotter
        self.parents = {"base": "", "top": "base", "top-init": "top"}
        self.sizes = {"base": 100, "top": 10, "top-init": 1}
        self.asked: list[str] = []
        self.now = self.most = 0
        self.measuring = asyncio.Event()  # a container's own layer

    def add(self, key: str, *, size: int = 4) -> None:
        self.parents[key], self.sizes[key] = "top-init", size

    async def usage(self, key: str) -> Usage:
        self.asked.append(key)
        self.now += 1
        if key.startswith("c"):
            self.measuring.set()
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if key not in self.sizes:
            raise not_found(key)
        return Usage(self.sizes[key], 1)

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
) -> tuple[ContainerContext, Snapshots, list[Container]]:
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
    context: Any = SimpleNamespace(engine=SimpleNamespace(snapshots=snapshots))
    return cast(ContainerContext, context), snapshots, containers


def test_one_of_the_layers_without_writes_is_measured() -> None:
    async def play() -> None:
        context, snapshots, containers = world(800, pristine=True)
        found = await sizes.get_all(context, containers)
        assert found == {one.id: (4, 115) for one in containers}
        assert len(snapshots.asked) < 12
        snapshots.asked.clear()
        assert await sizes.get_all(context, containers) == found
        assert snapshots.asked == []

    asyncio.run(play())


def test_another_snapshotter_measures_each_layer() -> None:
    async def play() -> None:
        context, snapshots, containers = world(20, pristine=True, snapshotter="devmapper")
        snapshots.sizes["c7"] = 9
        assert (await sizes.get_all(context, containers))["c7"] == (9, 120)

    asyncio.run(play())


def test_after_a_restart_of_the_daemon_each_layer_is_measured_once() -> None:
    async def play() -> None:
        context, snapshots, containers = world(100, pristine=False)
        for number, container in enumerate(containers):
            snapshots.sizes[container.id] = number
        found = await sizes.get_all(context, containers)
        assert found["c99"] == (99, 210)
        assert snapshots.most == sizes.CONCURRENT
        assert snapshots.asked.count("walk") == 1
        snapshots.asked.clear()
        assert await sizes.get_all(context, containers) == found
        assert snapshots.asked == []

    asyncio.run(play())


def test_a_layer_is_measured_again_after_a_write() -> None:
    async def play() -> None:
        context, snapshots, containers = world(3, pristine=True)
        one, two, three = containers
        await sizes.get_all(context, containers)
        with one.layer.writing():
            snapshots.sizes[one.id] = 50
            assert await sizes.get(context, one) == (50, 161)
            snapshots.sizes[one.id] = 60
        assert await sizes.get(context, one) == (60, 171)
        # while it runs, and after it
        with two.layer.writing():
            two.state.running = True
        for size in (70, 80):
            snapshots.sizes[two.id] = size
            assert (await sizes.get(context, two))[0] == size
        two.state.running = False
        assert await sizes.get(context, two) == (80, 191)
        assert await sizes.get(context, three) == (4, 115)

    asyncio.run(play())


def test_a_write_during_the_measurement_invalidates_it() -> None:
    async def play() -> None:
        context, snapshots, containers = world(2, pristine=True)
        asked = asyncio.create_task(sizes.get_all(context, containers))
        await snapshots.measuring.wait()
        for container in containers:
            with container.layer.writing():
                snapshots.sizes[container.id] = 500
        await asked
        assert await sizes.get_all(context, containers) == {"c0": (500, 611), "c1": (500, 611)}

    asyncio.run(play())


def test_a_removed_layer_has_size_zero() -> None:
    async def play() -> None:
        context, snapshots, containers = world(6, pristine=False)
        for key in ("c3", "top"):
            del snapshots.sizes[key], snapshots.parents[key]
        found = await sizes.get_all(context, containers)
        assert found["c3"] == (0, 0)
        assert found["c4"] == (4, 4)

    asyncio.run(play())
