"""Job sockets in the database, among the daemon's single values: engines without a policy have none."""

import logging

from server.jobs.model import Job
from server.store.database import Database, Documents

log = logging.getLogger(__name__)

_PREFIX = "job/"


class JobStore:
    """Every call returns after the commit."""

    def __init__(self, database: Database) -> None:
        self._documents = Documents(database, "settings")

    async def put(self, job: Job) -> None:
        await self._documents.put(_PREFIX + job.id, None, job.to_doc())

    async def delete(self, id: str) -> None:
        await self._documents.delete(_PREFIX + id)

    async def load(self) -> list[Job]:
        """All records; an unreadable one is logged and stays in the database."""
        found = []
        for key, _, document in await self._documents.all():
            if key.startswith(_PREFIX):
                try:
                    found.append(Job.from_doc(document))
                except (ValueError, TypeError, KeyError):
                    log.exception("job socket %s: the record can't be read", key)
        return found
