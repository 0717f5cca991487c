"""The networks of the swarm in the API: create, remove, list, inspect. Implements
``server.networks.swarmnetworks.SwarmNetworks``."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, ip_interface, ip_network
from typing import Any

from api_models.network import IPAM, IPAMPool, NetworkCreateRequest
from engine.common.errors import Kind, WharfError, conflict, invalid
from server.networks import model, options
from server.networks.ipam import allocator
from server.networks.ipam.allocator import DefaultPool
from server.networks.ipam.allocator import Network as Subnet
from server.networks.model import PoolConfig
from server.networks.overlay.model import NO_ESP
from server.networks.overlay.record import record
from server.swarm.dispatch.assignments import swarm_network
from server.swarm.model import networkkeys
from server.swarm.model.addresses import assigned
from server.swarm.model.ids import new_id
from server.swarm.model.objects import Cluster, Network, Service, Task
from server.swarm.model.sealer import Sealer
from server.swarm.model.taskstate import TaskState
from server.swarm.operations.rpc import exists, malformed, missing, precondition, unsupported
from server.swarm.operations.show import DEFAULT_POOL
from server.swarm.operations.validate import check_name
from server.swarm.state.state import Delete, Put, State
from server.swarm.state.tables import Tables

#: VXLAN network identifiers: above the identifiers of 802.1Q.
_FIRST_VNI, _LAST_VNI = 4096, (1 << 24) - 1
#: SwarmKit's allocator adds it to the options of a network that has some. It assigns addresses one after the other, as
#: ours does.
_SERIAL = {"com.docker.network.ipam.serial": "true"}


class Networks:
    """Call it while this node is a manager: ``node_id``."""

    def __init__(self, state: State, node_id: str, sealer: Sealer) -> None:
        self._state = state
        self._node_id = node_id
        self._sealer = sealer

    @property
    def _tables(self) -> Tables:
        return self._state.tables

    def networks(self) -> Sequence[model.Network]:
        return [record(swarm_network(each)) for each in sorted(self._tables.networks, key=lambda each: each.name)]

    def find(self, key: str) -> model.Network | None:
        found = self._tables.networks.match(key)
        if found is None:
            return None
        shown = record(swarm_network(found))
        tables = self._tables
        for network_id, text in assigned(tables.services, tables.tasks, tables.nodes, tables.ingress):
            if network_id == found.id:
                address = ip_interface(text).ip
                for pool in shown.pools:
                    if address in pool.subnet:
                        pool.taken[address] = "swarm"
        return shown

    # changes

    async def create(self, request: NetworkCreateRequest, pools: Sequence[PoolConfig]) -> model.Network:
        """See ``SwarmNetworks``."""
        _check(request)
        now = time.time_ns()
        network = Network(
            id=new_id(),
            created_ns=now,
            updated_ns=now,
            name=request.name,
            labels=dict(request.labels or {}),
            driver=request.driver or model.BRIDGE,
            internal=request.internal,
            attachable=request.attachable,
            ingress=request.ingress,
            config_from=request.config_from if request.config_from and request.config_from.network else None,
        )
        # As in dockerd, options and subnets of a node-local network come from the nodes, and given ones are ignored.
        complete = (lambda: [Put(network)]) if network.node_local else self._overlay(network, request, pools)

        def build() -> Sequence[Put]:
            tables = self._tables
            if tables.networks.named(request.name) is not None:
                raise conflict(f"network with name {request.name} already exists")
            present = tables.ingress
            if request.ingress and present is not None:
                raise exists(f"ingress network ({present.id}) is already present")
            return complete()

        await self._state.transact(build)
        return record(swarm_network(self._tables.networks.get(network.id)))

    def _overlay(
        self, network: Network, request: NetworkCreateRequest, pools: Sequence[PoolConfig]
    ) -> Callable[[], Sequence[Put]]:
        """What a transaction has to put for an overlay network: it has a free subnet and a free VNI.

        :raises WharfError: INVALID_ARGUMENT, NOT_IMPLEMENTED; PERMISSION_DENIED, by the result: a subnet is in use.
        """
        given = request.options or {}
        network = replace(
            network,
            options={name: value for name, value in given.items() if name != options.VNI},
            enable_ipv6=bool(request.enable_ipv6),
        )
        if network.encrypted:
            self._check_encryption()
        vnis = _requested_vnis(given)
        ipam_options = dict(request.ipam.options or {}) if request.ipam is not None else {}

        def build() -> Sequence[Put]:
            tables = self._tables
            ipam = IPAM(
                driver="default",
                options={**ipam_options, **_SERIAL} if ipam_options else None,
                config=_subnets(self._state.cluster, tables, pools),
            )
            created = Put(replace(network, ipam=ipam, vni=_free_vni(tables, vnis)))
            if not network.encrypted:
                return [created]
            # Also if there are keys: the leader may delete them at this moment.
            return [created, Put(tables.network_keys or networkkeys.make(self._sealer, network.created_ns))]

        return build

    def _check_encryption(self) -> None:
        """:raises WharfError: NOT_IMPLEMENTED: this node can't have encrypted networks; others may not either."""
        node = self._tables.nodes.find(self._node_id)
        if node is None or not node.encrypts:
            raise unsupported(f"overlay networks can't be encrypted on this node: {NO_ESP}")

    async def remove(self, network_id: str) -> None:
        """See ``SwarmNetworks``."""

        def build() -> Sequence[Delete]:
            network = self._tables.networks.find(network_id)
            if network is None:
                raise missing(f"network {network_id} not found")
            _check_unused(self._tables, network)
            return [Delete(network)]

        await self._state.transact(build)

    # inspect

    def details(self, network: model.Network, *, verbose: bool) -> Mapping[str, Any]:
        """See ``SwarmNetworks``."""
        tasks = [task for task in self._tables.tasks if task.state == TaskState.RUNNING and task.address(network.id)]
        nodes = {node.id: node for node in self._tables.nodes}
        peers = {task.node_id for task in tasks if task.node_id in nodes}
        shown: dict[str, Any] = {
            "Peers": [{"Name": id[:12], "IP": nodes[id].status.addr} for id in sorted(peers)] or None
        }
        if verbose:
            shown["Services"] = {
                service.name: _service(service, network.id, own)
                for service in self._tables.services
                if (own := [task for task in tasks if task.service_id == service.id])
            }
        return shown


