"""The log of one task's container, for ``docker service logs``."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from engine.common.errors import WharfError
from server.containers.logs.format import Query
from server.containers.model import Container
from server.swarm.agent.neighbours import Neighbours
from server.swarm.agent.runner import find_container
from server.swarm.agent.taskcontainer import NODE_LABEL, SERVICE_LABEL, TASK_LABEL
from server.swarm.model.objects import Task


async def task_log(neighbours: Neighbours, task: Task, query: Query) -> AsyncIterator[bytes]:
    """The log in chunks of whole records, as ``GET /containers/{id}/logs`` writes them; details also have the ids of
    node, service and task. ``framed`` of the query: false for a task with a terminal.

    With ``follow``, waits for the container's start, and ends when the container stops or is removed. Without it, a
    task whose container isn't on this node, or whose log can't be read, has no records, as in dockerd.
    """
    attributes = {NODE_LABEL: task.node_id, SERVICE_LABEL: task.service_id, TASK_LABEL: task.id}
    query = replace(query, attributes={**query.attributes, **attributes})
    container = await _started(neighbours, task.id) if query.follow else find_container(neighbours, task.id)
    if container is None:
        return
    try:
        chunks = neighbours.logs.open(container, query)
    except WharfError:
        return
    async for chunk in chunks:
        yield chunk


async def _started(neighbours: Neighbours, task_id: str) -> Container:
    """The container of a task when it was started at least once."""
    started = asyncio.Event()

    def on_start(container: Container) -> None:
        if container.labels.get(TASK_LABEL) == task_id:
            started.set()

    hooks = neighbours.containers.hooks.started
    hooks.append(on_start)
    try:
        while True:
            container = find_container(neighbours, task_id)
            if container is not None and container.state.status != "created":
                return container
            started.clear()
            await started.wait()
    finally:
        hooks.remove(on_start)
