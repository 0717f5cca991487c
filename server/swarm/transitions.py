"""How this node's part in a swarm begins, continues and ends; ``joining`` has the join, ``changes`` what comes between.
Each step is stored in ``node.json`` by one rename: after a crash, ``resume`` continues with what the file says.
"""

import asyncio
import contextlib
import logging
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from api_models.swarm.cluster import InitRequest
from engine.common.errors import WharfError
from engine.common.system import private
from server.swarm import backends
from server.swarm import membership as memberships
from server.swarm.host import Host
from server.swarm.keys import Keys
from server.swarm.manager import Manager
from server.swarm.membership import AUTO, ETCD, SQLITE, Membership
from server.swarm.operations import init
from server.swarm.remote.identity import Identity
from server.swarm.requests import Requests

if TYPE_CHECKING:
    from server.swarm.worker import Worker

log = logging.getLogger(__name__)

#: The node has begun to leave: the file stays until the swarm has nothing left here.
_LEAVING = "leaving"


async def create(host: Host, requests: Requests, request: InitRequest) -> Manager:
    """Makes a new swarm, whose only node is this one.

    :raises WharfError: INVALID_ARGUMENT; NOT_IMPLEMENTED; the store's. Nothing is left then.
    """
    setting = init.check(request, await host.interfaces())
    setting = replace(setting, membership=_first(host, setting.membership))
    directory = host.directory
    private.make_directory(directory)
    try:
        keys = await asyncio.to_thread(Keys.create, directory)
        identity = Identity(directory, keys)
        backend = await backends.make(host, setting.membership, identity)
        manager = Manager(host, setting.membership, keys, identity, backend, requests)
        try:
            await manager.create(setting, request)
            membership = replace(setting.membership, cluster_id=manager.state.cluster.id)
            await asyncio.to_thread(membership.save, directory)
            manager.membership = membership
            await manager.begin()
        except BaseException:
            await manager.close()
            raise
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        raise
    return manager


def _first(host: Host, membership: Membership) -> Membership:
    """The membership of the first manager of a swarm. The swarm's own etcd needs the certificates of the swarm: its
    state begins in SQLite and moves."""
    wanted = host.options.store
    return replace(membership, store=SQLITE if wanted in (AUTO, ETCD) else wanted)


async def resume(
    host: Host, requests: Requests, unlock_key: str = "", *, keys: Keys | None = None
) -> "Manager | Worker | None":
    """Continues as the node that the directory is of; None: this node is not part of a swarm any more. ``keys``: of the
    manager that this process has closed, or has just become.

    :raises WharfError: of the keys (``Locked``, ``WrongKey``) or the store. :raises OSError: a file is missing.
    :raises ValueError: a file is damaged. :raises NewerDatabase: a later version of the engine has written the store.
    """
    directory = host.directory
    membership = await asyncio.to_thread(memberships.load, directory)
    if membership is None or (directory / _LEAVING).exists():
        await remove(host)
        return None
    if membership.role == "worker":
        from server.swarm.worker import Worker  # here: not for a manager

        worker = Worker(host, membership, requests)
        await worker.open()
        return worker
    if keys is None:
        keys = await asyncio.to_thread(Keys.load, directory, unlock_key)
    identity = Identity(directory, keys)
    backend = await backends.make(host, membership, identity)
    manager = Manager(host, membership, keys, identity, backend, requests)
    try:
        await manager.open()
    except BaseException:
        await manager.close()
        raise
    return manager


async def remove(host: Host) -> None:
    """Removes all that the swarm has on this node. After a crash, ``resume`` continues it."""
    directory = host.directory
    with contextlib.suppress(ValueError):
        membership = await asyncio.to_thread(memberships.load, directory)
        if membership is not None:
            (directory / _LEAVING).touch()
            try:
                await host.leave()
            except WharfError as error:
                log.error("the swarm's containers or networks can't be removed: %s", error.message)
    await asyncio.to_thread(shutil.rmtree, directory)
