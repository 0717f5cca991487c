"""Computes what a node has to run and to know, from the tables. What nodes have in common is computed once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from api_models.swarm.common import Driver
from server.networks.overlay.model import Backend, MeshPort, OverlayNetwork, Peer, ServiceAddresses
from server.swarm.agent.dispatcher import Assignments
from server.swarm.model.objects import Cluster, Network, Node, Object, Service, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Event
from server.swarm.state.tables import Tables

#: An option of overlay networks: the MTU between the nodes.
_MTU = "com.docker.network.driver.mtu"


@dataclass(frozen=True, slots=True)
class Changes:
    """What events concern: tasks of ``nodes``, ``networks``, or ``everything``."""

    nodes: frozenset[str]
    networks: frozenset[str]
    everything: bool


class Computation:
    """Call ``note`` with all events since the constructor; then ``of`` may be called at any time."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        # By service, then by network.
        self._services: dict[str, dict[str, ServiceAddresses | None]] = {}
        self._ports: dict[str, tuple[MeshPort, ...]] = {}
        # The former together, by network; and of the whole swarm.
        self._together: dict[str, tuple[ServiceAddresses, ...]] = {}
        self._mesh: tuple[MeshPort, ...] | None = None
        # By network and task (or node, on the ingress network): whose address it is. None: not computed.
        self._peers: dict[str, dict[str, tuple[str, Peer]]] | None = None

    def note(self, events: Iterable[Event]) -> Changes:
        """Forgets what the events change."""
        nodes: set[str] = set()
        networks: set[str] = set()
        everything = False
        for event in events:
            item = event.item
            if isinstance(item, Task):
                for task in (event.old, event.new):
                    if isinstance(task, Task):
                        nodes.add(task.node_id)
                if _of_task(event.old) != _of_task(event.new):
                    for task in (event.old, event.new):
                        if isinstance(task, Task):
                            networks.update(each.network_id for each in task.attachments)
                            self._forget(task.service_id)
                    self._index(item, event.old)
            elif isinstance(item, Service):
                if _of_service(event.old) != _of_service(event.new):
                    networks.update(self._networks_of(item.id, event.old), self._networks_of(item.id, event.new))
                    self._forget(item.id)
            elif isinstance(item, Node):
                everything |= _of_node(event.old) != _of_node(event.new)
            elif isinstance(item, Network | Cluster):
                everything = True
        for id in networks:
            self._together.pop(id, None)
        if networks:
            self._mesh = None
        if everything:
            self._peers = None
            self._services, self._ports, self._together, self._mesh = {}, {}, {}, None
        return Changes(frozenset(nodes), frozenset(networks), everything)

    def of(self, node_id: str) -> Assignments:
        tables = self._tables
        driver = next((cluster.spec.task_defaults.log_driver for cluster in tables.cluster), None)
        tasks = {
            task.id: _with_log_driver(task, driver)
            for task in tables.tasks.of_node(node_id)
            if task.state >= TaskState.ASSIGNED
        }
        node = tables.nodes.find(node_id)
        local = data_path(node) if node is not None and len(tables.nodes) > 1 else ""
        port = next((cluster.data_path_port for cluster in tables.cluster), 0)
        networks = {}
        for network in _networks(tables, tasks.values()):
            made = overlay_network(network)
            if local and node is not None:
                own = node.ingress_address if network.ingress else ""
                made = replace(made, local=local, port=port or made.port, node_address=own)
            networks[network.id] = made
        return Assignments(
            tasks=tasks,
            networks=networks,
            services={id: self._on_network(id) for id in networks},
            mesh=self._all_ports(),
            peers={id: self._others(id, node_id) for id in networks} if local else {},
        )

    # parts

    def _forget(self, service_id: str) -> None:
        self._services.pop(service_id, None)
        self._ports.pop(service_id, None)

    def _on_network(self, network_id: str) -> tuple[ServiceAddresses, ...]:
        found = self._together.get(network_id)
        if found is None:
            parts = []
            for service in self._tables.services:
                known = self._services.setdefault(service.id, {})
                if network_id not in known:
                    known[network_id] = _service_addresses(self._tables, service, network_id)
                if (part := known[network_id]) is not None:
                    parts.append(part)
            found = self._together[network_id] = tuple(parts)
        return found

    def _all_ports(self) -> tuple[MeshPort, ...]:
        if self._mesh is None:
            parts: list[MeshPort] = []
            for service in self._tables.services:
                if service.id not in self._ports:
                    self._ports[service.id] = tuple(_mesh(self._tables, service))
                parts += self._ports[service.id]
            self._mesh = tuple(parts)
        return self._mesh

    def _networks_of(self, id: str, service: Object | None) -> Iterator[str]:
        if not isinstance(service, Service):
            return
        yield from (each.network_id for each in service.endpoint.virtual_ips or ())
        yield from (each.target for each in service.spec.task_template.networks or ())
        for task in self._tables.tasks.of_service(id):
            yield from (each.network_id for each in task.attachments)
        if self._tables.ingress is not None:
            yield self._tables.ingress.id

    # addresses on other nodes

    def _others(self, network_id: str, node_id: str) -> tuple[Peer, ...]:
        if self._peers is None:
            self._peers = {}
            for task in self._tables.tasks:
                self._index(task, None)
            ingress = self._tables.ingress
            for node in self._tables.nodes if ingress is not None else ():
                if ingress is not None and node.ingress_address and data_path(node):
                    peer = Peer(node.ingress_address.partition("/")[0], data_path(node))
                    self._peers.setdefault(ingress.id, {})[node.id] = (node.id, peer)
        return tuple(peer for owner, peer in self._peers.get(network_id, {}).values() if owner != node_id)

    def _index(self, task: Task, former: Object | None) -> None:
        """Makes the addresses of a task equal to the tables, which may be newer than the event."""
        if self._peers is None:
            return
        for each in (task, former):
            for attachment in each.attachments if isinstance(each, Task) else ():
                self._peers.get(attachment.network_id, {}).pop(task.id, None)
        current = self._tables.tasks.find(task.id)
        node = None if current is None or current.state.ended else self._tables.nodes.find(current.node_id)
        if current is None or node is None or not data_path(node):
            return
        for attachment in current.attachments:
            address = current.address(attachment.network_id)
            if address:
                peers = self._peers.setdefault(attachment.network_id, {})
                peers[task.id] = (node.id, Peer(address, data_path(node)))


