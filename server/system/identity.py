"""The engine's ID: made once, the same for ever."""

import uuid

from server.store.database import Database, Documents


async def engine_id(database: Database) -> str:
    """The ID under ``settings/engine-id``; made on the first start."""
    settings = Documents(database, "settings")
    known = await settings.get("engine-id")
    if known is not None:
        return known.decode()
    made = str(uuid.uuid4())
    await settings.put("engine-id", None, made.encode())
    return made
