"""Layers that are applied while their bytes arrive, written through a descriptor and by Content.Write."""

import asyncio
import gzip
import io
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.api.client import Engine
from engine.api.extensions import watch_extraction
from engine.api.services.content import Writer
from engine.api.types import Descriptor
from engine.common.errors import Kind, WharfError
from engine.shim.tests.harness import until
from engine.supervisor.tests import processes
from engine.supervisor.tests.extensions.ways import Way
from engine.supervisor.tests.processes import digest_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

TAR = "application/vnd.oci.image.layer.v1.tar"
REF = "arriving"


def archive() -> bytes:
    """A tar of two large files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name in ("first", "second"):
            info = tarfile.TarInfo(name)
            info.size = 3 << 20
            made.addfile(info, io.BytesIO(os.urandom(info.size)))
    return buffer.getvalue()


async def exists(path: Path, *, wanted: bool = True) -> None:
    await asyncio.to_thread(until, lambda: path.exists() is wanted, f"{path}: {wanted}")


@asynccontextmanager
async def half(way: Way, blob: bytes) -> AsyncIterator[tuple[Engine, Writer, Path, asyncio.Task[str]]]:
    """A half-written ingest, and its layer being applied: the first file exists."""
    async with way.connected() as engine, engine.leases.acquire(), engine.content.writer(REF) as writer:
        await writer.write(blob[: len(blob) // 2 + (1 << 20)])
        mounts = await engine.snapshots.prepare("k", "")

        async def apply() -> str:
            layer = Descriptor(TAR, digest_of(blob), len(blob))
            return (await engine.diff.apply(layer, mounts, arriving=REF)).digest

        target = mounts[0].source  # without lower layers it is a bind
        applying = asyncio.create_task(apply())
        await exists(Path(target, "first"))
        assert not applying.done(), applying.result()
        yield engine, writer, Path(target), applying
        if not applying.done():
            applying.cancel()
        await asyncio.wait((applying,))


@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_is_applied_while_it_arrives(own_way: Way, packed: bool) -> None:
    plain = archive()
    blob = gzip.compress(plain, 1, mtime=0) if packed else plain

    async def main() -> None:
        async with half(own_way, blob) as (_, writer, target, applying):
            assert not applying.done()
            await writer.write(blob[writer.offset :])
            await writer.commit(size=len(blob), digest=digest_of(blob))
            assert await applying == digest_of(plain)
            assert (target / "second").stat().st_size == 3 << 20

    asyncio.run(main())


@pytest.mark.parametrize("packed", [False, True])
def test_extraction_progress(own: processes.Server, packed: bool) -> None:
    blob = gzip.compress(archive(), 1, mtime=0) if packed else archive()

    async def main() -> None:
        async with half(Way(own, extended=True), blob) as (engine, writer, _, applying):
            reported: asyncio.Queue[int] = asyncio.Queue()
            path = engine.extensions.descriptors
            watching = asyncio.create_task(
                watch_extraction(path, engine.namespace, digest_of(blob), reported.put_nowait)
            )
            assert 0 < await reported.get() <= writer.offset
            watching.cancel()
            await writer.write(blob[writer.offset :])
            await writer.commit(size=len(blob), digest=digest_of(blob))
            await applying

    asyncio.run(main())


def test_a_write_that_ends_too_early(own_way: Way) -> None:
    async def main() -> None:
        async with half(own_way, archive()) as (_, writer, _, applying):
            await writer.close()
            with pytest.raises(WharfError) as caught:
                await applying
            assert caught.value.kind is Kind.UNAVAILABLE

    asyncio.run(main())


def test_a_write_that_restarts(own_way: Way) -> None:
    blob = archive()

    async def main() -> None:
        async with half(own_way, blob) as (_, writer, _, applying):
            await writer.truncate()
            await writer.write(blob)
            await writer.commit(size=len(blob), digest=digest_of(blob))
            with pytest.raises(WharfError) as caught:
                await applying
            assert caught.value.kind is Kind.UNAVAILABLE

    asyncio.run(main())


def test_a_cancelled_apply_ends(own_way: Way) -> None:
    """The worker ends with its caller, and the snapshot can be removed."""
    blob = archive()

    async def main() -> None:
        async with half(own_way, blob) as (engine, writer, target, applying):
            applying.cancel()
            await asyncio.wait((applying,))
            await engine.snapshots.remove("k")
            await exists(target, wanted=False)  # removed in the background
            await writer.write(blob[writer.offset :])
            await writer.commit(size=len(blob), digest=digest_of(blob))

    asyncio.run(main())


def test_apply_without_an_open_write(own: processes.Server) -> None:
    async def body(engine: Engine) -> None:
        mounts = await engine.snapshots.prepare("k", "")
        with pytest.raises(WharfError) as caught:
            await engine.diff.apply(Descriptor(TAR, "", 0), mounts, arriving=REF)
        assert caught.value.kind is Kind.UNAVAILABLE

    Way(own, extended=True).run(body)
