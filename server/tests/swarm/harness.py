"""An agent over the daemon of the unit tests, with managers and networks in memory."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from engine.common.errors import WharfError
from server.containers.create.create import CreateRequest
from server.containers.hooks import Hooks, call
from server.containers.model import Container
from server.containers.registry import Registry
from server.containers.service import Containers
from server.containers.waiters import Condition, Waiter
from server.swarm.agent.neighbours import Neighbours
from server.swarm.agent.tests.fakes import FakeDispatcher, FakeOverlay
from server.swarm.agent.worker import Agent
from server.tests.daemon import Daemon


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
