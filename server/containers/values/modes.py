"""Namespace modes (network, ipc, pid, uts, user, cgroup): what they may say, and together with what."""

from collections.abc import Iterable
from ipaddress import ip_address

from api_models.container import ContainerConfig, HostConfig
from engine.common.errors import internal, invalid

_PREFIX = "container:"


def joined(mode: str) -> str | None:
    """The container (name or id) whose namespace ``container:x`` joins; None for every other mode."""
    return mode.removeprefix(_PREFIX) if mode.startswith(_PREFIX) else None


def check_nameservers(addresses: Iterable[str]) -> None:
    """
    :raises WharfError: INTERNAL: dockerd finds out at start.
    """
    for text in addresses:
        try:
            ip_address(text)
        except ValueError:
            raise internal(f'bad nameserver address {text}: ParseAddr("{text}"): unable to parse IP') from None


def user_defined(network_mode: str) -> bool:
    """Whether the mode names a network that a user made."""
    return network_mode not in ("default", "bridge", "host", "none", "") and joined(network_mode) is None


def check_network_mode(config: ContainerConfig, host: HostConfig) -> None:
    """The combinations that dockerd refuses while it reads a request.

    :raises WharfError: INVALID_ARGUMENT.
    """
    mode = host.network_mode
    if mode.split(":")[0] == "container":
        if not joined(mode):
            raise invalid("invalid network mode: invalid container format container:<name|id>")
        for found, what in (
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
            if found:
                raise invalid(f"conflicting options: {what}")
    if host.uts_mode == "host" and config.hostname:
        raise invalid("conflicting options: hostname and the UTS mode")
    if mode == "host" and host.links:
        raise invalid(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )


def check_namespaces(host: HostConfig) -> None:
    """:raises WharfError: INVALID_ARGUMENT for a mode that is none."""
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
