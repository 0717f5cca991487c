"""A swarm for tests: the controllers on a real store with a clock that the test sets, and nodes whose agents play the
tasks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from api_models.swarm.container import ContainerSpec
from api_models.swarm.node import ManagerStatus, NodeDescription, NodeSpec, NodeStatus
from api_models.swarm.service import ReplicatedService, ServiceMode, ServiceSpec
from api_models.swarm.task import Resources, TaskSpec
from server.swarm.agent.dispatcher import Assignments
from server.swarm.controllers.clock import SECOND
from server.swarm.controllers.nodes.liveness import Liveness
from server.swarm.controllers.orchestrator.tasks import alive
from server.swarm.controllers.runner import Controllers
from server.swarm.dispatch.local import LocalDispatcher
from server.swarm.model.ids import new_id
from server.swarm.model.objects import LEADER, Cluster, Leader, Node, Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Delete, Operation, Put, State
from server.swarm.state.tests.opened import opened
from server.swarm.store.sqlite import SqliteStore

START = 1_700_000_000 * SECOND


class ManualClock:
    """A clock that is set; between that, only a nanosecond passes at each look."""

    def __init__(self) -> None:
        self._now = START
        self._changed = asyncio.Condition()

    def now(self) -> int:
        self._now += 1
        return self._now

    async def sleep_until(self, moment: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._now >= moment)

    async def set(self, moment: int) -> None:
        async with self._changed:
            self._now = max(moment, self._now)
            self._changed.notify_all()


class NoKeys:
    def open(self, text: str, /) -> bytes:
        return text.encode()


class FakeAgent:
    """The agent of one node: brings each task to its desired state at once.

    ``fate``: the state in which the tasks of a service (by its name) end instead of running. ``slow``: the services
    whose tasks stay STARTING. ``stubborn``: tasks do not stop. ``running``: the tasks whose containers run.
    """

    def __init__(self, dispatcher: LocalDispatcher, clock: ManualClock, description: NodeDescription) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._description = description
        self.fate: dict[str, TaskState] = {}
        self.slow: set[str] = set()
        self.stubborn = False
        self.running: set[str] = set()
        self.current = Assignments({}, {}, {}, ())
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """The node is cut off: its containers run on, but nothing is reported."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def vanish(self) -> None:
        """The node is cut off for so long that its session ends."""
        await self.stop()
        await self._dispatcher.end()

    async def come_back(self) -> None:
        """The node begins a session; its containers have run meanwhile."""
        await self._dispatcher.describe(self._description)
        self.start()

    async def _run(self) -> None:
        stream = self._dispatcher.assignments()
        async for current in stream:
            self.current = current
            self.running &= set(current.tasks)
            await self.work()

    async def work(self) -> None:
        statuses = {}
        for task in self.current.tasks.values():
            state = self._next(task)
            if state is not None and state != task.state:
                statuses[task.id] = self._status(state)
        if statuses:
            await self._dispatcher.report(statuses)

    def _next(self, task: Task) -> TaskState | None:
        if task.desired_state > TaskState.COMPLETE:
            if self.stubborn or (task.state.ended and task.id not in self.running):
                return None
            self.running.discard(task.id)
            return None if task.state.ended else TaskState.SHUTDOWN
        if task.state >= TaskState.RUNNING:
            return None
        if task.desired_state == TaskState.READY:
            return TaskState.READY
        if task.service_name in self.slow:
            return TaskState.STARTING
        if (fate := self.fate.get(task.service_name)) is not None:
            return fate
        self.running.add(task.id)
        return TaskState.RUNNING

    async def describe(self, description: NodeDescription) -> None:
        await self._dispatcher.describe(description)

    async def end(self, task: Task, state: TaskState = TaskState.FAILED) -> None:
        """The container of a task exits."""
        self.running.discard(task.id)
        await self._dispatcher.report({task.id: self._status(state)})

    def _status(self, state: TaskState) -> TaskStatus:
        return TaskStatus(state=int(state), timestamp_ns=self._clock.now(), message=state.text)