def ingress(cluster: Cluster, in_use: Iterable[Subnet] = ()) -> Network:
    """The ingress network of a new swarm. ``in_use``: networks that this machine has routes to: the ingress network is
    one more of them."""
    pools = _pools(cluster)
    try:
        subnet = allocator.choose_subnet(pools, in_use, version=4)
    except allocator.PoolExhausted:
        subnet = allocator.choose_subnet(pools, (), version=4)
    return Network(
        id=new_id(),
        created_ns=cluster.created_ns,
        updated_ns=cluster.created_ns,
        name="ingress",
        labels={},
        ipam=IPAM(driver="default", config=(_pool(PoolConfig(str(subnet))),)),
        ingress=True,
        vni=_FIRST_VNI,
    )


def _check(request: NetworkCreateRequest) -> None:
    """:raises WharfError: INVALID_ARGUMENT, NOT_IMPLEMENTED: the request can't be met."""
    if request.driver != model.OVERLAY and request.ingress:
        raise WharfError(Kind.PERMISSION_DENIED, "Ingress network can only be global scope network")
    if request.enable_ipv4 is False:
        raise malformed("IPv4 cannot be disabled in a Swarm scoped network")
    if request.driver == model.OVERLAY and request.config_from is not None and request.config_from.network:
        # dockerd accepts it, and rejects all tasks.
        raise WharfError(
            Kind.PERMISSION_DENIED,
            "user specified configurations are not supported if the network depends on a configuration network",
        )
    if request.driver == model.NULL:
        raise malformed(f"error during lookup of plugin {model.NULL}")
    if request.attachable and request.ingress:
        raise malformed("ingress network cannot be attachable")
    check_name(request.name)
    driver = request.ipam.driver if request.ipam is not None else ""
    if driver not in ("", "default"):
        raise malformed(f"error during lookup of plugin {driver}")


