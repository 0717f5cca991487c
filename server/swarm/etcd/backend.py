"""The stores that several managers share: the swarm's own etcd, with a member on this node; or a site's etcd."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc

from engine.common.errors import Kind, WharfError
from engine.common.sockets import join_host_port
from server.swarm.controllers.networkkeys import NetworkKeyRotation
from server.swarm.controllers.nodes import roles
from server.swarm.controllers.nodes.liveness import Liveness
from server.swarm.controllers.runner import Controllers
from server.swarm.etcd import members as etcd
from server.swarm.etcd.child import EtcdChild
from server.swarm.etcd.lock import restart_lock
from server.swarm.etcd.maintenance import Maintenance
from server.swarm.etcd.move import move
from server.swarm.etcd.program import MemberOptions, Pems
from server.swarm.host import Host, Part
from server.swarm.keys import Keys
from server.swarm.membership import Membership
from server.swarm.model import codec
from server.swarm.model.objects import Cluster
from server.swarm.operations import addresses
from server.swarm.operations.members import EtcdMembers, Members
from server.swarm.parts import Parts
from server.swarm.remote import wire
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Identity
from server.swarm.state.leadership import Leadership
from server.swarm.state.state import State
from server.swarm.store.etcd import EtcdStore
from server.swarm.store.interface import MAX_OPERATIONS, Store, Write

#: Seconds of one wait for the member.
_SERVING = 10.0


def _leading(state: State, node_id: str, keys: Keys, members: roles.Members) -> Sequence[Part]:
    async def lead(fenced: State) -> None:
        parts = Parts()
        demotions = roles.Roles(fenced, members, node_id, leadership.resign)
        parts.start([Controllers(fenced), NetworkKeyRotation(fenced, keys), Liveness(fenced), demotions])
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await parts.close()

    leadership = Leadership(state, node_id, lead)
    return [leadership]


class EtcdBackend:
    """The swarm's own etcd. The names of its members are the ids of the nodes."""

    shared = sessions = True

    def __init__(self, host: Host, membership: Membership, identity: Identity, *, force_new: bool = False) -> None:
        """``force_new``: the member goes on alone, without the others."""
        self._membership = membership
        self._identity = identity
        listening = addresses.split(membership.listen_addr)
        assert listening is not None, "a listen address has a port"
        port = str(host.options.peer_port)
        self._options = MemberOptions(
            data=host.directory / "etcd",
            runtime=host.runtime,
            name=membership.node_id,
            listen=join_host_port(listening[0], port),
            advertise=join_host_port(membership.host, port),
            initial_cluster=membership.etcd_cluster,
            existing="," in membership.etcd_cluster,
            force_new=force_new,
        )
        self._child: EtcdChild | None = None
        #: The managers have said that this node shall be none of them.
        self._refused = asyncio.Event()
        self._cluster = etcd.Members(self._options.endpoint)
        self.store = EtcdStore([self._options.endpoint])

    def members(self, state: State, keys: Keys) -> Members:
        return EtcdMembers(state, keys, self)

    def leading(self, state: State, node_id: str, keys: Keys) -> Sequence[Part]:
        return [*_leading(state, node_id, keys, self._cluster), Maintenance(self._cluster, self._options.quota)]

    async def open(self) -> None:
        child = self._child = EtcdChild(self._options, self._pems())
        await child.start()

    def _pems(self) -> Pems:
        current = self._identity.current
        return Pems(current.certificate, self._identity.key(), "\n".join(current.roots))

    async def prepare(self) -> None:
        """A member that was added is a learner at first, which answers nothing."""
        assert self._child is not None, "open"
        try:
            await self._child.serving(_SERVING)
        except WharfError as error:
            # A learner that was removed before it had joined does not learn that from etcd.
            await self._request_vote()
            # Also if it was removed: ``lost`` tells it, and the node becomes a worker.
            raise WharfError(Kind.UNAVAILABLE, error.message) from None
        if (await self._cluster.status()).learner:
            await self._request_vote()

    async def _request_vote(self) -> None:
        """Asks the managers to make the learner a voting member; nothing happens if it is one.

        :raises WharfError: UNAVAILABLE: not now; or the node shall be no manager any more, which ``lost`` tells, too.
        """
        remotes = Managers(self._identity, [each.addr for each in self._membership.managers])
        try:
            await remotes.request("POST", f"{wire.VERSION}/member/promote", {})
        except WharfError as error:
            if error.kind is Kind.PERMISSION_DENIED:
                self._refused.set()
            raise WharfError(Kind.UNAVAILABLE, error.message) from None
        finally:
            await remotes.close()

    async def renewed(self) -> None:
        if self._child is not None and await self._child.renew(self._pems()):
            async with restart_lock(self.store):
                await self._child.restart()
                # It is part of the majority again.
                await self._cluster.list()

    async def lost(self) -> None:
        assert self._child is not None, "open"
        waits = [asyncio.create_task(each) for each in (self._child.removed(), self._refused.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def leave(self) -> None:
        await self.remove(self._membership.node_id)

    async def erase(self) -> None:
        return

    async def close(self) -> None:
        await self._cluster.close()
        await self.store.close()
        if self._child is not None:
            await self._child.close()

    # the members, as ``operations.members.EtcdCluster``

    async def add_learner(self, name: str, peer_url: str) -> Sequence[str]:
        return (await self._cluster.add_learner(name, peer_url)).initial_cluster.split(",")

    async def withdraw(self, peer_url: str) -> None:
        for member in await self._cluster.list():
            if member.learner and peer_url in member.peer_urls:
                await self._cluster.remove(member.id)

    async def promote(self, name: str) -> None:
        member = await self._find(name)
        if member is None:
            raise WharfError(Kind.UNAVAILABLE, "the new manager has not started its member of etcd yet")
        await self._cluster.promote(member.id)

    async def remove(self, name: str) -> None:
        """:raises WharfError: FAILED_PRECONDITION: too few members would be left."""
        member = await self._find(name)
        if member is not None:
            await self._cluster.remove(member.id)

    async def _find(self, name: str) -> etcd.Member | None:
        return next((member for member in await self._cluster.list() if member.name == name), None)

    async def start_once(self) -> None:
        """Starts the member until it serves, and ends it.

        :raises WharfError: UNAVAILABLE: it doesn't serve.
        """
        try:
            await self.open()
            assert self._child is not None
            await self._child.serving()
            if self._options.force_new:
                # etcd keeps the address that the member had, at which it dials itself and others look for it.
                await self._cluster.update((await self._cluster.status()).id, f"https://{self._options.advertise}")
        finally:
            await self.close()

    async def take_over(self, source: Store) -> None:
        """Moves the state into this etcd, which is new, and ends it.

        :raises WharfError: see ``move``.
        """
        try:
            self._child = await move(source, self._options, self._pems())
        finally:
            await self.close()


class SiteBackend:
    """The etcd of the site, whose addresses the membership has."""

    shared = sessions = True

    def __init__(self, host: Host, membership: Membership) -> None:
        urls = [url.removeprefix("https://") for url in membership.store.split(",")]
        self.store = EtcdStore(urls, _credentials(host))

    def members(self, state: State, keys: Keys) -> Members:
        return EtcdMembers(state, keys, None)

    def leading(self, state: State, node_id: str, keys: Keys) -> Sequence[Part]:
        return _leading(state, node_id, keys, _NoMembers())

    async def open(self) -> None:
        return

    async def prepare(self) -> None:
        return

    async def renewed(self) -> None:
        return

    async def lost(self) -> None:
        await asyncio.get_running_loop().create_future()

    async def leave(self) -> None:
        return

    async def erase(self) -> None:
        # The cluster is the last: until it is removed, no other swarm can begin there.
        found, _ = await self.store.range(codec.ROOT)
        cluster = codec.key_of(Cluster, "")
        keys = sorted((entry.key for entry in found), key=lambda key: key.startswith(cluster))
        for start in range(0, len(keys), MAX_OPERATIONS):
            await self.store.commit([], [Write(key, None) for key in keys[start : start + MAX_OPERATIONS]])

    async def close(self) -> None:
        await self.store.close()


class _NoMembers:
    """None of the members of a site's etcd is a node."""

    async def list(self) -> Sequence[etcd.Member]:
        return ()

    async def remove(self, id: int, /) -> None:
        return


def _credentials(host: Host) -> grpc.ChannelCredentials:
    """:raises OSError: a file can't be read."""
    ca, certificate, key = (
        Path(path).read_bytes() if path else None
        for path in (host.options.ca, host.options.certificate, host.options.key)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)
