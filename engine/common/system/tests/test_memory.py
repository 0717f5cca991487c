"""When a daemon gives memory back."""

import asyncio

import pytest

from engine.common.system import heap, rest


def test_rest_comes_after_the_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        loop, gave = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(rest, "REST", 0.01)
        monkeypatch.setattr(heap, "trim", lambda: loop.call_soon_threadsafe(gave.set))
        rest.touched()
        rest.touched()
        await asyncio.wait_for(gave.wait(), 30)
        gave.clear()
        # Again only when there was something again.
        rest.touched()
        await asyncio.wait_for(gave.wait(), 30)

    asyncio.run(story())
