"""The collector's rules on a real database; and the recovery after a crash."""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from engine.api.client import Engine
from engine.api.types import LeaseResource, SnapshotKind
from engine.common.errors import Kind, WharfError
from engine.supervisor.blobs import BlobFiles
from engine.supervisor.call import Call
from engine.supervisor.content import Content
from engine.supervisor.events import EventBus
from engine.supervisor.gc import Collector, expiry_ns
from engine.supervisor.leases import Leases
from engine.supervisor.snapshots.copy import CopySnapshotter
from engine.supervisor.snapshots.service import Snapshots
from engine.supervisor.store.database import Database
from engine.supervisor.tests import processes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

NS = "test"
CALL = Call(NS)


class Store:
    """The parts that the collector uses."""

    def __init__(self, root: Path) -> None:
        self.database = Database(str(root / "meta.db"))
        bus = EventBus()
        self.files = BlobFiles(str(root))
        self.content = Content(self.database, self.files, bus)
        self.leases = Leases(self.database)
        self.snapshots = Snapshots(self.database, bus, [CopySnapshotter(str(root))], str(root))
        self.collector = Collector(self.database, self.files, self.snapshots, bus)

    async def close(self) -> None:
        await self.collector.close()
        await self.snapshots.close()
        await self.database.close()

    async def blob(self, data: bytes, labels: dict[str, str] | None = None, *, call: Call = CALL) -> str:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        try:
            ingest = await self.content.open(call, digest, digest, len(data))
        except WharfError as error:
            if error.kind is Kind.ALREADY_EXISTS:
                return digest  # not collected yet, and added to the call's lease
            raise
        try:
            await ingest.write(0, data)
            return await ingest.commit(len(data), digest, labels or {})
        finally:
            await ingest.close()

    async def layer(self, name: str, parent: str = "", labels: dict[str, str] | None = None) -> str:
        await self.snapshots.create(CALL, "native", "building", parent, {}, SnapshotKind.ACTIVE)
        await self.snapshots.commit(CALL, "native", name, "building", labels or {})
        return name

    async def left(self) -> tuple[set[str], set[str]]:
        content = {info.digest for info in await self.content.list(NS, [])}
        assert content == {digest for digest, _ in self.files.sizes()}
        return content, {info.name for info in await self.snapshots.list(NS, "native", [])}


