"""A node joins a swarm, as a worker or as a manager; a worker becomes a manager by a part of the same steps."""

import asyncio
import base64
import logging
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from api_models.swarm.cluster import JoinRequest
from engine.common.errors import Kind, WharfError, invalid
from engine.common.sockets import join_host_port
from engine.common.system import private
from server.swarm import backends
from server.swarm.etcd import program
from server.swarm.host import Host
from server.swarm.keys import Keys
from server.swarm.manager import Manager
from server.swarm.membership import AUTO, ETCD, SQLITE, Membership
from server.swarm.operations import addresses
from server.swarm.remote import records, wire
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Identity
from server.swarm.remote.join import join as remote_join
from server.swarm.requests import Requests
from server.swarm.worker import Worker

log = logging.getLogger(__name__)

#: Seconds in which a node whose join fails reports that to the managers. etcd refuses to remove a new member for 5 s.
_FAREWELL = 10.0
#: Seconds before the managers are asked again for a place among them.
AGAIN = 1.0
_OTHER_STORE = "this engine and the managers of the swarm have different values of --swarm-store"


async def join(host: Host, requests: Requests, request: JoinRequest, *, resumed: bool = False) -> Manager | Worker:
    """Becomes a node of the swarm of ``remote_addrs``, with the role of the token. There is no deadline: the swarm may
    have lost its majority. If it is cancelled or fails, nothing is left here; the swarm may know a node that is down.

    ``resumed``: an earlier daemon has begun it, and its managers may not be up yet.

    :raises WharfError: INVALID_ARGUMENT; UNAVAILABLE: no manager can be reached; FAILED_PRECONDITION.
    """
    listening, advertised, data_path = await _addresses(host, request)
    wanted = records.JoinRequest(
        token=request.join_token,
        availability=request.availability,
        advertise_addr=advertised or join_host_port("0.0.0.0", listening.rpartition(":")[2]),
        data_path_addr=data_path,
        engine_id=host.engine_id,
        description=await host.describe(),
    )
    joined = await remote_join(_complete(request.remote_addrs or ()), wanted, patient=resumed)
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
            membership, keys = await become_member(host, membership, identity)
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
    """The managers have added this node's member of etcd. If the node fails to become a manager, it removes the member
    before its etcd ends: with two members, both are the majority.

    :raises WharfError: the store's; UNAVAILABLE: a port is in use.
    """
    identity, manager = Identity(host.directory, keys), None
    try:
        await asyncio.to_thread(membership.save, host.directory)
        manager = Manager(host, membership, keys, identity, await backends.make(host, membership, identity), requests)
        await manager.open()
        await manager.ready()
    except BaseException:
        await _withdraw(host, membership, identity)
        if manager is not None:
            await manager.close()
        raise
    return manager


async def _withdraw(host: Host, membership: Membership, identity: Identity) -> None:
    """Reports to the managers that this node is no manager. A failure is logged."""
    remotes = Managers(identity, [each.addr for each in membership.managers])
    try:
        async with asyncio.timeout(_FAREWELL):
            await remotes.request("POST", f"{wire.VERSION}/member/leave", _member_request(host, membership).wire())
    except (TimeoutError, OSError, ValueError, WharfError) as error:
        log.warning("the managers may still count this node as a manager: %s", error)
    finally:
        await remotes.close()


def _member_request(host: Host, membership: Membership) -> records.MemberRequest:
    peer_url = f"https://{join_host_port(membership.host, host.options.peer_port)}"
    return records.MemberRequest(peer_url=peer_url, addr=membership.advertise_addr)


async def _addresses(host: Host, request: JoinRequest) -> tuple[str, str, str]:
    """Where this node listens; what it advertises, "": the managers see it; and its data path address, "": the same.

    :raises WharfError: INVALID_ARGUMENT.
    """
    interfaces = await host.interfaces()
    listening, port = addresses.listen(addresses.listen_addr(request.listen_addr), interfaces)
    advertised = ""
    if request.advertise_addr:
        advertised = join_host_port(*addresses.advertise(request.advertise_addr, port, interfaces))
    data_path = addresses.data_path(request.data_path_addr, interfaces)
    return join_host_port(listening, port), advertised, data_path


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


async def become_member(
    host: Host, membership: Membership, identity: Identity, patience: float = math.inf
) -> tuple[Membership, Keys]:
    """Asks the managers for a place among them, for at most ``patience`` seconds. The node has a manager's certificate;
    its key is sealed now.

    :raises WharfError: UNAVAILABLE: not before this time has passed; PERMISSION_DENIED: the node shall not be a manager
        any more.
    """
    wanted, site = host.options.store, await check_store(host)
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


async def check_store(host: Host) -> bool:
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
        await asyncio.sleep(AGAIN)
