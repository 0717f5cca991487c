"""Values that concurrent callers compute together."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from engine.common.batches import Batches


class Computed:
    """Counts computations: the value of a key is the number of its batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.running = asyncio.Event()
        self.resume = asyncio.Event()
        self.error: Exception | None = None

    async def compute(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.batches.append(list(keys))
        number = len(self.batches)
        self.running.set()
        await self.resume.wait()
        if self.error is not None:
            raise self.error
        return {key: number for key in keys if key != "absent"}


def test_a_call_waits_for_the_next_computation_and_shares_it() -> None:
    async def play() -> None:
        computed = Computed()
        batches = Batches(computed.compute, most=10)
        first = asyncio.create_task(batches.get(("a", "b")))
        await computed.running.wait()
        others = [asyncio.create_task(batches.get(("a", "absent"))) for _ in range(3)]
        await asyncio.sleep(0)
        others.pop(0).cancel()
        computed.resume.set()
        assert await first == {"a": 1, "b": 1}
        assert await asyncio.gather(*others) == [{"a": 2, "absent": None}] * 2
        assert computed.batches == [["a", "b"], ["a", "absent"]]
        assert await batches.get(("a",)) == {"a": 3}
        assert await batches.get(()) == {}

    asyncio.run(play())


def test_a_batch_is_bounded() -> None:
    async def play() -> None:
        computed = Computed()
        computed.resume.set()
        await Batches(computed.compute, most=2).get(("a", "b", "c"))
        assert computed.batches == [["a", "b"], ["c"]]

    asyncio.run(play())


def test_an_error_reaches_the_callers_of_its_batch_only() -> None:
    async def play() -> None:
        computed = Computed()
        batches = Batches(computed.compute, most=10)
        first = asyncio.create_task(batches.get(("a",)))
        await computed.running.wait()
        computed.error = OSError("full")
        computed.resume.set()
        with pytest.raises(OSError, match="full"):
            await first
        computed.error = None
        assert await batches.get(("a",)) == {"a": 2}

    asyncio.run(play())
