"""Which manager is the leader: the one that has stored the object ``Leader``, with a lease that it keeps alive."""

import asyncio
import contextlib
import logging
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Awaitable, Callable, Coroutine

from engine.common import timeouts
from engine.common.errors import WharfError
from server.swarm.model.objects import LEADER, Leader
from server.swarm.state.fenced import FencedState
from server.swarm.state.state import Conflict, Delete, Put, State, Subscription
from server.swarm.store.interface import LeaseEnded

log = logging.getLogger(__name__)

timeouts.define("swarm.resign", 2.0)  # the store ends the lease; it ends by itself soon after

#: Seconds that a lease lives without a renewal.
LEASE = 5
#: Parts of these seconds: between two renewals, and between the end of the leader's work and that of the lease.
_RENEWAL, _MARGIN = 0.3, 0.1
#: Seconds after a renewal that failed, and after a candidature that failed.
_PAUSE, _RETRY = 0.1, 0.5

#: What the leader does, on its own view of the state, until it is cancelled.
Lead = Callable[[State], Awaitable[None]]


class Leadership:
    """A part of each manager of a swarm of several.

    It runs ``lead`` while this node is the leader. It cancels it before the lease can have ended in the store, by the
    clock of this node, and when the object ``Leader`` is deleted. The commits of ``lead`` fail from the moment on in
    which another node can be the leader, also if this process was paused: see ``FencedState``."""

    def __init__(self, state: State, node_id: str, lead: Lead, *, lease: int = LEASE) -> None:
        self._state = state
        self._node_id = node_id
        self._lead = lead
        self._seconds = lease
        self._resigned = asyncio.Event()

    async def run(self) -> None:
        """Runs until it is cancelled; then another manager can be the leader at once."""
        subscription = self._state.subscribe()
        try:
            failed = False
            while True:
                try:
                    await self._wait_vacant(subscription)
                    await self._campaign(subscription)
                    failed = False
                except WharfError as error:
                    log.log(logging.DEBUG if failed else logging.WARNING, "no leader of the swarm: %s", error.message)
                    failed = True
                    await asyncio.sleep(_RETRY)
        finally:
            subscription.close()

    async def resign(self) -> None:
        """Another manager becomes the leader. This one tries again when the other is none any more, or after the time
        of a lease if there is no other."""
        self._resigned.set()

    async def _wait_vacant(self, subscription: Subscription) -> None:
        if self._resigned.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    while self._state.tables.leader is None:
                        await subscription.next()
            self._resigned.clear()
        while (leader := self._state.tables.leader) is not None:
            if leader.node_id == self._node_id:
                # Of an earlier run of this node, which has not ended in order.
                with contextlib.suppress(Conflict):
                    await self._state.commit([Delete(leader)])
                    continue
            await subscription.next()

    async def _campaign(self, subscription: Subscription) -> None:
        asked = _now()
        lease = await self._state.store.grant(self._seconds)
        try:
            leader = Leader(id=LEADER, node_id=self._node_id, created_ns=time.time_ns())
            try:
                await self._state.commit([Put(leader, lease)])
            except Conflict:
                # The tables get the object of the one who was first.
                await self._state.synchronize()
                return
            except LeaseEnded:
                return
            found = self._state.tables.leader
            if found is not None and found.created_ns == leader.created_ns and found.node_id == self._node_id:
                await self._be_leader(found, lease, asked + self._seconds, subscription)
        finally:
            await _shielded(self._revoke(lease))

    async def _be_leader(self, leader: Leader, lease: int, ends: float, subscription: Subscription) -> None:
        log.info("node=%s is the leader of the swarm", self._node_id)
        self._resigned.clear()
        work = asyncio.ensure_future(self._lead(FencedState(self._state, leader)))
        ends_by = (self._keep(lease, ends), self._replaced(leader, subscription), self._wait_resigned())
        watching = [asyncio.create_task(each) for each in ends_by]
        try:
            await asyncio.wait([work, *watching], return_when=FIRST_COMPLETED)
            reasons = [task.result() for task in watching if task.done()]
        finally:
            for task in (work, *watching):
                task.cancel()
            results = await asyncio.gather(work, *watching, return_exceptions=True)
        log.info(
            "node=%s is not the leader of the swarm any more: %s", self._node_id, *(reasons or ["it has failed"])[:1]
        )
        if isinstance(results[0], Exception):
            raise results[0]

    async def _keep(self, lease: int, ends: float) -> str:
        """Renews the lease, until it can't be shown to be alive."""
        margin = self._seconds * _MARGIN
        pause = self._seconds * _RENEWAL
        while True:
            await asyncio.sleep(min(pause, max(ends - margin - _now(), 0)))
            asked = _now()
            if asked >= ends - margin:
                return "its lease could not be renewed"
            try:
                async with asyncio.timeout(ends - margin - asked):
                    await self._state.store.keep_alive(lease)
            except LeaseEnded:
                return "its lease has ended"
            except (TimeoutError, WharfError):
                pause = _PAUSE
            else:
                ends = asked + self._seconds
                pause = self._seconds * _RENEWAL

    async def _replaced(self, leader: Leader, subscription: Subscription) -> str:
        while (found := self._state.tables.leader) is not None and found.version == leader.version:
            await subscription.next()
        return "its object was deleted"

    async def _wait_resigned(self) -> str:
        await self._resigned.wait()
        return "it has resigned"

    async def _revoke(self, lease: int) -> None:
        with contextlib.suppress(WharfError):
            async with timeouts.limit("swarm.resign"):
                await self._state.store.revoke(lease)


async def _shielded(work: Coroutine[None, None, None]) -> None:
    """Waits for the end of ``work`` also if this task is cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def _now() -> float:
    """Seconds of a clock that also runs while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
