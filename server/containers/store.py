"""Container records in the database: one document per container, with its id and name."""

import logging
from collections.abc import Sequence

from server.access.owners import qualified
from server.containers.model import Container
from server.store.database import Database, Documents

log = logging.getLogger(__name__)


class ContainerStore:
    """Every call returns after the commit."""

    def __init__(self, database: Database) -> None:
        self._documents = Documents(database, "containers")

    async def put(self, container: Container, *, frees: bool = False) -> None:
        """Writes or replaces a record. ``frees``: on a full disk the write may use the database's reserve.

        :raises WharfError: RESOURCE_EXHAUSTED: the disk is full.
        """
        name = qualified(container.owner, container.name)
        await self._documents.put(container.id, name, container.to_doc(), frees=frees)

    async def delete(self, id: str) -> None:
        await self._documents.delete(id)

    async def load(self) -> Sequence[Container]:
        """All records. A malformed one is logged, skipped, and stays in the database."""
        found = []
        for id, _, document in await self._documents.all():
            try:
                found.append(Container.from_doc(document))
            except (ValueError, KeyError, TypeError):
                log.exception("container=%s record cannot be read and is ignored", id)
        return found
