"""Late exit events: the container was started again meanwhile. The engine is simulated, as a test of a real one can't
act between its answer and the container's lock."""

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.api.types import Exit, ProcessState, TaskStatus
from engine.common.errors import Kind, WharfError
from server.config import Config
from server.containers.context import ContainerContext
from server.containers.hooks import Hooks
from server.containers.model import Container
from server.containers.restarts import Restarts
from server.containers.run import exits
from server.containers.run.tests.test_life import make
from server.containers.waiters import Waiters


class Tasks:
    """A simulated engine. ``status`` None: there is no task."""

    def __init__(self, status: TaskStatus | None) -> None:
        self.status = status

    async def get(self, container_id: str) -> ProcessState:
        if self.status is None:
            raise WharfError(Kind.NOT_FOUND, "no running task found")
        return ProcessState(container_id, id="", pid=2, status=self.status)


class Stopped(Exception):
    """Raised where the exit is handled."""


def context_with(status: TaskStatus | None) -> ContainerContext:
    async def ended(_: str) -> None:
        raise Stopped

    context = SimpleNamespace(
        engine=SimpleNamespace(tasks=Tasks(status)), hooks=Hooks(), stdio=SimpleNamespace(ended=ended)
    )
    return cast(ContainerContext, cast(Any, context))


@pytest.mark.parametrize("status", exits.ALIVE)
@pytest.mark.parametrize("end", [None, Exit(0, 137, 1), Exit(1, 0, 1)])
def test_an_exit_of_an_earlier_run_is_ignored(end: Exit | None, status: TaskStatus) -> None:
    async def scenario() -> None:
        container = make()
        container.state.running, container.state.pid = True, 2
        await exits.on_exit(context_with(status), container, end)
        assert (container.state.running, container.state.pid) == (True, 2)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("end", "status"), [(None, None), (None, TaskStatus.STOPPED), (Exit(2, 0, 1), TaskStatus.RUNNING)]
)
def test_an_exit_of_this_run_is_handled(end: Exit | None, status: TaskStatus | None) -> None:
    async def scenario() -> None:
        container = make()
        container.state.running, container.state.pid = True, 2
        with pytest.raises(Stopped):
            await exits.on_exit(context_with(status), container, end)

    asyncio.run(scenario())


@pytest.mark.parametrize("full", [False, True])
def test_the_task_is_deleted_after_its_exit_is_saved(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    """Until then only the task has the exit status: a daemon that starts after a crash must find it."""
    done: list[str] = []

    async def nothing(*_: object) -> None:
        return

    async def delete(*_: object) -> None:
        done.append("delete")

    async def save(container: Container) -> None:
        await asyncio.sleep(0)  # lets a premature deletion of the task run
        done.append(f"save {container.state.exit_code}")
        if full:
            raise WharfError(Kind.INTERNAL, "disk I/O error")

    monkeypatch.setattr(exits, "_delete_task", delete)
    monkeypatch.setattr(exits, "_release", nothing)

    async def scenario() -> None:
        cleaning: list[asyncio.Task[Any]] = []
        context = SimpleNamespace(
            hooks=Hooks(),
            stdio=SimpleNamespace(ended=nothing),
            shares=None,
            clean=lambda _, work: cleaning.append(asyncio.create_task(work)),
            restarts_of=lambda _: Restarts(),
            shutting_down=True,
            config=Config(),
            publish=lambda *_: None,
            save_state=save,
            waiters=Waiters(),
            spawn=lambda work, _: work.close(),
        )
        container = make()
        container.state.running, container.state.pid = True, 2
        with pytest.raises(WharfError) if full else contextlib.nullcontext():
            await exits.on_exit(cast(ContainerContext, cast(Any, context)), container, Exit(2, 7, 1))
        await asyncio.gather(*cleaning)
        assert done == ["save 7", "delete"]

    asyncio.run(scenario())
