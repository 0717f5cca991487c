"""Which nodes may have the image of a service, and which images a node may read from others."""

import random
from collections.abc import Sequence

from engine.common.errors import not_found
from server.swarm.agent.dispatcher import NodeAddress
from server.swarm.model.taskstate import TaskState
from server.swarm.state.tables import Tables

#: The most nodes that are named, beside managers: one of these may be the only node that knows a tag.
_PREPARED = 5


def peers(tables: Tables, node_id: str, service_id: str) -> Sequence[NodeAddress]:
    """See ``Dispatcher.image_peers``."""
    _own_images(tables, node_id, service_id)
    prepared = [task for task in tables.tasks.of_service(service_id) if _prepared(task.state)]
    # In any order: many nodes may ask at the same time.
    random.shuffle(prepared)
    # Those that run are the likeliest to have the image that the service has now.
    prepared.sort(key=lambda task: task.state.ended)
    alive = {
        node.id: NodeAddress(node.id, node.status.addr, manager=node.manager is not None)
        for node in tables.nodes
        if node.id != node_id and node.status.addr and tables.sessions.find(node.id) is not None
    }
    found = list(dict.fromkeys(alive[task.node_id] for task in prepared if task.node_id in alive))[:_PREPARED]
    managers = [each for each in alive.values() if each.manager and each not in found]
    random.shuffle(managers)
    return [*found, *managers]


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
