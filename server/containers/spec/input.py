"""What a container's OCI spec is made from: everything already decided, nothing to look up but two files.

Docker's ``Config`` and ``HostConfig`` as they are, and what of them had to be resolved: other containers' namespaces
are paths, volumes are directories, the cgroup is a path. Sizes are bytes, CPU times microseconds.
"""

from dataclasses import dataclass, field
from typing import Protocol

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import Ulimit
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInput:
    """See the module. ``args`` is entrypoint plus command. ``config`` and ``host`` are the container's, with the
    image's configuration and the daemon's defaults filled in.

    ``link_env`` comes from links and lies below ``config.env``. ``seccomp``: "" the default profile, ``unconfined``, or
    a profile's JSON. ``apparmor``: "" Docker's default profile where the kernel has AppArmor, or a name.
    ``ulimits`` are those of the request and the daemon's. ``shm_path``: a directory for ``/dev/shm`` instead of a tmpfs
    of ``host.shm_size``. ``mounts`` in any order, with the files for ``/etc/hosts`` and the like at the end.
    ``id_maps``: those of the user namespace that ``namespaces.user`` leads to (the daemon's ``userns-remap``).
    """

    id: str
    rootfs: str
    args: tuple[str, ...]
    config: ContainerConfig
    host: HostConfig
    files: RootFiles
    link_env: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[BindMount | TmpfsMount, ...] = ()
    shm_path: str = ""
    namespaces: Namespaces = field(default_factory=Namespaces)
    no_new_privileges: bool = False
    seccomp: str = ""
    apparmor: str = ""
    process_label: str = ""
    mount_label: str = ""
    writable_cgroups: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    cgroups_path: str = ""
    init: bool = False
    id_maps: IdMaps | None = None
