"""From a container's record to the input of its OCI spec: everything is resolved here, ``spec.build`` only writes."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from api_models.container import HostConfig
from api_models.resources import Ulimit
from engine.common.errors import WharfError, conflict, internal
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.mounts.snapshot import ContainerFiles
from server.containers.plan import ContainerPlan
from server.containers.run.process import namespace_of
from server.containers.spec.build import build, cgroups_path
from server.containers.spec.input import HOST, PRIVATE, BindMount, Namespaces, SpecInput, TmpfsMount
from server.containers.spec.security import parse as parse_security
from server.containers.values import modes


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What start has prepared: the network namespace (None: the host's or a joined one's path is "host"),
    the mounts, the directory of ``/dev/shm`` ("" a tmpfs of its own), names and environment from links."""

    network: str
    network_joined: bool
    mounts: Sequence[BindMount | TmpfsMount]
    shm_path: str = ""
    hostname: str = ""
    domainname: str = ""
    link_env: Sequence[str] = ()
    #: Keeps the joined namespaces; to be closed when the runtime has entered them.
    held: ExitStack = field(default_factory=ExitStack)


def assemble(context: ContainerContext, container: ContainerPlan, around: Surroundings) -> dict[str, Any]:
    """The container's OCI spec. Reads a few small files; quick enough for the loop.

    :raises WharfError: what only shows at start, in dockerd's words and kinds.
    """
    config, host = container.config, container.host_config
    settings = context.settings
    security = parse_security(host.security_opt)
    remap = context.remap_of(container)
    spec = build(
        SpecInput(
            id=container.id,
            rootfs="rootfs",
            args=(container.path, *container.args),
            config=config,
            host=host,
            files=ContainerFiles(container.rootfs, f"{settings.exec_root}/containers/{container.id}/passwd"),
            link_env=tuple(around.link_env),
            hostname=around.hostname,
            domainname=around.domainname,
            mounts=tuple(around.mounts),
            shm_path=around.shm_path,
            namespaces=_namespaces(context, container, around),
            no_new_privileges=container.no_new_privileges,
            seccomp=container.seccomp_profile or settings.seccomp_profile,
            apparmor=container.apparmor_profile,
            process_label=container.process_label,
            mount_label=container.mount_label,
            writable_cgroups=bool(security.writable_cgroups),
            ulimits=_ulimits(context, host),
            cgroups_path=cgroups_path(
                container.id, host.cgroup_parent or settings.cgroup_parent, settings.cgroup_driver
            ),
            init=settings.init if host.init is None else host.init,
            id_maps=remap.maps if remap is not None else None,
        ),
        context.facts,
    )
    if host.ipc_mode == "none":
        # No shared memory at all: the runtime's default mount for it goes, too.
        mounts: Any = spec["mounts"]
        spec["mounts"] = [mount for mount in mounts if mount["destination"] != "/dev/shm"]
    return spec


def _ulimits(context: ContainerContext, host: HostConfig) -> tuple[Ulimit, ...]:
    own = {limit.name: limit for limit in host.ulimits or ()}
    return tuple({**context.settings.default_ulimits, **own}.values())


def _joined(other: Container, kind: str, around: Surroundings) -> str:
    """The path of another container's namespace.

    :raises WharfError: CONFLICT: it has just ended.
    """
    try:
        return namespace_of(other, kind, around.held)
    except ProcessLookupError:
        raise conflict(f"failed to join {kind} namespace: container {other.id} is not running") from None


def _namespaces(context: ContainerContext, container: ContainerPlan, around: Surroundings) -> Namespaces:
    host = container.host_config
    remap = context.remap_of(container)
    user = HOST if remap is None else remap.userns
    for mode in (host.network_mode, host.pid_mode, host.ipc_mode):
        if remap is not None and (other := modes.joined(mode)) is not None:
            # Who shares a namespace must have rights in it; a container from before the daemon's restart has the user
            # namespace of then.
            user = _joined(context.registry.get_namespace_owner(other, "user"), "user", around)
    pid, ipc = PRIVATE, PRIVATE
    if host.pid_mode == "host":
        pid = HOST
    elif (other := modes.joined(host.pid_mode)) is not None:
        try:
            pid = _joined(context.registry.get_namespace_owner(other, "PID"), "pid", around)
        except WharfError as error:
            # The request is right; it is what the other container does that is in its way.
            raise internal(error.message) from error
    if host.ipc_mode == "host":
        ipc = HOST
    elif (other := modes.joined(host.ipc_mode)) is not None:
        ipc = _joined(context.registry.get_namespace_owner(other, "IPC"), "ipc", around)
    return Namespaces(
        network=around.network,
        ipc=ipc,
        pid=pid,
        uts=HOST if host.uts_mode == "host" else PRIVATE,
        cgroup=HOST if host.cgroupns_mode == "host" or not context.limits.cgroup_namespaces else PRIVATE,
        user=user,
        network_joined=around.network_joined,
    )
