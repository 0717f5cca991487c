"""``docker service logs``: the logs of a service's tasks, or of one task, in one stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from engine.common.errors import invalid
from server.containers.logs.format import Query
from server.swarm.model.objects import Task
from server.swarm.model.taskstate import TaskState
from server.swarm.operations.services import Services
from server.swarm.operations.tasks import Tasks
from server.swarm.state.state import State

#: The log of one task in chunks of whole records; with ``follow`` until its container stops.
TaskLog = Callable[[Task, Query], AsyncIterator[bytes]]

#: Chunks that wait for a client that reads slowly; the readers of the logs wait then.
_CHUNKS = 16


class ServiceLogs:
    """Records of one task keep their order; those of several tasks are merged as they come."""

    def __init__(self, state: State, services: Services, tasks: Tasks, log: TaskLog) -> None:
        self._state = state
        self._services = services
        self._tasks = tasks
        self._log = log

    def of_service(self, key: str, query: Query) -> tuple[AsyncIterator[bytes], bool]:
        """The stream, and whether its records have frames: they have none if the tasks have terminals.

        :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: no stream is selected.
        """
        service = self._services.get(key)
        container = service.spec.task_template.container_spec
        query = _framed(query, tty=container is not None and container.tty)
        return self._merged(service.id, query), query.framed

    def of_task(self, key: str, query: Query) -> tuple[AsyncIterator[bytes], bool]:
        """As ``of_service``, of one task."""
        task = self._tasks.get(key)
        container = task.spec.container_spec
        query = _framed(query, tty=container is not None and container.tty)
        return self._log(task, query), query.framed

    async def _merged(self, service_id: str, query: Query) -> AsyncIterator[bytes]:
        if not query.follow:
            for task in self._started(service_id):
                async for chunk in self._log(task, query):
                    yield chunk
            return
        chunks: asyncio.Queue[bytes] = asyncio.Queue(_CHUNKS)
        following = asyncio.create_task(self._follow(service_id, query, chunks), name="service-logs")
        try:
            while True:
                reading = asyncio.ensure_future(chunks.get())
                await asyncio.wait((reading, following), return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    following.result()
                    return
                yield reading.result()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, service_id: str, query: Query, chunks: "asyncio.Queue[bytes]") -> None:
        """Reads the logs of all tasks, also of those that start later, until the service and its tasks are removed."""
        subscription = self._state.subscribe()
        known: set[str] = set()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    for task in self._started(service_id):
                        if task.id not in known:
                            known.add(task.id)
                            group.create_task(self._pump(task, query, chunks))
                    if self._state.tables.services.find(service_id) is None and not self._started(service_id):
                        return
                    await subscription.next()
        finally:
            subscription.close()

    async def _pump(self, task: Task, query: Query, chunks: "asyncio.Queue[bytes]") -> None:
        async for chunk in self._log(task, query):
            await chunks.put(chunk)

    def _started(self, service_id: str) -> list[Task]:
        """The tasks that may have a log, the oldest first."""
        tasks = self._state.tables.tasks.of_service(service_id)
        found = [task for task in tasks if task.state >= TaskState.STARTING and task.status.container is not None]
        return sorted(found, key=lambda task: (task.created_ns, task.id))


def _framed(query: Query, *, tty: bool) -> Query:
    if not (query.stdout or query.stderr):
        raise invalid("must specify at least one of 'stdout' or 'stderr'")
    return replace(query, framed=not tty)
