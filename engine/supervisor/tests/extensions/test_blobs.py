"""Blobs that are written, read, resumed and refused: through descriptors, and by Content.Write and Content.Read."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from engine.api.client import Engine
from engine.api.rpc import current_lease
from engine.api.services.content import Writer
from engine.common.errors import Kind, WharfError
from engine.common.system import fds
from engine.supervisor.tests import processes
from engine.supervisor.tests.extensions.ways import Way
from engine.supervisor.tests.processes import digest_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MIB = 1 << 20


def test_a_blob_comes_and_goes(way: Way) -> None:
    data = os.urandom(5 * MIB + 17)

    async def body(engine: Engine) -> None:
        async with engine.content.writer("r", total=len(data)) as writer:
            await writer.write(data[:100])  # small: sent over gRPC
            await writer.write(data[100 : 2 * MIB])
            await writer.write(data[2 * MIB : 2 * MIB + 5])
            await writer.write(data[2 * MIB + 5 :])
            assert writer.offset == len(data)
            assert await writer.current_digest() == digest_of(data)
            assert await writer.commit(size=len(data), digest=digest_of(data)) == digest_of(data)
        assert b"".join([piece async for piece in engine.content.read(digest_of(data))]) == data
        assert (
            b"".join([piece async for piece in engine.content.read(digest_of(data), offset=3 * MIB)])
            == (data[3 * MIB :])
        )
        with pytest.raises(WharfError) as caught:
            _ = [piece async for piece in engine.content.read(digest_of(data), offset=6 * MIB)]
        assert caught.value.kind is Kind.OUT_OF_RANGE
        with pytest.raises(WharfError) as caught:
            _ = [piece async for piece in engine.content.read(digest_of(b"other"))]
        assert caught.value.kind is Kind.NOT_FOUND

    way.run(body)


def test_a_write_is_resumed_and_restarted(way: Way) -> None:
    data, other = os.urandom(3 * MIB), os.urandom(2 * MIB)

    async def body(engine: Engine) -> None:
        async with engine.content.writer("r") as writer:
            await writer.write(data[:MIB])
        assert (await engine.content.status("r")).offset == MIB
        async with engine.content.writer("r") as writer:
            assert writer.offset == MIB
            await writer.write(data[MIB:])
            await writer.truncate()
            await writer.write(other[:MIB])
            await writer.write(other[MIB:])
            assert await writer.commit(size=len(other), digest=digest_of(other)) == digest_of(other)
        async with engine.content.writer("r") as writer:
            assert writer.offset == 0
            await writer.write(data)
            await writer.truncate()
            assert await writer.current_digest() == digest_of(b"")
            await writer.write(data)
            await writer.commit(size=len(data), digest=digest_of(data))

    way.run(body)


def test_a_blob_with_wrong_size_or_digest(way: Way) -> None:
    data = os.urandom(MIB)

    async def body(engine: Engine) -> None:
        for words in ({"digest": digest_of(b"other")}, {"size": 5}, {"size": MIB + 1}):
            async with engine.content.writer("r") as writer:
                await writer.truncate()
                await writer.write(data)
                with pytest.raises(WharfError) as caught:
                    await writer.commit(**words)
                assert caught.value.kind is Kind.FAILED_PRECONDITION
        with pytest.raises(WharfError):
            await engine.content.info(digest_of(data))

    way.run(body)


def test_a_file_that_is_longer_than_reported(own: processes.Server) -> None:
    data, extended = os.urandom(MIB), Way(own, extended=True)

    async def body(engine: Engine) -> None:
        async with engine.content.writer("r") as writer:
            await writer.write(data)
            await writer.current_digest()
            with extended.ingest(engine, "r").open("ab") as file:
                file.write(b"x")
            with pytest.raises(WharfError) as caught:
                await writer.commit(size=len(data), digest=digest_of(data))
            assert caught.value.kind is Kind.FAILED_PRECONDITION
        with pytest.raises(WharfError):
            await engine.content.info(digest_of(data))

    extended.run(body)


def test_a_write_that_fails_leaves_nothing_behind(own: processes.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    data, extended = os.urandom(2 * MIB), Way(own, extended=True)

    def full(fd: int, data: memoryview, offset: int) -> None:
        raise OSError(28, "No space left on device")

    async def body(engine: Engine) -> None:
        async with engine.content.writer("r") as writer:
            await writer.write(data[:MIB])
            await writer.current_digest()
            with monkeypatch.context() as patch:
                patch.setattr(fds, "pwrite_all", full)
                await writer.write(data[MIB:])
                with pytest.raises(WharfError) as caught:
                    await writer.current_digest()
            assert caught.value.kind is Kind.RESOURCE_EXHAUSTED
            assert caught.value.message == "write r: no space left on device"
        assert extended.ingest(engine, "r").stat().st_size == 0
        async with engine.content.writer("r") as writer:
            await writer.write(data)
            await writer.commit(size=len(data), digest=digest_of(data))

    extended.run(body)


def test_a_descriptor_socket_that_is_gone(own: processes.Server) -> None:
    data = os.urandom(2 * MIB)

    async def body(engine: Engine) -> None:
        engine.use(replace(engine.extensions, descriptors=str(own.place / "nothing")))
        async with engine.content.writer("r") as writer:
            await writer.write(data)
            await writer.commit(size=len(data), digest=digest_of(data))
        assert b"".join([piece async for piece in engine.content.read(digest_of(data))]) == data

    Way(own, extended=True).run(body)


@pytest.mark.parametrize("extended", [True, False], ids=["extension", "standard"])
def test_a_killed_supervisor_keeps_acknowledged_writes(extended: bool) -> None:
    data, half = os.urandom(4 * MIB), os.urandom(2 * MIB)

    def call(server: processes.Server, body: Callable[[Engine], Awaitable[None]]) -> None:
        async def main() -> None:
            async with Way(server, extended=extended).connected("t") as engine:
                current_lease.set("kept")
                await body(engine)

        asyncio.run(main())

    with processes.server("wharf") as server:

        async def write_rest(writer: Writer) -> None:
            """The plain write fails at once, that through a descriptor when the server is asked."""
            await writer.write(half[MIB:])
            await writer.current_digest()

        async def write(engine: Engine) -> None:
            await engine.leases.create("kept")
            async with engine.content.writer("whole") as writer:
                await writer.write(data)
                await writer.commit(size=len(data), digest=digest_of(data))
            async with engine.content.writer("half") as writer:
                await writer.write(half[:MIB])
                await writer.current_digest()
                server.kill()
                with pytest.raises(WharfError):
                    await write_rest(writer)

        async def again(engine: Engine) -> None:
            assert b"".join([piece async for piece in engine.content.read(digest_of(data))]) == data
            async with engine.content.writer("half") as writer:
                assert writer.offset in (MIB, 2 * MIB)
                if writer.offset < len(half):
                    await writer.write(half[writer.offset :])
                await writer.commit(size=len(half), digest=digest_of(half))

        call(server, write)
        server.restart()
        call(server, again)


def test_no_descriptor_leaks_after_any_cancellation(way: Way) -> None:
    """Cancelled at any step, and again while it is closed, with bytes to be discarded."""
    data = os.urandom(MIB)

    def open_here() -> list[str]:
        found = []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
        return [path for path in found if "/ingest/" in path]

    async def write(engine: Engine, ref: str) -> None:
        async with engine.content.writer(ref, total=3 * MIB) as writer:
            await writer.write(data)
            await writer.write(data)
            await writer.truncate()
            await writer.write(data)
            await writer.truncate()

    async def body(engine: Engine) -> None:
        for steps in range(60):
            writing = asyncio.create_task(write(engine, f"left-{steps}"))
            for _ in range(steps):
                await asyncio.sleep(0.0005 * (steps % 3))
            writing.cancel()
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait((writing,))
        for _ in range(600):
            if not open_here():
                break
            await asyncio.sleep(0.1)
        assert not open_here()

    way.run(body)
