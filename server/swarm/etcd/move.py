"""Moves the state of a swarm from SQLite into a new etcd."""

from pathlib import Path

from server.swarm.model import codec
from server.swarm.store.interface import MAX_OPERATIONS, Store, Write
from server.swarm.store.sqlite import SqliteStore


async def move(database: Path, store: Store) -> None:
    """Copies every entry into the store, which is empty."""
    source = SqliteStore(database)
    await source.open()
    try:
        entries, _ = await source.range(codec.ROOT)
    finally:
        await source.close()
    for start in range(0, len(entries), MAX_OPERATIONS):
        part = entries[start : start + MAX_OPERATIONS]
        await store.commit([], [Write(entry.key, entry.value) for entry in part])