def with_store(root: Path, body: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store(root)
        try:
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


def test_labels_are_followed(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        leaf = await store.blob(b"leaf")
        node = await store.blob(b"node", {"containerd.io/gc.ref.content.7": leaf})
        await store.layer("below")
        await store.layer("top", "below", {"containerd.io/gc.ref.content/x": node})
        root = await store.blob(
            b"root", {"containerd.io/gc.root": "now", "containerd.io/gc.ref.snapshot.native/1": "top"}
        )
        await store.blob(b"loose", {"containerd.io/gc.ref.content.0": leaf, "containerd.io/gc.refcontent": node})
        await store.layer("loose", "below")
        await store.collector.collect()
        assert await store.left() == ({leaf, node, root}, {"below", "top"})
        await store.content.update(NS, root, {}, [])
        await store.collector.collect()
        assert await store.left() == (set(), set())

    with_store(tmp_path, body)


def test_leases_protect_until_they_expire(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        await store.leases.create(NS, "flat", {"containerd.io/gc.flat": "1"})
        await store.leases.create(NS, "deep", {})
        await store.leases.create(NS, "over", {"containerd.io/gc.expire": "2020-01-01T00:00:00Z"})
        deep = await store.blob(b"deep")
        flat = await store.blob(b"flat", {"containerd.io/gc.ref.content.0": deep})
        over = await store.blob(b"over", call=Call(NS, "over"))
        await store.layer("below")
        await store.layer("top", "below", {"containerd.io/gc.ref.content.0": deep})
        for id, type in ((flat, "content"), ("top", "snapshots/native")):
            await store.leases.add_resource(NS, "flat", LeaseResource(id, type))
        await store.collector.collect()
        assert await store.left() == ({flat}, {"below", "top"})
        assert [lease.id for lease in store.leases.list(NS, [])] == ["deep", "flat"]
        assert over not in dict(store.files.sizes())
        deep = await store.blob(b"deep", call=Call(NS, "deep"))
        await store.leases.add_resource(NS, "deep", LeaseResource(flat, "content"))
        await store.leases.delete(NS, "flat")
        await store.collector.collect()
        assert await store.left() == ({flat, deep}, set())
        with pytest.raises(WharfError) as caught:
            await store.blob(b"x", call=Call(NS, "gone"))
        assert caught.value.kind is Kind.NOT_FOUND

    with_store(tmp_path, body)


def test_an_ingest_expires_after_a_day(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        expected = await store.blob(b"whole")
        other = Call("other")
        await store.leases.create("other", "l", {})
        for ref in ("young", "old", "leased"):
            call = Call("other", "l") if ref == "leased" else other
            ingest = await store.content.open(call, ref, expected, 5)
            await ingest.write(0, b"who")
            await ingest.close()
        await store.database.write(
            lambda connection: connection.execute("UPDATE ingest SET expires = 1 WHERE ref <> 'young'")
        )
        await store.collector.collect()
        assert {status.ref for status in store.content.statuses("other", [])} == {"young", "leased"}
        assert len(store.files.folders()) == 2
        assert await store.left() == (set(), set())

    with_store(tmp_path, body)


def test_concurrent_writes_are_never_collected(tmp_path: Path) -> None:
    """Blobs are written under leases while collections run repeatedly."""

    async def body(store: Store) -> None:
        ending = False

        async def collect() -> int:
            count = 0
            while not ending:
                await store.collector.collect()
                count += 1
            return count

        collecting = asyncio.create_task(collect())
        for round_ in range(40):
            lease = f"lease{round_}"
            await store.leases.create(NS, lease, {})
            made = [await store.blob(b"%d-%d" % (round_, n), call=Call(NS, lease)) for n in range(3)]
            again = await store.blob(b"the same in every round", call=Call(NS, lease))
            for digest in (*made, again):
                assert store.content.info(NS, digest)
                assert store.files.exists(digest)
            await store.leases.delete(NS, lease)
        ending = True
        assert await collecting > 0
        await store.collector.collect()
        assert await store.left() == (set(), set())

    with_store(tmp_path, body)


def test_rows_and_files_are_matched_at_the_start(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        await store.blob(b"lost", {"containerd.io/gc.root": "1"})
        await store.blob(b"kept", {"containerd.io/gc.root": "1"})
        await store.layer("lost")
        await store.layer("orphan", "lost")
        await store.layer("kept")
        os.unlink(store.files.path(f"sha256:{hashlib.sha256(b'lost').hexdigest()}"))
        stray = Path(store.files.path("sha256:" + "0" * 64))
        await asyncio.to_thread(stray.write_bytes, b"stray")
        await store.snapshots.create(CALL, "native", "m", "lost", {}, SnapshotKind.VIEW)
        folders = tmp_path / "io.containerd.snapshotter.v1.native/snapshots"
        (folders / "1").rename(folders / "99")

    async def second(store: Store) -> None:
        await store.content.recover()
        await store.snapshots.recover()
        kept = f"sha256:{hashlib.sha256(b'kept').hexdigest()}"
        assert await store.left() == ({kept}, {"kept", "m"})
        folders = tmp_path / "io.containerd.snapshotter.v1.native/snapshots"
        assert len(list(folders.iterdir())) == 2

    with_store(tmp_path, first)
    with_store(tmp_path, second)


def test_expiry() -> None:
    assert expiry_ns({}) == 0
    assert expiry_ns({"containerd.io/gc.expire": "1970-01-01T00:00:10Z"}) == 10 * 10**9
    assert expiry_ns({"containerd.io/gc.expire": "1970-01-01T01:00:10+01:00"}) == 10 * 10**9
    assert expiry_ns({"containerd.io/gc.expire": "tomorrow"}) == 0


def test_acknowledged_writes_survive_a_kill() -> None:
    """Also: a lease that expires while no supervisor runs is collected with its resources at the next start."""

    async def before(engine: Engine) -> None:
        async with engine.leases.acquire():
            await engine.content.write_blob("a", b"kept", digest=digest(b"kept"), labels={"containerd.io/gc.root": "1"})
            await engine.snapshots.prepare("k", "")
            await engine.leases.create("forever")
            await engine.leases.add_resource("forever", "k", f"snapshots/{engine.snapshots.snapshotter}")
            await engine.content.write_blob("b", b"short", digest=digest(b"short"))
            short = await engine.leases.create(ttl=timedelta(seconds=3))
            await engine.leases.add_resource(short.id, digest(b"short"), "content")
        async with engine.content.writer("c", total=8) as writer:
            await writer.write(b"half")

    async def after(engine: Engine) -> None:
        assert await engine.content.read_all(digest(b"kept")) == b"kept"
        async with engine.content.writer("c", total=8) as writer:
            assert writer.offset == 4
            await writer.write(b"half")
            await writer.commit(size=8, digest=digest(b"halfhalf"))
        assert await engine.snapshots.mounts("k")
        deadline = time.monotonic() + 60
        while digest(b"short") in {info.digest async for info in engine.content.walk()}:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    def digest(data: bytes) -> str:
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    async def with_engine(address: str, body: Callable[[Engine], Awaitable[None]]) -> None:
        engine = Engine(address, namespace="kill", snapshotter="native")
        try:
            await body(engine)
        finally:
            await engine.close()

    with processes.server("wharf") as server:
        asyncio.run(with_engine(server.address, before))
        server.kill()
        server.restart()
        asyncio.run(with_engine(server.address, after))
