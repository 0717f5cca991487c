"""The client with our supervisor, a stock containerd, and the fake of the unit tests: all three behave the same."""

import asyncio
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from engine.api.client import Engine
from engine.api.pb import content_pb2, event_messages_pb2, images_pb2
from engine.api.tests.fake import FakeServer
from engine.api.types import AnyValue, ContainerRecord, Descriptor, ImageRecord, SnapshotKind
from engine.common.errors import Kind, WharfError
from engine.supervisor.tests import processes

Body = Callable[[Engine], Coroutine[None, None, None]]
Run = Callable[[Body], None]
#: (namespace, snapshotter) → a client.
Connect = Callable[[str, str], Engine]


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


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def fails(kind: Kind, work: Coroutine[None, None, object]) -> WharfError:
    with pytest.raises(WharfError) as caught:
        await work
    assert caught.value.kind is kind, caught.value
    return caught.value


def test_server_introspection(run: Run) -> None:
    async def body(engine: Engine) -> None:
        assert (await engine.version()).version
        assert (await engine.introspection.server()).uuid
        plugins = await engine.introspection.plugins(['type==io.containerd.snapshotter.v1,id=="native"'])
        assert [(plugin.id, plugin.error) for plugin in plugins] == [("native", "")]

    run(body)


def test_content_is_written_in_parts_and_resumed(run: Run) -> None:
    data = os.urandom(3_000_000)

    async def body(engine: Engine) -> None:
        digest = digest_of(data)
        # unreferenced content may be collected at any time: a stock containerd does so soon after its start
        async with engine.leases.acquire():
            async with engine.content.writer("one", expected=digest, total=len(data)) as writer:
                await writer.write(data[:1_500_000])
            status = await engine.content.status("one")
            assert (status.offset, status.total) == (1_500_000, len(data))
            async with engine.content.writer("one", expected=digest, total=len(data)) as writer:
                assert writer.offset == 1_500_000
                await writer.write(data[1_500_000:])
                assert await writer.commit(size=len(data), digest=digest, labels={"a": "1", "b": "2"}) == digest
            assert await engine.content.statuses() == []
            assert await engine.content.read_all(digest) == data
            middle = b"".join([piece async for piece in engine.content.read(digest, offset=1_000_000, size=1_234_567)])
            assert middle == data[1_000_000:2_234_567]
            info = await engine.content.update_labels(digest, {"a": None, "c": "3"})
            assert (info.size, dict(info.labels)) == (len(data), {"b": "2", "c": "3"})
            async with engine.content.writer("two", expected=digest, total=len(data)) as writer:
                assert writer.exists
                assert await writer.commit(labels={"d": "4"}) == digest
            found = [info async for info in engine.content.walk(["labels.d==4", "labels.nothing"])]
            assert [dict(info.labels) for info in found] == [{"b": "2", "c": "3", "d": "4"}]
            await engine.content.delete(digest)
            await fails(Kind.NOT_FOUND, engine.content.info(digest))

    run(body)


def test_content_with_wrong_size_or_digest_is_refused(run: Run) -> None:
    async def body(engine: Engine) -> None:
        async with engine.content.writer("bad", total=5) as writer:
            await writer.write(b"hello")
            await fails(Kind.FAILED_PRECONDITION, writer.commit(size=5, digest=digest_of(b"other")))
        async with engine.content.writer("bad", total=5) as writer:
            assert writer.offset == 5
            await writer.truncate()
            await writer.write(b"other")
            await writer.commit(size=5, digest=digest_of(b"other"))
        async with engine.content.writer("left") as writer:
            await writer.write(b"x")
        await engine.content.abort("left")
        await fails(Kind.NOT_FOUND, engine.content.status("left"))
        await fails(Kind.INVALID_ARGUMENT, engine.content.info("sha256:1"))

    run(body)


