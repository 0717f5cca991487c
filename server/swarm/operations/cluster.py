"""The swarm itself: inspect, update with rotations, the unlock key, and its part of ``GET /info``."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from api_models.swarm.cluster import SwarmSpec
from api_models.swarm.common import TLSInfo
from server.swarm.keys import Keys, new_unlock_key
from server.swarm.model.objects import Cluster
from server.swarm.operations import clusterspec, root
from server.swarm.operations.rpc import out_of_sequence
from server.swarm.operations.show import show_cluster
from server.swarm.state.state import Put, State

_TWO_MANAGERS = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance."
)


@dataclass(frozen=True, slots=True)
class Rotations:
    """What an update of the swarm replaces by a new one."""

    worker_token: bool = False
    manager_token: bool = False
    unlock_key: bool = False


class ClusterOperations:
    """Call it while this node is a manager."""

    def __init__(self, state: State, keys: Keys, applied: Callable[[], Awaitable[None]]) -> None:
        """``applied`` is awaited after a change: this manager then seals its data key, and has its certificate, as the
        swarm wants it."""
        self._state = state
        self._keys = keys
        self._applied = applied

    def inspect(self) -> dict[str, Any]:
        """The answer of ``GET /swarm``."""
        cluster = self._state.cluster
        tokens = {
            "Worker": self._keys.open(cluster.sealed_worker_token).decode(),
            "Manager": self._keys.open(cluster.sealed_manager_token).decode(),
        }
        return {**show_cluster(cluster, self._issuer(cluster)), "JoinTokens": tokens}

    def _issuer(self, cluster: Cluster) -> TLSInfo:
        """From a node with a certificate of the present root, or else from the root."""
        for node in self._state.tables.nodes:
            if node.description.tls_info.trust_root == cluster.root_certificate:
                return node.description.tls_info
        return root.issuer(cluster.root_certificate)

    def info(self) -> dict[str, Any]:
        """The swarm, and the numbers of nodes and managers, in ``GET /info``."""
        nodes = list(self._state.tables.nodes)
        managers = sum(node.manager is not None for node in nodes)
        shown = {
            "Nodes": len(nodes),
            "Managers": managers,
            "Cluster": show_cluster(self._state.cluster, self._issuer(self._state.cluster)),
            "Warnings": [_TWO_MANAGERS] if managers == 2 else [],
        }
        return {key: value for key, value in shown.items() if value}

    def reachability(self) -> tuple[int, int]:
        """The numbers of managers that can be reached, and of the others."""
        states = [node.manager.reachability for node in self._state.tables.nodes if node.manager is not None]
        reachable = states.count("reachable")
        return reachable, len(states) - reachable

    def managers(self) -> list[dict[str, str]]:
        return [
            {"NodeID": node.id, "Addr": node.manager.addr}
            for node in self._state.tables.nodes
            if node.manager is not None
        ]

    async def update(self, version: int, spec: SwarmSpec, rotations: Rotations) -> None:
        """Replaces the spec. ``version``: that of the swarm as the client read it.

        :raises WharfError: INVALID_ARGUMENT; CONFLICT: another version; NOT_IMPLEMENTED.
        """
        clusterspec.check_name(spec)
        wanted = clusterspec.merged(spec, clusterspec.EMPTY)
        root.check(spec.ca_config)

        def build() -> Sequence[Put]:
            cluster = self._state.cluster
            if cluster.version != version:
                raise out_of_sequence()
            return [Put(self._changed(cluster, spec, wanted, rotations))]

        await self._state.transact(build)
        await self._applied()

    def _changed(self, cluster: Cluster, spec: SwarmSpec, wanted: SwarmSpec, rotations: Rotations) -> Cluster:
        authority = root.rotated(cluster.root_certificate, cluster.spec.ca_config, spec.ca_config)
        if authority is not None:
            former_key = self._keys.open(cluster.sealed_root_key).decode()
            cluster = replace(
                cluster,
                rotated_from=cluster.rotated_from or cluster.root_certificate,
                cross_certificates=root.cross(cluster.root_certificate, former_key, authority)
                + cluster.cross_certificates,
                root_certificate=authority.certificate,
                sealed_root_key=self._keys.seal(authority.key.encode()),
            )
        # The tokens name the root.
        if rotations.worker_token or authority is not None:
            cluster = replace(cluster, sealed_worker_token=self._token(cluster))
        if rotations.manager_token or authority is not None:
            cluster = replace(cluster, sealed_manager_token=self._token(cluster))
        locked = cluster.sealed_unlock_key
        if not wanted.encryption_config.auto_lock_managers:
            locked = ""
        elif not locked or rotations.unlock_key:
            locked = self._keys.seal(new_unlock_key().encode())
        return replace(cluster, spec=wanted, sealed_unlock_key=locked, updated_ns=time.time_ns())

    def _token(self, cluster: Cluster) -> str:
        return self._keys.seal(root.token(cluster.root_certificate).encode())

    def unlock_key(self) -> str:
        """ "": the swarm has no autolock."""
        sealed = self._state.cluster.sealed_unlock_key
        return self._keys.open(sealed).decode() if sealed else ""
