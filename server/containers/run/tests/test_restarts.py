"""Restarts by policy: after which failures they are repeated, the container's state meanwhile, and that none begins
before recovery is complete. The engine is simulated, for failures at given times."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.common.errors import Kind, WharfError, internal
from server.containers.context import ContainerContext
from server.containers.hooks import Hooks
from server.containers.model import Container
from server.containers.restarts import Restarts
from server.containers.run import exits, start
from server.containers.run.failures import is_temporary, start_failure
from server.containers.run.tests.test_life import make
from server.containers.waiters import Waiters


def room_for(container: Container) -> ContainerContext:
    async def nothing(*_: object) -> None:
        return

    restarts = {container.id: Restarts()}
    context = SimpleNamespace(
        gpus=None,
        hooks=Hooks(),
        restarts=restarts,
        restarts_of=lambda _: restarts[container.id],
        recovered=asyncio.Event(),
        shutting_down=False,
        wait_cleaned=nothing,
        save=nothing,
        save_state=nothing,
        waiters=Waiters(),
    )
    return cast(ContainerContext, cast(Any, context))


def restarting() -> Container:
    container = make()
    state = container.state
    state.running = state.restarting = True
    state.exit_code, container.restart_count = 7, 3
    return container


Starting = Callable[..., Coroutine[Any, Any, None]]


def scripted(*outcomes: Exception | None) -> tuple[Starting, list[Container]]:
    """A start that fails with each of the errors in turn, and the records at each attempt."""
    left, seen = list(outcomes), list[Container]()

    async def begin(_context: ContainerContext, container: Container, *_: object, **__: object) -> None:
        seen.append(Container.from_doc(container.to_doc()))
        if (error := left.pop(0)) is not None:
            raise error
        container.state.restarting = False

    return begin, seen


def test_a_temporary_failure_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = [WharfError(Kind.UNAVAILABLE, "away"), OSError(22, "Invalid argument"), WharfError(Kind.CANCELLED, "x")]
    begin, seen = scripted(*faults, None)
    monkeypatch.setattr(start, "_start", begin)

    async def scenario() -> None:
        container = restarting()
        context = room_for(container)
        context.recovered.set()
        await exits._restart(context, container, 0.0)
        assert (container.state.running, container.state.restarting, container.restart_count) == (True, False, 3)

    asyncio.run(scenario())
    assert [(at.state.status, at.state.exit_code) for at in seen] == [("restarting", 7)] * 4


def test_an_error_of_the_runtime_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in dockerd the container has exited, with the exit code of its last run and the runtime's message."""
    begin, seen = scripted(start._NotStarted(internal("no such device"), 128))
    monkeypatch.setattr(start, "_start", begin)

    async def scenario() -> None:
        container = restarting()
        container.state.started_ns = 1
        context = room_for(container)
        context.recovered.set()
        await exits._restart(context, container, 0.0)
        state = container.state
        assert (state.status, state.exit_code, state.error) == ("exited", 7, "no such device")

    asyncio.run(scenario())
    assert len(seen) == 1


def test_a_stop_ends_the_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, seen = scripted(*(WharfError(Kind.UNAVAILABLE, "away") for _ in range(100)))
    monkeypatch.setattr(start, "_start", begin)

    async def scenario() -> None:
        container = restarting()
        container.state.started_ns = 1
        context = room_for(container)
        context.recovered.set()
        trying = asyncio.create_task(exits._restart(context, container, 0.0))
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(seen) == 1
        context.restarts_of(container).cancel()
        await trying
        assert (container.state.status, container.state.exit_code) == ("exited", 7)

    asyncio.run(scenario())


def test_no_restart_before_recovery_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, seen = scripted(None)
    monkeypatch.setattr(start, "_start", begin)

    async def scenario() -> None:
        container = restarting()
        context = room_for(container)
        trying = asyncio.create_task(exits._restart(context, container, 0.0))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not seen
        context.recovered.set()
        await trying

    asyncio.run(scenario())
    assert len(seen) == 1


@pytest.mark.parametrize("kind", [Kind.UNAVAILABLE, Kind.RESOURCE_EXHAUSTED, Kind.INVALID_ARGUMENT, Kind.INTERNAL])
def test_a_temporary_cause_is_temporary(kind: Kind) -> None:
    error = WharfError(kind, "the engine said no")
    _, failure = start_failure(error)
    failure.__cause__ = error
    assert is_temporary(failure) is (kind in (Kind.UNAVAILABLE, Kind.RESOURCE_EXHAUSTED))
