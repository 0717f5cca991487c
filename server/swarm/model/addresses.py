"""The addresses that services, tasks and nodes have on the swarm's networks."""

from collections.abc import Iterable, Iterator

from server.swarm.model.objects import Network, Node, Service, Task


def assigned(
    services: Iterable[Service], tasks: Iterable[Task], nodes: Iterable[Node], ingress: Network | None
) -> Iterator[tuple[str, str]]:
    """(id of the network, address in CIDR notation) of each service, of each task that has not ended, and of each node
    on the network ``ingress``."""
    for service in services:
        for virtual in service.endpoint.virtual_ips or ():
            if virtual.addr:
                yield virtual.network_id, virtual.addr
    for task in tasks:
        if not task.state.ended:
            for attachment in task.attachments:
                for address in attachment.addresses:
                    yield attachment.network_id, address
    if ingress is not None:
        for node in nodes:
            if node.ingress_address:
                yield ingress.id, node.ingress_address
