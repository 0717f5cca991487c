"""The stores of a manager, each with what must run beside it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from server.swarm.controllers.deferred import DeferredControllers
from server.swarm.controllers.networkkeys import NetworkKeyRotation
from server.swarm.controllers.nodes.liveness import Liveness
from server.swarm.host import Host, Part
from server.swarm.keys import Keys
from server.swarm.membership import ETCD, SQLITE, Membership
from server.swarm.operations.members import Members, NoMembers
from server.swarm.remote.identity import Identity
from server.swarm.state.state import State
from server.swarm.store.interface import Store
from server.swarm.store.sqlite import SqliteStore

_DATABASE = "swarm.db"


class Backend(Protocol):
    """``shared``: other managers may have the same store, so there is a leader. ``sessions``: there may be other nodes,
    so nodes have sessions."""

    @property
    def store(self) -> Store: ...

    @property
    def shared(self) -> bool: ...

    @property
    def sessions(self) -> bool: ...

    def members(self, state: State, keys: Keys) -> Members: ...

    def leading(self, state: State, node_id: str, keys: Keys) -> Sequence[Part]:
        """What runs the controllers while this manager leads."""

    async def open(self) -> None:
        """Starts what serves the store. It may not answer yet.

        :raises WharfError: FAILED_PRECONDITION: a program is missing.
        """

    async def prepare(self) -> None:
        """Does what this node can do so that the store answers: it is called before each attempt to read it.

        :raises WharfError: UNAVAILABLE: it doesn't answer yet.
        """

    async def renewed(self) -> None:
        """This node has another certificate, or trusts other roots."""

    async def lost(self) -> None:
        """Waits until this node can't use the store any more, because the managers have removed it."""

    async def leave(self) -> None:
        """This node does not serve the store any more: the others go on without it.

        :raises WharfError: they could not.
        """

    async def erase(self) -> None:
        """The last manager leaves: removes the state of the swarm, except what is on this node's disk.

        :raises WharfError: it is not removed, or only a part of it.
        """

    async def close(self) -> None: ...


class SqliteBackend:
    """A file of this node."""

    shared = False

    def __init__(self, store: SqliteStore, *, sessions: bool) -> None:
        self.store = store
        self.sessions = sessions

    @classmethod
    async def make(cls, directory: Path, *, sessions: bool) -> "SqliteBackend":
        """:raises NewerDatabase: a later version of the engine has written the file."""
        return cls(await asyncio.to_thread(SqliteStore, path_of(directory)), sessions=sessions)

    def members(self, state: State, keys: Keys) -> Members:
        return NoMembers()

    def leading(self, state: State, node_id: str, keys: Keys) -> Sequence[Part]:
        return [
            DeferredControllers(state),
            NetworkKeyRotation(state, keys),
            *([Liveness(state)] if self.sessions else []),
        ]

    async def open(self) -> None:
        await self.store.open()

    async def prepare(self) -> None:
        return

    async def renewed(self) -> None:
        return

    async def lost(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def leave(self) -> None:
        return

    async def erase(self) -> None:
        return

    async def close(self) -> None:
        await self.store.close()


def path_of(directory: Path) -> Path:
    return directory / _DATABASE


async def make(host: Host, membership: Membership, identity: Identity) -> Backend:
    """The store that the membership names.

    :raises WharfError: FAILED_PRECONDITION: etcd is missing. :raises NewerDatabase: see ``SqliteBackend``.
    """
    if membership.store == SQLITE:
        return await SqliteBackend.make(host.directory, sessions=host.options.store == SQLITE)
    from server.swarm.etcd.backend import EtcdBackend, SiteBackend  # here: a swarm of one node has no etcd

    if membership.store == ETCD:
        return EtcdBackend(host, membership, identity)
    return SiteBackend(host, membership)
