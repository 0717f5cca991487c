"""Reports to the managers which images this node has."""

import asyncio
import logging
from collections.abc import AsyncIterator

from engine.common.errors import Kind, WharfError
from server.swarm.agent.dispatcher import Dispatcher
from server.swarm.model.images import keys_of

log = logging.getLogger(__name__)

#: Seconds between two reports: a pull or a build changes several names.
_PAUSE = 5.0


async def report_images(references: AsyncIterator[set[str]], dispatcher: Dispatcher, *, pause: float = _PAUSE) -> None:
    """Reports until it is cancelled. ``references``: see ``neighbours.Images``."""
    newest: set[str] = set()
    changed = asyncio.Event()

    async def follow() -> None:
        nonlocal newest
        async for current in references:
            newest = current
            changed.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(follow(), name="swarm-image-names")
        reported: str | None = None
        while True:
            await changed.wait()
            changed.clear()
            keys = await asyncio.to_thread(keys_of, newest)
            if keys == reported:
                continue
            try:
                await dispatcher.report_images(keys)
                reported = keys
            except WharfError as error:
                # It only helps the scheduler.
                level = logging.DEBUG if error.kind is Kind.UNAVAILABLE else logging.WARNING
                log.log(level, "the images of this node are not reported: %s", error.message)
                changed.set()
            await asyncio.sleep(pause)
