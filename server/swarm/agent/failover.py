"""The dispatcher of a manager's own node: its own manager, or the other ones while that one's store is silent.

A manager whose etcd is frozen, dead or cut off from the others can't serve its node, although the swarm is well. Its
node then follows the other managers, as a worker does, and returns when its own manager answers again.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from api_models.swarm.node import NodeDescription
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.networks.overlay.model import Keyring
from server.swarm.agent.dispatcher import Assignments, Dispatcher, NodeAddress, Payload
from server.swarm.model.objects import TaskStatus

log = logging.getLogger(__name__)

T = TypeVar("T")

timeouts.define("swarm.own-manager", 12.0)  # an answer of this node's own manager, whose store has ``swarm.store``

#: The most seconds for a heartbeat with the own manager: one with another manager must follow before the session is
#: over, which is three periods after the last one.
_BEAT = 3.0
#: Seconds between two heartbeats, until a manager has said it.
_PERIOD = 5.0
#: Seconds between two questions whether the own manager answers again.
_AGAIN = 1.0


class Failover:
    """Implements ``dispatcher.Dispatcher``; ``run`` is a part of the manager.

    The heartbeats notice first that the own manager is silent. Any other call that it doesn't answer is repeated with
    the other managers, too. The node follows these from the first answer on.
    """

    def __init__(
        self, own: Dispatcher, others: Callable[[], Dispatcher | None], answers: Callable[[], Awaitable[None]]
    ) -> None:
        """``others``: None: no other manager is known. ``answers`` returns when the own manager has all that was stored
        before the call; it may raise WharfError."""
        self._own = own
        self._others = others
        self._answers = answers
        self._period = _PERIOD
        #: The node follows the other managers.
        self._away = asyncio.Event()
        #: Set, and replaced, when that changes.
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Returns to the own manager when it answers."""
        while True:
            await self._away.wait()
            try:
                async with asyncio.timeout(timeouts.seconds("swarm.own-manager")):
                    await self._answers()
            except (TimeoutError, WharfError):
                await asyncio.sleep(_AGAIN)
                continue
            log.info("this node follows its own manager again")
            self._away.clear()
            self._change()

    def _leave(self) -> None:
        if not self._away.is_set():
            log.warning("this node's own manager does not answer: it follows the other managers")
            self._away.set()
            self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _ask(
        self, call: Callable[[Dispatcher], Awaitable[T]], *, seconds: float | None = None, repeatable: bool = True
    ) -> T:
        """``seconds``: how long the own manager may be silent."""
        if self._away.is_set():
            return await self._ask_others(call)
        if self._others() is None:
            return await call(self._own)
        failure = WharfError(Kind.UNAVAILABLE, "this node's own manager does not answer")
        try:
            async with asyncio.timeout(timeouts.seconds("swarm.own-manager") if seconds is None else seconds):
                return await call(self._own)
        except TimeoutError:
            pass
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            failure = error
        if not repeatable:
            raise failure
        return await self._ask_others(call)

    async def _ask_others(self, call: Callable[[Dispatcher], Awaitable[T]]) -> T:
        others = self._others()
        if others is None:
            raise WharfError(Kind.UNAVAILABLE, "no other manager is known")
        try:
            answer = await call(others)
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                self._leave()
            raise
        self._leave()
        return answer

    # Dispatcher

    async def assignments(self) -> AsyncIterator[Assignments]:
        while True:
            changed = self._changed
            dispatcher = self._others() if self._away.is_set() else self._own
            if dispatcher is None:
                raise WharfError(Kind.UNAVAILABLE, "no other manager is known")
            async with contextlib.aclosing(_until(changed, dispatcher.assignments())) as found:
                async for assignments in found:
                    yield assignments

    async def heartbeat(self) -> float:
        self._period = await self._ask(lambda each: each.heartbeat(), seconds=min(_BEAT, self._period))
        return self._period

    async def report(self, statuses: Mapping[str, TaskStatus]) -> None:
        await self._ask(lambda each: each.report(statuses))

    async def describe(self, description: NodeDescription) -> None:
        await self._ask(lambda each: each.describe(description))

    async def report_images(self, keys: str) -> None:
        await self._ask(lambda each: each.report_images(keys))

    async def end(self) -> None:
        await self._ask(lambda each: each.end())

    async def secret(self, id: str) -> Payload:
        return await self._ask(lambda each: each.secret(id))

    async def config(self, id: str) -> Payload:
        return await self._ask(lambda each: each.config(id))

    async def network_keys(self) -> Keyring:
        return await self._ask(lambda each: each.network_keys())

    async def registry_auth(self, service_id: str) -> str:
        return await self._ask(lambda each: each.registry_auth(service_id))

    async def image_peers(self, service_id: str) -> Sequence[NodeAddress]:
        return await self._ask(lambda each: each.image_peers(service_id))

    async def readable_images(self, service_id: str, node_id: str) -> Sequence[str]:
        return await self._ask(lambda each: each.readable_images(service_id, node_id))

    async def attach_network(
        self, container_id: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, str]:
        # A repetition could make a second task.
        return await self._ask(lambda each: each.attach_network(container_id, key, addresses, names), repeatable=False)

    async def detach_network(self, task_id: str) -> None:
        await self._ask(lambda each: each.detach_network(task_id))


async def _until(changed: asyncio.Event, stream: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The items of a stream, until an event."""
    waiting = asyncio.create_task(changed.wait())
    following: asyncio.Future[T] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(stream))
            await asyncio.wait((waiting, following), return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return
            try:
                item = following.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        tasks = [task for task in (waiting, following) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
