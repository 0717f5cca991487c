"""Which nodes may have the image of a service, and which images a node may read from others."""

from collections.abc import Sequence

from engine.common.errors import not_found
from server.swarm.agent.dispatcher import NodeAddress
from server.swarm.model.taskstate import TaskState
from server.swarm.state.tables import Tables

#: The most nodes that are named.
_PEERS = 8


def peers(tables: Tables, node_id: str, service_id: str) -> Sequence[NodeAddress]:
    """See ``Dispatcher.image_peers``."""
    _own_images(tables, node_id, service_id)
    prepared = [task for task in tables.tasks.of_service(service_id) if _prepared(task.state)]
    # Those that run are the likeliest to have the image that the service has now.
    prepared.sort(key=lambda task: task.state.ended)
    ids = [task.node_id for task in prepared]
    ids += [node.id for node in tables.nodes if node.manager is not None]
    found: list[NodeAddress] = []
    for id in dict.fromkeys(ids):
        node = tables.nodes.find(id)
        if id != node_id and node is not None and node.status.addr and tables.sessions.find(id) is not None:
            found.append(NodeAddress(id, node.status.addr))
    return found[:_PEERS]


def readable(tables: Tables, node_id: str, service_id: str, reader: str) -> Sequence[str]:
    """See ``Dispatcher.readable_images``. ``node_id``: the node that serves them."""
    node = tables.nodes.find(node_id)
    serves = any(task.node_id == node_id for task in tables.tasks.of_service(service_id))
    if node is None or not (serves or node.manager is not None):
        raise not_found(f"service {service_id} not found")
    return _own_images(tables, reader, service_id)


def _prepared(state: TaskState) -> bool:
    return TaskState.READY <= state < TaskState.REJECTED


def _own_images(tables: Tables, node_id: str, service_id: str) -> Sequence[str]:
    """The images of the tasks that a node has of a service.

    :raises WharfError: NOT_FOUND: it has none.
    """
    images = [
        task.spec.container_spec.image
        for task in tables.tasks.of_service(service_id)
        if task.node_id == node_id and not task.state.ended and task.spec.container_spec is not None
    ]
    if not images:
        raise not_found(f"service {service_id} not found")
    return list(dict.fromkeys(images))
