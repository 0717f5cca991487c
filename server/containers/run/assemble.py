"""Resolves a container's plan to the input of ``spec.build``, and returns the OCI spec."""

import os
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
class PreparedStart:
    """What the earlier steps of a start have made.

    ``network``: the path of the network namespace, ``host`` for the host's. ``shm_path``: a directory for ``/dev/shm``;
    "": the container gets its own tmpfs. ``link_env``: environment variables of legacy links.
    """

    network: str
    network_joined: bool
    mounts: Sequence[BindMount | TmpfsMount]
    shm_path: str = ""
    hostname: str = ""
    domainname: str = ""
    link_env: Sequence[str] = ()
    #: The parent of the owner's containers (``Shares.cgroup``); "": the engine's.
    cgroup_parent: str = ""
    #: Closes the descriptors of joined namespaces; close it when the runtime has entered them.
    namespaces: ExitStack = field(default_factory=ExitStack)


def assemble(context: ContainerContext, container: ContainerPlan, prepared: PreparedStart) -> dict[str, Any]:
    """The container's OCI spec. Reads a few small files; fast enough for the event loop.

    :raises WharfError: an error that dockerd, too, reports only at start, with its sentence and kind.
    """
    config, host = container.config, container.host_config
    daemon = context.config
    security = parse_security(host.security_opt)
    remap = context.remap_of(container)
    spec = build(
        SpecInput(
            id=container.id,
            rootfs="rootfs",
            args=(container.path, *container.args),
            config=config,
            host=host,
            files=ContainerFiles(container.rootfs, f"{daemon.exec_root}/containers/{container.id}/passwd"),
            link_env=tuple(prepared.link_env),
            hostname=prepared.hostname,
            domainname=prepared.domainname,
            mounts=tuple(prepared.mounts),
            shm_path=prepared.shm_path,
            namespaces=_namespaces(context, container, prepared),
            no_new_privileges=container.no_new_privileges,
            seccomp=container.seccomp_profile or context.defaults.seccomp_profile,
            apparmor=container.apparmor_profile,
            writable_cgroups=bool(security.writable_cgroups),
            ulimits=_ulimits(context, host),
            cgroups_path=cgroups_path(
                container.id,
                host.cgroup_parent or prepared.cgroup_parent or daemon.cgroup_parent,
                context.facts.cgroup_driver,
            ),
            init=daemon.init if host.init is None else host.init,
            id_maps=remap.maps if remap is not None else None,
        ),
        context.facts,
    )
    if host.ipc_mode == "none":
        # No shared memory: remove the default mount.
        mounts: Any = spec["mounts"]
        spec["mounts"] = [mount for mount in mounts if mount["destination"] != "/dev/shm"]
    return spec


def _ulimits(context: ContainerContext, host: HostConfig) -> tuple[Ulimit, ...]:
    own = {limit.name: limit for limit in host.ulimits or ()}
    return tuple({**context.defaults.ulimits, **own}.values())


def _joined(other: Container, kind: str, prepared: PreparedStart) -> str:
    """The path of another container's namespace.

    :raises WharfError: CONFLICT: the other container has exited.
    """
    try:
        return namespace_of(other, kind, prepared.namespaces)
    except ProcessLookupError:
        raise conflict(f"failed to join {kind} namespace: container {other.id} is not running") from None


def _namespaces(context: ContainerContext, container: ContainerPlan, prepared: PreparedStart) -> Namespaces:
    host = container.host_config
    others = context.registry.of(container.owner)
    remap = context.remap_of(container)
    user = HOST if remap is None else remap.userns
    pid, ipc = PRIVATE, PRIVATE
    if host.pid_mode == "host":
        pid = HOST
    elif (other := modes.joined(host.pid_mode)) is not None:
        try:
            pid = _joined(others.get_namespace_owner(other, "PID"), "pid", prepared)
        except WharfError as error:
            # As in dockerd: the request is valid, only the other container's state prevents the start.
            raise internal(error.message) from error
    if host.ipc_mode == "host":
        ipc = HOST
    elif (other := modes.joined(host.ipc_mode)) is not None:
        ipc = _joined(others.get_namespace_owner(other, "IPC"), "ipc", prepared)
    for mode in (host.network_mode, host.pid_mode, host.ipc_mode):
        if remap is not None and (other := modes.joined(mode)) is not None:
            # To use a joined namespace the container needs the user namespace that owns it. It comes after the others,
            # whose errors name the namespace that was asked for. A container that runs since before the daemon's
            # restart has the user namespace of the earlier daemon.
            joined = _joined(others.get_namespace_owner(other, "user"), "user", prepared)
            # runc reads no mapping through a descriptor of this process, and refuses the spec.
            user = remap.userns if os.path.samefile(joined, remap.userns) else joined
    return Namespaces(
        network=prepared.network,
        ipc=ipc,
        pid=pid,
        uts=HOST if host.uts_mode == "host" else PRIVATE,
        cgroup=HOST if host.cgroupns_mode == "host" or not context.limits.cgroup_namespaces else PRIVATE,
        user=user,
        network_joined=prepared.network_joined,
    )