def test_a_small_blob_has_concurrent_writers(run: Run) -> None:
    async def body(engine: Engine) -> None:
        for data in (b"a document", os.urandom(2_000_000)):
            async with engine.leases.acquire(), asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(engine.content.write_blob("same", data, digest=digest_of(data)))
            wrong = digest_of(b"another")
            await fails(Kind.FAILED_PRECONDITION, engine.content.write_blob("same", data, digest=wrong))
        assert not await engine.content.statuses([""])

    run(body)


def test_an_early_status_of_the_server_is_raised(run: Run) -> None:
    """Also if that overtakes the first message of the call."""

    async def body(engine: Engine) -> None:
        for _ in range(200):
            call = engine.content._rpc.duplex(
                "/containerd.services.content.v1.Content/Nothing",
                content_pb2.WriteContentRequest,
                content_pb2.WriteContentResponse,
            )
            await fails(Kind.NOT_IMPLEMENTED, call.exchange(content_pb2.WriteContentRequest(ref="x")))
            await call.finish()

    run(body)


def test_a_lease_is_released_after_any_cancellation(run: Run) -> None:
    async def hold(engine: Engine) -> None:
        async with engine.leases.acquire():
            pass

    async def pieces(engine: Engine) -> AsyncIterator[bytes]:
        async with engine.leases.acquire():
            yield b"a piece"

    async def leave(engine: Engine) -> None:
        async for _ in pieces(engine):
            return

    async def body(engine: Engine) -> None:
        for steps in range(40):
            holder = asyncio.create_task(hold(engine))
            for _ in range(steps):
                await asyncio.sleep(0)
            holder.cancel()
            await asyncio.wait((holder,))
        # Only the loop closes this generator.
        await asyncio.create_task(leave(engine))
        for _ in range(600):
            if not (left := await engine.leases.list()):
                break
            await asyncio.sleep(0.1)
        assert not left

    run(body)


def test_a_ref_has_one_writer(run: Run) -> None:
    async def body(engine: Engine) -> None:
        async with engine.content.writer("shared") as writer:
            await writer.write(b"x")
            async with engine.content.writer("other"):
                pass
            with pytest.raises(WharfError) as caught:
                async with engine.content.writer("shared"):
                    pass
            assert caught.value.kind is Kind.UNAVAILABLE

    run(body)


def test_image_records(run: Run) -> None:
    async def body(engine: Engine) -> None:
        target = Descriptor("application/vnd.oci.image.manifest.v1+json", digest_of(b"m"), 1, {"x": "y"})
        made = await engine.images.create(ImageRecord("docker.io/library/a:1", target, {"kind": "old"}))
        assert made.created_at_ns
        assert made.target == target
        await fails(Kind.ALREADY_EXISTS, engine.images.create(ImageRecord("docker.io/library/a:1", target)))
        other = Descriptor("application/vnd.oci.image.index.v1+json", digest_of(b"n"), 2)
        await engine.images.create(ImageRecord("docker.io/library/b:1", other))
        updated = await engine.images.update(ImageRecord("docker.io/library/a:1", other), fields=["target"])
        assert (updated.target, dict(updated.labels)) == (other, {"kind": "old"})
        by_digest = await engine.images.list([f"target.digest=={other.digest}"])
        assert [image.name for image in by_digest] == ["docker.io/library/a:1", "docker.io/library/b:1"]
        by_name = await engine.images.list(["name~=/b:[0-9]+$/", 'labels."kind"==new'])
        assert [image.name for image in by_name] == ["docker.io/library/b:1"]
        error = await fails(Kind.INVALID_ARGUMENT, engine.images.list(["name=~x"]))
        assert "operator" in error.message
        await engine.images.delete("docker.io/library/a:1", sync=True)
        await fails(Kind.NOT_FOUND, engine.images.get("docker.io/library/a:1"))

    run(body)


