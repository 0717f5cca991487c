"""A big swarm: the real controllers on a real etcd, with agents that play nodes and tasks in a process of their own.

``python -m server.swarm.tests.simulation --nodes 1000 --services 20 --replicas 1000`` prints how long it takes, and
what it costs, to create the services, to replace the tasks of nodes that vanish, and to update one service. The agents
share one copy of the state and one batch of reports, as the nodes of a manager do; they report one state for each task.
With ``--assignments`` they get their tasks as real nodes do, in lines that are encoded but not sent; else from the
tables.
"""

import argparse
import asyncio
import contextlib
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from api_models.network import IPAM, IPAMPool
from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import NetworkAttachmentConfig
from api_models.swarm.node import NodeDescription, NodeSpec, NodeStatus
from api_models.swarm.service import ReplicatedService, ServiceMode, ServiceSpec, UpdateConfig
from api_models.swarm.task import Resources, RestartPolicy, TaskSpec
from engine.common.errors import Kind, WharfError
from server.swarm.controllers.nodes.liveness import Liveness
from server.swarm.controllers.orchestrator.tasks import alive
from server.swarm.controllers.runner import Controllers
from server.swarm.dispatch.local import LocalDispatcher
from server.swarm.dispatch.overview import Overview
from server.swarm.dispatch.reports import Reports
from server.swarm.model.ids import new_id
from server.swarm.model.objects import Cluster, Network, Node, Service, Task, TaskStatus
from server.swarm.model.taskstate import TaskState
from server.swarm.remote.lines import EMPTY, Differences
from server.swarm.state.state import Put, State, Subscription
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.tests import etcd_member

_BATCH = 100
_NETWORK = "front"


class NoKeys:
    def open(self, text: str, /) -> bytes:
        return text.encode()


def name(number: int) -> str:
    return f"node{number:05}"


@contextlib.asynccontextmanager
async def opened(endpoint: str) -> AsyncIterator[State]:
    store = EtcdStore([endpoint])
    state = State(store)
    await state.open()
    try:
        yield state
    finally:
        await state.close()
        await store.close()


# the agents


class Agents:
    """The agents of all nodes."""

    def __init__(self, state: State, count: int, *, assignments: bool) -> None:
        self._state = state
        self._assignments = assignments
        reports, overview = Reports(state), Overview(state)
        self._differences = Differences()
        self._lines = self._bytes = 0
        self._nodes = {
            name(number): LocalDispatcher(
                state, name(number), NoKeys(), sessions=True, reports=reports, overview=overview
            )
            for number in range(count)
        }

    async def run(self, commands: asyncio.StreamReader) -> None:
        changes = self._state.subscribe()
        async with asyncio.TaskGroup() as group:
            beats = {id: group.create_task(self._beat(id)) for id in self._nodes}
            if self._assignments:
                follows = [group.create_task(self._follow_assignments(id)) for id in self._nodes]
            else:
                follows = [group.create_task(self._follow(changes))]
            while command := (await commands.readline()).split():
                for id in command:
                    key = id.decode()
                    beats.pop(key).cancel()
                    await self._nodes.pop(key).end()
            for task in (*follows, *beats.values()):
                task.cancel()
        if self._assignments:
            sys.stdout.write(f"assignments: {self._lines} lines, {self._bytes / 2**20:.0f} MiB\n")

    async def _beat(self, id: str) -> None:
        dispatcher = self._nodes[id]
        await dispatcher.describe(_description(id))
        while True:
            try:
                pause = await dispatcher.heartbeat()
            except WharfError as error:
                # The agents are so busy that they have lost the session.
                if error.kind is not Kind.NOT_FOUND:
                    raise
                pause = 0.0
                with contextlib.suppress(WharfError):
                    await dispatcher.describe(_description(id))
            await asyncio.sleep(pause)

    async def _follow_assignments(self, id: str) -> None:
        dispatcher = self._nodes[id]
        former = EMPTY
        async for current in dispatcher.assignments():
            self._lines += 1
            self._bytes += len(orjson.dumps(self._differences.line(former, current)))
            former = current
            statuses = {
                task.id: TaskStatus(state=int(state), timestamp_ns=time.time_ns(), message=state.text)
                for task in current.tasks.values()
                if (state := _next(task)) is not None
            }
            if statuses and id in self._nodes:
                await dispatcher.report(statuses)

    async def _follow(self, changes: Subscription) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                statuses: dict[str, dict[str, TaskStatus]] = {}
                for event in await changes.next():
                    task = event.new
                    if isinstance(task, Task) and task.node_id in self._nodes and (state := _next(task)) is not None:
                        status = TaskStatus(state=int(state), timestamp_ns=time.time_ns(), message=state.text)
                        statuses.setdefault(task.node_id, {})[task.id] = status
                for id, own in statuses.items():
                    group.create_task(self._nodes[id].report(own))


