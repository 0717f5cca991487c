"""GPUs of containers: allocates at a start, releases at the exit, and lets containers wait for their turn.

The contract for containers is ``server.containers.neighbours.Gpus``. The GPUs that a container has are in its record
from the grant to the exit; so are those that a running container got from an earlier daemon.
"""

import asyncio
import copy
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.common.errors import conflict, invalid
from engine.common.system.cgroups import container_directories
from server.access.caller import EVERYONE, Caller
from server.access.owners import user_of
from server.access.policy import Policy, Role
from server.access.refusal import refused
from server.access.roles import Roles
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.cgroup import cgroup_of
from server.containers.spec import cdi
from server.gpus import catalog
from server.gpus.allocator import Allocator, Claim, Terms, busy
from server.gpus.demand import Demand, read
from server.gpus.queue import FairQueue, Waiting
from server.gpus.report import GpuRow, QueueRow, gpu_rows, queue_rows
from server.units import parse_duration

if TYPE_CHECKING:
    from server.gpus.use.meter import Meter, Use

#: The label of containers that wait for GPUs in use; its value is the longest time.
WAIT_LABEL = "wharf.wait"
#: The event of a waiting container whose place has changed.
EVENT = "gpu-queue"


@dataclass(slots=True, eq=False)
class _Turn:
    """A container in the queue. ``granted`` completes when it has its GPUs."""

    container: Container
    waiting: Waiting
    granted: asyncio.Future[None]
    place: tuple[int, int] = (0, 0)


