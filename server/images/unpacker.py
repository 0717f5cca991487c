"""Unpacks layers of new images in the background: ``docker commit`` returns once the blob is written.

Code that needs the snapshots waits: a container's root file system on the lock that every unpacking takes, sizes on
``finished``. If the daemon stops before, the first container of the image unpacks the layers.
"""

import asyncio
import logging
from collections.abc import Sequence

from engine.api.client import Engine
from engine.api.types import Descriptor
from engine.common.errors import WharfError
from server.registry.oci import chain_ids
from server.registry.unpack import unpack

log = logging.getLogger(__name__)


class Unpacker:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, layers: Sequence[Descriptor], diff_ids: Sequence[str]) -> None:
        """Start unpacking in the background."""
        chain = chain_ids(diff_ids)[-1]
        if chain not in self._tasks:
            task = asyncio.create_task(self._run(tuple(layers), tuple(diff_ids)), name=f"unpack {chain}")
            self._tasks[chain] = task
            task.add_done_callback(lambda _: self._tasks.pop(chain, None))

    async def finished(self, chain_id: str) -> bool:
        """Wait for a layer by its chain id; ``False`` if it is not being unpacked."""
        task = self._tasks.get(chain_id)
        if task is None:
            return False
        await asyncio.wait((task,))
        return True

    async def stop(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, layers: Sequence[Descriptor], diff_ids: Sequence[str]) -> None:
        try:
            async with self._engine.leases.acquire():
                await unpack(self._engine, layers, diff_ids)
        except WharfError as error:
            # The image may have been removed; other errors recur with its first container.
            log.info("unpacking a new image: %s", error.message)
