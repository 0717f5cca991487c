"""What a container's OCI spec is made from: everything already decided, nothing to look up but two files.

The fields follow Docker's ``Config`` and ``HostConfig`` with references resolved: other containers' namespaces
are paths, volumes are directories, the cgroup is a path. Sizes are bytes, CPU times microseconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.common.ids import IdMaps

PRIVATE = "private"
HOST = "host"


class RootFiles(Protocol):
    """Reads small files of a container's root file system; the path cannot lead out of it."""

    def read(self, path: str) -> bytes | None:
        """The file's content (at most a few MiB), or None if it isn't there.

        :raises OSError: it is there but can't be read.
        """


@dataclass(frozen=True, slots=True)
class BindMount:
    """A directory or file of the host shown in the container.

    ``propagation``: "" (left to the runtime), private, rprivate, slave, rslave, shared or rshared.
    ``recursive``: what is mounted below the source is shown too. A read-only bind is recursively read-only
    where kernel and runtime can, unless ``read_only_non_recursive``; ``read_only_force_recursive``: or fail.
    ``implied``: nobody asked for this propagation, so a source that has nothing to propagate is no error.
    """

    source: str
    destination: str
    writable: bool = True
    propagation: str = ""
    recursive: bool = True
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    implied: bool = False


@dataclass(frozen=True, slots=True)
class TmpfsMount:
    """A tmpfs; ``options`` as Docker takes them (``size=1m,mode=1777,exec``), laid over its defaults."""

    destination: str
    options: str = ""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Each is ``private``, ``host`` or the path of another's (``/proc/<pid>/ns/ipc``).

    ``network`` may be the path of a prepared namespace. ``cgroup``: ``private`` or ``host``. ``user``: ``host``
    or a path.
    """

    network: str = PRIVATE
    ipc: str = PRIVATE
    pid: str = PRIVATE
    uts: str = PRIVATE
    cgroup: str = PRIVATE
    user: str = HOST
    #: network only: the namespace is another container's (its sysctls are that container's affair).
    network_joined: bool = False


@dataclass(frozen=True, slots=True)
class Device:
    """``--device``: ``path_on_host`` may be a device, a link to one, or a directory of them."""

    path_on_host: str
    path_in_container: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Ulimit:
    """``name`` as in ``ulimit`` files (``nofile``). -1: unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class WeightDevice:
    path: str
    weight: int


@dataclass(frozen=True, slots=True)
class ThrottleDevice:
    path: str
    rate: int


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits as ``HostConfig`` has them, after validation (``limits.verify``). 0, "" or None: not limited."""

    cpu_shares: int = 0
    nano_cpus: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    kernel_memory_tcp: int = 0
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_device: tuple[WeightDevice, ...] = ()
    blkio_device_read_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_bps: tuple[ThrottleDevice, ...] = ()
    blkio_device_read_iops: tuple[ThrottleDevice, ...] = ()
    blkio_device_write_iops: tuple[ThrottleDevice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInput:
    """See the module. ``args`` is entrypoint plus command; ``env`` the container's own (image and request).

    ``link_env`` comes from links and lies below ``env``. ``seccomp``: "" the default profile, ``unconfined``, or
    a profile's JSON. ``apparmor``: "" Docker's default profile where the kernel has AppArmor, or a name.
    ``masked_paths``/``readonly_paths``: None Docker's defaults. ``shm_path``: a directory for ``/dev/shm`` instead
    of a tmpfs of ``shm_size``. ``mounts`` in any order, with the files for ``/etc/hosts`` and the like at the end.
    ``id_maps``: those of the user namespace that ``namespaces.user`` leads to (the daemon's ``userns-remap``).
    """

    id: str
    rootfs: str
    args: tuple[str, ...]
    files: RootFiles
    env: tuple[str, ...] = ()
    link_env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    group_add: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    console_size: tuple[int, int] = (0, 0)  # height, width
    readonly_rootfs: bool = False
    mounts: tuple[BindMount | TmpfsMount, ...] = ()
    shm_size: int = 67108864
    shm_path: str = ""
    namespaces: Namespaces = field(default_factory=Namespaces)
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    process_label: str = ""
    mount_label: str = ""
    writable_cgroups: bool = False
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    devices: tuple[Device, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    resources: Resources = field(default_factory=Resources)
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    oom_score_adj: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroups_path: str = ""
    init: bool = False
    id_maps: IdMaps | None = None
