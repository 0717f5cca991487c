"""A snapshotter of another process behind our supervisor and behind a stock containerd."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from engine.api.client import Engine
from engine.api.tests.fake.snapshots import FILES
from engine.api.types import SnapshotKind
from engine.common.errors import Kind, WharfError
from engine.supervisor.tests import processes
from engine.supervisor.tests.remote import Remote, serving
from engine.supervisor.tests.snapshotters import SnapshotterSuite, mounted, refused

pytestmark = processes.ROOT

TESTS = [name for name, _ in inspect.getmembers(SnapshotterSuite, inspect.iscoroutinefunction)]
TARGET = "containerd.io/snapshot.ref"


@dataclass(slots=True)
class Pair:
    server: processes.Server
    remote: Remote

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Engine]:
        """A client in its own namespace; a lease protects what it makes."""
        engine = Engine(self.server.address, namespace=f"t{uuid4().hex[:12]}", snapshotter="remote")
        try:
            async with engine.leases.acquire():
                yield engine
        finally:
            await engine.close()


@pytest.fixture(scope="module", params=["wharf", pytest.param("containerd", marks=processes.STOCK)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    remote = Remote(tmp_path_factory.mktemp("remote"))
    with serving(remote), processes.server(request.param, proxies={"remote": remote.address}) as server:
        yield Pair(server, remote)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Pair]:
    """Our supervisor alone: it may be restarted."""
    remote = Remote(tmp_path)
    with processes.server("wharf", proxies={"remote": remote.address}) as server:
        yield Pair(server, remote)


@pytest.mark.parametrize("name", TESTS)
def test_suite(pair: Pair, name: str) -> None:
    async def main() -> None:
        async with pair.client() as engine:
            await getattr(SnapshotterSuite(), name)(engine)

    asyncio.run(main())


def test_the_plugin_is_listed(pair: Pair) -> None:
    async def main() -> None:
        async with pair.client() as engine:
            plugins = await engine.introspection.plugins(["type==io.containerd.snapshotter.v1,id==remote"])
            assert [(plugin.id, plugin.error) for plugin in plugins] == [("remote", "")]

    asyncio.run(main())


def layer(tmp_path: Path, name: str) -> dict[str, str]:
    """The labels of a layer that the snapshotter can provide: one file with the layer's name."""
    (tmp_path / name).mkdir()
    (tmp_path / name / name).write_text(name)
    return {TARGET: name, FILES: str(tmp_path / name), "own": "label"}


def test_a_layer_is_provided(pair: Pair, tmp_path: Path) -> None:
    async def main() -> None:
        async with pair.client() as engine:
            shots = engine.snapshots
            async with refused(Kind.ALREADY_EXISTS):
                await shots.prepare("extract base", "", layer(tmp_path, "base"))
            # Only labels of this form reach the snapshotter, and the name of the layer is its own.
            assert set(pair.remote.labels) == {TARGET, FILES}
            async with refused(Kind.ALREADY_EXISTS):
                await shots.prepare("extract top", "base", layer(tmp_path, "top"))
            if pair.server.kind == "wharf":
                assert engine.namespace in pair.remote.namespaces
            found = {info.name: info async for info in shots.walk()}
            assert {name: (info.kind, info.parent) for name, info in found.items()} == {
                "base": (SnapshotKind.COMMITTED, ""),
                "top": (SnapshotKind.COMMITTED, "base"),
            }
            assert found["top"].labels["own"] == "label"
            mounts = await shots.prepare("container", "top")
            assert await mounted(mounts, lambda root: sorted(path.name for path in root.iterdir())) == ["base", "top"]
            before = pair.remote.names
            async with refused(Kind.ALREADY_EXISTS):  # it is known: the snapshotter is not asked
                await shots.prepare("extract again", "base", {TARGET: "top"})
            assert pair.remote.names == before
            # A layer that it can't provide is unpacked as by any other snapshotter.
            await mounted(await shots.prepare("extract x", "top", {TARGET: "x"}), lambda root: (root / "x").touch())
            await shots.commit("x", "extract x")
            assert (await shots.stat("x")).parent == "top"

    asyncio.run(main())


def test_namespaces_have_their_own_layers(own: Pair, tmp_path: Path) -> None:
    labels = {**layer(tmp_path, "same"), "containerd.io/gc.root": "yes"}

    async def main() -> None:
        first, second = (Engine(own.server.address, namespace=name, snapshotter="remote") for name in ("n1", "n2"))
        for engine in (first, second):
            async with refused(Kind.ALREADY_EXISTS):
                await engine.snapshots.prepare("extract", "", labels)
            assert (await engine.snapshots.stat("same")).kind is SnapshotKind.COMMITTED
        await first.snapshots.remove("same")
        await settled(own.remote, 1)
        await second.snapshots.prepare("container", "same")
        for engine in (first, second):
            await engine.close()

    with serving(own.remote):
        asyncio.run(main())


