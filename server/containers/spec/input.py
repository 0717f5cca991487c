"""The input of a container's OCI spec: the configuration, and references resolved to paths of this host.

Namespaces of other containers, volumes and the cgroup are paths. Only ``/etc/passwd`` and ``/etc/group`` of the
container are read later. Sizes are bytes, CPU times microseconds.
"""

from dataclasses import dataclass, field
from typing import Protocol

from api_models.container import ContainerConfig, HostConfig
from api_models.resources import Ulimit
from engine.common.ids import IdMaps

PRIVATE = "private"
HOST = "host"


class RootFiles(Protocol):
    """Reads small files of a container's root file system; symbolic links can't lead out of it."""

    def read(self, path: str) -> bytes | None:
        """The file's content (at most ``users.MAX_FILE`` bytes); None: there is no such file.

        :raises OSError: it exists, but can't be read.
        """


@dataclass(frozen=True, slots=True)
class BindMount:
    """A bind mount of a directory or file of the host.

    ``propagation``: "" (the runtime's default), private, rprivate, slave, rslave, shared or rshared. ``recursive``:
    with the mounts below the source. A read-only bind is recursively read-only if kernel and runtime support it, except
    with ``read_only_non_recursive``; with ``read_only_force_recursive`` it is an error if they don't. ``implied``: the
    propagation is a default, so a source that isn't shared is no error.
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
    """A tmpfs mount. ``options``: Docker's (``size=1m,mode=1777,exec``); they override its defaults."""

    destination: str
    options: str = ""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Each is ``private``, ``host`` or the path of a namespace. ``cgroup``: ``private`` or ``host``. ``user``: ``host``
    or a path."""

    network: str = PRIVATE
    ipc: str = PRIVATE
    pid: str = PRIVATE
    uts: str = PRIVATE
    cgroup: str = PRIVATE
    user: str = HOST
    #: The network namespace is another container's, which has set its sysctls.
    network_joined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecInput:
    """The input of ``build.build``. ``args``: entrypoint and command. ``config`` and ``host``: the container's
    configuration, completed by the image's and by the daemon's defaults.

    ``link_env``: environment variables of legacy links; ``config.env`` overrides them. ``seccomp``: "" the default
    profile, ``unconfined``, or a profile's JSON. ``apparmor``: "" Docker's default profile if AppArmor is enabled, or a
    name. ``ulimits``: the request's and the daemon's. ``shm_path``: a directory for ``/dev/shm`` instead of a tmpfs of
    ``host.shm_size``. ``mounts``: in any order, but with ``/etc/hosts`` and the other network files last. ``id_maps``:
    of the user namespace at ``namespaces.user`` (the daemon's ``userns-remap``).
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

    writable_cgroups: bool = False
    ulimits: tuple[Ulimit, ...] = ()
    cgroups_path: str = ""
    init: bool = False
    id_maps: IdMaps | None = None
