"""What a service spec refers to: networks, secrets, configs and published ports, checked against the state."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from api_models.swarm.network import NetworkAttachmentConfig, PortConfig
from api_models.swarm.service import ServiceSpec
from engine.common.errors import Kind, WharfError, not_found
from server.swarm.model.objects import PREDEFINED, Service
from server.swarm.operations.rpc import malformed, precondition
from server.swarm.state.tables import Tables

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


def check_payloads(tables: Tables, spec: ServiceSpec) -> None:
    """Secrets and configs exist, with the ids and names of the spec.

    :raises WharfError: INVALID_ARGUMENT.
    """
    container = spec.task_template.container_spec
    if container is None:
        return
    secrets = {each.id: each.name for each in tables.secrets}
    configs = {each.id: each.name for each in tables.configs}
    _check("secret", ((each.secret_id, each.secret_name) for each in container.secrets or ()), secrets)
    _check("config", ((each.config_id, each.config_name) for each in container.configs or ()), configs)


def _check(noun: str, wanted: Iterable[tuple[str, str]], names: Mapping[str, str]) -> None:
    absent = [name for id, name in wanted if names.get(id) != name]
    if absent:
        raise malformed(f"{noun}{'s' if len(absent) > 1 else ''} not found: {', '.join(absent)}")


def check_ports(tables: Tables, spec: ServiceSpec, service_id: str = "") -> None:
    """No other service than ``service_id`` has a published port of the spec. A port of the mode "host" may be published
    by several services: the scheduler puts their tasks on different nodes.

    :raises WharfError: INVALID_ARGUMENT.
    """
    wanted = {
        (port.protocol, port.published_port): port.publish_mode
        for port in _ports(spec.endpoint_spec.ports if spec.endpoint_spec is not None else None)
    }
    if not wanted:
        return
    for service in tables.services:
        if service.id != service_id:
            for port in _published(service):
                mode = wanted.get((port.protocol, port.published_port))
                if mode is not None and (error := _conflict(port, mode, service)) is not None:
                    raise error


def _published(service: Service) -> Iterable[PortConfig]:
    yield from _ports(service.spec.endpoint_spec.ports if service.spec.endpoint_spec is not None else None)
    yield from _ports(service.endpoint.ports)


def _ports(ports: tuple[PortConfig, ...] | None) -> Iterable[PortConfig]:
    return (port for port in ports or () if port.published_port)


def _conflict(port: PortConfig, mode: str, service: Service) -> WharfError | None:
    used = f"port '{port.published_port}' is already in use by service '{service.name}' ({service.id})"
    if port.publish_mode == "ingress":
        return malformed(f"{used} as an ingress port")
    return malformed(f"{used} as a host-published port") if mode == "ingress" else None


def check_ingress(tables: Tables, spec: ServiceSpec) -> None:
    """:raises WharfError: INVALID_ARGUMENT: the service needs the ingress network, which was removed."""
    endpoint = spec.endpoint_spec
    needed = endpoint is not None and any(port.publish_mode == "ingress" for port in endpoint.ports or ())
    if needed and not any(network.ingress for network in tables.networks):
        raise precondition("service needs ingress network, but no ingress network is present")
