"""The trimming of an idle daemon's heap."""

import asyncio

import pytest

from engine.common.system import heap, idle


def test_the_heap_is_trimmed_after_the_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop, gave = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(idle, "IDLE_SECONDS", 0.01)
        monkeypatch.setattr(heap, "trim", lambda: loop.call_soon_threadsafe(gave.set))
        idle.request_received()
        idle.request_received()
        await asyncio.wait_for(gave.wait(), 30)
        gave.clear()
        # Only another request starts the timer again.
        idle.request_received()
        await asyncio.wait_for(gave.wait(), 30)

    asyncio.run(scenario())
