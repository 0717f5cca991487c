"""Conversions of create requests from older clients, beyond those that ``api_models`` declares for single fields."""

from dataclasses import replace

from api_models.container import ContainerConfig, HostConfig, PortBinding
from api_models.network import EndpointSettings
from engine.common.errors import invalid
from server.containers.values import modes


def default_network(host: HostConfig, endpoints: dict[str, EndpointSettings]) -> HostConfig:
    """Replaces the network modes ``default`` and "" by ``bridge``, and renames the endpoint ``default`` in
    ``endpoints``."""
    if host.network_mode not in ("", "default"):
        return host
    if "default" in endpoints:
        endpoints["bridge"] = endpoints.pop("default")
    return replace(host, network_mode="bridge")


def share_cgroups(host: HostConfig, *, cgroup_v2: bool) -> HostConfig:
    """Clients from before ``api_models.changes.CGROUPNS_DEFAULT`` expect the host's cgroups on v1."""
    return host if cgroup_v2 or host.cgroupns_mode else replace(host, cgroupns_mode="host")


def spread_mac_address(config: ContainerConfig, host: HostConfig, endpoints: dict[str, EndpointSettings]) -> None:
    """For clients from before ``api_models.changes.ENDPOINT_MAC_ADDRESS``: gives the container's MAC address to all its
    endpoints in ``endpoints``.

    :raises WharfError: INVALID_ARGUMENT: the network mode has no endpoints.
    """
    if config.mac_address:
        if not _on_network(host.network_mode):
            raise invalid("conflicting options: mac-address and the network mode")
        if not endpoints:
            endpoints[host.network_mode] = EndpointSettings()
    for name, endpoint in endpoints.items():
        endpoints[name] = replace(endpoint, mac_address=config.mac_address)


def fill_port_bindings(host: HostConfig) -> tuple[HostConfig, list[str]]:
    """Gives ports whose list of bindings is empty one binding to a free port, as dockerd 29 stores them. Returns the
    configuration and a warning that names them."""
    ports = [port for port, bindings in (host.port_bindings or {}).items() if not bindings]
    if not ports:
        return host, []
    warning = (
        f"Following container port(s) have an empty list of port-bindings: {', '.join(ports)}. "
        "Such bindings will be discarded in a future version."
    )
    return replace(host, port_bindings={**(host.port_bindings or {}), **{port: (PortBinding(),) for port in ports}}), [
        warning
    ]


def _on_network(mode: str) -> bool:
    return mode == "bridge" or modes.user_defined(mode)


def move_mac_address(
    config: ContainerConfig, host: HostConfig, endpoints: dict[str, EndpointSettings]
) -> tuple[ContainerConfig, str]:
    """Moves the container-wide MAC address to the main network's endpoint in ``endpoints``. Returns the configuration
    and a warning or ``""``.

    :raises WharfError: INVALID_ARGUMENT: the request has no such endpoint, or one with another address.
    """
    address, mode = config.mac_address, host.network_mode
    if not address:
        return config, ""
    if _on_network(mode):
        if not endpoints:
            endpoints[mode] = EndpointSettings(mac_address=address)
        elif mode not in endpoints:
            raise invalid(
                "if a container-wide MAC address is supplied, HostConfig.NetworkMode must match the identity of a "
                "network in NetworkSettings.Networks"
            )
        elif endpoints[mode].mac_address not in ("", address):
            raise invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        else:
            endpoints[mode] = replace(endpoints[mode], mac_address=address)
    return replace(config, mac_address=""), (
        "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
    )
