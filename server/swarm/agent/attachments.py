"""Containers of users on networks of the swarm. Each has a task without a service, which has its addresses; this module
makes the task, and removes it when the container has left the network. Implements
``server.networks.swarmnetworks.Attacher``."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from api_models.network import EndpointIPAMConfig
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, internal
from server.swarm.agent.dispatcher import Assignments, Dispatcher
from server.swarm.model.objects import Task, TaskStatus
from server.swarm.model.taskstate import TaskState

log = logging.getLogger(__name__)

timeouts.define("swarm.attach", 20.0)  # until the managers have assigned an address


class Attachments:
    """``attached``: whether a container of this node, by id, is on a network. ``check``: raises WharfError if a network
    could not be realized on this node. Call ``apply`` with each change of the assignments, after the networks are
    realized."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        attached: Callable[[str, str], bool],
        check: Callable[[str], None] = lambda network_id: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._attached = attached
        self._check = check
        self._tasks: dict[str, Task] = {}
        # Containers with a request on the way, and those, by (container, network), that are not yet on their network.
        self._attaching: Counter[str] = Counter()
        self._pending: set[tuple[str, str]] = set()
        self._changed = asyncio.Event()

    async def apply(self, assignments: Assignments) -> None:
        """Removes the tasks of containers that have left their network while no daemon, or no manager, knew it."""
        self._tasks = {task.id: task for task in assignments.tasks.values() if is_attachment(task)}
        self._changed.set()
        self._changed = asyncio.Event()
        for task in list(self._tasks.values()):
            container, network = _key(task)
            if self._attached(container, network):
                self._pending.discard((container, network))
            elif (container, network) in self._pending:
                # The other ones are of its last run, whose end no daemon has seen.
                if any(_key(each) == _key(task) and each.created_ns > task.created_ns for each in self._tasks.values()):
                    await self._remove(task.id)
            elif container not in self._attaching:
                await self._remove(task.id)

    async def attach(
        self, container: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, EndpointIPAMConfig | None]:
        """See ``Attacher``."""
        self._attaching[container] += 1
        try:
            task_id, network_id = await self._request(container, key, addresses, names)
            self._pending.add((container, network_id))
        finally:
            self._attaching[container] -= 1
            if not self._attaching[container]:
                del self._attaching[container]
        try:
            task = await self._assigned_in_time(task_id)
            self._check(network_id)
            status = TaskStatus(state=int(TaskState.RUNNING), timestamp_ns=time.time_ns(), message="started")
            await self._dispatcher.report({task_id: status})
        except BaseException:
            self._pending.discard((container, network_id))
            await self._remove(task_id)
            raise
        return network_id, _addresses(task)

    async def _request(
        self, container: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, str]:
        try:
            return await self._dispatcher.attach_network(container, key, addresses, names)
        except WharfError as error:
            raise internal(f"Could not attach to network {key}: {error.message}") from error

    async def _assigned_in_time(self, task_id: str) -> Task:
        try:
            async with timeouts.limit("swarm.attach"):
                return await self._assigned(task_id)
        except WharfError as error:
            if error.kind is not Kind.DEADLINE_EXCEEDED:
                raise
            sentence = "make sure your network options are correct and check manager logs"
            raise internal(f"attaching to network failed, {sentence}: context deadline exceeded") from error

    async def _assigned(self, task_id: str) -> Task:
        """The task when it has its addresses.

        :raises WharfError: INTERNAL: the managers refuse.
        """
        while True:
            changed = self._changed
            task = self._tasks.get(task_id)
            if task is not None and task.state >= TaskState.ASSIGNED:
                if task.state.ended or not task.attachments:
                    raise internal(f"attaching to network failed: {task.status.err or task.status.message}")
                return task
            await changed.wait()

    async def detach(self, container: str, network_id: str) -> None:
        """See ``Attacher``."""
        self._pending.discard((container, network_id))
        for task in list(self._tasks.values()):
            if _key(task) == (container, network_id):
                await self._remove(task.id)

    async def _remove(self, task_id: str) -> None:
        """A failure is logged: the next change of the assignments, or the next daemon, repeats it."""
        try:
            await self._dispatcher.detach_network(task_id)
        except WharfError as error:
            log.warning("task=%s the attachment of a container is not removed: %s", task_id, error.message)


def is_attachment(task: Task) -> bool:
    """Whether it is no task of a service, but a container of a user on a network."""
    return task.spec.network_attachment_spec is not None


def _key(task: Task) -> tuple[str, str]:
    spec = task.spec.network_attachment_spec
    target = next((each.target for each in task.spec.networks or ()), "")
    return spec.container_id if spec is not None else "", target


def _addresses(task: Task) -> EndpointIPAMConfig | None:
    """None: the network is node-local."""
    addresses = task.attachments[0].addresses
    if not addresses:
        return None
    assigned = EndpointIPAMConfig()
    for text in addresses:
        address = ip_interface(text).ip
        if address.version == 4:
            assigned = replace(assigned, ipv4_address=str(address))
        else:
            assigned = replace(assigned, ipv6_address=str(address))
    return assigned
