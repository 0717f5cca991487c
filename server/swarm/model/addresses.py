"""The addresses that services and tasks have on the swarm's networks."""

from collections.abc import Iterable, Iterator

from server.swarm.model.objects import Service, Task


def assigned(services: Iterable[Service], tasks: Iterable[Task]) -> Iterator[tuple[str, str]]:
    """(id of the network, address in CIDR notation) of each service, and of each task that has not ended."""
    for service in services:
        for virtual in service.endpoint.virtual_ips or ():
            if virtual.addr:
                yield virtual.network_id, virtual.addr
    for task in tasks:
        if not task.state.ended:
            for attachment in task.attachments:
                for address in attachment.addresses:
                    yield attachment.network_id, address