async def settled(remote: Remote, count: int) -> None:
    """Waits for removals, which run in the background."""
    async with asyncio.timeout(20):
        while len(remote.names) != count:
            await asyncio.to_thread(remote.removed.wait, 20)
            remote.removed.clear()


def test_removed_and_collected_snapshots_are_deleted(own: Pair, tmp_path: Path) -> None:
    async def main() -> None:
        async with own.client() as engine:
            shots = engine.snapshots
            for parent, name in (("", "one"), ("one", "two"), ("two", "three")):
                async with refused(Kind.ALREADY_EXISTS):
                    await shots.prepare(f"extract {name}", parent, layer(tmp_path, name))
            await shots.prepare("container", "three")
            assert len(own.remote.names) == 4
            await shots.remove("container")
            await settled(own.remote, 3)
        # The lease has ended: the collector removes the layers, children first.
        await settled(own.remote, 0)
        assert own.remote.cleaned

    with serving(own.remote):
        asyncio.run(main())


def test_an_absent_snapshotter_is_named(own: Pair) -> None:
    async def main() -> None:
        async with own.client() as engine:
            with pytest.raises(WharfError, match=r"^snapshotter remote: unix:///.*: ") as caught:
                await engine.snapshots.prepare("k", "")
            assert caught.value.kind is Kind.UNAVAILABLE
            assert [info async for info in engine.snapshots.walk()] == []
            with serving(own.remote):
                await engine.snapshots.prepare("k", "")
            with pytest.raises(WharfError, match=r"^snapshotter remote: "):
                await engine.snapshots.mounts("k")
            with pytest.raises(WharfError, match=r"^snapshotter remote: "):
                await engine.snapshots.usage("k")
            await engine.snapshots.remove("k")  # the directory is deleted later
            assert len(own.remote.names) == 1
            with serving(own.remote):
                await engine.snapshots.cleanup()
                assert own.remote.names == []
                await engine.snapshots.prepare("k", "")

    asyncio.run(main())


def test_a_restart_removes_what_has_no_record(own: Pair, tmp_path: Path) -> None:
    async def before() -> None:
        engine = Engine(own.server.address, namespace="kept", snapshotter="remote")
        await engine.leases.create("held")
        for parent, name in (("", "one"), ("one", "two")):
            labels = {**layer(tmp_path, name), "containerd.io/gc.root": "yes"}
            async with refused(Kind.ALREADY_EXISTS):
                await engine.snapshots.prepare(f"extract {name}", parent, labels)
        await engine.snapshots.prepare("k", "", {"containerd.io/gc.root": "yes"})
        await engine.close()

    async def after() -> list[str]:
        engine = Engine(own.server.address, namespace="kept", snapshotter="remote")
        try:
            return [info.name async for info in engine.snapshots.walk()]
        finally:
            await engine.close()

    with serving(own.remote):
        asyncio.run(before())
        one, _, _ = own.remote.names
        own.server.kill()
        prefix = one.partition("/")[0]
        foreign = ["another/7", f"{prefix}/1000"]
        for name in foreign:
            own.remote.add(name)
        own.server.restart()
        assert sorted(asyncio.run(after())) == ["k", "one", "two"]
        assert own.remote.names.count(foreign[0]) == 1
        assert foreign[1] not in own.remote.names
        # The layers are made again if the snapshotter has lost the lowest one; an active snapshot can't be.
        own.server.kill()
        own.remote.lose(one)
        own.server.restart()
        assert asyncio.run(after()) == ["k"]


def test_a_restart_with_a_snapshotter_that_has_lost_all(own: Pair, tmp_path: Path) -> None:
    labels = {**layer(tmp_path, "one"), "containerd.io/gc.root": "yes"}

    async def provide() -> None:
        engine = Engine(own.server.address, namespace="kept", snapshotter="remote")
        async with refused(Kind.ALREADY_EXISTS):
            await engine.snapshots.prepare("extract", "", labels)
        await engine.close()

    with serving(own.remote):
        asyncio.run(provide())
        own.server.kill()
        (one,) = own.remote.names
        own.remote.lose(one)
        own.server.restart()
        asyncio.run(provide())
        assert own.remote.names not in ([], [one])