def _requested_vnis(given: Mapping[str, str]) -> Sequence[int]:
    """:raises WharfError: INVALID_ARGUMENT."""
    found = []
    for text in filter(None, given.get(options.VNI, "").split(",")):
        if not text.strip().isdecimal() or not 0 < int(text) <= _LAST_VNI:
            raise invalid(f'invalid vxlan id value "{text}" passed')
        found.append(int(text))
    return found


def _free_vni(tables: Tables, requested: Sequence[int]) -> int:
    used = {network.vni for network in tables.networks}
    if requested:
        if requested[0] in used:
            raise invalid(f"could not assign vxlan id {requested[0]}: requested bit is already allocated")
        return requested[0]
    # The first one is that of the ingress network.
    return next(number for number in range(_FIRST_VNI + 1, _LAST_VNI + 1) if number not in used)


def _pools(cluster: Cluster) -> list[DefaultPool]:
    texts = cluster.default_addr_pool or (DEFAULT_POOL,)
    return [allocator.default_pool(text, cluster.subnet_size) for text in texts]


def _subnets(cluster: Cluster, tables: Tables, requested: Sequence[PoolConfig]) -> tuple[IPAMPool, ...]:
    """The requested subnets, and one of the swarm's pools if none of them is IPv4, or has only a size.

    :raises WharfError: PERMISSION_DENIED: another network has it.
    """
    taken = [ip_network(pool.subnet) for network in tables.networks for pool in network.ipam.config or ()]
    found = []
    for config in requested:
        subnet = ip_network(config.subnet)
        if subnet.network_address.is_unspecified:
            pools = allocator.of_size(_pools(cluster), subnet.prefixlen)
            subnet = allocator.choose_subnet(pools, taken, version=subnet.version)
        elif any(subnet.version == other.version and subnet.overlaps(other) for other in taken):
            raise WharfError(Kind.PERMISSION_DENIED, "Pool overlaps with other one on this address space")
        taken.append(subnet)
        found.append(_pool(replace(config, subnet=str(subnet))))
    if not any(isinstance(ip_network(pool.subnet), IPv4Network) for pool in found):
        found.append(_pool(PoolConfig(str(allocator.choose_subnet(_pools(cluster), taken, version=4)))))
    return tuple(found)


def _pool(config: PoolConfig) -> IPAMPool:
    return IPAMPool(
        subnet=config.subnet,
        ip_range=config.ip_range,
        gateway=config.gateway or str(config.make_pool().first_usable()),
        auxiliary_addresses=config.aux or None,
    )


def _check_unused(tables: Tables, network: Network) -> None:
    """:raises WharfError: INVALID_ARGUMENT: a service or a task uses the network."""
    for service in tables.services:
        spec = service.spec
        if network.ingress:
            if any(not port.on_host for port in spec.ports):
                raise precondition(f"ingress network cannot be removed because service {service.id} depends on it")
        elif any(each.target == network.id for each in spec.task_template.networks or ()):
            raise precondition(f"network {network.id} is in use by service {service.id}")
    if network.ingress:
        return
    for task in tables.tasks:
        # The tasks of a removed service are about to be shut down.
        needed = not task.service_id or tables.services.find(task.service_id) is not None
        needed = needed and task.desired_state <= TaskState.RUNNING and task.state <= TaskState.RUNNING
        if needed and any(each.target == network.id for each in task.spec.networks or ()):
            raise precondition(f"network {network.id} is in use by task {task.id}")


def _service(service: Service, network_id: str, tasks: Sequence[Task]) -> dict[str, Any]:
    return {
        "VIP": service.virtual_ip(network_id).partition("/")[0],
        "Ports": [],
        "LocalLBIndex": 0,
        "Tasks": [
            {"Name": task.name, "EndpointID": "", "EndpointIP": task.address(network_id), "Info": {}}
            for task in sorted(tasks, key=lambda task: (task.slot, task.id))
        ],
    }
