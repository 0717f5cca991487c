"""Blobs and layers with our supervisor, a stock containerd, and the fake of the unit tests."""

import asyncio
import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from engine.api.client import Engine
from engine.api.pb import content_pb2
from engine.api.types import Descriptor, SnapshotKind
from engine.common.errors import Kind, WharfError
from engine.supervisor.tests.calls import Connect, Run, fails
from engine.supervisor.tests.processes import digest_of


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
