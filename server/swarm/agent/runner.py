"""One task: from its assignment to the removal of its container, by what the managers want.

A task becomes PREPARING (image, secrets, container), READY, STARTING and RUNNING; with a health check, RUNNING when it
is healthy. Its end is COMPLETE, FAILED, REJECTED (before the start) or SHUTDOWN (wanted). After a restart of the daemon
the runner continues with the container that it finds.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from api_models.swarm.network import PortConfig
from api_models.swarm.node import NodeDescription
from api_models.swarm.task import ContainerStatus, PortStatus
from engine.common.errors import Kind, WharfError
from engine.common.threads import run_to_completion
from server.containers.hooks import Hook
from server.containers.model import Container
from server.containers.waiters import Condition, Waiter
from server.swarm.agent.dispatcher import Assignments, Dispatcher
from server.swarm.agent.drain import LIMIT, drain
from server.swarm.agent.files import PrivateFiles, payloads
from server.swarm.agent.hostconfig import HOST, published
from server.swarm.agent.images import Pulls
from server.swarm.agent.neighbours import Neighbours
from server.swarm.agent.reports import Reports
from server.swarm.agent.taskcontainer import TASK_LABEL, create_request, image_name
from server.swarm.model.objects import PREDEFINED, Task, TaskStatus
from server.swarm.model.taskstate import TaskState

log = logging.getLogger(__name__)

T = TypeVar("T")

UNHEALTHY = "dockerexec: unhealthy container"
#: Seconds before a question that no manager has answered is repeated.
_RETRY = 1.0


@dataclass(slots=True)
class Surroundings:
    """What all runners share. ``node``: as this node was described last."""

    neighbours: Neighbours
    dispatcher: Dispatcher
    reports: Reports
    pulls: Pulls
    files: PrivateFiles
    node: NodeDescription


class _Superseded(Exception):
    """The task is to stop: what it did is cancelled."""


def find_container(neighbours: Neighbours, task_id: str) -> Container | None:
    for container in neighbours.containers.registry:
        if container.managed and container.labels.get(TASK_LABEL) == task_id:
            return container
    return None


class Runner:
    """Call ``update`` at each change of the task, and ``run`` once. ``run`` ends when the container is removed and the
    managers have deleted the task."""

    def __init__(self, shared: Surroundings, task: Task, assignments: Assignments, container: Container | None) -> None:
        self._shared = shared
        self._containers = shared.neighbours.containers
        self._task = task
        self._assignments = assignments
        self._container = container
        # The agent's own view of the status is the newest one.
        self._status = task.status
        self._may_start = asyncio.Event()
        self._must_stop = asyncio.Event()
        self._must_remove = asyncio.Event()
        self._deleted = asyncio.Event()
        self.update(task, assignments)

    def update(self, task: Task | None, assignments: Assignments) -> None:
        """``task`` None: it no longer exists."""
        self._assignments = assignments
        if task is not None:
            self._task = task
        else:
            self._deleted.set()
        desired = self._task.desired if task is not None else TaskState.REMOVE
        if desired > TaskState.READY:
            self._may_start.set()
        if desired >= TaskState.SHUTDOWN:
            self._must_stop.set()
        if desired >= TaskState.REMOVE:
            self._must_remove.set()

    async def run(self) -> None:
        try:
            if not self._status_ended():
                await self._execute()
            await self._shared.files.remove(self._task.id)
            await self._must_remove.wait()
            if self._container is not None:
                await remove(self._shared.neighbours, self._container)
            await self._deleted.wait()
        except Exception:
            log.exception("task=%s could not be handled", self._task.id)
            self._fail("internal error of the agent")

    def _status_ended(self) -> bool:
        return TaskState(self._status.state).ended

    # the course of a task

    async def _execute(self) -> None:
        try:
            if self._must_stop.is_set():
                raise _Superseded
            container = await self._prepare()
            await self._unless_stopped(self._may_start.wait())
            await self._start(container)
            await self._wait(container)
        except _Superseded:
            await self._shut_down()
        except WharfError as error:
            self._fail(error.message)

    async def _prepare(self) -> Container:
        """:raises WharfError: the task is rejected; its message is the reason."""
        container = self._container
        if container is not None:
            if self._status.state < TaskState.READY:
                self._report(TaskState.READY, "prepared", passing=self._may_start.is_set())
            return container
        if self._status.state > TaskState.READY:
            raise WharfError(Kind.NOT_FOUND, f"No such container: {self._task.name}")
        task, shared = self._task, self._shared
        spec = task.spec.container_spec
        # Before anything is made: an invalid spec is refused.
        try:
            create_request(task, shared.node)
        except WharfError:
            self._status = replace(self._status, message="resolving controller failed")
            raise
        self._report(TaskState.PREPARING, "preparing", passing=True)
        assert spec is not None
        await self._networks()
        await self._answered(lambda: shared.pulls.ensure(image_name(spec.image), task.service_id))
        files = await self._answered(lambda: payloads(task, shared.node, shared.dispatcher))
        binds = await shared.files.write(task.id, files)
        request = create_request(task, shared.node, binds)
        container = (await run_to_completion(self._containers.create(request)))[0]
        self._container = container
        self._report(TaskState.READY, "prepared", passing=self._may_start.is_set())
        return container

    async def _networks(self) -> None:
        """Realizes the task's networks."""
        overlay, networks = self._shared.neighbours.overlay, self._assignments.networks
        for attachment in self._task.attachments:
            if attachment.network_id in PREDEFINED:
                continue
            network = networks.get(attachment.network_id)
            if network is None or overlay is None:
                raise WharfError(Kind.NOT_FOUND, f"network {attachment.network_id} not found")
            await overlay.realize(network)

    async def _start(self, container: Container) -> None:
        """Returns when the container runs, and is healthy if it has a health check.

        :raises WharfError: it could not be started, or has exited before.
        """
        if self._status.state >= TaskState.RUNNING:
            return
        self._report(TaskState.STARTING, "starting", passing=True)
        if container.state.status == "created":
            try:
                await run_to_completion(self._containers.start(container.id))
            except WharfError as error:
                # NOT_MODIFIED: a client has started it.
                if error.kind is not Kind.NOT_MODIFIED:
                    raise error.worded(f"starting container failed: {error.message}") from error
        if _has_check(container):
            await self._watch(container, until_healthy=True)
        self._report(TaskState.RUNNING, "started")

    async def _wait(self, container: Container) -> None:
        """Waits for the exit, and reports it."""
        await self._watch(container, until_healthy=False)
        self._report(TaskState.COMPLETE, "finished")

    async def _watch(self, container: Container, *, until_healthy: bool) -> None:
        """Returns when the container has exited with 0, or is healthy if that is wanted.

        :raises WharfError: it has exited with another code, or was unhealthy, and is stopped.
        """
        with _HealthWatch(self._containers.hooks.health, container) as health:
            exited = self._containers.wait(container.id, Condition.NOT_RUNNING)
            try:
                while not exited.done():
                    if health.status == "unhealthy":
                        await self._stop(container)
                        code = container.state.exit_code
                        raise WharfError(Kind.INTERNAL, _exit_message(code, UNHEALTHY) if code else UNHEALTHY)
                    if until_healthy and health.status == "healthy":
                        return
                    await self._unless_stopped(health.changed(exited))
                outcome = exited.result()
            finally:
                exited.cancel()
        if outcome.exit_code:
            raise WharfError(Kind.INTERNAL, _exit_message(outcome.exit_code, outcome.error))

    async def _shut_down(self) -> None:
        container = self._container
        if container is not None:
            if self._status.state == TaskState.RUNNING:
                grace = LIMIT if self._grace_period is None else self._grace_period
                await drain(self._task, lambda: container.state.pid, lambda: self._assignments, grace)
            try:
                await self._stop(container)
            except WharfError as error:
                self._fail(error.message)
                return
            if self._must_remove.is_set():
                # Before the report, after which the managers delete the task.
                await remove(self._shared.neighbours, container)
        self._report(TaskState.SHUTDOWN, "shutdown")

    @property
    def _grace_period(self) -> int | None:
        """Seconds between the stop signal and SIGKILL; None: as for other containers."""
        spec = self._task.spec.container_spec
        grace = spec.stop_grace_period if spec is not None else None
        return None if grace is None else grace // 1_000_000_000

    async def _stop(self, container: Container) -> None:
        try:
            await self._containers.stop(container.id, timeout=self._grace_period)
        except WharfError as error:
            if error.kind not in (Kind.NOT_MODIFIED, Kind.NOT_FOUND):
                raise

    # helpers

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """:raises _Superseded: the task is to stop; the work is cancelled."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._must_stop.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
            if self._must_stop.is_set():
                raise _Superseded
            return await task
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _answered(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of work that asks the managers, again and again while none of them can be reached."""
        while True:
            try:
                return await self._unless_stopped(call())
            except WharfError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                log.info("task=%s waits for a manager: %s", self._task.id, error)
                await self._unless_stopped(asyncio.sleep(_RETRY))

    def _fail(self, reason: str) -> None:
        """The state tells whether the task was started; the message stays that of the last state."""
        state = TaskState.REJECTED if self._status.state < TaskState.STARTING else TaskState.FAILED
        log.error("task=%s %s: %s", self._task.id, state.text, reason)
        self._report(state, self._status.message, reason)

    def _report(self, state: TaskState, message: str, error: str = "", *, passing: bool = False) -> None:
        if state <= self._status.state:
            return
        started = state >= TaskState.STARTING
        self._status = TaskStatus(
            state=int(state),
            timestamp_ns=time.time_ns(),
            message=message,
            err=error,
            container=self._container_status() if started else None,
            ports=self._ports() if started else None,
            applied_by=self._task.node_id,
        )
        self._shared.reports.add(self._task.id, self._status, passing=passing)

    def _container_status(self) -> ContainerStatus:
        if self._container is None:
            return self._status.container or ContainerStatus()
        state = self._container.state
        return ContainerStatus(container_id=self._container.id, pid=state.pid, exit_code=state.exit_code)

    def _ports(self) -> PortStatus | None:
        """The ports that this node publishes for the task, as they are now."""
        if self._container is None or not published(self._task):
            return PortStatus()
        found: dict[PortConfig, None] = {}
        for key, bindings in (self._shared.neighbours.networks.settings(self._container).ports or {}).items():
            target, _, protocol = key.partition("/")
            for binding in bindings or ():
                # IPv4 and IPv6 have a binding each.
                port = PortConfig(
                    protocol=protocol,
                    target_port=int(target),
                    published_port=int(binding.host_port or 0),
                    publish_mode=HOST,
                )
                found[port] = None
        return PortStatus(ports=tuple(found) or None)


