"""Keeps what this manager has on its disk as the swarm wants it: the seal of the data key, and this node's certificate.

Each change of the swarm, by any manager, is applied; the certificate is renewed in time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from server.swarm.keys import Keys
from server.swarm.model.objects import Cluster, Node
from server.swarm.operations import authority, root
from server.swarm.remote.identity import Identity
from server.swarm.state.state import Event, Put, State

#: The most seconds of one wait: a longer one would not notice that the clock was set.
_LONGEST = 3600.0


class Upkeep:
    """A part of a manager."""

    def __init__(
        self,
        state: State,
        keys: Keys,
        identity: Identity,
        node_id: str,
        on_renewal: Callable[[], Awaitable[None]],
    ) -> None:
        """``on_renewal`` is awaited after a change of the identity."""
        self._state = state
        self._keys = keys
        self._identity = identity
        self._node_id = node_id
        self._on_renewal = on_renewal
        self._changes = state.subscribe()
        self._lock = asyncio.Lock()
        self._sealing = asyncio.Lock()
        #: The version of the identity that ``on_renewal`` knows.
        self._announced = identity.version

    async def run(self) -> None:
        while True:
            await self.apply()
            seconds = (self._identity.current.renew_ns - time.time_ns()) / 1e9
            try:
                async with asyncio.timeout(min(max(seconds, 1.0), _LONGEST)):
                    while not any(map(self._concerns, await self._changes.next())):
                        pass
            except TimeoutError:
                continue

    def _concerns(self, event: Event) -> bool:
        if isinstance(event.item, Node):
            return bool(self._state.cluster.rotated_from)
        return isinstance(event.item, Cluster)

    async def apply(self) -> None:
        """Does what is due."""
        await self.reseal()
        async with self._lock:
            cluster = self._state.cluster
            if self._is_due(cluster):
                await asyncio.to_thread(self._issue, cluster)
            elif self._identity.current.roots != authority.trusted(cluster):
                await asyncio.to_thread(self._identity.trust, authority.trusted(cluster))
            version = self._identity.version
            if version != self._announced:
                await self._on_renewal()
                self._announced = version
            await self._state.transact(self._node)
            await self._state.transact(self._rotation)

    async def reseal(self) -> None:
        """Seals the data key on this manager's disk as the swarm's autolock demands."""
        async with self._sealing:
            sealed = self._state.cluster.sealed_unlock_key
            await asyncio.to_thread(self._keys.reseal, self._keys.open(sealed).decode() if sealed else "")

    def _is_due(self, cluster: Cluster) -> bool:
        mine = self._identity.current
        return (
            mine.root != cluster.root_certificate
            or mine.lifetime_ns != cluster.spec.ca_config.node_cert_expiry
            or mine.renew_ns <= time.time_ns()
            or mine.address != self._address()
        )

    def _address(self) -> str:
        node = self._state.tables.nodes.find(self._node_id)
        return "" if node is None else node.status.addr

    def _issue(self, cluster: Cluster) -> None:
        from server.swarm import certificates  # here: cryptography needs 5 MiB

        request = certificates.make_request()
        issued = authority.sign(
            cluster, self._keys, request.csr, node_id=self._node_id, role="manager", address=self._address()
        )
        self._identity.put(issued, request.key)

    def _node(self) -> Sequence[Put]:
        """This node's description tells by which root its certificate is issued."""
        node = self._state.tables.nodes.find(self._node_id)
        mine = self._identity.current.root
        if node is None or node.description.tls_info.trust_root == mine:
            return ()
        return [Put(replace(node, description=replace(node.description, tls_info=root.issuer(mine))))]

    def _rotation(self) -> Sequence[Put]:
        """The rotation of the root ends when every node has a certificate of the new one."""
        cluster = self._state.cluster
        roots = {node.description.tls_info.trust_root for node in self._state.tables.nodes}
        if not cluster.rotated_from or roots != {cluster.root_certificate}:
            return ()
        return [Put(replace(cluster, rotated_from="", cross_certificates=""))]
