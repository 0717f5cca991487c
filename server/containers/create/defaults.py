"""The daemon's defaults for the fields that a create request doesn't set, as inspect shows them."""

import socket
from dataclasses import replace

from api_models.container import ContainerConfig, HostConfig
from engine.common.errors import invalid
from server.containers.context import ContainerContext
from server.containers.registry import View
from server.containers.spec.build import READONLY_PATHS, masked_paths
from server.containers.values import modes


def adapt_host_config(context: ContainerContext, host: HostConfig, owner: str = "") -> HostConfig:
    """``host`` with the daemon's defaults. Names of containers in namespace modes are replaced by ids, as a rename
    doesn't change these; ``owner`` is the container's.

    :raises WharfError: INVALID_ARGUMENT: such a container doesn't exist.
    """
    config, others = context.config, context.registry.of(owner)
    pid_mode = _by_id(others, host.pid_mode, required=True)
    ipc_mode = _by_id(others, host.ipc_mode or config.default_ipc_mode, required=True)
    # With cgroup v1 a privileged container can manage the hierarchy only in the host's cgroup namespace.
    privileged_v1 = host.privileged and not context.limits.unified
    security_opt = host.security_opt
    if (host.privileged or ipc_mode == "host" or pid_mode == "host") and not any(
        option.partition("=")[0] == "label" for option in security_opt or ()
    ):
        # As in dockerd: an SELinux label has no use for a container that shares the host's namespaces.
        security_opt = (*(security_opt or ()), "label=disable")
    masked, readonly = host.masked_paths, host.readonly_paths
    if not host.privileged:
        masked = masked_paths() if masked is None else masked
        readonly = READONLY_PATHS if readonly is None else readonly
    return replace(
        host,
        memory_swap=host.memory * 2 if host.memory > 0 and host.memory_swap == 0 else host.memory_swap,
        shm_size=host.shm_size or config.default_shm_size,
        ipc_mode=ipc_mode,
        pid_mode=pid_mode,
        # required=False: dockerd reports a missing container here only at start.
        network_mode=_by_id(others, host.network_mode, required=False),
        cgroupns_mode=host.cgroupns_mode or ("host" if privileged_v1 else context.defaults.cgroupns_mode),
        runtime=host.runtime or context.runtimes.default,
        security_opt=security_opt,
        oom_kill_disable=bool(host.oom_kill_disable),
        masked_paths=masked,
        readonly_paths=readonly,
    )


def _by_id(others: View, mode: str, *, required: bool) -> str:
    other = modes.joined(mode)
    found = others.find(other) if other else None
    if other and required and found is None:
        raise invalid(f"No such container: {other}")
    return f"container:{found.id}" if found else mode


def hostname(config: ContainerConfig, host: HostConfig, container_id: str) -> str:
    """The container's hostname: the requested one, the host's (network mode ``host``), or the short id."""
    if config.hostname:
        return config.hostname
    return socket.gethostname() if host.network_mode == "host" else container_id[:12]


def command(config: ContainerConfig) -> tuple[str, list[str]]:
    """The program and its arguments: the entrypoint's words, then the command's."""
    words = [*(config.entrypoint or ()), *(config.cmd or ())]
    return words[0], words[1:]
