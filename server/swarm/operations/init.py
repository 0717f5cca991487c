"""The first objects of a new swarm, from the request that makes it. Sentences are dockerd's."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network

from api_models.swarm.cluster import EncryptionConfig, InitRequest, SwarmSpec
from api_models.swarm.node import ManagerStatus, NodeDescription, NodeSpec, NodeStatus
from engine.common.errors import invalid
from engine.common.sockets import join_host_port
from server.swarm.founded import Founding, Order
from server.swarm.interfaces import Interfaces
from server.swarm.keys import Keys, new_unlock_key
from server.swarm.membership import Membership
from server.swarm.model.ids import new_id
from server.swarm.model.objects import Cluster, Node
from server.swarm.operations import addresses, authority, clusterspec, root
from server.swarm.operations.show import DEFAULT_SUBNET_SIZE

_DEFAULT_DATA_PATH_PORT = 4789
#: A subnet of a network has at least 8 addresses.
_MAX_PREFIX = 29
AVAILABILITIES = ("active", "pause", "drain")


@dataclass(frozen=True, slots=True)
class Setting:
    """A checked request."""

    membership: Membership
    spec: SwarmSpec
    availability: str
    pool: Sequence[str]
    subnet_size: int
    data_path_port: int


def check(request: InitRequest, interfaces: Interfaces, node_id: str = "") -> Setting:
    """``node_id`` "": of a new node.

    :raises WharfError: INVALID_ARGUMENT; NOT_IMPLEMENTED: external certificate authorities.
    """
    listen_addr = addresses.listen_addr(request.listen_addr)
    clusterspec.check_name(request.spec)
    listening, port = addresses.listen(listen_addr, interfaces)
    advertised, advertised_port = addresses.advertise(request.advertise_addr, port, interfaces)
    membership = Membership(
        node_id=node_id or new_id(),
        listen_addr=join_host_port(listening, port),
        advertise_addr=join_host_port(advertised, advertised_port),
        local_addr=addresses.local(listening, advertised, interfaces),
        data_path_addr=addresses.data_path(request.data_path_addr, interfaces),
    )
    _check_pool(request.default_addr_pool or (), request.subnet_size or DEFAULT_SUBNET_SIZE)
    data_path_port = request.data_path_port or _DEFAULT_DATA_PATH_PORT
    if not 1024 <= data_path_port <= 49151:
        raise invalid(f"Datapath port number is not in valid range (1024-49151) : {data_path_port}")
    availability = request.availability.lower() or "active"
    if availability not in AVAILABILITIES:
        raise invalid(f'invalid Availability: "{request.availability}"')
    spec = clusterspec.merged(request.spec, clusterspec.DEFAULTS)
    if request.auto_lock_managers:
        spec = replace(spec, encryption_config=EncryptionConfig(auto_lock_managers=True))
    root.check(request.spec.ca_config)
    return Setting(
        membership,
        spec,
        availability,
        request.default_addr_pool or (),
        request.subnet_size or DEFAULT_SUBNET_SIZE,
        data_path_port,
    )


def _check_pool(pool: Sequence[str], size: int) -> None:
    if not pool:
        return
    if size > _MAX_PREFIX:
        raise invalid(f"subnet size is out of range: {size}")
    for text in pool:
        try:
            network = ip_network(text, strict=False)
        except ValueError:
            network = None
        if network is None or "/" not in text:
            raise invalid(f"invalid base pool {text}: invalid CIDR address: {text}")
        if size < network.prefixlen:
            raise invalid(f'invalid CIDR: "{text}". Subnet size is too small for pool: {size}')


def order(setting: Setting, request: InitRequest) -> Order:
    """What the first certificate needs.

    :raises WharfError: INVALID_ARGUMENT.
    """
    certificate, key = root.requested(request.spec.ca_config)
    return Order(
        swarm_id=new_id(),
        node_id=setting.membership.node_id,
        lifetime_ns=authority.lifetime(setting.spec),
        address=setting.membership.host,
        root_certificate=certificate,
        root_key=key,
    )


def make_cluster(setting: Setting, swarm_id: str, founded: Founding, keys: Keys) -> Cluster:
    now = time.time_ns()
    locked = setting.spec.encryption_config.auto_lock_managers
    return Cluster(
        id=swarm_id,
        created_ns=now,
        updated_ns=now,
        spec=setting.spec,
        root_certificate=founded.root_certificate,
        sealed_root_key=keys.seal(founded.root_key.encode()),
        sealed_worker_token=keys.seal(founded.worker_token.encode()),
        sealed_manager_token=keys.seal(founded.manager_token.encode()),
        sealed_unlock_key=keys.seal(new_unlock_key().encode()) if locked else "",
        default_addr_pool=tuple(setting.pool),
        subnet_size=setting.subnet_size,
        data_path_port=setting.data_path_port,
    )


def make_node(setting: Setting, description: NodeDescription, engine_id: str) -> Node:
    now = time.time_ns()
    return Node(
        id=setting.membership.node_id,
        created_ns=now,
        updated_ns=now,
        spec=NodeSpec(role="manager", availability=setting.availability),
        description=description,
        status=NodeStatus(state="ready", addr=setting.membership.host),
        manager=manager_status(setting.membership, leader=True),
        engine_id=engine_id,
        data_path_addr=setting.membership.data_path_addr or setting.membership.host,
    )


def manager_status(membership: Membership, *, leader: bool) -> ManagerStatus:
    """``leader``: of a swarm whose only manager is this node. Else the leader says who leads."""
    return ManagerStatus(leader=leader, reachability="reachable", addr=membership.advertise_addr)
