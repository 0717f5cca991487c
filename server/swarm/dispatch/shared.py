"""What nodes have in common: the services and the addresses of a network, and the ports of the routing mesh. It is
computed once after a change, for all nodes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from server.networks.overlay.model import Backend, MeshPort, Peer, ServiceAddresses
from server.swarm.model.objects import Node, Object, Service, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.tables import Tables


@dataclass(frozen=True, slots=True)
class View:
    """A network, at one moment: each backend has its peer."""

    services: tuple[ServiceAddresses, ...]
    peers: tuple[Peer, ...]


class Shared:
    """Call ``note`` with all changes of objects since the constructor. A value that is equal to the former one is the
    same object: whoever gets it compares by identity."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._views: dict[str, View] = {}
        self._mesh: tuple[MeshPort, ...] | None = None
        # The networks whose views are older than the tables.
        self._stale: set[str] = set()
        # The parts of the former. By service, then by network; by service.
        self._services: dict[str, dict[str, ServiceAddresses | None]] = {}
        self._ports: dict[str, tuple[MeshPort, ...]] = {}
        # By network and task (or node, on the ingress network). None: not computed.
        self._peers: dict[str, dict[str, Peer]] | None = None

    # changes

    def note_task(self, id: str, old: Task | None, new: Task | None) -> None:
        if _of_task(old) == _of_task(new):
            return
        for task in (old, new):
            if task is not None:
                self._stale.update(each.network_id for each in task.attachments)
                self._forget(task.service_id)
        self._index(id, old, new)

    def note_service(self, id: str, old: Service | None, new: Service | None) -> None:
        if _of_service(old) != _of_service(new):
            self._stale.update(self._networks_of(id, old), self._networks_of(id, new))
            self._forget(id)

    def note_everything(self) -> None:
        self._stale.update(self._views)
        self._peers = None
        self._services, self._ports = {}, {}

    def _forget(self, service_id: str) -> None:
        self._services.pop(service_id, None)
        self._ports.pop(service_id, None)

    def _networks_of(self, id: str, service: Object | None) -> Iterator[str]:
        if not isinstance(service, Service):
            return
        yield from (each.network_id for each in service.endpoint.virtual_ips or ())
        yield from (each.target for each in service.spec.task_template.networks or ())
        for task in self._tables.tasks.of_service(id):
            yield from (each.network_id for each in task.attachments)
        if self._tables.ingress is not None:
            yield self._tables.ingress.id

    # values

    @property
    def stale(self) -> bool:
        """Whether ``refresh`` has something to do."""
        return bool(self._stale)

    def refresh(self) -> set[str]:
        """Computes the views again that are older than the tables. Returns the networks whose views, and the ingress
        network if the ports, are other ones."""
        changed = set()
        for id in self._stale & self._views.keys():
            former = self._views.pop(id)
            if self._tables.networks.find(id) is None or self.view(id, former) is not former:
                changed.add(id)
        self._stale.clear()
        if self._mesh is not None:
            ports = self._all_ports()
            if ports != self._mesh:
                self._mesh = ports
                changed.update(() if self._tables.ingress is None else (self._tables.ingress.id,))
        return changed

    def view(self, network_id: str, former: View | None = None) -> View:
        """As it was at the last ``refresh``, or at the first call."""
        found = self._views.get(network_id)
        if found is None:
            services, peers = self._on_network(network_id), self._addresses(network_id)
            if former is not None:
                services = former.services if services == former.services else services
                peers = former.peers if peers == former.peers else peers
            if former is not None and services is former.services and peers is former.peers:
                found = former
            else:
                found = View(services, peers)
            self._views[network_id] = found
        return found

    def mesh(self) -> tuple[MeshPort, ...]:
        """As ``view``."""
        if self._mesh is None:
            self._mesh = self._all_ports()
        return self._mesh

    def _on_network(self, network_id: str) -> tuple[ServiceAddresses, ...]:
        parts = []
        for service in self._tables.services:
            known = self._services.setdefault(service.id, {})
            if network_id not in known:
                known[network_id] = _service_addresses(self._tables, service, network_id)
            if (part := known[network_id]) is not None:
                parts.append(part)
        return (*parts, *_attached(self._tables, network_id))

    def _all_ports(self) -> tuple[MeshPort, ...]:
        parts: list[MeshPort] = []
        for service in self._tables.services:
            if service.id not in self._ports:
                self._ports[service.id] = tuple(_mesh(self._tables, service))
            parts += self._ports[service.id]
        return tuple(parts)

    # addresses

    def _addresses(self, network_id: str) -> tuple[Peer, ...]:
        if self._peers is None:
            self._peers = {}
            for task in self._tables.tasks:
                self._index(task.id, None, task)
            ingress = self._tables.ingress
            for node in self._tables.nodes if ingress is not None else ():
                if ingress is not None and node.ingress_address and data_path(node):
                    peer = Peer(node.ingress_address.partition("/")[0], data_path(node))
                    self._peers.setdefault(ingress.id, {})[node.id] = peer
        return tuple(self._peers.get(network_id, {}).values())

    def _index(self, id: str, *tasks: Task | None) -> None:
        """Makes the addresses of a task equal to the tables, which may be newer than the event. They keep their place,
        so that the difference of two views is small."""
        if self._peers is None:
            return
        current = self._tables.tasks.find(id)
        node = None if current is None or current.state.ended else self._tables.nodes.find(current.node_id)
        wanted: dict[str, Peer] = {}
        if current is not None and node is not None and data_path(node):
            for attachment in current.attachments:
                if address := current.address(attachment.network_id):
                    wanted[attachment.network_id] = Peer(address, data_path(node))
        for task in tasks:
            for attachment in task.attachments if task is not None else ():
                if attachment.network_id not in wanted:
                    self._peers.get(attachment.network_id, {}).pop(id, None)
        for network_id, peer in wanted.items():
            self._peers.setdefault(network_id, {})[id] = peer


