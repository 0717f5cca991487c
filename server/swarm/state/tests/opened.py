"""A store on disk with its state, for tests of what works on them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.swarm.state.state import State
from server.swarm.store.sqlite import SqliteStore


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[SqliteStore, State]]:
    """``path``: the directory of the database."""
    store = SqliteStore(path / "swarm.db")
    await store.open()
    state = State(store)
    await state.open()
    try:
        yield store, state
    finally:
        await state.close()
        await store.close()
