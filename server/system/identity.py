"""The engine's ID: a random UUID that is stored at the first start."""

import uuid

from server.store.database import Database, Documents


async def engine_id(database: Database) -> str:
    """Return the ID stored as ``settings/engine-id``; create it at the first start."""
    settings = Documents(database, "settings")
    known = await settings.get("engine-id")
    if known is not None:
        return known.decode()
    made = str(uuid.uuid4())
    await settings.put("engine-id", None, made.encode())
    return made
