"""The event of a pause may arrive when the container runs again already."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.api.types import TaskStatus
from server.containers.context import ContainerContext
from server.containers.hooks import Hooks
from server.containers.model import Container
from server.containers.run import monitor
from server.containers.run.tests.test_exits import Tasks
from server.containers.run.tests.test_life import make


@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.PAUSED, TaskStatus.STOPPED, None])
def test_a_late_event_is_compared_with_the_engines_state(status: TaskStatus | None, paused: bool) -> None:
    published: list[str] = []

    async def save(_: Container) -> None:
        return None

    context = SimpleNamespace(
        engine=SimpleNamespace(tasks=Tasks(status)),
        hooks=Hooks(),
        publish=lambda _container, action: published.append(action),
        save_state=save,
    )

    async def scenario() -> None:
        container = make()
        container.state.running, container.state.pid, container.state.paused = True, 2, not paused
        await monitor._on_pause(cast(ContainerContext, cast(Any, context)), container, paused=paused)
        so = status is (TaskStatus.PAUSED if paused else TaskStatus.RUNNING)
        assert container.state.paused is (paused if so else not paused)
        assert published == ((["pause"] if paused else ["unpause"]) if so else [])

    asyncio.run(scenario())


def test_events_wait_until_the_daemon_has_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recovery decides by lists: it would remove the network of a container that restarts meanwhile."""
    seen: list[object] = []

    class Events:
        async def __aenter__(self) -> "Events":
            return self

        async def __aexit__(self, *_: object) -> None:
            return

        async def __aiter__(self) -> AsyncIterator[str]:
            yield "an exit"
            await asyncio.Event().wait()

    async def scenario() -> None:
        engine = SimpleNamespace(namespace="x", events=SimpleNamespace(subscribe=lambda *_: Events()))
        context = SimpleNamespace(engine=engine, recovered=asyncio.Event())
        watch = monitor.Monitor(cast(ContainerContext, cast(Any, context)))
        monkeypatch.setattr(watch, "_dispatch", seen.append)
        await watch.start()
        try:
            for _ in range(100):
                await asyncio.sleep(0)
            assert seen == []
            context.recovered.set()
            for _ in range(100):
                await asyncio.sleep(0)
            assert seen == ["an exit"]
        finally:
            await watch.close()

    asyncio.run(scenario())
