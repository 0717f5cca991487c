"""Managers and networks in memory, for tests of the agent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from api_models.swarm.container import ContainerSpec
from api_models.swarm.node import NodeDescription
from api_models.swarm.task import TaskSpec
from engine.common.errors import Kind, WharfError, conflict, not_found
from server.networks.overlay.model import MeshPort, OverlayNetwork, ServiceAddresses
from server.swarm.agent.dispatcher import Assignments, Payload
from server.swarm.model.objects import Task, TaskStatus
from server.swarm.model.taskstate import TaskState

NODE = "node1"


def make_task(id: str, desired: TaskState = TaskState.RUNNING, **container: Any) -> Task:
    """A task of the service ``web``, assigned to this node. ``container``: fields of its ContainerSpec."""
    spec = replace(ContainerSpec(image="busybox", command=("top",)), **container)
    return Task(
        id=id,
        spec=TaskSpec(container_spec=spec),
        service_id="service1",
        service_name="web",
        slot=1,
        node_id=NODE,
        status=TaskStatus(state=int(TaskState.ASSIGNED)),
        desired_state=int(desired),
    )


class FakeDispatcher:
    """Managers that keep the tasks in memory. ``reports``: the batches; ``down``: no manager can be reached."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.networks: dict[str, OverlayNetwork] = {}
        self.services: dict[str, Sequence[ServiceAddresses]] = {}
        self.mesh: Sequence[MeshPort] = ()
        self.secrets: dict[str, Payload] = {}
        self.configs: dict[str, Payload] = {}
        self.auth: dict[str, str] = {}
        self.reports: list[Mapping[str, TaskStatus]] = []
        self.description: NodeDescription | None = None
        self.down = False
        self._changed = asyncio.Event()
        self._reported = asyncio.Event()

    def put(self, *tasks: Task) -> None:
        self.tasks |= {task.id: task for task in tasks}
        self._changed.set()

    def desire(self, id: str, state: TaskState) -> None:
        self.put(replace(self.tasks[id], desired_state=int(state)))

    def delete(self, id: str) -> None:
        del self.tasks[id]
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._reported.clear()
            async with asyncio.timeout(10):
                await self._reported.wait()

    async def reaches(self, id: str, state: TaskState) -> Task:
        await self.until(lambda: self.tasks[id].state >= state)
        assert self.tasks[id].state is state, self.tasks[id].status
        return self.tasks[id]

    def _check(self) -> None:
        if self.down:
            raise WharfError(Kind.UNAVAILABLE, "no manager can be reached")

    # Dispatcher

    async def assignments(self) -> AsyncIterator[Assignments]:
        self._check()
        while True:
            self._changed.clear()
            yield Assignments(dict(self.tasks), dict(self.networks), dict(self.services), self.mesh)
            await self._changed.wait()
            self._check()

    async def report(self, statuses: Mapping[str, TaskStatus]) -> None:
        self._check()
        self.reports.append(statuses)
        for id, status in statuses.items():
            task = self.tasks.get(id)
            if task is None or status.state <= task.status.state:
                continue
            self.tasks[id] = replace(task, status=status)
            if task.desired is TaskState.REMOVE and self.tasks[id].state.ended:
                del self.tasks[id]
        self._changed.set()
        self._reported.set()

    async def describe(self, description: NodeDescription) -> None:
        self._check()
        self.description = description

    async def secret(self, id: str) -> Payload:
        self._check()
        if id not in self.secrets:
            raise not_found(f"secret {id} not found")
        return self.secrets[id]

    async def config(self, id: str) -> Payload:
        self._check()
        if id not in self.configs:
            raise not_found(f"config {id} not found")
        return self.configs[id]

    async def registry_auth(self, service_id: str) -> str:
        self._check()
        return self.auth.get(service_id, "")