class World:
    """A swarm with one cluster object; see the methods. ``sessions``: nodes have sessions."""

    def __init__(self, store: SqliteStore, state: State, *, sessions: bool = False) -> None:
        self.store = store
        self.state = state
        self.clock = ManualClock()
        self.agents: dict[str, FakeAgent] = {}
        self.sessions = sessions
        self._tasks: list[asyncio.Task[None]] = []
        self._make_controllers()

    def _make_controllers(self) -> None:
        self.controllers = Controllers(self.state, clock=self.clock)
        self.liveness = Liveness(self.state, clock=self.clock) if self.sessions else None

    def start(self) -> None:
        """Starts the controllers."""
        for part in (self.controllers, self.liveness):
            if part is not None:
                self._tasks.append(asyncio.create_task(part.run()))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def restart(self) -> None:
        """Another leader continues."""
        await self.stop()
        self._make_controllers()
        self.start()

    async def lead(self, node_id: str) -> None:
        """A node becomes the leader."""
        leader = self.state.tables.leader or Leader(id=LEADER)
        await self.state.commit([Put(replace(leader, node_id=node_id))])

    async def close(self) -> None:
        await self.stop()
        for agent in self.agents.values():
            await agent.stop()

    # nodes

    async def node(
        self,
        name: str,
        *,
        resources: Resources | None = None,
        availability: str = "active",
        manager: bool = False,
        **labels: str,
    ) -> FakeAgent:
        node = Node(
            id=name,
            created_ns=self.clock.now(),
            spec=NodeSpec(role="manager" if manager else "worker", availability=availability, labels=labels),
            status=NodeStatus(state="unknown"),
            manager=ManagerStatus(addr=f"{name}:2377") if manager else None,
        )
        await self.state.commit([Put(node)])
        dispatcher = LocalDispatcher(self.state, name, NoKeys(), sessions=self.sessions, now=self.clock.now)
        description = NodeDescription(hostname=name, resources=resources or Resources())
        agent = self.agents[name] = FakeAgent(dispatcher, self.clock, description)
        await agent.come_back()
        return agent

    def state_of(self, name: str) -> str:
        return self.state.tables.nodes.get(name).status.state

    async def set_node(self, name: str, *, state: str = "", availability: str = "") -> None:
        def build() -> Sequence[Operation]:
            node = self.state.tables.nodes.get(name)
            status = replace(node.status, state=state or node.status.state)
            spec = replace(node.spec, availability=availability or node.spec.availability)
            return [Put(replace(node, updated_ns=self.clock.now(), status=status, spec=spec))]

        await self.state.transact(build)

    async def remove_node(self, name: str) -> None:
        await self.agents.pop(name).stop()
        await self.state.transact(lambda: [Delete(self.state.tables.nodes.get(name))])

    # services

    async def service(self, name: str, mode: int | ServiceMode = 1, task: TaskSpec | None = None, **spec: Any) -> str:
        """Creates a service; ``mode``: the number of replicas, or a mode. Returns its id."""
        service = Service(id=new_id(), created_ns=self.clock.now(), spec=_spec(name, mode, task, spec))
        await self.state.commit([Put(service)])
        return service.id

    async def update(self, name: str, **changes: Any) -> None:
        """As ``POST /services/{id}/update``: ``changes`` are fields of the spec, ``replicas`` the number of them."""
        if (replicas := changes.pop("replicas", None)) is not None:
            changes["mode"] = replicated(replicas)

        def build() -> Sequence[Operation]:
            service = self.state.tables.services.get(name)
            job = service.spec.mode.replicated_job or service.spec.mode.global_job
            updated = replace(
                service,
                spec=replace(service.spec, **changes),
                spec_version=service.spec_version + 1,
                previous_spec=service.spec,
                update_status=None,
                job_iteration=service.job_iteration + (1 if job else 0),
            )
            return [Put(updated)]

        await self.state.transact(build)

    async def remove(self, name: str) -> None:
        await self.state.transact(lambda: [Delete(self.state.tables.services.get(name))])

    def find(self, name: str) -> Service:
        return self.state.tables.services.get(name)

    def tasks(self, name: str) -> list[Task]:
        """The tasks of a service, the oldest of each slot first."""
        service = self.state.tables.services.get(name)
        tasks = self.state.tables.tasks.of_service(service.id)
        return sorted(tasks, key=lambda task: (task.slot, task.created_ns, task.id))

    def running(self, name: str) -> list[Task]:
        return [task for task in self.tasks(name) if task.state is TaskState.RUNNING and alive(task)]

    # time

    async def settle(self) -> None:
        """Waits until nothing changes any more at the present time."""
        quiet = 0
        last = -1
        while quiet < 3:
            await asyncio.sleep(0.004)
            revision = self.state.revision
            busy = self.controllers.busy or (self.liveness is not None and self.liveness.busy)
            # On a slow disk a commit may take longer than all looks together.
            busy = busy or self.store._lock.locked()
            quiet = quiet + 1 if revision == last and not busy else 0
            last = revision

    async def advance(self, seconds: float) -> None:
        """Lets the time pass, with a stop at each timer of the controllers."""
        await self.settle()
        end = self.clock.now() + int(seconds * SECOND)
        while self.clock.now() < end:
            timers = [self.controllers.next_timer, self.liveness.next_timer if self.liveness is not None else None]
            await self.clock.set(min([end, *(timer for timer in timers if timer is not None)]))
            await self.settle()


def replicated(replicas: int) -> ServiceMode:
    return ServiceMode(replicated=ReplicatedService(replicas=replicas))


def task_spec(image: str = "busybox", **fields: Any) -> TaskSpec:
    return TaskSpec(container_spec=ContainerSpec(image=image), **fields)


def _spec(name: str, mode: int | ServiceMode, task: TaskSpec | None, fields: Mapping[str, Any]) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        mode=replicated(mode) if isinstance(mode, int) else mode,
        task_template=task or task_spec(),
        **fields,
    )


def play(
    path: Path, scenario: Callable[[World], Awaitable[None]], *, sessions: bool = False, seconds: float = 60
) -> None:
    """Runs a scenario in a new swarm."""

    async def run() -> None:
        async with opened(path) as (store, state):
            await state.commit([Put(Cluster(id="swarm"))])
            world = World(store, state, sessions=sessions)
            world.start()
            try:
                async with asyncio.timeout(seconds):
                    await scenario(world)
            finally:
                await world.close()

    asyncio.run(run())
