"""Blobs without a file: dropped, read, collected; after a crash at any step, and with a damaged snapshot."""

import asyncio
import errno
import gzip
import hashlib
import io
import os
import signal
import subprocess
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from engine.api.extensions import CONTENT_DROPPED
from engine.api.labels import STORED, UNCOMPRESSED
from engine.api.types import SnapshotKind
from engine.common.errors import Kind, WharfError
from engine.common.layers import recipe
from engine.supervisor.blobs import BlobFiles
from engine.supervisor.call import Call
from engine.supervisor.content import Content
from engine.supervisor.events import EventBus
from engine.supervisor.gc import Collector
from engine.supervisor.recipes import drop
from engine.supervisor.recipes.drop import Dropper
from engine.supervisor.recipes.recreate import Recreated
from engine.supervisor.snapshots.copy import CopySnapshotter
from engine.supervisor.snapshots.service import Snapshots
from engine.supervisor.store.database import Database

NS = "test"
CALL = Call(NS)
NAME = "native"
_TEXT = b"".join(b"line %d of a file\n" % number for number in range(100_000))
_ROOT = {"containerd.io/gc.root": "now"}


def _tar(name: str = "f", data: bytes = _TEXT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


PLAIN = _tar()
ZIPPED = gzip.compress(PLAIN, 6, mtime=0)


class Store:
    """The parts that recipes use."""

    def __init__(self, root: Path) -> None:
        self.database = Database(str(root / "meta.db"))
        self.bus = EventBus()
        self.files = BlobFiles(str(root))
        self.snapshots = Snapshots(self.database, self.bus, [CopySnapshotter(str(root))], str(root))
        self.recreated = Recreated(self.database, self.files, self.snapshots.tree)
        self.content = Content(self.database, self.files, self.bus, self.recreated)
        self.collector = Collector(self.database, self.files, self.snapshots, self.bus)
        self.dropper = Dropper(
            self.database, self.files, self.snapshots.local, self.snapshots.tree, self.content.dropped
        )

    async def recover(self) -> None:
        await self.content.recover()
        await self.snapshots.recover()
        await self.recreated.recover()

    async def close(self) -> None:
        await self.dropper.close()
        await self.collector.close()
        await self.content.close()
        await self.recreated.close()
        await self.snapshots.close()
        await self.database.close()

    async def blob(self, data: bytes, plain: bytes = PLAIN, namespace: str = NS) -> str:
        digest = _digest(data)
        ingest = await self.content.open(Call(namespace), digest, digest, len(data))
        try:
            await ingest.write(0, data)
            return await ingest.commit(len(data), digest, {UNCOMPRESSED: _digest(plain), **_ROOT})
        finally:
            await ingest.close()

    async def layer(self, plain: bytes = PLAIN, parent: str = "") -> str:
        """Unpacks a layer, which is on the disk at once."""
        mounts = await self.snapshots.create(CALL, NAME, "building", parent, {}, SnapshotKind.ACTIVE)
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            tar.extractall(mounts[0].source, filter="fully_trusted")
        key = f"{parent} {_digest(plain)}".encode()
        chain = _digest(key) if parent else _digest(plain)
        await self.snapshots.commit(CALL, NAME, chain, "building", {})
        await self.database.write(lambda connection: connection.execute("DELETE FROM unsettled"))
        return chain

    async def read(self, digest: str, namespace: str = NS) -> bytes:
        return b"".join([data async for _, data in self.content.read(namespace, digest, 0, 0)])

    def has_file(self, digest: str) -> bool:
        return self.files.exists(digest)

    def tree(self) -> Path:
        number = self.database.read(lambda connection: connection.execute("SELECT number FROM snapshot").fetchone()[0])
        return Path(self.snapshots.tree(NAME, number))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def with_store(root: Path, body: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store(root)
        try:
            await store.recover()
            await body(store)
        finally:
            await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("data", [PLAIN, ZIPPED], ids=["plain", "gzip"])
def test_a_blob_is_dropped_and_read(tmp_path: Path, data: bytes) -> None:
    async def body(store: Store) -> None:
        digest = await store.blob(data)
        await store.dropper.run()
        assert store.has_file(digest)  # its layer isn't unpacked
        await store.layer()
        await store.dropper.run()
        assert not store.has_file(digest)
        assert os.listdir(store.files.trash) == []
        info = store.content.info(NS, digest)
        assert (info.size, info.labels[UNCOMPRESSED]) == (len(data), _digest(PLAIN))
        assert 0 < info.stored < 20_000
        assert [one.stored for one in await store.content.list(NS, [])] == [info.stored]
        assert await store.read(digest) == data
        parts = [piece async for _, piece in store.content.read(NS, digest, 1000, 50)]
        assert b"".join(parts) == data[1000:1050]
        with pytest.raises(WharfError) as caught:
            await store.blob(data)
        assert caught.value.kind is Kind.ALREADY_EXISTS

    with_store(tmp_path, body)

    async def again(store: Store) -> None:  # also in a supervisor that drops no blobs
        assert await store.read(_digest(data)) == data

    with_store(tmp_path, again)


def test_a_layer_on_another(tmp_path: Path) -> None:
    """The snapshot is found by its chain id; a snapshot of the same layer on another base isn't needed."""

    async def body(store: Store) -> None:
        other = _tar("base", _TEXT[::-1])
        base, top = await store.blob(other, other), await store.blob(ZIPPED)
        chain = await store.layer(other)
        await store.layer(PLAIN, chain)
        await store.dropper.run()
        assert not store.has_file(base)
        assert not store.has_file(top)
        assert (await store.read(base), await store.read(top)) == (other, ZIPPED)

    with_store(tmp_path, body)


def test_a_layer_that_is_not_on_the_disk(tmp_path: Path) -> None:
    """A power failure would lose the layer, and then the blob is needed."""

    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        chain = await store.layer()
        number = await store.database.write(
            lambda connection: connection.execute("SELECT number FROM snapshot WHERE key = ?", (chain,)).fetchone()[0]
        )
        await store.database.write(lambda connection: store.snapshots.layer_sync.record(connection, number))
        await store.dropper.run()
        assert store.has_file(digest)

    with_store(tmp_path, body)


def test_an_event_and_the_label(tmp_path: Path) -> None:
    """Clients that keep sizes hear of it. The label is no stored label, even if a client sends it back."""

    async def body(store: Store) -> None:
        seen: list[tuple[str, str]] = []
        publish = store.bus.publish
        store.bus.publish = (  # type: ignore[method-assign]
            lambda namespace, topic, message, **_: seen.append((namespace, topic))
        )
        digest = await store.blob(ZIPPED)
        await store.blob(ZIPPED, namespace="other")
        await store.layer()
        await store.dropper.run()
        assert sorted(event for event in seen if event[1] == CONTENT_DROPPED) == [
            ("other", CONTENT_DROPPED),
            (NS, CONTENT_DROPPED),
        ]
        store.bus.publish = publish  # type: ignore[method-assign]
        labels = store.content.info(NS, digest).labels
        assert STORED in labels
        await store.content.update(NS, digest, labels, [])
        rows = store.database.read(lambda connection: connection.execute("SELECT labels FROM content").fetchall())
        assert all(STORED not in text for (text,) in rows)

    with_store(tmp_path, body)


def test_the_collector(tmp_path: Path) -> None:
    """The blob keeps its snapshot, for every namespace that has the blob; they are removed together."""

    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.blob(ZIPPED, namespace="other")
        chain = await store.layer()
        await store.dropper.run()
        await store.collector.collect()
        assert store.snapshots.stat(NS, NAME, chain).kind is SnapshotKind.COMMITTED
        with pytest.raises(WharfError, match=f"content {digest} is re-created from it") as caught:
            await store.snapshots.remove(NS, NAME, chain)
        assert caught.value.kind is Kind.FAILED_PRECONDITION
        await store.content.delete(NS, digest)
        await store.collector.collect()
        assert await store.read(digest, "other") == ZIPPED
        await store.content.delete("other", digest)
        await store.collector.collect()
        assert await store.snapshots.list(NS, NAME, []) == []
        assert store.files.recipes() == set()
        with pytest.raises(WharfError) as caught:
            await store.content.open_blob(digest)
        assert caught.value.kind is Kind.NOT_FOUND
        assert await store.blob(ZIPPED) == digest
        assert store.has_file(digest)

    with_store(tmp_path, body)


def test_a_blob_that_no_encoder_writes(tmp_path: Path) -> None:
    data = subprocess.run(["gzip", "-n"], input=PLAIN, stdout=subprocess.PIPE, check=True).stdout

    async def body(store: Store) -> None:
        digest = await store.blob(data)
        await store.layer()
        await store.dropper.run()
        assert store.has_file(digest)
        assert store.files.recipes() == set()
        assert STORED not in store.content.info(NS, digest).labels
        assert (
            await store.database.scan(lambda connection: drop._find(connection, [NAME])) == []
        )  # it isn't tried again
        await store.dropper.run()

    with_store(tmp_path, body)


def test_many_readers(tmp_path: Path) -> None:
    """They share one file, each at a position of its own; it is made again after it was closed."""

    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.layer()
        await store.dropper.run()
        made: list[str] = []
        write = store.recreated._write
        store.recreated._write = (  # type: ignore[method-assign]
            lambda digest, tree: made.append(digest) or write(digest, tree)  # type: ignore[func-returns-value]
        )
        assert await asyncio.gather(*(store.read(digest) for _ in range(8))) == [ZIPPED] * 8
        first, second = await store.content.open_blob(digest), await store.content.open_blob(digest)
        assert made == [digest]
        store.recreated._forget(digest)
        for fd in (first, second):
            assert os.read(fd, len(ZIPPED) + 1) == ZIPPED
            os.close(fd)
        assert await store.read(digest) == ZIPPED
        assert made == [digest] * 2

    with_store(tmp_path, body)


def test_a_reader_that_gives_up(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.layer()
        await store.dropper.run()
        one = asyncio.create_task(store.content.open_blob(digest))
        other = asyncio.create_task(store.read(digest))
        await asyncio.sleep(0)
        one.cancel()
        assert await other == ZIPPED
        assert one.cancelled()

    with_store(tmp_path, body)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read fails with the client's error, and a recipe that can't be written leaves the blob."""

    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.layer()

        def full(fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            await store.dropper.run()
        assert store.has_file(digest)
        assert store.files.recipes() == set()
        await store.dropper.run()
        assert not store.has_file(digest)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(WharfError) as caught:
                await store.read(digest)
        assert caught.value.kind is Kind.RESOURCE_EXHAUSTED
        assert await store.read(digest) == ZIPPED

    with_store(tmp_path, body)


def test_an_end_during_a_read(tmp_path: Path) -> None:
    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.layer()
        await store.dropper.run()
        reading = asyncio.create_task(store.read(digest))
        await asyncio.sleep(0)
        await store.recreated.close()
        with pytest.raises(WharfError) as caught:
            await reading
        assert caught.value.kind is Kind.UNAVAILABLE

    with_store(tmp_path, body)


def test_a_damaged_snapshot(tmp_path: Path) -> None:
    """An error that names the blob; wrong bytes are never returned, and a repair needs no restart."""

    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.layer()
        await store.dropper.run()
        path = store.tree() / "f"
        path.write_bytes(b"X" + _TEXT[1:])
        with pytest.raises(WharfError, match=f"content {digest} can't be re-created: other bytes came out") as caught:
            await store.read(digest)
        assert caught.value.kind is Kind.INTERNAL
        path.unlink()
        with pytest.raises(WharfError, match="'f' of its snapshot: no such file"):
            await store.read(digest)
        path.write_bytes(_TEXT)
        assert await store.read(digest) == ZIPPED
        store.recreated._forget(digest)
        os.truncate(store.files.recipe(digest), store.content.info(NS, digest).stored - 20)
        with pytest.raises(WharfError, match="can't be re-created"):
            await store.read(digest)

    with_store(tmp_path, body)


def test_a_snapshot_that_changes_while_the_recipe_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blob is only removed after it was re-created from the recipe."""

    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.layer()
        path = store.tree() / "f"
        rename = os.rename

        def changed(source: str, target: str) -> None:
            rename(source, target)
            if target == store.files.recipe(digest):
                path.write_bytes(b"X" + _TEXT[1:])

        monkeypatch.setattr(os, "rename", changed)
        await store.dropper.run()
        assert store.has_file(digest)
        assert store.files.recipes() == set()
        assert await store.read(digest) == ZIPPED

    with_store(tmp_path, body)


def test_a_blob_that_is_removed_while_the_recipe_is_made(tmp_path: Path) -> None:
    """Also if it is stored anew meanwhile: the recipe was removed with the first one."""

    async def body(store: Store) -> None:
        digest = await store.blob(ZIPPED)
        await store.layer()
        record = store.dropper._record
        loop = asyncio.get_running_loop()

        async def replace(*, anew: bool) -> None:
            await store.content.delete(NS, digest)
            await store.content.update(NS, lock, {**_ROOT, "containerd.io/gc.ref.snapshot.native": layer}, [])
            await store.collector.collect()
            if anew:
                await store.blob(ZIPPED)

        def removed(layer: drop._Layer, tree: str) -> int:
            stored = record(layer, tree)
            asyncio.run_coroutine_threadsafe(replace(anew=anew), loop).result()
            return stored

        store.dropper._record = removed  # type: ignore[method-assign]
        layer = (await store.snapshots.list(NS, NAME, []))[0].name
        lock = await store.blob(b"references the snapshot")
        anew = True
        await store.dropper.run()
        assert store.has_file(digest)
        assert await store.read(digest) == ZIPPED
        anew = False
        await store.dropper.run()
        assert store.files.recipes() == set()

    with_store(tmp_path, body)


def test_a_lost_snapshot(tmp_path: Path) -> None:
    """At the start a blob that can't be re-created is no blob: a pull then gets it again."""

    async def prepare(store: Store) -> None:
        await store.blob(ZIPPED)
        await store.layer()
        await store.dropper.run()
        await store.database.write(lambda connection: connection.execute("DELETE FROM snapshot"))

    async def check(store: Store) -> None:
        assert await store.content.list(NS, []) == []
        assert store.files.recipes() == set()
        assert await store.read(await store.blob(ZIPPED)) == ZIPPED

    with_store(tmp_path, prepare)
    with_store(tmp_path, check)


_STEPS = range(12)


@pytest.mark.parametrize("step", _STEPS)
def test_a_kill_at_each_step(tmp_path: Path, step: int) -> None:
    """After a SIGKILL before any file operation or commit of the removal, the next supervisor reads the same bytes,
    and completes it."""

    async def prepare(store: Store) -> None:
        await store.blob(ZIPPED)
        await store.layer()

    with_store(tmp_path, prepare)
    pid = os.fork()
    if not pid:
        try:
            with_store(tmp_path, lambda store: _killed(store, step))
        finally:
            os._exit(3)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 3)
    if not os.WIFSIGNALED(status):
        assert step >= 9  # fewer operations: the pass was complete

    async def check(store: Store) -> None:
        digest = _digest(ZIPPED)
        assert await store.read(digest) == ZIPPED
        await store.dropper.run()
        store.recreated._forget(digest)
        assert not store.has_file(digest)
        assert await store.read(digest) == ZIPPED
        assert store.files.recipes() == {digest}
        assert os.listdir(store.files.trash) == []

    with_store(tmp_path, check)


async def _killed(store: Store, step: int) -> None:
    """Runs a pass, and kills this process before its file operation or commit number ``step``."""
    left = [step]

    def counted(work: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return work(*arguments, **options)

        return call

    for name in ("rename", "fsync", "fdatasync", "unlink"):
        setattr(os, name, counted(getattr(os, name)))
    store.database._run = counted(store.database._run)  # type: ignore[method-assign, assignment]
    drop.rebuild = counted(drop.rebuild)  # type: ignore[assignment, attr-defined]
    recipe.record = counted(recipe.record)  # type: ignore[assignment]
    await store.dropper.run()
