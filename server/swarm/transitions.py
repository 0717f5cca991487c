"""How this node's part in a swarm begins, changes and ends; ``joining`` has the join. Each step is stored in
``node.json`` by one rename: after a crash, ``resume`` continues with what the file says.

The functions that change a running node close it; call ``resume`` then. The data key of a manager goes on in memory: in
a swarm with autolock only an administrator could open it on the disk.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from api_models.swarm.cluster import InitRequest
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.sockets import join_host_port
from engine.common.system import private
from server.swarm import backends, joining
from server.swarm import membership as memberships
from server.swarm.backends import path_of
from server.swarm.host import Host
from server.swarm.keys import DATA_KEY, MANAGER_KEY, Keys
from server.swarm.manager import Manager
from server.swarm.membership import AUTO, ETCD, SQLITE, Membership
from server.swarm.operations import init
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Identity
from server.swarm.remote.renewal import renewed
from server.swarm.requests import Requests
from server.swarm.state.state import Put
from server.swarm.store.sqlite import SqliteStore
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


def _with_etcd(host: Host, membership: Membership) -> Membership:
    peer = join_host_port(membership.host, host.options.peer_port)
    return replace(membership, store=ETCD, etcd_cluster=f"{membership.node_id}=https://{peer}")


async def resume(
    host: Host, requests: Requests, unlock_key: str = "", *, keys: Keys | None = None
) -> Manager | Worker | None:
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


async def promote(host: Host, worker: Worker) -> Keys | None:
    """The managers want this worker to be a manager. Closes it, and returns the keys for ``resume``; None: it continues
    as a worker, because they want it to be none any more.

    :raises WharfError: UNAVAILABLE, or what keeps it from being a manager; it is a worker still.
    """
    await joining.check_store(host)
    certificate, key = await renewed(worker.remotes)
    await asyncio.to_thread(worker.identity.put, certificate, key)
    await worker.close()
    try:
        membership, keys = await joining.become_member(
            host, worker.membership, worker.identity, timeouts.seconds("swarm.join")
        )
    except WharfError as error:
        if error.kind is not Kind.PERMISSION_DENIED:
            raise
        log.warning("this node stays a worker: %s", error.message)
        # A manager that does not know this yet asks for the promotion again at once.
        await asyncio.sleep(joining.AGAIN)
        return None
    await asyncio.to_thread(membership.save, host.directory)
    return keys


async def demote(host: Host, manager: Manager) -> None:
    """The other managers have removed this one. Closes it; ``resume`` continues as a worker.

    :raises WharfError: UNAVAILABLE: no other manager answers.
    """
    directory = host.directory
    known = await asyncio.to_thread(memberships.load, directory) or manager.membership
    others = tuple(each for each in known.managers if each.node_id != manager.node_id)
    remotes = Managers(manager.identity, [each.addr for each in others])
    try:
        certificate, key = await renewed(remotes)
    finally:
        await remotes.close()
    await manager.close()
    await asyncio.to_thread(Identity(directory).put, certificate, key)
    membership = replace(known, role="worker", store=SQLITE, etcd_cluster="", managers=others)
    await asyncio.to_thread(membership.save, directory)
    await asyncio.to_thread(clear_store, directory)


async def move(host: Host, manager: Manager) -> None:
    """Another node wants to join: moves the state from SQLite into the swarm's own etcd. Closes the manager; ``resume``
    continues with the store that ``node.json`` names. A crash before that file is replaced leaves the state in SQLite.

    :raises WharfError: the state is still in SQLite.
    """
    directory = host.directory
    membership = _with_etcd(host, manager.membership)
    await manager.close()
    from server.swarm.etcd.backend import EtcdBackend

    source = SqliteStore(path_of(directory))
    await source.open()
    try:
        await EtcdBackend(host, membership, manager.identity).take_over(source)
    finally:
        await source.close()
    await asyncio.to_thread(membership.save, directory)
    for path in directory.glob(f"{path_of(directory).name}*"):
        path.unlink()
    log.info("the state of the swarm is in etcd now")


def clear_store(directory: Path) -> None:
    """Removes what only managers have on their disk."""
    shutil.rmtree(directory / "etcd", ignore_errors=True)
    for path in (*directory.glob(f"{path_of(directory).name}*"), directory / DATA_KEY, directory / MANAGER_KEY):
        path.unlink(missing_ok=True)


async def isolate(manager: Manager, host: Host, request: InitRequest) -> None:
    """Prepares a swarm of this node alone, with new addresses (``--force-new-cluster``). The swarm keeps its settings.
    Closes the manager; call ``resume`` then, and ``stay_alone``.

    :raises WharfError: as ``create``; or of etcd.
    """
    setting = init.check(request, await host.interfaces(), manager.node_id)
    former = manager.membership
    membership = replace(setting.membership, cluster_id=former.cluster_id, store=former.store)
    if former.store == ETCD:
        membership = _with_etcd(host, membership)
    await manager.close()
    if former.store == ETCD:
        from server.swarm.etcd.backend import EtcdBackend

        await EtcdBackend(host, membership, manager.identity, force_new=True).start_once()
    await asyncio.to_thread(membership.save, host.directory)


async def stay_alone(manager: Manager) -> None:
    """The other managers of a swarm that was made of this node alone become workers.

    :raises WharfError: of the store.
    """
    async with timeouts.limit("swarm.join"):
        await manager.ready()
    await manager.state.transact(lambda: _alone(manager))


def _alone(manager: Manager) -> Sequence[Put]:
    return [
        Put(replace(node, spec=replace(node.spec, role="worker"), manager=None))
        for node in manager.state.tables.nodes
        if node.id != manager.node_id and node.spec.role == "manager"
    ]


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
