"""Computes what a node has to run and to know, from the tables. What nodes have in common is in ``shared``."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from api_models.swarm.common import Driver
from server.networks.overlay.model import SwarmNetwork
from server.swarm.agent.dispatcher import Assignments
from server.swarm.dispatch.shared import Shared, data_path
from server.swarm.model.objects import Cluster, Network, NetworkKeys, Node, Object, Service, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Event
from server.swarm.state.tables import Tables

#: An option of overlay networks: the MTU between the nodes.
_MTU = "com.docker.network.driver.mtu"


@dataclass(frozen=True, slots=True)
class Changes:
    """What nodes have in common is another one on ``networks``, or for all nodes: ``everything``."""

    networks: frozenset[str]
    everything: bool


class Computation:
    """Call ``note`` with all events since the constructor, and ``of`` when none is left: it takes as long as the node
    has tasks. What nodes have in common stays as it is until ``refresh``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._shared = Shared(tables)
        self._everything = False
        self._networks: dict[str, SwarmNetwork] = {}
        self._ingress: Network | None = tables.ingress

    def note(self, events: Iterable[Event]) -> set[str]:
        """Returns the nodes whose tasks have changed."""
        nodes: set[str] = set()
        for event in events:
            item, old, new = event.item, event.old, event.new
            if isinstance(item, Task):
                tasks = [each if isinstance(each, Task) else None for each in (old, new)]
                nodes.update(task.node_id for task in tasks if task is not None)
                self._shared.note_task(item.id, *tasks)
            elif isinstance(item, Service):
                services = [each if isinstance(each, Service) else None for each in (old, new)]
                self._shared.note_service(item.id, *services)
            elif isinstance(item, Network | NetworkKeys | Cluster) or (
                isinstance(item, Node) and _of_node(old) != _of_node(new)
            ):
                self._everything = True
                self._networks, self._ingress = {}, self._tables.ingress
                self._shared.note_everything()
        return nodes

    @property
    def stale(self) -> bool:
        """Whether ``refresh`` has something to do."""
        return self._everything or self._shared.stale

    def refresh(self) -> Changes:
        """Makes what nodes have in common as new as the tables."""
        everything, self._everything = self._everything, False
        return Changes(frozenset(self._shared.refresh()), everything)

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
        networks = {network.id: self._on_node(network, node, local) for network in self._networks_of(tasks.values())}
        views = {id: self._shared.view(id) for id in networks}
        return Assignments(
            tasks=tasks,
            networks=networks,
            services={id: view.services for id, view in views.items()},
            mesh=self._shared.mesh(),
            peers={id: view.peers for id, view in views.items()} if local else {},
            nodes=len(tables.nodes),
            keys=self._keys(networks.values()),
        )

    def _keys(self, networks: Iterable[SwarmNetwork]) -> int:
        keys = self._tables.network_keys
        needed = any(network.encrypted and network.local for network in networks)
        return keys.version if needed and keys is not None else 0

    def _networks_of(self, tasks: Iterable[Task]) -> list[Network]:
        wanted = {each.network_id for task in tasks if not task.state.ended for each in task.attachments}
        if self._ingress is not None:
            wanted.add(self._ingress.id)
        return [network for id in sorted(wanted) if (network := self._tables.networks.find(id)) is not None]

    def _on_node(self, network: Network, node: Node | None, local: str) -> SwarmNetwork:
        made = self._networks.get(network.id)
        if made is None:
            made = self._networks[network.id] = swarm_network(network)
        if not local or node is None or network.node_local:
            return made
        port = next((cluster.data_path_port for cluster in self._tables.cluster), 0)
        own = node.ingress_address if network.ingress else ""
        # Encrypted networks have a port of their own: the next one.
        return replace(made, local=local, port=(port or made.port) + network.encrypted, node_address=own)


def _of_node(node: Object | None) -> object:
    return (data_path(node), node.ingress_address) if isinstance(node, Node) else None


def _with_log_driver(task: Task, driver: Driver | None) -> Task:
    """The task with the swarm's log driver, if its service names none."""
    if driver is None or task.spec.log_driver is not None:
        return task
    return replace(task, spec=replace(task.spec, log_driver=driver))


def swarm_network(network: Network) -> SwarmNetwork:
    """The network as it is for all nodes."""
    mtu = (network.options or {}).get(_MTU, "")
    return SwarmNetwork(
        id=network.id,
        name=network.name,
        subnets=tuple((pool.subnet, pool.gateway.partition("/")[0]) for pool in network.ipam.config or ()),
        vni=network.vni,
        driver=network.driver,
        config_from=network.config_from.network if network.config_from is not None else "",
        mtu=int(mtu) if mtu.isdecimal() else 0,
        internal=network.internal,
        attachable=network.attachable,
        ingress=network.ingress,
        labels=network.labels,
        options=network.options,
        ipam_options=network.ipam.options,
        created_ns=network.created_ns,
    )
