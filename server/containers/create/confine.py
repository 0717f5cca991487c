"""What a role refuses of a create, an exec or an update of a container.

Each field of ``ContainerConfig`` and ``HostConfig`` is in exactly one of three sets: ``CHECKED`` fields have a check
here, ``HARMLESS`` ones concern only the container itself or what its owner owns already, and ``ELSEWHERE`` names who
decides. A test fails for a field in none of them, so that a new field needs a decision.

The checks come before those of ``validate``: they must accept any value.
"""

import re
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import Resources, Ulimit
from engine.common.errors import WharfError
from server.access.caller import Caller
from server.access.refusal import refused
from server.containers.context import ContainerContext
from server.containers.host.owners import groups_of
from server.containers.logs.plugin import is_plugin
from server.containers.mounts import mountspec
from server.containers.spec import caps, security
from server.containers.spec.build import READONLY_PATHS, masked_paths
from server.units import parse_size
from server.volumes import confine as volumes

if TYPE_CHECKING:
    from server.access.policy import Role

CHECKED = frozenset(
    (
        *("user", "binds", "mounts", "log_config", "network_mode", "port_bindings", "volume_driver", "annotations"),
        *("cap_add", "cgroupns_mode", "ipc_mode", "oom_score_adj", "pid_mode", "privileged", "security_opt"),
        *("storage_opt", "uts_mode", "userns_mode", "sysctls", "runtime", "masked_paths", "readonly_paths"),
        *("cgroup_parent", "devices", "device_cgroup_rules", "oom_kill_disable", "ulimits", "cpu_realtime_period"),
        *("cpu_realtime_runtime", "blkio_weight_device", "blkio_device_read_bps", "blkio_device_write_bps"),
        *("blkio_device_read_iops", "blkio_device_write_iops"),
    )
)
HARMLESS = frozenset(
    (
        *("hostname", "domainname", "attach_stdin", "attach_stdout", "attach_stderr", "exposed_ports", "tty"),
        *("open_stdin", "stdin_once", "env", "cmd", "healthcheck", "args_escaped", "volumes", "working_dir"),
        *("entrypoint", "network_disabled", "mac_address", "on_build", "labels", "stop_signal", "stop_timeout"),
        *("shell", "container_id_file", "restart_policy", "auto_remove", "console_size", "cap_drop", "dns"),
        *("dns_options", "dns_search", "extra_hosts", "group_add", "readonly_rootfs", "tmpfs", "shm_size", "init"),
        # Limits: the cgroup of the user bounds them all.
        *("cpu_shares", "memory", "nano_cpus", "blkio_weight", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems"),
        *("kernel_memory", "kernel_memory_tcp", "memory_reservation", "memory_swap", "memory_swappiness"),
        "pids_limit",
        # Windows only, or refused for everybody.
        *("isolation", "cpu_count", "cpu_percent", "io_maximum_iops", "io_maximum_bandwidth", "cgroup"),
    )
)
ELSEWHERE: Mapping[str, str] = {
    "image": "the images that exist for the owner",
    "volumes_from": "the containers that exist for the owner",
    "links": "the containers that exist for the owner",
    "device_requests": "the allocator of GPUs",
    "publish_all_ports": "the allocator of ports, in the range of the role",
}

# Docker's spelling of the fields for the sentences.
_HOST_NAMESPACES = (
    ("network_mode", "--network"),
    ("pid_mode", "--pid"),
    ("ipc_mode", "--ipc"),
    ("uts_mode", "--uts"),
    ("userns_mode", "--userns"),
)
_DEVICE_LIMITS = (
    ("blkio_weight_device", "--blkio-weight-device"),
    ("blkio_device_read_bps", "--device-read-bps"),
    ("blkio_device_write_bps", "--device-write-bps"),
    ("blkio_device_read_iops", "--device-read-iops"),
    ("blkio_device_write_iops", "--device-write-iops"),
)
# A device node directly in /dev, or below the directories of udev. A limit is set for the number of the node, so a path
# elsewhere, or through the daemon's own /dev/fd, would tell whether that file exists.
_DEVICE_NODE = re.compile(r"/dev/(?:(?:mapper|disk/by-[a-z]+)/)?[A-Za-z0-9_.:+-]+")
# Annotations that crun, runc, CRIU and other runtimes obey.
_RUNTIME_ANNOTATIONS = (
    *(
        "run.oci.",
        "org.systemd.property.",
        "org.criu.",
        "org.opencontainers.runc",
        "module.wasm.",
        "io.katacontainers.",
    ),
    *("dev.gvisor.", "io.containers.", "io.kubernetes.", "io.crun."),
)
# The sysctls of the container's own namespaces.
_IPC_SYSCTLS = frozenset(
    (
        *("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"),
        *("kernel.shmmni", "kernel.shm_rmid_forced"),
    )
)
_UTS_SYSCTLS = frozenset(("kernel.hostname", "kernel.domainname"))
# Log options with paths of the host, which a shim would read as root.
_LOG_PATHS = re.compile(r".*-(?:tls-ca-cert|tls-cert|tls-key|capath)")
_UNLIMITED = -1


def check_create(
    context: ContainerContext, caller: Caller, config: ContainerConfig, host: HostConfig
) -> tuple[ContainerConfig, HostConfig]:
    """Checks the request of a caller with a role, and returns it as the role changes it.

    :raises WharfError: PERMISSION_DENIED: names the option.
    """
    role = caller.role
    assert role is not None
    _check_ports(role, host)
    if role.force_user:
        config, host = _forced(caller, config, host)
    if role.privileged:
        return config, _with_host_ids(host)
    _check_namespaces(context, role, host)
    _check_security(context, role, host)
    _check_mounts(caller, role, host)
    _check_devices(role, host)
    _check_runtime(context, role, host)
    _check_logs(role, host)
    _check_limits(context, host)
    if role.disk is not None and (size := (host.storage_opt or {}).get("size")) is not None:
        _check_size(role.disk, size)
    return config, _with_host_ids(host)


def check_exec(caller: Caller, *, privileged: bool, user: str) -> None:
    """:raises WharfError: PERMISSION_DENIED: names the option."""
    role = caller.role
    if role is None:
        return
    if privileged and not role.privileged:
        raise refused("--privileged")
    if role.force_user:
        _check_user(caller, user)


def check_update(role: "Role", resources: Resources) -> None:
    """:raises WharfError: PERMISSION_DENIED: names the option."""
    if not role.privileged:
        _check_scheduling(resources)


def _with_host_ids(host: HostConfig) -> HostConfig:
    """Privileged containers and those in namespaces of the host need the host's ids (``userns_mode`` host). The role
    allows it if it allows these."""
    if host.privileged or "host" in (host.network_mode, host.pid_mode):
        return replace(host, userns_mode="host")
    return host


def _check_ports(role: "Role", host: HostConfig) -> None:
    first, last = role.ports or (1024, 65535)
    for bindings in (host.port_bindings or {}).values():
        for binding in bindings or ():
            low, _, high = binding.host_port.partition("/")[0].partition("-")
            for text in (low, high):
                if text.isascii() and text.isdecimal() and int(text) and not first <= int(text) <= last:
                    raise refused(f"--publish of the host port {text}: its ports are {first}-{last}")


def _forced(caller: Caller, config: ContainerConfig, host: HostConfig) -> tuple[ContainerConfig, HostConfig]:
    _check_user(caller, config.user)
    user = f"{caller.uid}:{caller.gids[0]}"
    groups = tuple(map(str, groups_of((caller.uid, *caller.gids))))
    # A set-id program of the image would change the user.
    return replace(config, user=user), replace(
        host, security_opt=(*(host.security_opt or ()), "no-new-privileges=true"), group_add=groups
    )


def _check_user(caller: Caller, user: str) -> None:
    if caller.uid < 0 or not caller.gids:
        raise refused("clients that have no uid: it runs containers as their user")
    uid, gid = str(caller.uid), str(caller.gids[0])
    if user not in ("", caller.user, uid, f"{uid}:{gid}", f"{caller.user}:{gid}"):
        raise refused(f"--user {user}: it runs containers as the user {uid}:{gid}")


def _check_namespaces(context: ContainerContext, role: "Role", host: HostConfig) -> None:
    if role.host_namespaces:
        return
    for field, option in _HOST_NAMESPACES:
        if getattr(host, field) == "host":
            raise refused(f"{option} host")
    # Clients of API versions before 1.41 set the default of cgroup v1 by themselves.
    if host.cgroupns_mode == "host" and context.defaults.cgroupns_mode != "host":
        raise refused("--cgroupns host")


def _check_security(context: ContainerContext, role: "Role", host: HostConfig) -> None:
    if host.privileged:
        raise refused("--privileged")
    allowed = {*caps.DEFAULT, *caps.normalize(role.capabilities)}
    for name in host.cap_add or ():
        full = name.upper() if name.upper() == caps.ALL else "CAP_" + name.upper().removeprefix("CAP_")
        if full not in allowed:
            raise refused(f"--cap-add {name}")
    for name in host.sysctls or ():
        _check_sysctl(host, name)
    if role.security_options:
        return
    options = security.parse(host.security_opt)
    if options.seccomp:
        raise refused(f"--security-opt seccomp={'unconfined' if options.seccomp == 'unconfined' else 'PROFILE'}")
    if options.apparmor not in ("", "docker-default"):
        raise refused(f"--security-opt apparmor={options.apparmor}")
    if options.writable_cgroups:
        raise refused("--security-opt writable-cgroups")
    if options.no_new_privileges is False and context.config.no_new_privileges:
        raise refused("--security-opt no-new-privileges=false")
    for name, given, default in (
        ("MaskedPaths", host.masked_paths, masked_paths()),
        ("ReadonlyPaths", host.readonly_paths, READONLY_PATHS),
    ):
        # Clients copy the lists that inspect shows.
        if given is not None and not set(default) <= set(given):
            raise refused(f"--security-opt systempaths=unconfined ({name} without {_first(default, given)})")
    for name in host.annotations or ():
        if name.startswith(_RUNTIME_ANNOTATIONS):
            raise refused(f"--annotation {name}")


def _first(default: Sequence[str], given: Sequence[str]) -> str:
    return next(path for path in default if path not in given)


def _check_sysctl(host: HostConfig, name: str) -> None:
    dotted = name.replace("/", ".")
    if dotted.startswith("net."):
        own = host.network_mode != "host"
    elif dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
        own = host.ipc_mode != "host"
    else:
        own = dotted in _UTS_SYSCTLS and host.uts_mode != "host"
    if not own or host.userns_mode == "host":
        raise refused(f"--sysctl {name}: it is not of the container's own namespaces")


def _check_mounts(caller: Caller, role: "Role", host: HostConfig) -> None:
    volumes.check(role, host.volume_driver, {})
    for kind, text, propagation in _binds(host):
        if kind != "bind":
            continue
        if not role.binds:
            raise refused(f"the bind of {text}")
        if caller.uid < 0:
            raise refused(f"the bind of {text} by a client that has no uid")
        if propagation not in ("", "private", "rprivate"):
            raise refused(f"the propagation {propagation} of the bind of {text}")
    for mount in host.mounts or ():
        document = mount.wire()
        driver = (document.get("VolumeOptions") or {}).get("DriverConfig") or {}
        volumes.check(role, driver.get("Name") or "", driver.get("Options") or {})


def _binds(host: HostConfig) -> Iterator[tuple[str, str, str]]:
    """Type, source and propagation of all mounts. Malformed ones are refused later, with dockerd's sentence."""
    for bind in host.binds or ():
        try:
            point = mountspec.parse_bind(bind, "")
        except WharfError:
            continue
        yield point.kind, point.source, (point.spec.get("BindOptions") or {}).get("Propagation") or ""
    for mount in host.mounts or ():
        document = mount.wire()
        options = document.get("BindOptions") or {}
        yield document.get("Type") or "", document.get("Source") or "", options.get("Propagation") or ""


def _check_devices(role: "Role", host: HostConfig) -> None:
    if role.devices:
        return
    for device in host.devices or ():
        raise refused(f"--device {device.path_on_host}")
    for rule in host.device_cgroup_rules or ():
        raise refused(f"--device-cgroup-rule {rule}")


def _check_runtime(context: ContainerContext, role: "Role", host: HostConfig) -> None:
    if host.cgroup_parent and not role.cgroup_parent:
        raise refused(f"--cgroup-parent {host.cgroup_parent}")
    if host.runtime and host.runtime not in (context.runtimes.default, *context.runtimes.names()):
        raise refused(f"--runtime {host.runtime}")


def _check_logs(role: "Role", host: HostConfig) -> None:
    kind = host.log_config.type
    if kind and is_plugin(kind) and not role.plugins:
        raise refused(f"--log-driver {kind}: it is a plugin's")
    for name, value in (host.log_config.config or {}).items():
        if value.startswith(("unix:", "unixgram:")) or (value and _LOG_PATHS.fullmatch(name)):
            raise refused(f"--log-opt {name}={value}: it is a path of the host")


def _check_limits(context: ContainerContext, host: HostConfig) -> None:
    if host.oom_score_adj < 0:
        raise refused(f"--oom-score-adj {host.oom_score_adj}")
    if host.oom_kill_disable:
        raise refused("--oom-kill-disable")
    for limit in host.ulimits or ():
        most = _most(context.defaults.ulimits, limit.name)
        if most != _UNLIMITED and (_UNLIMITED in (limit.hard, limit.soft) or max(limit.hard, limit.soft) > most):
            raise refused(f"--ulimit {limit.name}={limit.soft}:{limit.hard}: the engine's is {most}")
    _check_scheduling(host)


def _most(defaults: Mapping[str, Ulimit], name: str) -> int:
    """The hard limit that containers have without a request: the engine's default, or what the engine itself has."""
    if name in defaults:
        return defaults[name].hard
    number = getattr(resource, f"RLIMIT_{name.upper()}", None)
    return _UNLIMITED if number is None else resource.getrlimit(number)[1]


def _check_scheduling(resources: Resources) -> None:
    if resources.cpu_realtime_period or resources.cpu_realtime_runtime:
        raise refused("--cpu-rt-period and --cpu-rt-runtime")
    for field, option in _DEVICE_LIMITS:
        for device in getattr(resources, field) or ():
            if _DEVICE_NODE.fullmatch(device.path) is None:
                raise refused(f"{option} {device.path}: it is no device of the host")


def _check_size(most: int, text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError:
        return  # refused later, with the driver's sentence
    if size > most:
        raise refused(f"--storage-opt size={text}: its disk space is {most} bytes")