def test_container_records(run: Run) -> None:
    async def body(engine: Engine) -> None:
        options = AnyValue("containerd.runc.v1.Options", b"\x32\x04runc")
        record = ContainerRecord(
            "box-1",
            image="docker.io/library/a:1",
            labels={"a": "1"},
            runtime_options=options,
            spec={"ociVersion": "1.1.0", "hostname": "x", "nested": {"list": [1, 2]}},
            extensions={"io.wharf": AnyValue("io.wharf.Thing", b"bytes")},
        )
        made = await engine.containers.create(record)
        assert made.created_at_ns
        found = await engine.containers.get("box-1")
        assert (found.spec, found.runtime_options, found.extensions) == (record.spec, options, record.extensions)
        await fails(Kind.ALREADY_EXISTS, engine.containers.create(record))
        changed = await engine.containers.update(
            ContainerRecord("box-1", labels={"b": "2"}, spec={"hostname": "y"}), fields=["labels.b", "spec"]
        )
        assert (dict(changed.labels), changed.spec, changed.image) == (
            {"a": "1", "b": "2"},
            {"hostname": "y"},
            "docker.io/library/a:1",
        )
        assert [one.id for one in await engine.containers.list(["labels.b==2"])] == ["box-1"]
        assert await engine.containers.list(["runtime.name==other"]) == []
        await fails(Kind.INVALID_ARGUMENT, engine.containers.create(ContainerRecord("../x", spec={"a": 1})))
        await engine.containers.delete("box-1")
        await fails(Kind.NOT_FOUND, engine.containers.delete("box-1"))

    run(body)


def test_namespaces_separate_their_objects(connect: Connect, run: Run) -> None:
    async def body(engine: Engine) -> None:
        name = f"n{uuid4().hex[:12]}"
        await engine.namespaces.create(name, {"a": "1"})
        await fails(Kind.ALREADY_EXISTS, engine.namespaces.create(name))
        other = connect(name, "overlayfs")
        try:
            await other.images.create(ImageRecord("x:1", Descriptor("m", digest_of(b"m"), 1)))
            assert await engine.images.list() == []
            await fails(Kind.FAILED_PRECONDITION, engine.namespaces.delete(name))
            await other.images.delete("x:1", sync=True)
        finally:
            await other.close()
        await engine.namespaces.update_labels(name, {"b": "2", "a": None})
        assert (await engine.namespaces.list())[name] == {"b": "2"}
        await engine.namespaces.delete(name)
        assert await engine.namespaces.get(name) == {}
        assert name not in await engine.namespaces.list()
        await fails(Kind.NOT_FOUND, engine.namespaces.delete(name))

    run(body)


def test_unreferenced_objects_are_collected(connect: Connect, run: Run) -> None:
    """A manifest under an image references its layer and, by label, a snapshot; without the image all are collected."""

    async def body(engine: Engine) -> None:
        manifest, layer, loose = b"manifest", b"layer", b"loose"
        async with engine.leases.acquire(ttl=timedelta(hours=1)) as lease:
            await engine.content.write_blob("l", layer, digest=digest_of(layer))
            await engine.content.write_blob(
                "m",
                manifest,
                digest=digest_of(manifest),
                labels={
                    "containerd.io/gc.ref.content.l.0": digest_of(layer),
                    "containerd.io/gc.ref.snapshot.native": "top",
                },
            )
            await engine.content.write_blob("x", loose, digest=digest_of(loose))
            native = connect(engine.namespace, "native")
            await native.snapshots.prepare("k", "")
            await native.snapshots.commit("below", "k")
            await native.snapshots.prepare("k", "below")
            await native.snapshots.commit("top", "k")
            target = Descriptor("application/vnd.oci.image.manifest.v1+json", digest_of(manifest), len(manifest))
            await engine.images.create(ImageRecord("kept:1", target))
            held = {(one.type, one.id) for one in await engine.leases.resources(lease.id)}
            assert {("content", digest_of(loose)), ("snapshots/native", "top")} <= held
        other = await engine.leases.create()
        await engine.leases.delete(other.id, sync=True)
        await fails(Kind.NOT_FOUND, engine.content.info(digest_of(loose)))
        assert await engine.content.read_all(digest_of(layer)) == layer
        assert {info.name async for info in native.snapshots.walk()} == {"below", "top"}
        await engine.images.delete("kept:1", sync=True)
        assert [info async for info in engine.content.walk()] == []
        assert [info async for info in native.snapshots.walk()] == []
        await native.close()

    run(body)


