"""Namespace modes (network, ipc, pid, uts, user, cgroup): their allowed values, and which fields conflict with them."""

from collections.abc import Iterable
from ipaddress import ip_address

from api_models.container import ContainerConfig, HostConfig
from engine.common.errors import internal, invalid

_PREFIX = "container:"


def joined(mode: str) -> str | None:
    """The name or id in the mode ``container:<name|id>``; None for every other mode."""
    return mode.removeprefix(_PREFIX) if mode.startswith(_PREFIX) else None


def check_nameservers(addresses: Iterable[str]) -> None:
    """Checks ``HostConfig.Dns``, as dockerd does at start.

    :raises WharfError: INTERNAL: not an IP address.
    """
    for text in addresses:
        try:
            ip_address(text)
        except ValueError:
            raise internal(f'bad nameserver address {text}: ParseAddr("{text}"): unable to parse IP') from None


def user_defined(network_mode: str) -> bool:
    """Whether the mode names a user-defined network."""
    return network_mode not in ("default", "bridge", "host", "none", "") and joined(network_mode) is None


def check_network_mode(config: ContainerConfig, host: HostConfig) -> None:
    """Refuses the fields that conflict with the network mode.

    :raises WharfError: INVALID_ARGUMENT.
    """
    mode = host.network_mode
    if mode.split(":")[0] == "container":
        if not joined(mode):
            raise invalid("invalid network mode: invalid container format container:<name|id>")
        for value, options in (
            (config.hostname, "hostname and the network mode"),
            (
                host.links,
                "container type network can't be used with links. This would result in undefined behavior",
            ),
            (host.dns, "dns and the network mode"),
            (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
            (
                host.port_bindings or host.publish_all_ports,
                "port publishing and the container type network mode",
            ),
            (config.exposed_ports, "port exposing and the container type network mode"),
        ):
            if value:
                raise invalid(f"conflicting options: {options}")
    if host.uts_mode == "host" and config.hostname:
        raise invalid("conflicting options: hostname and the UTS mode")
    if mode == "host" and host.links:
        raise invalid(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )


def check_namespaces(host: HostConfig) -> None:
    """Checks the IPC, PID and UTS modes and the size of ``/dev/shm``.

    :raises WharfError: INVALID_ARGUMENT.
    """
    ipc, pid = host.ipc_mode, host.pid_mode
    if ipc not in ("", "none", "private", "host", "shareable") and joined(ipc) is None:
        raise invalid(f"invalid IPC mode: {ipc}")
    if pid not in ("", "host") and not joined(pid):
        raise invalid(f"invalid PID mode: {pid}")
    if host.shm_size < 0:
        raise invalid("SHM size can not be less than 0")
    if host.uts_mode not in ("", "host"):
        raise invalid(f"invalid UTS mode: {host.uts_mode}")


def check_cgroupns(mode: str) -> None:
    """:raises WharfError: INVALID_ARGUMENT."""
    if mode not in ("", "private", "host"):
        raise invalid(f"invalid cgroup namespace mode: {mode}")
