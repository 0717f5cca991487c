"""The resources of a build stay open until the last step that uses them has ended."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from engine.common.errors import Kind, WharfError
from server.builder.operations.lifetime import Lifetime
from server.builder.solver.output import StepOutput
from server.builder.solver.shared_tasks import SharedTasks


def test_a_joined_step_keeps_what_its_first_build_opened() -> None:
    async def check() -> None:
        ended: list[str] = []
        shared: SharedTasks[str] = SharedTasks()
        over = asyncio.Event()

        @contextlib.asynccontextmanager
        async def files() -> AsyncIterator[str]:
            yield "files"
            ended.append("files")

        async def build(number: int) -> str:
            async with Lifetime() as lifetime:
                lifetime.at_end(lambda: ended.append(f"lease {number}"))
                assert await lifetime.enter(files()) == "files"

                async def step(_: StepOutput) -> str:
                    async with lifetime.use():
                        await over.wait()
                        return f"made by {number}"

                return await shared.run("key", step)

        first = asyncio.create_task(build(1))
        await asyncio.sleep(0)
        second = asyncio.create_task(build(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert not ended
        over.set()
        assert await second == "made by 1"
        assert ended == ["files", "lease 1", "files", "lease 2"]

    asyncio.run(check())


def test_exits_run_once(caplog: pytest.LogCaptureFixture) -> None:
    async def check() -> None:
        ended: list[int] = []
        lifetime = Lifetime()
        lifetime.at_end(lambda: ended.append(1))

        async def broken() -> None:
            raise OSError("not removed")

        lifetime.at_end(broken)
        async with lifetime.use():
            await lifetime.release()
            await lifetime.release()
            assert not ended
        assert ended == [1]
        assert "could not be released" in caplog.text
        with pytest.raises(WharfError) as refused:
            async with lifetime.use():
                pass
        assert refused.value.kind is Kind.CANCELLED
        await lifetime.release()
        assert ended == [1]

    asyncio.run(check())
