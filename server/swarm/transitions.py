"""How this node's part in a swarm begins, changes and ends. Each step is stored in ``node.json`` by one rename: after a
crash, ``resume`` continues with what the file says.

The functions that change a running node close it; call ``resume`` then. The data key of a manager goes on in memory: in
a swarm with autolock only an administrator could open it on the disk.
"""

import asyncio
import base64
import contextlib
import logging
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from api_models.swarm.cluster import InitRequest, JoinRequest
from engine.common import timeouts
from engine.common.errors import Kind, WharfError, invalid
from engine.common.system import private
from server.swarm import membership as memberships
from server.swarm.backends import Backend, SqliteBackend, path_of
from server.swarm.etcd import program
from server.swarm.host import Host
from server.swarm.keys import DATA_KEY, MANAGER_KEY, Keys
from server.swarm.manager import Manager
from server.swarm.membership import AUTO, ETCD, SQLITE, Membership
from server.swarm.operations import addresses, init
from server.swarm.operations.addresses import join as join_address
from server.swarm.remote import records, wire
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Identity
from server.swarm.remote.join import join as remote_join
from server.swarm.remote.renewal import renewed
from server.swarm.requests import Requests
from server.swarm.state.state import Put
from server.swarm.store.sqlite import SqliteStore
from server.swarm.worker import Worker

log = logging.getLogger(__name__)

#: The node has begun to leave: the file stays until the swarm has nothing left here.
_LEAVING = "leaving"
#: Seconds for what a node whose join fails tells the managers. etcd refuses to remove a new member for 5 s.
_FAREWELL = 10.0
#: Seconds before the managers are asked again for a place among them.
_AGAIN = 1.0
_OTHER_STORE = "this engine and the managers of the swarm have different values of --swarm-store"


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
        backend = await _backend(host, setting.membership, identity)
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
    peer = join_address(membership.host, str(host.options.peer_port))
    return replace(membership, store=ETCD, etcd_cluster=f"{membership.node_id}=https://{peer}")


async def _backend(host: Host, membership: Membership, identity: Identity) -> Backend:
    """The store that the membership names.

    :raises WharfError: FAILED_PRECONDITION: etcd is missing. :raises NewerDatabase: see ``SqliteBackend``.
    """
    if membership.store == SQLITE:
        return await SqliteBackend.make(host.directory, sessions=host.options.store == SQLITE)
    from server.swarm.etcd.backend import EtcdBackend, SiteBackend  # here: a swarm of one node has no etcd

    if membership.store == ETCD:
        return EtcdBackend(host, membership, identity)
    return SiteBackend(host, membership)


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
    manager = await _manager(host, requests, membership, keys)
    try:
        await manager.open()
    except BaseException:
        await manager.close()
        raise
    return manager


async def _manager(host: Host, requests: Requests, membership: Membership, keys: Keys) -> Manager:
    """:raises WharfError: as ``_backend``."""
    identity = Identity(host.directory, keys)
    return Manager(host, membership, keys, identity, await _backend(host, membership, identity), requests)


async def join(host: Host, requests: Requests, request: JoinRequest) -> Manager | Worker:
    """Becomes a node of the swarm of ``remote_addrs``, with the role of the token. There is no deadline: the swarm may
    have lost its majority. If it is cancelled or fails, nothing is left here; the swarm may know a node that is down.

    :raises WharfError: INVALID_ARGUMENT; UNAVAILABLE: no manager can be reached; FAILED_PRECONDITION.
    """
    listening, advertised, data_path = await _addresses(host, request)
    wanted = records.JoinRequest(
        token=request.join_token,
        availability=request.availability,
        advertise_addr=advertised or addresses.join("0.0.0.0", listening.rpartition(":")[2]),
        data_path_addr=data_path,
        engine_id=host.engine_id,
        description=await host.describe(),
    )
    joined = await remote_join(_complete(request.remote_addrs or ()), wanted)
    membership = Membership(
        node_id=joined.node_id,
        cluster_id=joined.cluster_id,
        listen_addr=listening,
        advertise_addr=joined.addr,
        local_addr=joined.addr.rpartition(":")[0].strip("[]"),
        data_path_addr=joined.data_path_addr,
        role="worker",
        managers=tuple(joined.managers),
    )
    directory = host.directory
    private.make_directory(directory)
    try:
        identity = Identity(directory)
        await asyncio.to_thread(identity.put, joined.certificate, joined.key)
        if joined.role == "manager":
            membership, keys = await _become_member(host, membership, identity)
            return await _begin_as_manager(host, requests, membership, keys)
        await asyncio.to_thread(membership.save, directory)
        worker = Worker(host, membership, requests)
        try:
            await worker.open()
        except BaseException:
            await worker.close()
            raise
        return worker
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        raise


async def _begin_as_manager(host: Host, requests: Requests, membership: Membership, keys: Keys) -> Manager:
    """The managers have made this node one of them: if it can't be one, they learn it before its etcd ends. With two
    members, both are the majority.

    :raises WharfError: the store's; UNAVAILABLE: a port is in use.
    """
    manager: Manager | None = None
    try:
        await asyncio.to_thread(membership.save, host.directory)
        manager = await _manager(host, requests, membership, keys)
        await manager.open()
        await manager.ready()
    except BaseException:
        await _withdraw(host, membership, Identity(host.directory, keys))
        if manager is not None:
            await manager.close()
        raise
    return manager


