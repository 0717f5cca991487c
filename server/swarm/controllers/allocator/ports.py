"""Published ports of the mode "ingress": each is unique in the swarm. ``operations.references`` refuses a spec whose
port is in use; what is found here was allocated in the meantime."""

from collections.abc import Iterator
from dataclasses import replace

from api_models.swarm.network import PortConfig
from server.swarm.controllers.draft import Draft
from server.swarm.model.objects import Service

#: The ports that are chosen where the spec names none.
DYNAMIC = range(30000, 32768)


class PortInUse(Exception):
    """Another service has a port."""


class Ports:
    """The ports of one draft."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft

    def allocate(self, service: Service) -> tuple[PortConfig, ...] | None:
        """The ports of the service's spec, with numbers for all of the mode "ingress". It keeps those that it has.

        :raises PortInUse: with dockerd's sentence.
        """
        wanted = service.spec.ports
        if not wanted:
            return None
        taken = {key: other for other in self._draft.services() if other.id != service.id for key in _published(other)}
        former = {_identity(port): port.published_port for port in service.endpoint.ports or ()}
        mine = {(port.protocol, port.published_port) for port in wanted if port.published_port}
        allocated = []
        for port in wanted:
            number = port.published_port
            if not port.on_host:
                number = number or self._dynamic(port, former.get(_identity(port), 0), {*taken, *mine})
                mine.add((port.protocol, number))
                if (other := taken.get((port.protocol, number))) is not None:
                    raise PortInUse(
                        f"port '{number}' is already in use by service '{other.name}' ({other.id}) as an ingress port"
                    )
            allocated.append(replace(port, published_port=number))
        return tuple(allocated)

    def _dynamic(self, port: PortConfig, former: int, taken: set[tuple[str, int]]) -> int:
        if former and (port.protocol, former) not in taken:
            return former
        for number in DYNAMIC:
            if (port.protocol, number) not in taken:
                return number
        raise PortInUse("no port of 30000-32767 is free")


def _identity(port: PortConfig) -> tuple[str, str, int, str]:
    return port.name, port.protocol, port.target_port, port.publish_mode


def _published(service: Service) -> Iterator[tuple[str, int]]:
    for port in service.endpoint.ports or ():
        if not port.on_host and port.published_port:
            yield port.protocol, port.published_port
