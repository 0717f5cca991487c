"""The images of tasks: pulls those that this node lacks, each once for all tasks that wait for it."""

import asyncio
import logging
from dataclasses import dataclass

from engine.common.errors import Kind, WharfError
from server.registry.auth import ANONYMOUS, from_header
from server.registry.reference import parse
from server.swarm.agent.dispatcher import Dispatcher
from server.swarm.agent.neighbours import Images

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pull:
    work: "asyncio.Task[None]"
    waiting: int = 0


class Pulls:
    """The running pulls, by image and credentials. A pull ends with its last waiter."""

    def __init__(self, images: Images, dispatcher: Dispatcher) -> None:
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
            pull = self._running[key] = _Pull(asyncio.create_task(self._pull(image, auth), name=f"pull {image}"))
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

    async def _pull(self, image: str, auth: str) -> None:
        try:
            reference = parse(image).tagged()
            credentials = from_header(auth) if auth else ANONYMOUS
            async for _ in self._images.pull(reference, credentials=credentials):
                pass
        except WharfError as error:
            log.error("pulling image %s failed: %s", image, error)