async def _withdraw(host: Host, membership: Membership, identity: Identity) -> None:
    """Tells the managers that this node is none of them after all. A failure is logged."""
    remotes = Managers(identity, [each.addr for each in membership.managers])
    try:
        async with asyncio.timeout(_FAREWELL):
            await remotes.request("POST", f"{wire.VERSION}/member/leave", _member_request(host, membership).wire())
    except (TimeoutError, OSError, ValueError, WharfError) as error:
        log.warning("the managers may take this node for one of them still: %s", error)
    finally:
        await remotes.close()


def _member_request(host: Host, membership: Membership) -> records.MemberRequest:
    peer_url = f"https://{addresses.join(membership.host, str(host.options.peer_port))}"
    return records.MemberRequest(peer_url=peer_url, addr=membership.advertise_addr)


async def _addresses(host: Host, request: JoinRequest) -> tuple[str, str, str]:
    """Where this node listens; what it advertises, "": the managers see it; and its data path address, "": the same.

    :raises WharfError: INVALID_ARGUMENT.
    """
    interfaces = await host.interfaces()
    listening, port = addresses.listen(addresses.listen_addr(request.listen_addr), interfaces)
    advertised = ""
    if request.advertise_addr:
        advertised = addresses.join(*addresses.advertise(request.advertise_addr, port, interfaces))
    data_path = addresses.data_path(request.data_path_addr, interfaces)
    return addresses.join(listening, port), advertised, data_path


def _complete(remotes: Sequence[str]) -> list[str]:
    """The addresses of managers, with ports.

    :raises WharfError: INVALID_ARGUMENT.
    """
    found = []
    for text in remotes:
        try:
            found.append(addresses.complete(text))
        except WharfError as error:
            raise invalid(f'invalid remoteAddr "{text}": {error.message}') from None
    return found


async def _become_member(
    host: Host, membership: Membership, identity: Identity, patience: float = math.inf
) -> tuple[Membership, Keys]:
    """Asks the managers for a place among them, for at most ``patience`` seconds. The node has a manager's certificate;
    its key is sealed now.

    :raises WharfError: UNAVAILABLE: not before this time has passed; PERMISSION_DENIED: the node shall not be a manager
        any more.
    """
    wanted, site = host.options.store, await _check_store(host)
    request = _member_request(host, membership)
    remotes = Managers(identity, [each.addr for each in membership.managers])
    try:
        added = records.MemberAdded.parse(await _added(remotes, request, patience))
    finally:
        await remotes.close()
    if bool(added.members) == site:
        raise WharfError(Kind.FAILED_PRECONDITION, _OTHER_STORE)
    directory = host.directory
    keys = await asyncio.to_thread(Keys.create, directory, base64.b64decode(added.data_key))
    await asyncio.to_thread(keys.reseal, added.unlock_key)
    key, certificate = identity.key(), identity.current
    await asyncio.to_thread(Identity(directory, keys).put, certificate, key)
    store, members = wanted if site else ETCD, ",".join(added.members)
    return replace(membership, role="manager", store=store, etcd_cluster=members), keys


async def _check_store(host: Host) -> bool:
    """Whether the managers use a site's etcd, as this engine's options say.

    :raises WharfError: FAILED_PRECONDITION: the swarm's own etcd is not installed.
    """
    if host.options.store not in (AUTO, SQLITE, ETCD):
        return True
    await program.find()
    return False


async def _added(remotes: Managers, request: records.MemberRequest, patience: float) -> dict[str, Any]:
    """The managers' answer. They admit a member when the last one that joined has been connected for some seconds.

    :raises WharfError: UNAVAILABLE: not before ``patience`` seconds have passed; or the managers'.
    """
    ends = time.monotonic() + patience
    while True:
        try:
            return await remotes.request("POST", f"{wire.VERSION}/member", request.wire())
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE or time.monotonic() > ends:
                raise
        await asyncio.sleep(_AGAIN)


async def promote(host: Host, worker: Worker) -> Keys | None:
    """The managers want this worker to be a manager. Closes it, and returns the keys for ``resume``; None: it continues
    as a worker, because they want it to be none any more.

    :raises WharfError: UNAVAILABLE, or what keeps it from being a manager; it is a worker still.
    """
    await _check_store(host)
    certificate, key = await renewed(worker.remotes)
    await asyncio.to_thread(worker.identity.put, certificate, key)
    await worker.close()
    try:
        membership, keys = await _become_member(
            host, worker.membership, worker.identity, timeouts.seconds("swarm.join")
        )
    except WharfError as error:
        if error.kind is not Kind.PERMISSION_DENIED:
            raise
        log.warning("this node stays a worker: %s", error.message)
        # A manager that does not know this yet asks for the promotion again at once.
        await asyncio.sleep(_AGAIN)
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
