"""Managers and networks in memory, for tests of the agent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from api_models.swarm.container import ContainerSpec
from api_models.swarm.network import NetworkAttachmentConfig
from api_models.swarm.node import NodeDescription
from api_models.swarm.task import NetworkAttachmentSpec, TaskSpec
from engine.common.errors import Kind, WharfError, conflict, not_found
from server.networks.overlay.model import Keyring, MeshPort, Peer, ServiceAddresses, SwarmNetwork
from server.swarm.agent.dispatcher import Assignments, NodeAddress, Payload
from server.swarm.model.objects import Attachment, Task, TaskStatus
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
        self.networks: dict[str, SwarmNetwork] = {}
        self.services: dict[str, Sequence[ServiceAddresses]] = {}
        self.mesh: Sequence[MeshPort] = ()
        self.secrets: dict[str, Payload] = {}
        self.configs: dict[str, Payload] = {}
        self.auth: dict[str, str] = {}
        self.peers: Sequence[NodeAddress] = ()
        self.reports: list[Mapping[str, TaskStatus]] = []
        self.description: NodeDescription | None = None
        self.images: list[str] = []
        self.keys = Keyring(b"1", b"2", b"3")
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

    async def attach_network(
        self, container_id: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, str]:
        self._check()
        network = next((each for each in self.networks.values() if key in (each.id, each.name)), None)
        if network is None:
            raise not_found(f"rpc error: code = NotFound desc = network {key} not found")
        wanted = tuple(f"{address}/24" for address in addresses or ("10.0.1.9",))
        attached = Task(
            id=f"attached{len(self.tasks)}",
            spec=TaskSpec(
                network_attachment_spec=NetworkAttachmentSpec(container_id=container_id),
                networks=(NetworkAttachmentConfig(target=network.id),),
            ),
            node_id=NODE,
            status=TaskStatus(state=int(TaskState.ASSIGNED)),
            desired_state=int(TaskState.RUNNING),
            attachments=(Attachment(network_id=network.id, addresses=wanted),),
        )
        self.put(attached)
        return attached.id, network.id

    async def detach_network(self, task_id: str) -> None:
        self._check()
        if task_id in self.tasks:
            self.delete(task_id)

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
        self._reported.set()

    async def report_images(self, keys: str) -> None:
        self._check()
        self.images.append(keys)

    async def heartbeat(self) -> float:
        self._check()
        return 3600.0

    async def end(self) -> None:
        self._check()

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

    async def network_keys(self) -> Keyring:
        self._check()
        return self.keys

    async def registry_auth(self, service_id: str) -> str:
        self._check()
        return self.auth.get(service_id, "")

    async def image_peers(self, service_id: str) -> Sequence[NodeAddress]:
        self._check()
        return self.peers

    async def readable_images(self, service_id: str, node_id: str) -> Sequence[str]:
        raise not_found(f"service {service_id} not found")


@dataclass(slots=True)
class FakeOverlay:
    """Networks in memory. ``used``: the ids of those to which a container is attached. ``esp``: the kernel has it."""

    networks: dict[str, SwarmNetwork] = field(default_factory=dict)
    balanced: dict[str, Sequence[ServiceAddresses]] = field(default_factory=dict)
    published: Sequence[MeshPort] = ()
    used: set[str] = field(default_factory=set)
    esp: bool = True
    keys: list[Keyring] = field(default_factory=list)

    def realized(self) -> Collection[str]:
        return list(self.networks)

    async def realize(self, network: SwarmNetwork) -> None:
        self.networks[network.id] = network

    async def discard(self, network_id: str) -> None:
        if network_id in self.used:
            raise conflict(f"network {network_id} has active endpoints")
        self.networks.pop(network_id, None)

    async def connect(self, network_id: str, peers: Sequence[Peer]) -> None:
        return

    async def can_encrypt(self) -> bool:
        return self.esp

    async def encrypt(self, keys: Keyring) -> None:
        self.keys.append(keys)

    async def balance(self, network_id: str, services: Sequence[ServiceAddresses]) -> None:
        self.balanced[network_id] = services

    async def publish(self, ports: Sequence[MeshPort]) -> None:
        self.published = ports

    async def close_swarm(self) -> None:
        self.networks.clear()