def _next(task: Task) -> TaskState | None:
    """What the task does next."""
    if not TaskState.ASSIGNED <= task.state <= TaskState.RUNNING:
        return None
    if not alive(task):
        return TaskState.SHUTDOWN
    state = TaskState.READY if task.desired is TaskState.READY else TaskState.RUNNING
    return state if task.state < state else None


def _description(id: str) -> NodeDescription:
    return NodeDescription(hostname=id, resources=Resources(nano_cpus=8 * 10**9, memory_bytes=1 << 34))


async def _play_agents(endpoint: str, count: int, *, assignments: bool) -> None:
    async with opened(endpoint) as state:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        with contextlib.suppress(asyncio.CancelledError):
            await Agents(state, count, assignments=assignments).run(reader)


# measurements


@dataclass(frozen=True, slots=True)
class Usage:
    """Of a process: CPU in seconds, resident memory in MiB."""

    cpu: float
    memory: float

    @classmethod
    def of(cls, pid: int) -> "Usage":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = os.sysconf("SC_CLK_TCK")
        return cls((int(fields[11]) + int(fields[12])) / ticks, int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20)


class Meter:
    """Prints a line for each phase."""

    def __init__(self, state: State, etcd: int, agents: int, data: Path) -> None:
        self._state = state
        self._processes = (os.getpid(), etcd, agents)
        self._data = data
        sys.stdout.write(
            "phase                      seconds  commits   /s  manager CPU  etcd CPU  agents CPU"
            "  manager MiB  etcd MiB  agents MiB  db MiB\n"
        )

    async def phase(self, label: str, done: Callable[[], bool], seconds: float) -> None:
        """Waits until it is done, at most so many seconds."""
        began, revision = time.monotonic(), self._state.revision
        before = [Usage.of(pid) for pid in self._processes]
        while not done():
            if time.monotonic() - began > seconds:
                label += " (not done)"
                break
            await asyncio.sleep(0.1)
        took = time.monotonic() - began
        after = [Usage.of(pid) for pid in self._processes]
        manager, etcd, agents = (new.cpu - old.cpu for old, new in zip(before, after, strict=True))
        commits = self._state.revision - revision
        size = sum(path.stat().st_size for path in self._data.rglob("db")) / 2**20
        sys.stdout.write(
            f"{label:26} {took:7.1f} {commits:8} {commits / took:4.0f} {manager:12.1f} {etcd:9.1f} {agents:11.1f}"
            f" {after[0].memory:12.0f} {after[1].memory:9.0f} {after[2].memory:11.0f} {size:7.0f}\n"
        )
        sys.stdout.flush()


# the phases