class Gpus:
    """Call ``open`` when the records are loaded, before containers are recovered."""

    def __init__(self, context: ContainerContext, roles: Roles) -> None:
        self._context = context
        self._roles = roles
        self._allocator = Allocator()
        self._queue = FairQueue(self._allocator)
        self._turns: dict[str, _Turn] = {}
        self._caller = EVERYONE
        self._meter: Meter | None = None
        # After the accounts are written: they count the container's GPUs.
        context.hooks.drained.append(self._stopped)
        context.hooks.removed.append(self._removed)

    async def open(self) -> None:
        """Adopts the GPUs of the containers that run by their records; recovery reports the exits of those that don't
        run any more."""
        await self._reread()
        for container in self._context.registry:
            state = container.state
            if container.gpus and state.running and not state.restarting:
                terms = self._terms(await self._roles.of(container.owner), container.owner)
                self._allocator.adopt(container.id, container.owner, container.gpus, terms, state.started_ns)

    def apply(self, policy: Policy) -> None:
        """Replaces the policy. Containers keep the GPUs that they have; those in the queue stay as they are."""
        self._roles.apply(policy)

    # for containers

    def waits(self, container: Container, *, by_policy: bool = False) -> bool:
        return bool(container.host_config.device_requests) and (by_policy or WAIT_LABEL in container.labels)

    async def wait(self, container: Container) -> None:
        seconds = _longest_wait(container)
        if container.id in self._allocator.holds:
            return
        claim = await self._claim(container)
        if claim is None:
            return
        if container.id in self._turns:
            raise conflict(f"container {container.id} is waiting for GPUs already")
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        turn = _Turn(container, Waiting(claim, time.time_ns()), granted)
        self._turns[container.id] = turn
        self._queue.add(turn.waiting)
        self._advance()
        try:
            async with asyncio.timeout(seconds):
                await granted
        except TimeoutError:
            if container.id not in self._allocator.holds:
                label = container.labels[WAIT_LABEL]
                raise conflict(f"no GPUs within {label}: {turn.waiting.shortage.message}") from None
        except asyncio.CancelledError:
            self.release(container)
            raise
        finally:
            self._leave(turn)

    async def claim(self, container: Container) -> None:
        if not container.host_config.device_requests or container.id in self._allocator.holds:
            return
        claim = await self._claim(container)
        if claim is None:
            return
        if container.id in self._turns:
            raise conflict(f"container {container.id} is waiting for GPUs already")
        waiting = Waiting(claim, time.time_ns())
        self._queue.add(waiting)
        self._advance(container)
        if waiting in self._queue:
            self._queue.remove(waiting)
            raise busy(waiting.shortage)

    def release(self, container: Container) -> None:
        if self._allocator.release(container.id) is None:
            return
        container.gpus = []
        self._advance()

    def cancel(self, container: Container) -> bool:
        turn = self._turns.get(container.id)
        if turn is None or turn.granted.done():
            return False
        turn.granted.set_exception(conflict(f"container {container.id} was stopped while it waited for GPUs"))
        self._leave(turn)
        return True

    def place(self, container: Container) -> tuple[int, int] | None:
        turn = self._turns.get(container.id)
        return turn.place if turn is not None and not turn.granted.done() else None

    async def devices(self, container: Container) -> tuple[str, ...]:
        hold = self._allocator.holds.get(container.id)
        return (hold.names if hold is not None else ()) + (await self._read(container)).others

    # for the limits of time

    async def measure(self, containers: Iterable[Container]) -> "Mapping[str, Use]":
        """What running containers that have GPUs have done on them since they were measured before, by id."""
        from server.gpus.use.meter import Meter, Target  # here: most engines never need it

        self._meter = self._meter or Meter()
        layout, gpus = self._context.facts.cgroups, self._allocator.catalog.gpus
        targets = {
            one.id: Target(
                one.state.started_ns,
                tuple(container_directories(layout, cgroup_of(self._context, one)).values()),
                tuple(gpus.get(name) for name in one.gpus),
            )
            for one in containers
            if one.gpus
        }
        return await self._meter.measure(targets) if targets else {}

    # for clients

    def seen_by(self, caller: Caller) -> "Gpus":
        """The same service for one caller, who sees the ids of containers that exist for it, and of other users'
        containers only the user."""
        bound = copy.copy(self)
        bound._caller = caller
        return bound

    async def gpus(self) -> list[GpuRow]:
        """All GPUs of this host, with their holders."""
        await self._reread()
        return gpu_rows(self._allocator, self._shared_by_any(), self._visible())

    def queue(self) -> list[QueueRow]:
        """The containers that wait, the next one first."""
        return queue_rows(self._queue.order(), self._visible())

    def _visible(self) -> Callable[[str], bool]:
        view = self._context.registry.seen_by(self._caller)
        return lambda id: view.by_id(id) is not None

    # claims

    async def _reread(self) -> cdi.Registry:
        """Reads the CDI specifications: they may have changed."""
        registry = await asyncio.to_thread(cdi.load, self._context.config.cdi_spec_dirs)
        self._allocator.replace_catalog(catalog.from_registry(registry))
        return registry

    async def _read(self, container: Container) -> Demand:
        registry = await self._reread()
        return await asyncio.to_thread(read, container.host_config.device_requests or (), registry)

    async def _claim(self, container: Container) -> Claim | None:
        """What the container may claim; None: no GPU.

        :raises WharfError: PERMISSION_DENIED: the role does not allow it; INVALID_ARGUMENT, INTERNAL: see ``read`` and
            ``Allocator.claim``.
        """
        demand = await self._read(container)
        role = await self._roles.of(container.owner)
        if user_of(container.owner) and role is None:
            raise refused(f"GPUs: the policy gives no role to the user {user_of(container.owner)}")
        if demand.others and role is not None and not (role.devices or role.privileged):
            raise refused(f"--device {demand.others[0]}")
        if not demand:
            return None
        return self._allocator.claim(container.id, container.owner, demand, self._terms(role, container.owner))

    def _terms(self, role: Role | None, owner: str) -> Terms:
        bounds = self._roles.of_job(owner)
        job = bounds.gpus if bounds is not None else None
        if role is not None:
            return Terms(role.gpus, frozenset(role.shared_gpus), job)
        # Administrators share what any role shares: else they could never use a GPU that users share.
        return Terms(None, self._shared_by_any(), job) if not user_of(owner) else Terms(0)

    def _shared_by_any(self) -> frozenset[str]:
        return frozenset(name for role in self._roles.policy.roles.values() for name in role.shared_gpus)

    # the queue

    def _advance(self, claimant: Container | None = None) -> None:
        """Gives free GPUs to the next containers. ``claimant``: a container that is in the queue only for this call."""
        for waiting, hold in self._queue.advance(time.time_ns()):
            turn = self._turns.get(waiting.claim.container)
            container = turn.container if turn is not None else claimant
            if container is not None:
                container.gpus = sorted(hold.gpus)
            if turn is not None and not turn.granted.done():
                turn.granted.set_result(None)
        self._announce()

    def _leave(self, turn: _Turn) -> None:
        if self._turns.get(turn.container.id) is turn:
            del self._turns[turn.container.id]
        if turn.waiting in self._queue:
            self._queue.remove(turn.waiting)
            self._advance()

    def _announce(self) -> None:
        """Publishes the places that have changed."""
        turns = [turn for each in self._queue.order() if (turn := self._turns.get(each.claim.container)) is not None]
        for number, turn in enumerate(turns, 1):
            place = number, len(turns)
            if turn.place != place:
                turn.place = place
                self._context.publish(turn.container, EVENT, {"place": str(number), "of": str(len(turns))})

    # hooks

    def _stopped(self, container: Container) -> None:
        self.release(container)

    def _removed(self, container: Container) -> None:
        self.cancel(container)
        self.release(container)
        if self._meter is not None:
            self._meter.forget(container.id)


def _longest_wait(container: Container) -> float | None:
    """The seconds by the container's label; None: any time.

    :raises WharfError: INVALID_ARGUMENT: the label is no duration.
    """
    text = container.labels.get(WAIT_LABEL)
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise invalid(f"label {WAIT_LABEL}={text}: {error}") from None
