"""The managers' side of membership: a node joins, renews its certificate, and follows who the managers are.

Sentences are SwarmKit's (ca/server.go, ca/auth.go).
"""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address

import orjson

from api_models.swarm.node import NodeDescription, NodeSpec, NodeStatus
from engine.common import limits
from engine.common.errors import Kind, Reason, WharfError, invalid
from engine.common.sockets import join_host_port
from server.swarm.model.objects import Cluster, Node
from server.swarm.model.sealer import Opener
from server.swarm.operations import addresses, authority, root
from server.swarm.operations.init import AVAILABILITIES
from server.swarm.operations.rpc import malformed
from server.swarm.remote.identity import Certificate
from server.swarm.remote.records import Admitted, JoinRequest, ManagerAddress, Standing
from server.swarm.state.state import Put, State
from server.swarmtext import TOKEN_NEEDED

_DEFAULT_PORT = "2377"
#: The most bytes of a node's description, and the most characters of its shorter values.
_MAX_DESCRIPTION, _MAX_TEXT = 128 * 1024, 256


class WrongToken(WharfError):
    """The node has no join token of this swarm."""

    def __init__(self) -> None:
        super().__init__(Kind.INVALID_ARGUMENT, TOKEN_NEEDED)


async def _ready() -> None:
    """A manager whose state may have further nodes."""


class Admission:
    """``prepare`` is awaited before a node is added: it raises UNAVAILABLE while the state can't have further nodes,
    because it moves into etcd."""

    def __init__(self, state: State, keys: Opener, prepare: Callable[[], Awaitable[None]] = _ready) -> None:
        self._state = state
        self._keys = keys
        self._prepare = prepare

    def root(self) -> str:
        """The root certificate, whose digest the join tokens have."""
        return self._state.cluster.root_certificate

    async def join(self, request: JoinRequest, caller: str) -> Admitted:
        """Admits a node, which has the role of its token; ``caller``: the address that the request comes from. A node
        that joined already, with the same key, gets another certificate; its role and availability stay.

        :raises WharfError: INVALID_ARGUMENT: a wrong token (``WrongToken``), or another value; UNAVAILABLE: later.
        """
        role = self._role(request.token)
        advertised = reachable(request.advertise_addr, caller)
        data_path = _data_path(request.data_path_addr, advertised)
        availability = request.availability.lower() or "active"
        if availability not in AVAILABILITIES:
            raise invalid(f'invalid Availability: "{request.availability[:_MAX_TEXT]}"')
        if len(request.engine_id) > _MAX_TEXT:
            raise malformed("the engine's id is too long")
        check_description(request.description)
        node_id = await self._node_id(request.csr)
        await self._prepare()
        cluster = self._state.cluster
        new = Node(
            id=node_id,
            spec=NodeSpec(role=role, availability=availability),
            description=replace(request.description, tls_info=root.issuer(cluster.root_certificate)),
            status=NodeStatus(state="unknown", addr=_host(advertised)),
            engine_id=request.engine_id,
            data_path_addr=data_path,
        )
        await self._state.transact(lambda: self._added(new))
        node = self._node(node_id)
        return Admitted(
            node_id=node_id,
            cluster_id=cluster.id,
            role=node.spec.role,
            addr=advertised,
            data_path_addr=data_path,
            certificate=await self._sign(cluster, request.csr, node),
            managers=self._managers(),
        )

    def _role(self, token: str) -> str:
        """The role of a join token. Both comparisons always take place, each in constant time."""
        cluster = self._state.cluster
        given = token.encode("utf-8", "replace")
        manager = hmac.compare_digest(self._keys.open(cluster.sealed_manager_token), given)
        worker = hmac.compare_digest(self._keys.open(cluster.sealed_worker_token), given)
        if not (manager or worker):
            raise WrongToken
        return "manager" if manager else "worker"

    async def _node_id(self, csr: str) -> str:
        from server.swarm import certificates  # here: cryptography needs 5 MiB

        try:
            return await asyncio.to_thread(certificates.key_id, csr)
        except certificates.InvalidRequest as error:
            raise malformed(str(error)) from None

    def _added(self, new: Node) -> Sequence[Put]:
        now = time.time_ns()
        nodes = self._state.tables.nodes
        node = nodes.find(new.id)
        if node is None:
            if len(nodes) >= limits.SWARM_NODES:
                raise limits.exceeded("SWARM_NODES", "the number of nodes of the swarm")
            return [Put(replace(new, created_ns=now, updated_ns=now))]
        changed = replace(
            node,
            description=new.description,
            status=replace(node.status, addr=new.status.addr),
            engine_id=new.engine_id,
            data_path_addr=new.data_path_addr,
        )
        return [] if changed == node else [Put(replace(changed, updated_ns=now))]

    async def renew(self, node_id: str, csr: str) -> Certificate:
        """A certificate for a new key of a node, with the role that its spec has.

        :raises WharfError: PERMISSION_DENIED: the node was removed; INVALID_ARGUMENT: the request.
        """
        return await self._sign(self._state.cluster, csr, self._node(node_id))

    async def _sign(self, cluster: Cluster, csr: str, node: Node) -> Certificate:
        from server.swarm import certificates  # here: cryptography needs 5 MiB

        try:
            return await asyncio.to_thread(
                authority.sign,
                cluster,
                self._keys,
                csr,
                node_id=node.id,
                role=node.spec.role,
                address=node.status.addr,
            )
        except certificates.InvalidRequest as error:
            raise malformed(str(error)) from None

    async def presented(self, node_id: str, certificate: bytes) -> None:
        """A node uses a certificate (DER): if the present root has issued it, the rotation of the root need not wait
        for this node."""
        cluster = self._state.cluster
        if self._node(node_id).description.tls_info.trust_root == cluster.root_certificate:
            return
        from server.swarm import certificates  # here: cryptography needs 5 MiB

        if not await asyncio.to_thread(certificates.issued_by, certificate, cluster.root_certificate):
            return
        issuer = root.issuer(cluster.root_certificate)

        def build() -> Sequence[Put]:
            node = self._node(node_id)
            return [Put(replace(node, description=replace(node.description, tls_info=issuer)))]

        await self._state.transact(build)

    async def locate(self, node_id: str, advertised: str, data_path: str, caller: str) -> None:
        """Stores a node's addresses, which may change with each session: as in ``JoinRequest``."""
        advertised = reachable(advertised, caller)
        data_path = _data_path(data_path, advertised)

        def build() -> Sequence[Put]:
            node = self._node(node_id)
            status = replace(node.status, addr=_host(advertised))
            if (status, data_path) == (node.status, node.data_path_addr):
                return []
            return [Put(replace(node, status=status, data_path_addr=data_path, updated_ns=time.time_ns()))]

        await self._state.transact(build)

    async def standing(self, node_id: str) -> AsyncIterator[Standing]:
        """What the node must know of its swarm, now and after each change.

        :raises WharfError: PERMISSION_DENIED: the node was removed.
        """
        subscription = self._state.subscribe()
        try:
            last = None
            while True:
                current = self._standing(self._node(node_id))
                if current != last:
                    yield current
                    last = current
                await subscription.next()
        finally:
            subscription.close()

    def _standing(self, node: Node) -> Standing:
        cluster = self._state.cluster
        return Standing(
            managers=self._managers(),
            role=node.spec.role,
            root=cluster.root_certificate,
            roots=authority.trusted(cluster),
            lifetime_ns=cluster.spec.ca_config.node_cert_expiry,
        )

    def _managers(self) -> tuple[ManagerAddress, ...]:
        nodes = sorted(self._state.tables.nodes, key=lambda node: node.id)
        return tuple(ManagerAddress(node_id=node.id, addr=node.manager.addr) for node in nodes if node.manager)

    def _node(self, node_id: str) -> Node:
        """:raises WharfError: PERMISSION_DENIED: it was removed."""
        node = self._state.tables.nodes.find(node_id)
        if node is None:
            raise removed(node_id)
        return node


