"""The agent of this node: follows the assignments, and runs one runner for each task."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from engine.common.errors import Kind, WharfError
from server.containers.logs.format import Query
from server.containers.model import Container
from server.swarm.agent.attachments import Attachments, is_attachment
from server.swarm.agent.description import describe
from server.swarm.agent.dispatcher import Assignments, Dispatcher
from server.swarm.agent.files import PrivateFiles
from server.swarm.agent.imagereport import report_images
from server.swarm.agent.images import Peers, Pulls
from server.swarm.agent.logs import task_log
from server.swarm.agent.neighbours import Neighbours
from server.swarm.agent.networks import NetworkSync
from server.swarm.agent.reports import Reports
from server.swarm.agent.runner import Runner, Surroundings, find_container, remove
from server.swarm.agent.taskcontainer import TASK_LABEL
from server.swarm.model.objects import Task

log = logging.getLogger(__name__)

#: Seconds before the managers are asked again, when none of them can be reached.
_RETRY = 1.0
#: Seconds between two looks at what this node is (SwarmKit's nodeUpdatePeriod, agent/agent.go).
_LOOK = 20.0


class Agent:
    """``run`` works until it is cancelled; the containers of the tasks go on then, and the next ``run`` adopts them."""

    def __init__(self, dispatcher: Dispatcher, neighbours: Neighbours, peers: Peers | None = None) -> None:
        """``peers``: see ``Pulls``."""
        self._peers = peers
        self._dispatcher = dispatcher
        self._neighbours = neighbours
        self._files = PrivateFiles(neighbours.exec_root, neighbours.remap)
        self._networks = NetworkSync(neighbours.overlay, dispatcher.network_keys)
        #: Attaches containers of users to networks of the swarm.
        self.attachments = Attachments(dispatcher, neighbours.networks.is_attached, self._networks.check)

    async def run(self) -> None:
        """Follows the managers. Call it when the containers are recovered (``Containers.open``)."""
        node = await describe(self._neighbours)
        async with asyncio.TaskGroup() as group:
            reports = Reports(self._dispatcher)
            shared = Surroundings(
                self._neighbours,
                self._dispatcher,
                reports,
                Pulls(self._neighbours.images, self._dispatcher, self._peers),
                self._files,
                node,
            )
            session = _Session(shared, self._networks, self.attachments, group)
            group.create_task(reports.run(), name="swarm-reports")
            group.create_task(session.follow(), name="swarm-assignments")
            group.create_task(session.beat(), name="swarm-heartbeats")
            group.create_task(session.observe(), name="swarm-description")
            references = self._neighbours.images.references()
            group.create_task(report_images(references, self._dispatcher), name="swarm-images")

    def logs(self, task: Task, query: Query) -> AsyncIterator[bytes]:
        """See ``logs.task_log``."""
        return task_log(self._neighbours, task, query)


async def clear(neighbours: Neighbours) -> None:
    """The node leaves the swarm, and its agent has ended: removes the containers of all tasks, their files, and the
    networks of the swarm."""
    async with asyncio.TaskGroup() as group:
        for container in _containers(neighbours).values():
            group.create_task(remove(neighbours, container))
    await PrivateFiles(neighbours.exec_root, neighbours.remap).sweep(())
    if neighbours.overlay is not None:
        await neighbours.overlay.close_swarm()


def _containers(neighbours: Neighbours) -> dict[str, Container]:
    """The containers of tasks, by the id of the task."""
    managed = (container for container in neighbours.containers.registry if container.managed)
    return {container.labels.get(TASK_LABEL, container.id): container for container in managed}


class _Session:
    """The runners of the tasks. They are tasks of ``group``."""

    def __init__(
        self, shared: Surroundings, networks: NetworkSync, attachments: Attachments, group: asyncio.TaskGroup
    ) -> None:
        self._shared = shared
        self._networks = networks
        self._attachments = attachments
        self._group = group
        self._runners: dict[str, Runner] = {}
        # The containers that an earlier daemon has left, until their tasks are assigned.
        self._found = _containers(shared.neighbours)
        self._first = True

    async def follow(self) -> None:
        """Each session with the managers begins with the description of this node."""
        logged = ""
        while True:
            try:
                await self._shared.dispatcher.describe(self._shared.node)
                async for assignments in self._shared.dispatcher.assignments():
                    logged = ""
                    await self._apply(assignments)
            except WharfError as error:
                if error.message != logged:
                    level = logging.WARNING if error.kind is Kind.UNAVAILABLE else logging.ERROR
                    log.log(level, "the assignments can't be followed: %s", error)
                logged = error.message
            except Exception:
                log.exception("the assignments can't be followed")
            await asyncio.sleep(_RETRY)

    async def beat(self) -> None:
        """Keeps the session alive. One that is over, on a manager that was away, is begun again: the assignments go on
        meanwhile."""
        while True:
            pause = _RETRY
            try:
                pause = await self._shared.dispatcher.heartbeat()
            except WharfError as error:
                if error.kind is Kind.NOT_FOUND:
                    with contextlib.suppress(WharfError):
                        await self._shared.dispatcher.describe(self._shared.node)
            await asyncio.sleep(pause)

    async def observe(self) -> None:
        """Reports a change of this node: a plugin that is used for the first time, a label, a GPU."""
        shared = self._shared
        while True:
            await asyncio.sleep(_LOOK)
            try:
                node = await describe(shared.neighbours)
                if node != shared.node:
                    await shared.dispatcher.describe(node)
                    shared.node = node
            except (WharfError, OSError) as error:
                log.warning("this node can't be described again: %s", error)

    async def _apply(self, assignments: Assignments) -> None:
        await self._networks.apply(assignments)
        await self._attachments.apply(assignments)
        for id, runner in self._runners.items():
            if id not in assignments.tasks:
                self._shared.reports.discard(id)
                runner.update(None, assignments)
        for id, task in assignments.tasks.items():
            if is_attachment(task):
                continue
            if (known := self._runners.get(id)) is not None:
                known.update(task, assignments)
                continue
            container = self._found.pop(id, None) if self._first else find_container(self._shared.neighbours, id)
            runner = self._runners[id] = Runner(self._shared, task, assignments, container)
            self._group.create_task(self._run(id, runner), name=f"swarm-task {id}")
        if self._first:
            self._first = False
            await self._shared.files.sweep(assignments.tasks)
            for id, container in self._found.items():
                self._group.create_task(self._remove_orphan(id, container), name=f"swarm-orphan {id}")
            self._found = {}
        await self._networks.discard_unused()

    async def _run(self, id: str, runner: Runner) -> None:
        await runner.run()
        del self._runners[id]
        await self._networks.discard_unused()

    async def _remove_orphan(self, id: str, container: Container) -> None:
        """The task of a container was removed while this daemon did not run."""
        log.info("container=%s is removed: its task %s no longer exists", container.id, id)
        try:
            await self._shared.neighbours.containers.stop(container.id)
        except WharfError as error:
            if error.kind is not Kind.NOT_MODIFIED:
                log.error("container=%s of a removed task is not stopped: %s", container.id, error)
        await remove(self._shared.neighbours, container)
        await self._networks.discard_unused()
