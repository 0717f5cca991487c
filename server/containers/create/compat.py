"""What older clients mean by a create request, beyond what single fields declare (``api_models``)."""

from api_models.container import ContainerConfig, HostConfig
from api_models.network import EndpointSettings
from api_models.versions import Version
from engine.common.errors import invalid
from server.containers.create import modes


def default_network(host: HostConfig, endpoints: dict[str, EndpointSettings]) -> None:
    """``default`` and nothing mean the default bridge, also as the name of an endpoint."""
    if host.network_mode in ("", "default"):
        host.network_mode = "bridge"
        if "default" in endpoints:
            endpoints["bridge"] = endpoints.pop("default")


def old_defaults(host: HostConfig, version: Version, *, cgroup_v2: bool) -> None:
    """Clients below 1.25 remove a container themselves, below 1.40 they share its IPC, below 1.41 they expect the
    host's cgroups on v1, and below 1.44 they know of no binds that are read-only all the way down."""
    if version < (1, 25):
        host.auto_remove = False
    if version < (1, 40):
        host.ipc_mode = host.ipc_mode or "shareable"  # also of a request without any HostConfig
    if version < (1, 41) and not cgroup_v2 and not host.cgroupns_mode:
        host.cgroupns_mode = "host"
    if version < (1, 44):
        for mount in host.mounts or ():
            if mount.read_only and mount.bind_options is not None:
                mount.bind_options.read_only_non_recursive = True


def move_mac_address(
    config: ContainerConfig, host: HostConfig, endpoints: dict[str, EndpointSettings], version: Version
) -> str:
    """Moves the container-wide MAC address to the endpoint it belongs to; returns a warning or ``""``.

    :raises WharfError: INVALID_ARGUMENT where it is not clear which endpoint that is.
    """
    address, mode = config.mac_address, host.network_mode
    on_network = mode == "bridge" or modes.user_defined(mode)
    if version < (1, 44):
        if not address:
            for endpoint in endpoints.values():
                endpoint.mac_address = ""
            return ""
        if not on_network:
            raise invalid("conflicting options: mac-address and the network mode")
        if not endpoints:
            endpoints[mode] = EndpointSettings()
        for endpoint in endpoints.values():
            endpoint.mac_address = address
        return ""
    if not address:
        return ""
    if on_network:
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
            endpoints[mode].mac_address = address
    config.mac_address = ""
    return "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