def removed(node_id: str) -> WharfError:
    return denied(f"node {node_id} was removed from swarm", reason=Reason.NODE_REMOVED)


def denied(sentence: str, *, reason: Reason | None = None) -> WharfError:
    text = f"rpc error: code = PermissionDenied desc = Permission denied: {sentence}"
    return WharfError(Kind.PERMISSION_DENIED, text, reason=reason)


def check_description(description: NodeDescription) -> None:
    """:raises WharfError: INVALID_ARGUMENT: it is too long."""
    if len(orjson.dumps(description.wire())) > _MAX_DESCRIPTION:
        raise malformed(f"the description of a node has more than {_MAX_DESCRIPTION} bytes")


def reachable(advertised: str, caller: str) -> str:
    """The address, with port, at which others reach a node: the one from which it calls, if it advertises none.

    :raises WharfError: INVALID_ARGUMENT: it is no IP address with a port.
    """
    host, port = addresses.split(advertised) or (advertised, _DEFAULT_PORT)
    if not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise malformed("the advertised address has no valid port")
    return join_host_port(_address(host) or _address(caller), port)


def _data_path(text: str, advertised: str) -> str:
    return _address(text) or _host(advertised)


def _address(text: str) -> str:
    """An IP address in its usual form; "": it is empty or unspecified."""
    try:
        address = ip_address(text.partition("%")[0]) if text else None
    except ValueError:
        raise malformed("an address of the node is no IP address") from None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return "" if address is None or address.is_unspecified else str(address)


def _host(advertised: str) -> str:
    """The address without its port."""
    return advertised.rpartition(":")[0].strip("[]")
