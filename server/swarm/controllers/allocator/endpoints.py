"""Gives services their virtual addresses and ports, and tasks their addresses."""

from collections.abc import Iterator
from dataclasses import replace

from api_models.swarm.network import Endpoint, NetworkAttachmentConfig, VirtualIP
from server.swarm.controllers.allocator.addresses import Addresses, Exhausted
from server.swarm.controllers.allocator.ports import PortInUse, Ports
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.tasks import alive, endpoint_spec
from server.swarm.model.objects import PREDEFINED, Attachment, Network, Service, Task
from server.swarm.model.taskstate import TaskState

_ALLOCATED = "pending task scheduling"


class Allocator:
    """The allocations of one draft. ``cursors``: see ``Addresses``."""

    def __init__(self, draft: Draft, cursors: dict[str, int]) -> None:
        self._draft = draft
        self._addresses = Addresses(draft, cursors)
        self._ports = Ports(draft)

    def allocate(self, service: Service | None, service_id: str) -> None:
        """Gives the service and its tasks what they lack. A task that has all becomes PENDING; another one shows why it
        waits. ``service`` None: tasks of a service that was removed, or of none."""
        new = [task for task in self._draft.tasks(service_id) if task.state is TaskState.NEW and alive(task)]
        error = ""
        if service is not None:
            try:
                service = self._allocate_service(service)
            except (Exhausted, PortInUse) as problem:
                error = str(problem)
        for task in new:
            try:
                if error:
                    raise Exhausted(error)
                self._allocate_task(service, task)
            except Exhausted as problem:
                if task.status.err != str(problem):
                    self._draft.observe(task, TaskState.NEW, task.status.message, str(problem))

    def _allocate_service(self, service: Service) -> Service:
        endpoint = Endpoint(
            spec=endpoint_spec(service),
            ports=self._ports.allocate(service),
            virtual_ips=self._virtual_ips(service) or None,
        )
        if endpoint == service.endpoint:
            return service
        if endpoint.ports is None and service.endpoint == Endpoint() and not any(self._networks(service)):
            # As in dockerd, the endpoint of a service without networks and ports stays empty.
            return service
        return self._draft.put_service(replace(service, endpoint=endpoint))

    def _virtual_ips(self, service: Service) -> tuple[VirtualIP, ...]:
        if endpoint_spec(service).mode == "dnsrr":
            return ()
        former = {each.network_id: each for each in service.endpoint.virtual_ips or ()}
        return tuple(
            former.get(network.id) or VirtualIP(network_id=network.id, addr=self._free(network))
            for network, _ in self._networks(service)
        )

    def _networks(self, service: Service) -> Iterator[tuple[Network, NetworkAttachmentConfig]]:
        """The networks of a service: the ingress network first, if it publishes ports there.

        :raises Exhausted: a network does not exist yet.
        """
        if any(not port.on_host for port in service.spec.ports):
            ingress = self._draft.tables.ingress
            if ingress is None:
                raise Exhausted("no ingress network")
            yield ingress, NetworkAttachmentConfig(target=ingress.id)
        yield from self._resolve(service.spec.task_template.networks or ())

    def _resolve(
        self, wanted: tuple[NetworkAttachmentConfig, ...]
    ) -> Iterator[tuple[Network, NetworkAttachmentConfig]]:
        for config in wanted:
            network = self._draft.tables.networks.find(config.target)
            if network is not None:
                yield network, config
            elif config.target not in PREDEFINED:
                raise Exhausted(f"network {config.target} not found")

    def _free(self, network: Network) -> str:
        """A free address, "" on a node-local network: a service has no virtual address there."""
        return "" if network.node_local else self._addresses.allocate(network)

    def _assigned(self, task: Task, network: Network) -> tuple[str, ...]:
        """The addresses that a user has requested for a container, or else a free one. None on a node-local network:
        the node assigns it."""
        if network.node_local:
            return ()
        requested = next((each.addresses for each in task.attachments if each.network_id == network.id), ())
        for address in requested:
            self._addresses.check(network, address)
        return requested or (self._addresses.allocate(network),)

    def _allocate_task(self, service: Service | None, task: Task) -> None:
        networks = self._resolve(task.spec.networks or ()) if service is None else self._networks(service)
        attachments = tuple(
            Attachment(
                network_id=network.id,
                addresses=self._assigned(task, network),
                aliases=config.aliases or (),
                driver_opts=config.driver_opts,
                encrypted=network.encrypted,
            )
            for network, config in networks
        )
        wanted = (task.spec if service is None else service.spec.task_template).networks or ()
        attachments += tuple(Attachment(network_id=each.target) for each in wanted if each.target in PREDEFINED)
        endpoint = task.endpoint if service is None else replace(service.endpoint, spec=task.endpoint.spec)
        self._draft.observe(replace(task, attachments=attachments, endpoint=endpoint), TaskState.PENDING, _ALLOCATED)