async def remove(neighbours: Neighbours, container: Container) -> None:
    """Removes a task's container with its anonymous volumes. Idempotent; other errors are logged."""
    try:
        await run_to_completion(neighbours.containers.remove(container.id, force=True, volumes=True))
    except WharfError as error:
        if error.kind is not Kind.NOT_FOUND:
            log.error("container=%s of a task is not removed: %s", container.id, error)


def _has_check(container: Container) -> bool:
    check = container.config.healthcheck
    return check is not None and bool(check.test) and (check.test or ("",))[0] != "NONE"


def _exit_message(code: int, cause: str) -> str:
    return f"task: non-zero exit ({code}): {cause}" if cause else f"task: non-zero exit ({code})"


class _HealthWatch:
    """Follows the health status of a container in a ``with`` block. ``status`` "": it has none."""

    def __init__(self, hooks: list[Hook], container: Container) -> None:
        self._hooks = hooks
        self._container = container
        self._changed = asyncio.Event()
        health = container.state.health if container.state.running and not container.state.paused else None
        # The status of a container that doesn't run, or is paused, tells nothing.
        self.status = health.status if health is not None else ""

    def __enter__(self) -> Self:
        self._hooks.append(self._on_health)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.remove(self._on_health)

    def _on_health(self, container: Container) -> None:
        if container is self._container and container.state.health is not None:
            self.status = container.state.health.status
            self._changed.set()

    async def changed(self, exited: Waiter) -> None:
        """Returns after a change since the last call, or the exit."""
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait((change, exited), return_when=asyncio.FIRST_COMPLETED)
            self._changed.clear()
        finally:
            change.cancel()
            await asyncio.gather(change, return_exceptions=True)
