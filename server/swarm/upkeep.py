"""Keeps what this manager has on its disk as the swarm wants it: the seal of the data key, and this node's certificate.

Each change of the swarm, by any manager, is applied; the certificate is renewed in time.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from api_models.base import Int64
from api_models.record import Record
from server.swarm.files import read_record, write_record
from server.swarm.keys import Keys
from server.swarm.model.objects import Cluster, Node
from server.swarm.operations import root
from server.swarm.operations.clusterspec import DEFAULT_EXPIRY_NS
from server.swarm.state.state import Event, Put, State

#: The most seconds of one wait: a longer one would not notice that the clock was set.
_LONGEST = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificate(Record):
    """``swarm-node.json``: this node's certificate, its root, and its private key, sealed by the data key.
    ``renew_ns``: when to renew it. ``lifetime_ns``: what the swarm wanted when it was issued."""

    certificate: str = ""
    root: str = ""
    sealed_key: str = ""
    renew_ns: Int64 = 0
    lifetime_ns: Int64 = 0


class Upkeep:
    """A part of a manager."""

    def __init__(self, state: State, keys: Keys, directory: Path, node_id: str) -> None:
        self._state = state
        self._keys = keys
        self._path = directory / "swarm-node.json"
        self._node_id = node_id
        self._changes = state.subscribe()
        self._certificate = _read(self._path)
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        while True:
            await self.apply()
            seconds = (self._certificate.renew_ns - time.time_ns()) / 1e9
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
        async with self._lock:
            cluster = self._state.cluster
            sealed = cluster.sealed_unlock_key
            await asyncio.to_thread(self._keys.reseal, self._keys.open(sealed).decode() if sealed else "")
            if self._is_due(cluster):
                self._certificate = await asyncio.to_thread(self._issue, cluster)
            await self._state.transact(self._node)
            await self._state.transact(self._rotation)

    def _is_due(self, cluster: Cluster) -> bool:
        mine = self._certificate
        return (
            mine.root != cluster.root_certificate
            or mine.lifetime_ns != cluster.spec.ca_config.node_cert_expiry
            or mine.renew_ns <= time.time_ns()
        )

    def _issue(self, cluster: Cluster) -> _Certificate:
        from server.swarm import certificates  # here: cryptography needs 5 MiB

        wanted = cluster.spec.ca_config.node_cert_expiry
        issued = certificates.issue(
            certificates.Root(cluster.root_certificate, self._keys.open(cluster.sealed_root_key).decode()),
            swarm_id=cluster.id,
            node_id=self._node_id,
            role="manager",
            lifetime_ns=wanted or DEFAULT_EXPIRY_NS,
        )
        made = _Certificate(
            certificate=issued.certificate,
            root=cluster.root_certificate,
            sealed_key=self._keys.seal(issued.key.encode()),
            renew_ns=issued.renew_ns,
            lifetime_ns=wanted,
        )
        write_record(self._path, made)
        return made

    def _node(self) -> Sequence[Put]:
        """This node's description tells by which root its certificate is issued."""
        node = self._state.tables.nodes.find(self._node_id)
        if node is None or node.description.tls_info.trust_root == self._certificate.root:
            return ()
        return [Put(replace(node, description=replace(node.description, tls_info=root.issuer(self._certificate.root))))]

    def _rotation(self) -> Sequence[Put]:
        """The rotation of the root ends when every node has a certificate of the new one."""
        cluster = self._state.cluster
        roots = {node.description.tls_info.trust_root for node in self._state.tables.nodes}
        if not cluster.rotated_from or roots != {cluster.root_certificate}:
            return ()
        return [Put(replace(cluster, rotated_from=""))]


def _read(path: Path) -> _Certificate:
    """An empty one is due."""
    try:
        return read_record(path, _Certificate)
    except (FileNotFoundError, ValueError):
        return _Certificate()
