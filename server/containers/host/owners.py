"""The user namespaces of owners: root in a container of a user is that user on the host, and nobody else.

In the containers of a user of this host, the ids 0 (uid and gid) are the user's own uid and primary group; all others
are subordinate ids. So a file that root in the container writes to a bind of ``/home/alice`` belongs to alice, also on
file systems that can't map ids (NFS, FUSE), and a set-id program made there is alice's. In a container that runs as the
user's own id (``--user 1000:1000``) this id is the user's instead, and root there has a subordinate id.

The supplementary groups of the client that created a container keep their ids there, so that a process with
``--group-add 5000`` has the rights of the host's group 5000. The kernel asks for no line in ``/etc/subgid``: the host's
root writes the mapping. What the container's root can do with such a group, the user can do on the host: that root
has capabilities over a file only if its owner is mapped, too. The group root (0) is left out.

The subordinate ids are those of ``/etc/subuid`` and ``/etc/subgid`` for this user, else a block of the pool in
``policy.toml``, which belongs to this user for ever. Owners who are no users of the host (clients with a certificate)
have subordinate ids only.

The layers and volumes of users have the ids in the container on disk, and mounts that map them (``remap.py``).
"""

import asyncio
import hashlib
import pwd
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from engine.common.errors import Kind, WharfError
from engine.common.ids import IdMapping, IdMaps
from engine.common.system import mounts
from server.access.owners import user_of
from server.config.subids import SUBGID, SUBUID, ranges
from server.config.types import ConfigError
from server.containers.host.remap import Remap

#: How many supplementary groups keep their ids, those with the lowest: a mapping is written by one call of a page.
MOST_GROUPS = 32
#: Ids of one block of the pool: enough for the ids of every image (``nobody`` is 65534).
BLOCK = 65536

Pool = tuple[int, int]
Range = tuple[int, int]


class Store(Protocol):
    """The durable blocks: user → the first id."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, name: str | None, document: bytes) -> None: ...


_KEY = "id-blocks"


class OwnerIds:
    """The ids of owners. ``pool``: the first and the last id of the pool; called when a block is needed."""

    def __init__(self, store: Store, pool: Callable[[], Pool]) -> None:
        self._store = store
        self._pool = pool
        self._blocks: dict[str, int] | None = None

    async def of(self, user: str) -> "UserIds":
        """:raises WharfError: RESOURCE_EXHAUSTED: the pool has no block left; INVALID_ARGUMENT: a malformed file."""
        # In a thread: a directory server may answer.
        found = await asyncio.to_thread(_host_ids, user)
        if found.uids and found.gids:
            return found
        block = ((await self._block(user), BLOCK),)
        return replace(found, uids=block, gids=block)

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


def _host_ids(user: str) -> "UserIds":
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        account = None
    owners = (user, str(account.pw_uid)) if account is not None else (user,)
    try:
        uids, gids = tuple(ranges(SUBUID, owners)), tuple(ranges(SUBGID, owners))
    except ConfigError as error:
        raise WharfError(Kind.INVALID_ARGUMENT, str(error)) from None
    return UserIds((account.pw_uid, account.pw_gid) if account is not None else None, uids, gids)


@dataclass(frozen=True, slots=True)
class UserIds:
    """``own``: the uid and the primary gid; None: no user of this host. ``uids`` and ``gids``: ranges of subordinate
    ids, as the first one and the number."""

    own: tuple[int, int] | None
    uids: tuple[Range, ...] = ()
    gids: tuple[Range, ...] = ()

    def inside(self, user: str) -> tuple[int, int]:
        """The ids in a container that are the user's own. ``user``: as whom the container runs (``--user``)."""
        uid, _, gid = user.partition(":")
        if self.own is None or uid != str(self.own[0]):
            return 0, 0
        return self.own[0], self.own[1] if gid == str(self.own[1]) else 0

    def maps(self, inside: tuple[int, int], groups: Iterable[int] = ()) -> IdMaps:
        """The mapping of a container in which ``inside`` are the user's own ids, and ``groups`` keep their ids."""
        uid, gid = self.own or (-1, -1)
        gids = _mappings(inside[1], gid, self.gids)
        for group in groups:
            gids = _with_id(gids, group)
        return IdMaps(_mappings(inside[0], uid, self.uids), gids)


