"""Volume records in the database; a volume's id is its name."""

from collections.abc import Sequence

from server.store.database import Database, Documents
from server.volumes.base import Volume


class VolumeStore:
    """Every call returns after the commit."""

    def __init__(self, database: Database) -> None:
        self._documents = Documents(database, "volumes")

    async def put(self, volume: Volume) -> None:
        await self._documents.put(volume.name, volume.name, volume.to_doc())

    async def delete(self, name: str) -> None:
        await self._documents.delete(name)

    async def load(self) -> Sequence[Volume]:
        return [Volume.from_doc(document) for _, _, document in await self._documents.all()]
