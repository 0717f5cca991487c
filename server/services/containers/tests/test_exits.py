"""News of an end that came late: the container was started again meanwhile. A stand-in for the engine, as the moment
between its answer and the container's lock can't be met from outside."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine.api.types import Exit, ProcessState, TaskStatus
from engine.errors import Kind, WharfError
from server.services.containers import exits
from server.services.containers.hooks import Hooks
from server.services.containers.room import Room
from server.services.containers.tests.test_life import make


class Tasks:
    """``status`` None: there is no task."""

    def __init__(self, status: TaskStatus | None) -> None:
        self.status = status

    async def get(self, container_id: str) -> ProcessState:
        if self.status is None:
            raise WharfError(Kind.NOT_FOUND, "no running task found")
        return ProcessState(container_id, id="", pid=2, status=self.status)


class Stopped(Exception):
    """The end is taken for true."""


def room_with(status: TaskStatus | None) -> Room:
    async def ended(_: str) -> None:
        raise Stopped

    room = SimpleNamespace(
        engine=SimpleNamespace(tasks=Tasks(status)), hooks=Hooks(), stdio=SimpleNamespace(ended=ended)
    )
    return cast(Room, cast(Any, room))


@pytest.mark.parametrize("status", exits.ALIVE)
@pytest.mark.parametrize("end", [None, Exit(0, 137, 1), Exit(1, 0, 1)])
def test_a_later_run_goes_on(end: Exit | None, status: TaskStatus) -> None:
    async def scenario() -> None:
        container = make()
        container.state.running, container.state.pid = True, 2
        await exits.ended(room_with(status), container, end)
        assert (container.state.running, container.state.pid) == (True, 2)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("end", "status"), [(None, None), (None, TaskStatus.STOPPED), (Exit(2, 0, 1), TaskStatus.RUNNING)]
)
def test_an_end_that_is_this_runs(end: Exit | None, status: TaskStatus | None) -> None:
    async def scenario() -> None:
        container = make()
        container.state.running, container.state.pid = True, 2
        with pytest.raises(Stopped):
            await exits.ended(room_with(status), container, end)

    asyncio.run(scenario())
