"""What a task is made from: the same for a container that create has recorded and for a ``RUN`` of a build."""

from dataclasses import dataclass, field
from typing import Any

from api_models.container import ContainerConfig, HostConfig
from api_models.network import EndpointSettings
from engine.api.types import Mount


@dataclass(slots=True)
class MountPoint:
    """One mount of a container as decided at create (inspect's ``Mounts`` entry, and what start mounts).

    ``kind`` is bind, volume, tmpfs, image or cluster. ``source`` is the host path (binds, and volumes of the
    local driver), ``name``/``driver`` name the volume. ``spec`` is the ``Mount`` of the request in Docker's
    field names; an entry of ``Binds`` is turned into one. ``anonymous`` volumes go away with the container.
    """

    kind: str
    destination: str
    source: str = ""
    name: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    copy_data: bool = False
    anonymous: bool = False
    create_source: bool = False
    spec: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False, kw_only=True)
class ContainerPlan:
    """All that networks, mounts and the OCI spec need to know of a container.

    ``name`` is without the leading slash that the API shows. ``config`` is the request merged with the image's,
    ``host_config`` the request with the daemon's defaults filled in. ``networking`` are the endpoints asked for (by
    the network's name or id). ``path`` and ``args`` are entrypoint and command. ``mounts`` are by destination.
    ``directory`` holds the files that are made for it, ``/etc/hosts`` and the like. ``started_before``: it had a task,
    and keeps that one's addresses.
    """

    id: str
    name: str
    created_ns: int
    config: ContainerConfig
    host_config: HostConfig
    networking: dict[str, EndpointSettings] = field(default_factory=dict)
    image_id: str = ""
    path: str = ""
    args: list[str] = field(default_factory=list)
    mounts: dict[str, MountPoint] = field(default_factory=dict)
    directory: str = ""
    apparmor_profile: str = ""
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    mount_label: str = ""
    process_label: str = ""
    started_before: bool = False
    #: How the root file system is mounted. Never stored: the engine tells it again after a restart of the daemon.
    rootfs: tuple[Mount, ...] = field(default=(), repr=False)

    @property
    def hostname_path(self) -> str:
        return f"{self.directory}/hostname"

    @property
    def hosts_path(self) -> str:
        return f"{self.directory}/hosts"

    @property
    def resolv_conf_path(self) -> str:
        return f"{self.directory}/resolv.conf"
