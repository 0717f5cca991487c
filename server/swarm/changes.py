"""How a running node's part in a swarm changes: its role, its store, its swarm. Each change is stored in ``node.json``
by one rename: after a crash, ``transitions.resume`` continues with what the file says.

The functions close the node; call ``resume`` then. The data key of a manager goes on in memory: in a swarm with
autolock only an administrator could open it on the disk.
"""

import asyncio
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from api_models.swarm.cluster import InitRequest
from engine.common import timeouts
from engine.common.errors import Kind, WharfError
from engine.common.sockets import join_host_port
from server.swarm import joining
from server.swarm import membership as memberships
from server.swarm.backends import path_of
from server.swarm.host import Host
from server.swarm.keys import DATA_KEY, MANAGER_KEY, Keys
from server.swarm.manager import Manager
from server.swarm.membership import ETCD, SQLITE, Membership
from server.swarm.operations import init
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Identity
from server.swarm.remote.renewal import renewed
from server.swarm.state.state import Put
from server.swarm.store.sqlite import SqliteStore
from server.swarm.worker import Worker

log = logging.getLogger(__name__)


def _with_etcd(host: Host, membership: Membership) -> Membership:
    peer = join_host_port(membership.host, host.options.peer_port)
    return replace(membership, store=ETCD, etcd_cluster=f"{membership.node_id}=https://{peer}")


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