def data_path(node: Node) -> str:
    """The address of the node's VXLAN packets; "": it is not known."""
    return node.data_path_addr or node.status.addr


def serves(task: Task) -> bool:
    """Whether connections go to the task: it runs, and is not to be stopped."""
    return task.state is TaskState.RUNNING and task.desired_state <= TaskState.COMPLETE


def _of_task(task: Task | None) -> object:
    """What nodes know of tasks of other nodes."""
    if task is None:
        return None
    return task.node_id, serves(task), task.state.ended, task.attachments, task.service_id, task.slot


def _of_service(service: Service | None) -> object:
    if service is None:
        return None
    return service.name, service.endpoint, service.spec.task_template.networks


def _service_addresses(tables: Tables, service: Service, network_id: str) -> ServiceAddresses | None:
    """A service on a network; None: it is not there."""
    virtual = service.virtual_ip(network_id)
    tasks = [task for task in tables.tasks.of_service(service.id) if task.address(network_id)]
    if not virtual and not tasks:
        return None
    configs = service.spec.task_template.networks or ()
    aliases = [alias for config in configs if config.target == network_id for alias in config.aliases or ()]
    serving = _oldest_first(task for task in tasks if serves(task))
    return ServiceAddresses(
        service_id=service.id,
        names=tuple(dict.fromkeys((service.name, *aliases))),
        virtual_ip=virtual.partition("/")[0],
        backends=tuple(Backend(task.name, task.address(network_id)) for task in serving),
    )


def _attached(tables: Tables, network_id: str) -> Iterator[ServiceAddresses]:
    """The containers of users on a network: each is found by its names, as a service of one task."""
    for task in _oldest_first(tables.tasks.of_service("")):
        names = tuple(dict.fromkeys(name for each in task.spec.networks or () for name in each.aliases or ()))
        if names and serves(task) and (address := task.address(network_id)):
            yield ServiceAddresses(task.id, names, "", (Backend(names[0], address),))


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


def _oldest_first(tasks: Iterable[Task]) -> Sequence[Task]:
    return sorted(tasks, key=lambda task: (task.created_ns, task.slot, task.id))
