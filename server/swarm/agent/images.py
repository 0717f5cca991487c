"""The images of tasks: pulls those that this node lacks, each once for all tasks that wait for it.

The registry is asked first, with the credentials of the service. If it lacks or refuses the image, or gives no answer
for some seconds, other nodes are asked: the managers which image a tag is, then those that have prepared a task of the
service, and the managers, for its content. So an image that was built or loaded on one manager runs on all nodes, where
dockerd rejects the tasks with ``No such image: …``. The registry's refusal doesn't keep the service from the image, as
it doesn't on a node that has it already: what counts is that the node has a task of the service. An answer that comes
while other nodes send the image decides which image it is: a tag may be an older image on them.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from server.registry.auth import ANONYMOUS, Credentials, from_header
from server.registry.reference import Reference, parse
from server.registry.source import Source
from server.swarm.agent.dispatcher import Dispatcher, NodeAddress
from server.swarm.agent.neighbours import Images

log = logging.getLogger(__name__)

timeouts.define("swarm.registry", 5.0)  # until the registry has answered; then other nodes are asked, too


@dataclass(slots=True)
class _Pull:
    work: "asyncio.Task[None]"
    waiting: int = 0


#: The image of a service, by the service's id, at these nodes.
Peers = Callable[[Reference, str, Sequence[NodeAddress]], AbstractAsyncContextManager[Source]]


class Pulls:
    """The running pulls, by image and credentials. A pull ends with its last waiter. ``peers`` None: only registries
    are asked."""

    def __init__(self, images: Images, dispatcher: Dispatcher, peers: Peers | None = None) -> None:
        self._peers = peers
        self._images = images
        self._dispatcher = dispatcher
        self._running: dict[tuple[str, str], _Pull] = {}

    async def ensure(self, image: str, service_id: str) -> None:
        """Returns when the image is on this node, or its pull has failed, which is logged: dockerd's error is that of
        the create, ``No such image: …``.

        :raises WharfError: UNAVAILABLE: no manager answers the question for the credentials.
        """
        if await self._images.find_id(image) is not None:
            return
        auth = await self._registry_auth(service_id)
        key = image, auth
        pull = self._running.get(key)
        if pull is None:
            pull = self._running[key] = _Pull(
                asyncio.create_task(self._pull(image, auth, service_id), name=f"pull {image}")
            )
        pull.waiting += 1
        try:
            await asyncio.wait({pull.work})
        finally:
            pull.waiting -= 1
            if not pull.waiting:
                self._running.pop(key, None)
                pull.work.cancel()
                await asyncio.gather(pull.work, return_exceptions=True)

    async def _registry_auth(self, service_id: str) -> str:
        try:
            return await self._dispatcher.registry_auth(service_id)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return ""

    async def _pull(self, image: str, auth: str, service_id: str) -> None:
        try:
            reference = parse(image).tagged()
            credentials = from_header(auth) if auth else ANONYMOUS
        except WharfError as error:
            log.error("pulling image %s failed: %s", image, error)
            return
        answered = asyncio.Event()
        registry = asyncio.create_task(self._pull_from_registry(reference, credentials, answered))
        answer = asyncio.create_task(answered.wait())
        peers: asyncio.Task[bool] | None = None
        try:
            patience = timeouts.seconds("swarm.registry")
            await asyncio.wait((registry, answer), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not (registry.done() or answer.done()):
                log.info("image %s: its registry has not answered in %g s; other nodes are asked, too", image, patience)
                peers = asyncio.create_task(self._pull_from_peers(reference, service_id))
                await asyncio.wait((registry, answer, peers), return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    # What the tag is at the registry may not be what it is on other nodes.
                    peers.cancel()
                elif peers.done() and peers.result():
                    return
            failure = await registry
            if failure is None:
                return
            # A full disk is full for other nodes' bytes, too.
            if failure.kind is not Kind.RESOURCE_EXHAUSTED:
                if peers is None or peers.done() or peers.cancelling():
                    sent = await self._pull_from_peers(reference, service_id)
                else:
                    sent = await peers
                if sent:
                    return
            log.error("pulling image %s failed: %s", image, failure)
        finally:
            tasks = [task for task in (registry, answer, peers) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pull_from_registry(
        self, reference: Reference, credentials: Credentials, answered: asyncio.Event
    ) -> WharfError | None:
        """``answered`` is set when the registry has said which image it is. Returns the failure."""
        try:
            async for _ in self._images.pull(reference, credentials=credentials):
                answered.set()
        except WharfError as error:
            return error
        return None

    async def _pull_from_peers(self, reference: Reference, service_id: str) -> bool:
        if self._peers is None:
            return False
        try:
            nodes = await self._dispatcher.image_peers(service_id)
            if not nodes:
                return False
            async with self._peers(reference, service_id, nodes) as source:
                await self._images.pull_from(source, reference)
        except WharfError as error:
            log.warning("no other node sent image %s: %s", reference.familiar, error)
            return False
        log.info("image %s came from another node", reference.familiar)
        return True
