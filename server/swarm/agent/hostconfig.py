"""The host-dependent part of a task's container: resources, privileges, mounts, published ports."""

import base64
import binascii
from collections.abc import Mapping, Sequence

from api_models.container import HostConfig, LogConfig, PortBinding
from api_models.mount import Mount
from api_models.resources import DeviceRequest, RestartPolicy
from api_models.swarm.container import ContainerSpec, Privileges
from api_models.swarm.network import PortConfig
from api_models.swarm.task import GenericResource, ResourceRequirements
from engine.common.errors import WharfError, invalid, not_implemented
from server.swarm.model.objects import Task

#: ``PublishMode`` of ports that only the task's node publishes.
HOST = "host"


def host_config(task: Task, spec: ContainerSpec, network_mode: str) -> HostConfig:
    """``spec``: the task's, with its templates expanded.

    :raises WharfError: the spec is invalid, or asks for what this engine doesn't support, by name.
    """
    _check_mounts(spec.mounts or ())
    dns = spec.dns_config
    resources = task.spec.resources or ResourceRequirements()
    # As in dockerd, reservations only matter for the placement.
    limits = resources.limits
    memory = limits.memory_bytes if limits is not None else 0
    log_driver = task.spec.log_driver
    return HostConfig(
        network_mode=network_mode,
        restart_policy=RestartPolicy(name="no"),
        log_config=LogConfig(type=log_driver.name, config=log_driver.options)
        if log_driver is not None
        else LogConfig(),
        memory=memory,
        memory_swap=_memory_swap(memory, resources.swap_bytes),
        memory_swappiness=resources.memory_swappiness,
        nano_cpus=limits.nano_cpus if limits is not None else 0,
        pids_limit=limits.pids if limits is not None and limits.pids > 0 else None,
        ulimits=spec.ulimits,
        device_requests=_devices(task.generic_resources or ()),
        group_add=spec.groups,
        port_bindings=port_bindings(task),
        mounts=spec.mounts,
        readonly_rootfs=spec.read_only,
        isolation=spec.isolation or "default",
        init=spec.init,
        sysctls=spec.sysctls,
        cap_add=spec.capability_add,
        cap_drop=spec.capability_drop,
        oom_score_adj=spec.oom_score_adj,
        dns=dns.nameservers if dns is not None else None,
        dns_search=dns.search if dns is not None else None,
        dns_options=dns.options if dns is not None else None,
        extra_hosts=_extra_hosts(spec.hosts or ()),
        security_opt=_security(spec.privileges) if spec.privileges is not None else None,
    )


def published(task: Task) -> list[PortConfig]:
    """The ports of a task that its node publishes itself (mode "host")."""
    ports = task.endpoint.ports or ()
    return [port for port in ports if port.publish_mode == HOST and 0 < port.target_port <= 0xFFFF]


def port_key(port: PortConfig) -> str:
    """The port in the container as the API writes it: ``80/tcp``."""
    return f"{port.target_port}/{port.protocol or 'tcp'}"


def port_bindings(task: Task) -> Mapping[str, tuple[PortBinding, ...] | None] | None:
    """Without a published port, the engine chooses one."""
    bindings: dict[str, tuple[PortBinding, ...] | None] = {}
    for port in published(task):
        number = str(port.published_port) if port.published_port else ""
        bindings[port_key(port)] = (*(bindings.get(port_key(port)) or ()), PortBinding(host_port=number))
    return bindings or None


def _memory_swap(memory: int, swap: int | None) -> int:
    """``MemorySwap`` is the sum of both; -1: unlimited swap."""
    if not memory or swap is None:
        return 0
    return -1 if swap == -1 else memory + swap


def _devices(resources: Sequence[GenericResource]) -> tuple[DeviceRequest, ...] | None:
    """The CDI devices among the generic resources, whose kind is ``vendor.com/class`` (see ``description``)."""
    named = [resource.named_resource_spec for resource in resources if resource.named_resource_spec is not None]
    devices = tuple(f"{each.kind}={each.value}" for each in named if "/" in each.kind)
    return (DeviceRequest(driver="cdi", device_ids=devices),) if devices else None


def _extra_hosts(lines: Sequence[str]) -> tuple[str, ...] | None:
    """``host:address`` of lines of hosts(5), whose aliases have no effect, as in dockerd."""
    words = [line.split() for line in lines]
    return tuple(f"{line[1]}:{line[0]}" for line in words if len(line) > 1) or None


def _security(privileges: Privileges) -> tuple[str, ...] | None:
    if privileges.credential_spec is not None:
        raise not_implemented("CredentialSpec is supported on Windows only")
    selinux = privileges.selinux_context
    if selinux is not None and (selinux.user or selinux.role or selinux.type or selinux.level):
        raise not_implemented("SELinuxContext: this engine doesn't support SELinux labels")
    options = ["label=disable"] if selinux is not None and selinux.disable else []
    if (seccomp := privileges.seccomp) is not None:
        if seccomp.mode == "unconfined":
            options.append("seccomp=unconfined")
        elif seccomp.mode == "custom":
            options.append(f"seccomp={_profile(seccomp.profile)}")
    if privileges.app_armor is not None and privileges.app_armor.mode == "disabled":
        options.append("apparmor=unconfined")
    if privileges.no_new_privileges:
        options.append("no-new-privileges=true")
    return tuple(options) or None


def _profile(packed: str) -> str:
    try:
        return base64.b64decode(packed, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise invalid("invalid seccomp profile: not base64 of a JSON text") from None


def _check_mounts(mounts: Sequence[Mount]) -> None:
    """:raises WharfError: INVALID_ARGUMENT, with SwarmKit's sentences."""
    for mount in mounts:
        if (problem := _problem(mount)) is not None:
            raise problem


def _problem(mount: Mount) -> WharfError | None:
    kind = mount.type
    if not mount.target.startswith("/") and kind != "npipe":
        return invalid(f"invalid mount target, must be an absolute path: {mount.target}")
    if kind == "bind":
        if not mount.source.startswith("/"):
            return invalid(f"invalid bind mount source, must be an absolute path: {mount.source}")
    elif kind == "volume":
        if mount.source.startswith("/"):
            return invalid(f"invalid volume mount source, must not be an absolute path: {mount.source}")
    elif kind == "tmpfs":
        if mount.source:
            return invalid("invalid tmpfs source, source must be empty")
    elif kind == "npipe":
        return not_implemented(f"mount {mount.target}: named pipes are supported on Windows only")
    elif kind == "cluster":
        return not_implemented(f"mount {mount.target}: cluster volumes (CSI) are not supported")
    elif kind != "image":
        return invalid(f"invalid mount type: {kind}")
    return None