def data_path(node: Node) -> str:
    """The address of the node's VXLAN packets; "": it is not known."""
    return node.data_path_addr or node.status.addr


def _of_task(task: Object | None) -> object:
    """What nodes know of tasks of other nodes."""
    if not isinstance(task, Task):
        return None
    return task.node_id, serves(task), task.state.ended, task.attachments, task.service_id, task.slot


def _of_service(service: Object | None) -> object:
    if not isinstance(service, Service):
        return None
    return service.name, service.endpoint, service.spec.task_template.networks


def _of_node(node: Object | None) -> object:
    return (data_path(node), node.ingress_address) if isinstance(node, Node) else None


def _with_log_driver(task: Task, driver: Driver | None) -> Task:
    """The task with the swarm's log driver, if its service names none."""
    if driver is None or task.spec.log_driver is not None:
        return task
    return replace(task, spec=replace(task.spec, log_driver=driver))


def _networks(tables: Tables, tasks: Iterable[Task]) -> list[Network]:
    wanted = {each.network_id for task in tasks if not task.state.ended for each in task.attachments}
    return [network for network in tables.networks if network.ingress or network.id in wanted]


def overlay_network(network: Network) -> OverlayNetwork:
    mtu = (network.options or {}).get(_MTU, "")
    return OverlayNetwork(
        id=network.id,
        name=network.name,
        subnets=tuple((pool.subnet, pool.gateway.partition("/")[0]) for pool in network.ipam.config or ()),
        vni=network.vni,
        mtu=int(mtu) if mtu.isdecimal() else 0,
        internal=network.internal,
        attachable=network.attachable,
        ingress=network.ingress,
        labels=network.labels,
        options=network.options,
        created_ns=network.created_ns,
    )


def _service_addresses(tables: Tables, service: Service, network_id: str) -> ServiceAddresses | None:
    """A service on a network; None: it is not there."""
    virtual = service.virtual_ip(network_id)
    tasks = [task for task in tables.tasks.of_service(service.id) if task.address(network_id)]
    if not virtual and not tasks:
        return None
    configs = service.spec.task_template.networks or ()
    aliases = [alias for config in configs if config.target == network_id for alias in config.aliases or ()]
    return ServiceAddresses(
        service_id=service.id,
        names=tuple(dict.fromkeys((service.name, *aliases))),
        virtual_ip=virtual.partition("/")[0],
        backends=tuple(Backend(task.name, task.address(network_id)) for task in _oldest_first(tasks) if serves(task)),
    )


def _mesh(tables: Tables, service: Service) -> Iterator[MeshPort]:
    ingress = tables.ingress
    ports = [port for port in service.endpoint.ports or () if not port.on_host and port.published_port]
    if ingress is None or not ports:
        return
    tasks = _oldest_first(task for task in tables.tasks.of_service(service.id) if serves(task))
    for port in ports:
        yield MeshPort(
            protocol=port.protocol or "tcp",
            published=port.published_port,
            target=port.target_port,
            backends=tuple(address for task in tasks if (address := task.address(ingress.id))),
        )


def serves(task: Task) -> bool:
    """Whether connections go to the task: it runs, and is not to be stopped."""
    return task.state is TaskState.RUNNING and task.desired_state <= TaskState.COMPLETE


def _oldest_first(tasks: Iterable[Task]) -> Sequence[Task]:
    return sorted(tasks, key=lambda task: (task.created_ns, task.slot, task.id))
