"""The plan of a task: the same for a container with a record and for a ``RUN`` of a build."""

from dataclasses import dataclass, field
from typing import Any

from api_models.container import ContainerConfig, HostConfig
from api_models.network import EndpointSettings
from engine.api.types import Mount
from server.access.owners import unqualified


@dataclass(slots=True)
class MountPoint:
    """One mount of a container as create has resolved it: an entry of inspect's ``Mounts``, mounted at start.

    ``kind`` is bind, volume, tmpfs, image or cluster. ``source`` is the host path (binds, and volumes of the local
    driver); ``name`` and ``driver`` are the volume's, ``own_name`` is its name as clients see it. ``spec`` is the
    request's ``Mount`` in the API's field names; an entry of ``Binds`` is converted to one. ``create_source``: start
    makes a missing source of a bind. ``anonymous``: ``docker rm -v`` and ``--rm`` remove the volume.
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

    @property
    def own_name(self) -> str:
        return unqualified(self.name)[1] if self.kind == "volume" else self.name


@dataclass(slots=True, eq=False, kw_only=True)
class ContainerPlan:
    """What networks, mounts and the OCI spec need of a container.

    ``name`` has no leading slash. ``config`` is the request's, completed by the image's; ``host_config`` is the
    request's, completed by the daemon's defaults. ``networking``: the requested endpoints by the network's name or id.
    ``owner``: see ``server.access``. ``path`` and ``args``: entrypoint and command. ``mounts`` are by destination.
    ``directory``: holds the generated files such as ``/etc/hosts``. ``started_before``: the container had a task, whose
    addresses it keeps.
    """

    id: str
    name: str
    created_ns: int
    config: ContainerConfig
    host_config: HostConfig
    owner: str = ""
    #: The uid, the gid and the supplementary groups of the client that created it, for its binds. Empty for
    #: administrators, and for users without a uid.
    credentials: list[int] = field(default_factory=list)
    networking: dict[str, EndpointSettings] = field(default_factory=dict)
    image_id: str = ""
    path: str = ""
    args: list[str] = field(default_factory=list)
    mounts: dict[str, MountPoint] = field(default_factory=dict)
    #: Path in the container → path on the host: files of the engine that are mounted read-only (secrets and configs of
    #: a task). Inspect doesn't show them.
    private_binds: dict[str, str] = field(default_factory=dict)
    directory: str = ""
    apparmor_profile: str = ""
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    # Fields of inspect for SELinux, which is not supported: always empty.
    mount_label: str = ""
    process_label: str = ""
    started_before: bool = False
    #: The mounts of the root file system. Not stored: after a restart the daemon requests them from the engine again.
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