def test_events_come_in_order_and_by_filter(run: Run) -> None:
    async def body(engine: Engine) -> None:
        here = f'namespace=="{engine.namespace}"'
        wanted = (f'{here},topic~="^/(containers|namespaces)/"', f"{here},event.name==docker.io/library/e:2")
        async with engine.events.subscribe(*wanted) as subscription:
            for number in (1, 2):
                target = Descriptor("m", digest_of(b"m"), 1)
                await engine.images.create(ImageRecord(f"docker.io/library/e:{number}", target, {"n": str(number)}))
            await engine.containers.create(ContainerRecord("c", spec={"a": 1}))
            await engine.containers.delete("c")
            await engine.events.publish("/containers/own", event_messages_pb2.TaskOOM(container_id="c"))
            async with asyncio.timeout(60):
                events = [await anext(subscription) for _ in range(4)]
        assert [event.topic for event in events] == [
            "/images/create",
            "/containers/create",
            "/containers/delete",
            "/containers/own",
        ]
        assert isinstance(events[0].event, images_pb2.ImageCreate)
        assert dict(events[0].event.labels) == {"n": "2"}
        assert events[3].event == event_messages_pb2.TaskOOM(container_id="c")
        await fails(Kind.INVALID_ARGUMENT, engine.events.publish("no/slash", event_messages_pb2.TaskOOM()))

    run(body)


def layer_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("dir")
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o750, 1_500_000_000
        archive.addfile(folder)
        file = tarfile.TarInfo("dir/file")
        file.size, file.mode, file.uid, file.gid, file.mtime = 5, 0o640, 7, 8, 1_500_000_000
        archive.addfile(file, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("dir/hard")
        link.type, link.linkname = tarfile.LNKTYPE, "dir/file"
        link.mode, link.uid, link.gid, link.mtime = file.mode, file.uid, file.gid, file.mtime
        archive.addfile(link)
    return buffer.getvalue()


def change_tree(root: Path) -> None:
    (root / "dir/new").write_text("new")
    (root / "dir/hard").unlink()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
def test_layers_are_applied_and_written_again(connect: Connect, run: Run) -> None:
    plain = layer_tar()
    blob = gzip.compress(plain, mtime=0)

    async def body(engine: Engine) -> None:
        media_type = "application/vnd.oci.image.layer.v1.tar+gzip"
        async with engine.leases.acquire():
            await engine.content.write_blob("l", blob, digest=digest_of(blob))
            native = connect(engine.namespace, "native")
            try:
                (mount,) = await native.snapshots.prepare("k", "")
                applied = await engine.diff.apply(Descriptor(media_type, digest_of(blob), len(blob)), [mount])
                assert applied.digest == digest_of(plain)
                found = os.stat(f"{mount.source}/dir/file")
                assert (found.st_mode & 0o7777, found.st_uid, found.st_gid, found.st_nlink) == (0o640, 7, 8, 2)
                assert found.st_mtime_ns == 1_500_000_000 * 10**9
                await native.snapshots.commit("base", "k")
                assert (await native.snapshots.stat("base")).kind is SnapshotKind.COMMITTED
                upper = await native.snapshots.prepare("rw", "base")
                change_tree(Path(upper[0].source))
                lower = await native.snapshots.view("ro", "base")
                made = await engine.diff.diff(lower, upper, media_type=media_type)
                packed = await engine.content.read_all(made.digest)
                assert len(packed) == made.size
                with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                    assert {"dir/new", "dir/.wh.hard"} <= set(archive.getnames())
                labels = (await engine.content.info(made.digest)).labels
                assert labels["containerd.io/uncompressed"] == digest_of(gzip.decompress(packed))
            finally:
                await native.close()

    run(body)


def test_calls_without_a_namespace_or_with_a_bad_one_are_refused(connect: Connect) -> None:
    async def main() -> None:
        engine = connect("../x", "overlayfs")
        try:
            await fails(Kind.INVALID_ARGUMENT, engine.images.list())
        finally:
            await engine.close()

    asyncio.run(main())
