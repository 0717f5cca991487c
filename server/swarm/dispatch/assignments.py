"""Computes what a node has to run and to know, from the tables."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from api_models.swarm.common import Driver
from server.networks.overlay.model import Backend, MeshPort, OverlayNetwork, ServiceAddresses
from server.swarm.agent.dispatcher import Assignments
from server.swarm.model.objects import Network, Task
from server.swarm.model.taskstate import TaskState
from server.swarm.state.tables import Tables

#: An option of overlay networks: the MTU of their links.
_MTU = "com.docker.network.driver.mtu"


def assignments(tables: Tables, node_id: str) -> Assignments:
    driver = next((cluster.spec.task_defaults.log_driver for cluster in tables.cluster), None)
    tasks = {
        task.id: _with_log_driver(task, driver)
        for task in tables.tasks.of_node(node_id)
        if task.state >= TaskState.ASSIGNED
    }
    networks = {network.id: overlay_network(network) for network in _networks(tables, tasks.values())}
    return Assignments(
        tasks=tasks,
        networks=networks,
        services={id: tuple(_services(tables, id)) for id in networks},
        mesh=tuple(_mesh(tables)),
    )


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


def _services(tables: Tables, network_id: str) -> Iterator[ServiceAddresses]:
    """The services on a network."""
    for service in tables.services:
        virtual = service.virtual_ip(network_id)
        tasks = [task for task in tables.tasks.of_service(service.id) if task.address(network_id)]
        if not virtual and not tasks:
            continue
        configs = service.spec.task_template.networks or ()
        aliases = [alias for config in configs if config.target == network_id for alias in config.aliases or ()]
        yield ServiceAddresses(
            service_id=service.id,
            names=tuple(dict.fromkeys((service.name, *aliases))),
            virtual_ip=virtual.partition("/")[0],
            backends=tuple(
                Backend(task.name, task.address(network_id)) for task in _oldest_first(tasks) if serves(task)
            ),
        )


def _mesh(tables: Tables) -> Iterator[MeshPort]:
    ingress = tables.ingress
    if ingress is None:
        return
    for service in tables.services:
        ports = [port for port in service.endpoint.ports or () if not port.on_host and port.published_port]
        if not ports:
            continue
        tasks = _oldest_first(tables.tasks.of_service(service.id))
        for port in ports:
            yield MeshPort(
                protocol=port.protocol or "tcp",
                published=port.published_port,
                target=port.target_port,
                backends=tuple(address for task in tasks if serves(task) and (address := task.address(ingress.id))),
            )


def serves(task: Task) -> bool:
    """Whether connections go to the task: it runs, and is not to be stopped."""
    return task.state is TaskState.RUNNING and task.desired_state <= TaskState.COMPLETE


def _oldest_first(tasks: Iterable[Task]) -> list[Task]:
    return sorted(tasks, key=lambda task: (task.created_ns, task.slot, task.id))
