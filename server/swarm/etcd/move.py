"""Moves the state of a swarm into a new etcd, when the first other node joins.

The former store isn't changed. The move is complete when the caller has stored in ``node.json`` that the swarm uses
etcd (``Membership.store``); an attempt that ended before begins anew.
"""

import logging
from collections.abc import Iterator, Sequence

from engine.common.errors import internal
from engine.common.system.task_groups import run_all
from server.swarm.etcd.child import EtcdChild
from server.swarm.etcd.program import MemberOptions, Pems
from server.swarm.model import codec
from server.swarm.model.objects import Leader, Session
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.interface import MAX_OPERATIONS, Entry, Store, Write

log = logging.getLogger(__name__)

#: The most bytes of values in one transaction, and so many transactions at a time: etcd accepts requests of 1.5 MiB and
#: stores those that wait together by one write to the disk.
_BYTES, _PARALLEL = 512 << 10, 8


async def move(source: Store, options: MemberOptions, pems: Pems) -> EtcdChild:
    """Starts a new etcd with everything that ``source`` has of the swarm, and returns it when it serves. Nobody writes
    to ``source`` meanwhile.

    Revisions go on: all of the new store are greater than those of ``source``.

    :raises WharfError: of etcd and its program, or of a store. etcd does not run then.
    """
    child = EtcdChild(options, pems)
    try:
        await child.start(discard=True)
        await child.serving()
        store = EtcdStore([child.endpoint])
        try:
            await copy(source, store)
        finally:
            await store.close()
    except BaseException:
        await child.close()
        raise
    return child


async def copy(source: Store, target: EtcdStore) -> None:
    """Copies everything into an empty store, and reads it back.

    :raises WharfError: of a store; INTERNAL: what is read back differs.
    """
    entries, revision = await source.range(codec.ROOT)
    wanted = [entry for entry in entries if not _is_leased(entry)]
    await target.begin_after(revision)
    batches = _batches(wanted)

    async def write() -> None:
        for batch in batches:
            await target.commit([], batch)

    await run_all(write() for _ in range(_PARALLEL))
    found, reached = await target.range(codec.ROOT)
    if reached <= revision or {each.key: each.value for each in found} != {each.key: each.value for each in wanted}:
        raise internal("the state of the swarm could not be moved: etcd has other entries than were written")
    log.info("the swarm's state was moved into etcd: %d entries", len(wanted))


def _is_leased(entry: Entry) -> bool:
    """An entry that would be of a lease of the former store."""
    found = codec.split(entry.key)
    return found is not None and found[0] in (Session, Leader)


def _batches(entries: Sequence[Entry]) -> Iterator[Sequence[Write]]:
    batch: list[Write] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) == MAX_OPERATIONS or size + len(entry.value) > _BYTES):
            yield batch
            batch, size = [], 0
        batch.append(Write(entry.key, entry.value))
        size += len(entry.value)
    if batch:
        yield batch