@dataclass(slots=True)
class FakeOverlay:
    """Networks in memory. ``used``: the ids of those to which a container is attached."""

    networks: dict[str, OverlayNetwork] = field(default_factory=dict)
    balanced: dict[str, Sequence[ServiceAddresses]] = field(default_factory=dict)
    published: Sequence[MeshPort] = ()
    used: set[str] = field(default_factory=set)

    def realized(self) -> Collection[str]:
        return list(self.networks)

    async def realize(self, network: OverlayNetwork) -> None:
        self.networks[network.id] = network

    async def discard(self, network_id: str) -> None:
        if network_id in self.used:
            raise conflict(f"network {network_id} has active endpoints")
        self.networks.pop(network_id, None)

    async def balance(self, network_id: str, services: Sequence[ServiceAddresses]) -> None:
        self.balanced[network_id] = services

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        self.published = ports

    async def close_swarm(self) -> None:
        self.networks.clear()
<<<<<<< HEAD:server/tests/agent/fakes.py


@dataclass(slots=True)
class StartedByFake:
    """The container service, except that a start only makes a task of the fake engine: there is no shim. ``refusal``:
    the error of the next starts."""

    daemon: Daemon
    refusal: WharfError | None = None
    requests: list[CreateRequest] = field(default_factory=list)

    @property
    def real(self) -> Containers:
        return self.daemon.services.containers

    @property
    def registry(self) -> Registry:
        return self.real.registry

    @property
    def hooks(self) -> Hooks:
        return self.real.hooks

    async def create(self, request: CreateRequest) -> tuple[Container, list[str]]:
        self.requests.append(request)
        return await self.real.create(request)

    async def start(self, key: str) -> None:
        container = self.real.get(key)
        if self.refusal is not None:
            container.state.exit_code = 127
            raise self.refusal
        await self.daemon.start_task(container)
        call(self.hooks.started, container)

    async def stop(self, key: str, *, timeout: int | None = None) -> None:
        await self.real.stop(key, timeout=timeout)

    async def remove(self, key: str, *, force: bool = False, volumes: bool = False) -> None:
        await self.real.remove(key, force=force, volumes=volumes)

    def wait(self, key: str, condition: Condition) -> Waiter:
        return self.real.wait(key, condition)


@dataclass(slots=True)
class Swarm:
    """An agent over a daemon, and what surrounds it."""

    daemon: Daemon
    dispatcher: FakeDispatcher
    containers: StartedByFake
    overlay: FakeOverlay
    neighbours: Neighbours
    agent: Agent

    def container(self, task_id: str) -> Container:
        return self.containers.real.get(self.dispatcher.tasks[task_id].name)

    def exit(self, task_id: str, status: int) -> None:
        """The process of a task's container exits."""
        self.daemon.engine.tasks.exit("moby", self.container(task_id).id, status=status)

    def names(self) -> list[str]:
        """The names of the containers."""
        return sorted(container.name for container in self.containers.registry)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition that an exit or a removal meets."""
        happened = asyncio.Event()
        for hooks in (self.containers.hooks.drained, self.containers.hooks.removed):
            hooks.append(lambda _: happened.set())
        async with asyncio.timeout(10):
            while not condition():
                await happened.wait()
                happened.clear()


def run(daemon: Daemon, *scenarios: Callable[[Swarm], Awaitable[None]]) -> None:
    """Runs each scenario beside an agent of its own, which is ended after it as the daemon ends it: the managers and
    the containers stay."""
    daemon.wait(_run(daemon, scenarios))


async def _run(daemon: Daemon, scenarios: Sequence[Callable[[Swarm], Awaitable[None]]]) -> None:
    containers, overlay, dispatcher = StartedByFake(daemon), FakeOverlay(), FakeDispatcher()
    services = daemon.services
    neighbours = Neighbours(
        containers=containers,
        images=services.images,
        networks=services.networks,
        logs=services.logs,
        system=services.system,
        exec_root=services.system.config.exec_root,
        overlay=overlay,
    )
    for scenario in scenarios:
        swarm = Swarm(daemon, dispatcher, containers, overlay, neighbours, Agent(dispatcher, neighbours))
        working = asyncio.create_task(swarm.agent.run())
        before = asyncio.all_tasks()
        try:
            await scenario(swarm)
        finally:
            working.cancel()
            ended = await asyncio.gather(working, return_exceptions=True)
        assert isinstance(ended[0], asyncio.CancelledError), ended
        left = [task for task in asyncio.all_tasks() - before if task.get_name().startswith(("swarm", "pull"))]
        assert left == []
=======
>>>>>>> eaa691de (Swarm: test pulls, files, networks and logs of the agent):server/swarm/agent/tests/fakes.py
