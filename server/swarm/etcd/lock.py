"""A lock between managers: a member of etcd that starts again is missing from the majority until it serves."""

import contextlib
from collections.abc import AsyncIterator

from engine.common.errors import WharfError
from server.swarm.store.interface import Condition, ConditionFailed, Store, Write

#: Not below the prefix of the swarm's objects: the state has no copy of it.
KEY = "wharf/restart-lock"
#: Seconds after which the lock of a manager that has died ends: more than a stop and a start of etcd may take
#: (``swarm.etcd-stop``, ``swarm.etcd-start``).
_LEASE = 60


@contextlib.asynccontextmanager
async def restart_lock(store: Store) -> AsyncIterator[None]:
    """Waits until no other manager is in this block.

    :raises WharfError: of the store, but not at the end of the block: the lock ends with its lease.
    """
    lease = await _begin(store)
    try:
        yield
    finally:
        with contextlib.suppress(WharfError):
            await store.revoke(lease)


async def _begin(store: Store) -> int:
    while True:
        lease = await store.grant(_LEASE)
        try:
            await store.commit([Condition(KEY, 0)], [Write(KEY, b"", lease)])
            return lease
        except ConditionFailed:
            await store.revoke(lease)
        await _vacant(store)


async def _vacant(store: Store) -> None:
    entries, revision = await store.range(KEY)
    if not entries:
        return
    async for commit in store.watch(KEY, revision):
        if any(change.value is None for change in commit.changes):
            return