class Simulation:
    def __init__(self, state: State, size: argparse.Namespace) -> None:
        self._state = state
        self._size = size
        self._image = "busybox:1"

    async def run(self, meter: Meter, agents: asyncio.subprocess.Process) -> None:
        size = self._size
        await meter.phase("nodes begin sessions", self._all_ready, size.seconds)
        began = self._state.revision
        await asyncio.sleep(0.01)
        idle = time.monotonic() + size.idle
        await meter.phase(f"idle, heartbeats ({size.idle} s)", lambda: time.monotonic() > idle, size.seconds)
        sys.stdout.write(f"commits by heartbeats: {self._state.revision - began}\n")
        for number in range(size.services):
            await self._state.commit([Put(Service(id=new_id(), created_ns=time.time_ns(), spec=self._spec(number)))])
        await meter.phase("create services", self._converged, size.seconds)
        lost = [name(number) for number in range(size.vanish)]
        assert agents.stdin is not None
        agents.stdin.write((" ".join(lost) + "\n").encode())
        await meter.phase("  nodes are down", lambda: not any(map(self._is_ready, lost)), size.seconds)
        await meter.phase("  tasks are replaced", self._converged, size.seconds)
        await self._describe(name(size.vanish))
        await meter.phase("one node is changed", self._quiet(), size.seconds)
        self._image = "busybox:2"
        service = self._state.tables.services.get("service0")
        changed = replace(
            service,
            spec=self._spec(0),
            spec_version=service.spec_version + 1,
            previous_spec=service.spec,
            update_status=None,
        )
        await self._state.commit([Put(changed)])
        await meter.phase("update one service", self._converged, size.seconds)

    async def make(self) -> None:
        ipam = IPAM(config=(IPAMPool(subnet="10.32.0.0/15", gateway="10.32.0.1"),))
        await self._state.commit([Put(Cluster(id="swarm")), Put(Network(id=_NETWORK, name=_NETWORK, ipam=ipam))])
        nodes = [
            Node(
                id=name(number),
                spec=NodeSpec(role="worker", availability="active"),
                status=NodeStatus(state="unknown", addr=f"10.1.{number >> 8}.{number & 255}"),
            )
            for number in range(self._size.nodes)
        ]
        for begin in range(0, len(nodes), _BATCH):
            await self._state.commit([Put(node) for node in nodes[begin : begin + _BATCH]])

    async def _describe(self, id: str) -> None:
        """What the agent of a node with a new description stores."""
        node = self._state.tables.nodes.get(id)
        resources = replace(node.description.resources, nano_cpus=16 * 10**9)
        await self._state.commit([Put(replace(node, description=replace(node.description, resources=resources)))])

    @staticmethod
    def _quiet() -> Callable[[], bool]:
        """Done at the third look, between which the event loop has run the controllers."""
        looks = iter(range(3))
        return lambda: next(looks, None) is None

    def _spec(self, number: int) -> ServiceSpec:
        image = self._image if number == 0 else "busybox:1"
        return ServiceSpec(
            name=f"service{number}",
            mode=ServiceMode(replicated=ReplicatedService(replicas=self._size.replicas)),
            task_template=TaskSpec(
                container_spec=ContainerSpec(image=image, env=("A=1", "B=2"), labels={"team": "one"}),
                networks=(NetworkAttachmentConfig(target=_NETWORK),),
                restart_policy=RestartPolicy(delay=self._size.restart_delay * 10**9),
            ),
            update_config=UpdateConfig(parallelism=50, delay=0, order="start-first"),
        )

    def _is_ready(self, id: str) -> bool:
        return self._state.tables.nodes.get(id).status.state == "ready"

    def _all_ready(self) -> bool:
        return all(node.status.state == "ready" for node in self._state.tables.nodes)

    def _converged(self) -> bool:
        """Each service has the wanted number of running tasks with its image, all on nodes that are ready."""
        tables = self._state.tables
        ready = {node.id for node in tables.nodes if node.status.state == "ready"}
        for service in tables.services:
            version, running = service.spec_version, 0
            for task in tables.tasks.of_service(service.id):
                if task.desired_state <= TaskState.COMPLETE:
                    if task.status.state != TaskState.RUNNING or task.spec_version != version:
                        return False
                    if task.node_id not in ready:
                        return False
                    running += 1
            if running != self._size.replicas:
                return False
        return True


def _child_of(parent: int, program: str) -> int:
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in children.read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                return int(pid)
    raise RuntimeError(f"{program} does not run")


async def simulate(endpoint: str, data: Path, size: argparse.Namespace) -> None:
    async with opened(endpoint) as state, asyncio.TaskGroup() as group:
        # Its nodes have to be there when the agents begin.
        simulation = Simulation(state, size)
        await simulation.make()
        agents = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.swarm.tests.simulation"),
            *(f"--agents={endpoint}", f"--nodes={size.nodes}"),
            *(["--assignments"] if size.assignments else []),
            stdin=asyncio.subprocess.PIPE,
        )
        parts = [group.create_task(part.run()) for part in (Controllers(state), Liveness(state))]
        try:
            await simulation.run(Meter(state, _child_of(os.getpid(), "etcd"), agents.pid, data), agents)
        finally:
            for part in parts:
                part.cancel()
            assert agents.stdin is not None
            agents.stdin.close()
            await agents.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="measures the controllers of a big swarm")
    for option, default in (("nodes", 1000), ("services", 20), ("replicas", 1000), ("vanish", 50)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--idle", type=int, default=20, help="seconds with heartbeats only")
    parser.add_argument("--restart-delay", type=int, default=5, help="seconds, of the services' restart policy")
    parser.add_argument("--seconds", type=float, default=600, help="the limit of each phase")
    parser.add_argument("--assignments", action="store_true", help="compute the assignments of each node, too")
    parser.add_argument("--profile", action="store_true", help="print the manager's profile")
    parser.add_argument("--agents", metavar="ENDPOINT", help=argparse.SUPPRESS)
    size = parser.parse_args(arguments)
    if size.agents:
        asyncio.run(_play_agents(size.agents, size.nodes, assignments=size.assignments))
        return
    with tempfile.TemporaryDirectory() as directory, etcd_member.member(Path(directory)) as endpoint:
        profile = cProfile.Profile() if size.profile else contextlib.nullcontext()
        with profile:
            asyncio.run(simulate(endpoint, Path(directory), size))
        if isinstance(profile, cProfile.Profile):
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