def groups_of(credentials: Sequence[int]) -> tuple[int, ...]:
    """The groups that keep their ids in a container with these credentials (``ContainerPlan.credentials``)."""
    return tuple(sorted(set(credentials[2:]) - {0, credentials[1]})[:MOST_GROUPS]) if credentials else ()


def _mappings(inside: int, own: int, subordinate: Iterable[Range]) -> tuple[IdMapping, ...]:
    """Maps ``inside`` to the host's ``own``, and all other ids from 0 on to the subordinate ones. ``own`` -1: there is
    no such id."""
    found = [IdMapping(inside, own, 1)] if own >= 0 else []
    position = 0
    for start, count in subordinate:
        first, size = start, count
        while size:
            if own >= 0 and position == inside:
                position += 1
            part = min(size, inside - position) if own >= 0 and position < inside else size
            found.append(IdMapping(position, first, part))
            position, first, size = position + part, first + part, size - part
    return tuple(sorted(found, key=lambda mapping: mapping.container_id))


def _with_id(mappings: tuple[IdMapping, ...], id: int) -> tuple[IdMapping, ...]:
    """The same with ``id`` mapped to itself. All other ids keep theirs, as files on binds have them. An id of the host
    that is mapped already, as a subordinate one, stays where it is."""
    if any(item.host_id <= id < item.host_id + item.size for item in mappings):
        return mappings
    found = [IdMapping(id, id, 1)]
    for item in mappings:
        before = min(max(id - item.container_id, 0), item.size)
        after = item.size - before - (1 if before < item.size and id >= item.container_id else 0)
        if before:
            found.append(replace(item, size=before))
        if after:
            skipped = item.size - after
            found.append(IdMapping(item.container_id + skipped, item.host_id + skipped, after))
    return tuple(sorted(found, key=lambda mapping: mapping.container_id))


class OwnerRemaps:
    """The mappings of owners who have containers, each with a user namespace and idmapped mounts below ``directory``,
    which only root may enter: an idmapped mount gives the data root to the user."""

    def __init__(self, ids: OwnerIds, directory: str, root: str) -> None:
        self._ids = ids
        self._directory = directory
        self._root = root
        self._users: dict[str, UserIds] = {}
        self._remaps: dict[tuple[str, tuple[int, int], tuple[int, ...]], Remap] = {}

    async def prepare(self, owner: str) -> None:
        """Finds the ids of an owner, "" for the administrators.

        :raises WharfError: see ``OwnerIds.of``.
        """
        user = user_of(owner)
        if user and user not in self._users:
            self._users[user] = await self._ids.of(user)

    def inside(self, owner: str, user: str) -> tuple[int, int]:
        """The ids that are the owner's own in a container that runs as ``user``. ``prepare`` must have returned for the
        owner."""
        return self._users[user_of(owner)].inside(user)

    def get(self, owner: str, user: str, groups: tuple[int, ...]) -> Remap:
        """The mapping of a container that runs as ``user``, made if it is missing, but not opened. ``groups``: see
        ``groups_of``. See ``inside``."""
        name, inside = user_of(owner), self.inside(owner, user)
        found = self._remaps.get((name, inside, groups))
        if found is None:
            # A path in the options of overlayfs must be short, and not contain a colon.
            digest = f".{hashlib.sha256(repr(groups).encode()).hexdigest()[:12]}" if groups else ""
            directory = f"{self._directory}/{name}/{inside[0]}.{inside[1]}{digest}"
            maps = self._users[name].maps(inside, groups)
            found = self._remaps[name, inside, groups] = Remap(maps, directory, self._root, private=True)
        return found

    def close(self) -> None:
        """Removes all mounts, also those of an earlier daemon that was killed. Blocks."""
        for remap in self._remaps.values():
            remap.close()
        mounts.unmount_under(self._directory)
