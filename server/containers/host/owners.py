"""The user namespaces of owners: root in a container of a user is that user on the host, and nobody else.

In the containers of a user of this host, the ids 0 (uid and gid) are the user's own uid and primary group; the ids from
1 on are subordinate ids. So a file that root in the container writes to a bind of ``/home/alice`` belongs to alice,
also on file systems that can't map ids (NFS, FUSE), and a set-id program made there is alice's. The subordinate ids
are those of ``/etc/subuid`` and ``/etc/subgid`` for this user, else a block of the pool in ``policy.toml``, which
belongs to this user for ever. Owners who are no users of the host (clients with a certificate) have subordinate ids
only.

The layers and volumes of users have the ids in the container on disk, and mounts that map them (``remap.py``).
"""

import asyncio
import pwd
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import orjson

from engine.common.errors import Kind, WharfError
from engine.common.ids import IdMapping, IdMaps
from server.access.owners import user_of
from server.config.subids import SUBGID, SUBUID, ranges
from server.config.types import ConfigError
from server.containers.host.remap import Remap

#: Ids of one block of the pool: enough for the ids of every image (``nobody`` is 65534).
BLOCK = 65536

Pool = tuple[int, int]


class Store(Protocol):
    """The durable blocks: user → the first id."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, name: str | None, document: bytes) -> None: ...


_KEY = "id-blocks"


class OwnerIds:
    """The mappings of owners. ``pool``: the first and the last id of the pool; called when a block is needed."""

    def __init__(self, store: Store, pool: Callable[[], Pool]) -> None:
        self._store = store
        self._pool = pool
        self._blocks: dict[str, int] | None = None

    async def maps(self, user: str) -> IdMaps:
        """:raises WharfError: RESOURCE_EXHAUSTED: the pool has no block left; INVALID_ARGUMENT: a malformed file."""
        # In a thread: a directory server may answer.
        account, uids, gids = await asyncio.to_thread(_host_ids, user)
        if not (uids and gids):
            first = await self._block(user)
            uids = gids = [(first, BLOCK)]
        if account is None:
            return IdMaps(_mappings(0, uids), _mappings(0, gids))
        return IdMaps(
            (IdMapping(0, account.pw_uid, 1), *_mappings(1, uids)),
            (IdMapping(0, account.pw_gid, 1), *_mappings(1, gids)),
        )

    async def _block(self, user: str) -> int:
        if self._blocks is None:
            stored = await self._store.get(_KEY)
            self._blocks = orjson.loads(stored) if stored is not None else {}
        known = self._blocks.get(user)
        if known is None:
            # Before the write: a second create of the user meanwhile must not choose another block.
            known = self._blocks[user] = self._free(self._blocks)
            await self._store.put(_KEY, None, orjson.dumps(self._blocks))
        return known

    def _free(self, blocks: Mapping[str, int]) -> int:
        first, last = self._pool()
        taken = set(blocks.values())
        others = [*ranges(SUBUID), *ranges(SUBGID)]
        for start in range(first, last - BLOCK + 2, BLOCK):
            if not any(start < other + BLOCK and other < start + BLOCK for other in taken) and not any(
                start < other + size and other < start + BLOCK for other, size in others
            ):
                return start
        raise WharfError(Kind.RESOURCE_EXHAUSTED, f"the pool of ids {first}-{last} has no free block of {BLOCK} ids")


def _host_ids(user: str) -> tuple[pwd.struct_passwd | None, list[tuple[int, int]], list[tuple[int, int]]]:
    """The host's user of this name, and its subordinate uids and gids."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        account = None
    owners = (user, str(account.pw_uid)) if account is not None else (user,)
    try:
        return account, ranges(SUBUID, owners), ranges(SUBGID, owners)
    except ConfigError as error:
        raise WharfError(Kind.INVALID_ARGUMENT, str(error)) from None


def _mappings(inside: int, found: Iterable[tuple[int, int]]) -> tuple[IdMapping, ...]:
    mappings = []
    for first, size in found:
        mappings.append(IdMapping(inside, first, size))
        inside += size
    return tuple(mappings)


class OwnerRemaps:
    """The mappings of owners who have containers, each with one user namespace and idmapped mounts below
    ``directory``, which only root may enter: an idmapped mount gives the data root to the user."""

    def __init__(self, ids: OwnerIds, directory: str, root: str) -> None:
        self._ids = ids
        self._directory = directory
        self._root = root
        self._remaps: dict[str, Remap] = {}

    async def prepare(self, owner: str) -> Remap | None:
        """The mapping of an owner, made if it is missing; None for the administrators.

        :raises WharfError: see ``OwnerIds.maps``.
        """
        user = user_of(owner)
        if not user:
            return None
        found = self._remaps.get(user)
        if found is None:
            maps = await self._ids.maps(user)
            found = self._remaps.setdefault(user, Remap(maps, f"{self._directory}/{user}", self._root, private=True))
        return found

    def get(self, owner: str) -> Remap:
        """The mapping of an owner for whom ``prepare`` has returned."""
        return self._remaps[user_of(owner)]

    def close(self) -> None:
        """Removes all mounts. Blocks."""
        for remap in self._remaps.values():
            remap.close()
