"""Networks and the sandboxes of running containers in the database."""

import logging
from collections.abc import Mapping, Sequence

from server.access.owners import qualified
from server.networks.model import Network, SandboxRecord
from server.store.database import Database, Documents

log = logging.getLogger(__name__)


class NetworkStore:
    """Every call returns after the commit. A sandbox is stored under its container's id."""

    def __init__(self, database: Database) -> None:
        self._networks = Documents(database, "networks")
        self._sandboxes = Documents(database, "endpoints")
        self._overlays = Documents(database, "overlays")

    async def put(self, network: Network) -> None:
        await self._networks.put(network.id, qualified(network.owner, network.name), network.to_doc())

    async def delete(self, network: Network) -> None:
        await self._networks.delete(network.id)

    async def put_sandbox(self, sandbox: SandboxRecord) -> None:
        await self._sandboxes.put(sandbox.container, None, sandbox.to_doc())

    async def delete_sandbox(self, container: str) -> None:
        await self._sandboxes.delete(container)

    async def put_overlay(self, key: str, document: bytes) -> None:
        await self._overlays.put(key, None, document)

    async def delete_overlay(self, key: str) -> None:
        await self._overlays.delete(key)

    async def load_overlays(self) -> Mapping[str, bytes]:
        return {key: document for key, _, document in await self._overlays.all()}

    async def load(self) -> tuple[Sequence[Network], Sequence[SandboxRecord]]:
        """All readable records; an unreadable one is logged and left in the database."""
        networks, sandboxes = [], []
        for key, _, document in await self._networks.all():
            try:
                networks.append(Network.from_doc(document))
            except (ValueError, KeyError, TypeError):
                log.exception("network=%s record cannot be read and is ignored", key)
        for key, _, document in await self._sandboxes.all():
            try:
                sandboxes.append(SandboxRecord.from_doc(document))
            except (ValueError, KeyError, TypeError):
                log.exception("container=%s network record cannot be read and is ignored", key)
        return networks, sandboxes
