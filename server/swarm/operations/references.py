"""What a service spec refers to: networks, secrets, configs and published ports, checked against the state."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from api_models.swarm.network import NetworkAttachmentConfig
from api_models.swarm.service import ServiceSpec
from engine.common.errors import Kind, WharfError, not_found
from server.swarm.model.objects import PREDEFINED, Config, Secret
from server.swarm.operations.rpc import malformed, precondition
from server.swarm.state.tables import NamedTable, Tables

#: The name of this node's own network with this name or id; None: there is none.
LocalNetwork = Callable[[str], str | None]


def resolve_networks(tables: Tables, spec: ServiceSpec, local: LocalNetwork) -> ServiceSpec:
    """The spec with the ids of its networks, or the names of predefined ones: each node has its own ``host``.

    :raises WharfError: NOT_FOUND; PERMISSION_DENIED: a network of this node; INVALID_ARGUMENT: the ingress network.
    """
    networks = spec.task_template.networks
    if not networks:
        return spec
    resolved = tuple(_resolve(tables, network, local) for network in networks)
    return replace(spec, task_template=replace(spec.task_template, networks=resolved))


def _resolve(tables: Tables, wanted: NetworkAttachmentConfig, local: LocalNetwork) -> NetworkAttachmentConfig:
    network = tables.networks.match(wanted.target)
    name = local(wanted.target) if network is None else None
    if name in PREDEFINED:
        return replace(wanted, target=name)
    if name is not None:
        raise WharfError(
            Kind.PERMISSION_DENIED,
            f"The network {name} cannot be used with services. Only networks scoped to the swarm can be used,"
            " such as those created with the overlay driver.",
        )
    if network is None:
        raise not_found(f"network {wanted.target} not found")
    if network.ingress:
        raise malformed(f'Service cannot be explicitly attached to the ingress network "{network.name}"')
    return replace(wanted, target=network.id)


def any_of(spec: ServiceSpec) -> bool:
    """Whether the spec refers to secrets, configs or networks of the swarm by their ids."""
    task = spec.task_template
    container = task.container_spec
    payloads = container is not None and bool(container.secrets or container.configs)
    return payloads or any(each.target not in PREDEFINED for each in task.networks or ())


def check_networks(tables: Tables, spec: ServiceSpec) -> None:
    """The networks, whose ids the spec has, still exist.

    :raises WharfError: NOT_FOUND.
    """
    for network in spec.task_template.networks or ():
        if network.target not in PREDEFINED and tables.networks.find(network.target) is None:
            raise not_found(f"network {network.target} not found")


def check_payloads(tables: Tables, spec: ServiceSpec) -> None:
    """Secrets and configs exist, with the ids and names of the spec.

    :raises WharfError: INVALID_ARGUMENT.
    """
    container = spec.task_template.container_spec
    if container is None:
        return
    _check(tables.secrets, ((each.secret_id, each.secret_name) for each in container.secrets or ()))
    _check(tables.configs, ((each.config_id, each.config_name) for each in container.configs or ()))


def _check(table: NamedTable[Secret] | NamedTable[Config], wanted: Iterable[tuple[str, str]]) -> None:
    absent = [name for id, name in wanted if (item := table.find(id)) is None or item.name != name]
    if absent:
        raise malformed(f"{table.noun}{'s' if len(absent) > 1 else ''} not found: {', '.join(absent)}")


def check_ports(tables: Tables, spec: ServiceSpec, service_id: str = "") -> None:
    """No other service than ``service_id`` has a published port of the spec. A port of the mode "host" may be published
    by several services: the scheduler puts their tasks on different nodes.

    :raises WharfError: INVALID_ARGUMENT.
    """
    wanted = {(port.protocol, port.published_port): port for port in spec.ports if port.published_port}
    if not wanted:
        return
    for service in tables.services:
        if service.id != service_id:
            for used in (*service.spec.ports, *(service.endpoint.ports or ())):
                port = wanted.get((used.protocol, used.published_port))
                if port is not None and not (port.on_host and used.on_host):
                    kind = "a host-published port" if used.on_host else "an ingress port"
                    raise malformed(
                        f"port '{used.published_port}' is already in use by service '{service.name}' ({service.id})"
                        f" as {kind}"
                    )


def check_ingress(tables: Tables, spec: ServiceSpec) -> None:
    """:raises WharfError: INVALID_ARGUMENT: the service needs the ingress network, which was removed."""
    if tables.ingress is None and any(not port.on_host for port in spec.ports):
        raise precondition("service needs ingress network, but no ingress network is present")
