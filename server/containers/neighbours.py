"""The other services as containers call them: one Protocol for each, with only the methods that are called.

Each docstring is the contract of implementations and fakes. Errors are ``WharfError`` of the named kind; their messages
are dockerd's sentences. All methods are called on the event loop.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from api_models.container import ContainerConfig, HostConfig, NetworkSettings
from api_models.resources import Resources
from engine.api.types import Mount
from server.access.caller import Caller
from server.containers.model import Container
from server.containers.plan import ContainerPlan
from server.containers.registry import View
from server.images.model import Image
from server.volumes.base import Volume


class Store(Protocol):
    """The records of containers on disk. A call returns when the change is durable."""

    async def put(self, container: Container, *, frees: bool = False) -> None:
        """Writes or replaces a container's record. ``frees``: on a full disk the write may use the space that the
        database reserves; set it for exits and removals.

        :raises WharfError: RESOURCE_EXHAUSTED: the disk is full; the former record stays.
        """

    async def delete(self, id: str) -> None:
        """Removes the record of the container ``id``. A missing record is no error."""

    async def load(self) -> Sequence[Container]:
        """Reads every record; called once, at the daemon's start."""


class Images(Protocol):
    """Images, for a container's root file system and for mounts of type image."""

    def seen_by(self, caller: Caller) -> "Images":
        """The images that exist for a caller: the owner's and the published ones; for an administrator all."""

    def of(self, owner: str) -> "Images":
        """The images that a container of this owner may refer to."""

    async def resolve(self, ref: str, *, platform: str | None = None, manifest: str = "") -> Image:
        """The image with this name, id or unambiguous prefix of an id. ``platform`` (``os[/arch[/variant]]``) or
        ``manifest`` (a digest) selects the manifest of an index; without both, that for the host is selected.

        :raises WharfError: NOT_FOUND ``No such image: …``; INVALID_ARGUMENT: ``ref`` or ``platform`` can't be parsed.
        """

    async def find_id(self, ref: str) -> str | None:
        """The id of the image with this name, id or unambiguous prefix of an id, without a look at its documents;
        None if there is none, or the engine doesn't answer."""

    async def rootfs(self, image: Image, key: str, *, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Prepares a writable snapshot ``key`` on the image's layers and returns its mounts. Layers that are not
        unpacked yet are unpacked first. The caller removes the snapshot; until then the caller's lease protects it.

        :raises WharfError: ALREADY_EXISTS: a snapshot has this key; NOT_FOUND: the blob of a layer is missing.
        """

    async def children(self, digest: str) -> list[str]:
        """The ids of the images that were built on the image ``digest``; [] for an unknown image."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The network sandbox of a container that starts.

    ``netns_path``: the network namespace; None: the host's. ``joins``: the id of the container that owns the namespace.
    ``of_process``: the namespace has no path; this container's process has it. ``files``: path in the container → path
    on the host. ``link_env``: the environment variables of legacy links.
    """

    netns_path: str | None = None
    joins: str | None = None
    of_process: Container | None = None
    host: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    link_env: Sequence[str] = ()


class Networks(Protocol):
    """The networks of a container.

    Order of the calls for one container: ``check`` at create, then ``start`` and ``stop`` in turn, then ``remove``.
    ``recover`` precedes all of them. The caller has locked the container, except for the look-ups (``settings``,
    ``link_names``, ``links_of``, ``linked``).
    """

    async def recover(self, running: Sequence[Container]) -> None:
        """Called once, at the daemon's start. Keeps the networks of the containers in ``running``; removes everything
        else that an earlier daemon left in the kernel and in the records."""

    async def check(self, container: ContainerPlan) -> None:
        """At create: checks modes, names and addresses, and completes ``container.networking``. Allocates nothing.

        :raises WharfError: INVALID_ARGUMENT; NOT_FOUND: a network of a legacy link or of a joined container.
        """

    async def start(self, container: ContainerPlan) -> Sandbox:
        """Makes the namespace, the interfaces, the addresses, the published ports and the files in the container's
        directory. Waits until the network of the last run is removed. Undoes its own steps if it fails.

        :raises WharfError: NOT_FOUND: a network or a container to join; CONFLICT: the container to join doesn't run,
            or an address is in use; INTERNAL: a port is in use.
        """

    async def stop(self, container: ContainerPlan) -> None:
        """Removes what ``start`` made, in the background; the next ``start`` waits for that. Idempotent. Does nothing
        while the daemon shuts down: ``recover`` of the next daemon removes it."""

    async def remove(self, container: ContainerPlan) -> None:
        """``stop``; also discards the state that the next ``start`` would have reused. Idempotent."""

    async def rename(self, container: Container, old: str) -> None:
        """Replaces the DNS names of a running container on all its networks. ``old``: the former name, without leading
        slash; ``container`` has the new name."""

    def settings(self, container: Container) -> NetworkSettings:
        """``NetworkSettings`` of inspect, at the newest API version."""

    def link_names(self, clients: Iterable[Container]) -> dict[str, list[str]]:
        """The names that the legacy links of ``clients`` give: ``/client/alias``, by the id of the link's target."""

    def links_of(self, container: Container) -> list[str] | None:
        """``HostConfig.Links`` of inspect: ``/target:/container/alias``; None: the container has no links."""

    def linked(self, key: str, containers: View) -> Container:
        """The target of the legacy link ``client/alias``. ``containers``: those that exist for the caller.

        :raises WharfError: NOT_FOUND.
        """

    async def remove_link(self, key: str, containers: View) -> None:
        """``docker rm --link``: removes the legacy link ``/client/alias``; both containers stay.

        :raises WharfError: NOT_FOUND; INTERNAL: ``key`` is a container's own name.
        """


class Volumes(Protocol):
    """The volumes of containers.

    A *reference* is a container with the volume in its configuration: a volume with references can't be removed. A
    *user* has mounted the volume; the file system of a volume with driver options is mounted for the first user and
    unmounted after the last. The caller chooses a user's key, one for each ``mount``.

    Names are engine-wide ones (``Volume.name``), except in ``of(owner).create``.
    """

    def of(self, owner: str) -> "Volumes":
        """The volumes that a container of this owner may refer to, by the owner's names for them."""

    async def create(
        self,
        name: str,
        driver: str = "",
        *,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        reference: str = "",
        on_name: Callable[[str], None] | None = None,
    ) -> Volume:
        """Makes a volume, or returns the one that has the name.

        ``name`` "": an anonymous volume; ``on_name`` is called with its generated name before the volume is made.
        ``driver`` "": the driver of the existing volume, else the local one. ``reference``: the id of a container that
        becomes a reference.

        :raises WharfError: CONFLICT: another driver has a volume of this name; INVALID_ARGUMENT: an option or a name;
            NOT_FOUND: no such driver. The message begins with ``create <name>:``.
        """

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Removes a volume with its content. ``force``: an unknown volume and a failing driver are no errors.

        :raises WharfError: NOT_FOUND; CONFLICT: a container refers to it.
        """

    async def clear(self, name: str) -> None:
        """Removes the parts of a volume that an interrupted create left, also without a record. Does nothing if the
        volume has references."""

    def all(self) -> Iterable[Volume]:
        """A copy of the list of volumes with a record, so that the caller may change volumes while it iterates."""

    def refer(self, name: str, container: str) -> None:
        """Makes the container with this id a reference. Idempotent; the volume need not exist."""

    def release(self, name: str, container: str) -> None:
        """Ends the reference of a container. Idempotent."""

    def references(self, name: str) -> int:
        """The number of containers that refer to the volume."""

    async def mount(self, name: str, user: str) -> str:
        """Mounts the volume for ``user`` and returns its directory on the host. Each ``mount`` needs one ``unmount``
        with the same ``user``.

        :raises WharfError: NOT_FOUND ``get <name>: no such volume``; other kinds: the driver's error.
        """

    async def unmount(self, name: str, user: str) -> bool:
        """Undoes ``mount``. False: ``user`` had not mounted the volume.

        :raises WharfError: the driver can't unmount it; ``user`` is removed from the users all the same.
        """

    def adopt(self, name: str, user: str) -> None:
        """Adds a user that mounted the volume under an earlier daemon and still runs; called at the daemon's start."""

    def publish(self, action: str, name: str, attributes: Mapping[str, str]) -> None:
        """Publishes an event of the volume, for its owner."""

    async def sweep(self) -> None:
        """Unmounts the volumes that have no user; called at the daemon's start, after every ``adopt``."""


class Shares(Protocol):
    """What owners may use of the machine (``server.shares``), on an engine with a policy."""

    def cgroup(self, owner: str) -> AbstractAsyncContextManager[str]:
        """Around the start of a process of this owner: the parent cgroup of its container, which has the limits of the
        user's role. "" for administrators: the engine's parent.

        :raises WharfError, OSError: the cgroup can't be made.
        """

    def cgroup_parent(self, owner: str) -> str:
        """The same while a container of this owner runs."""

    def creating(
        self, owner: str, config: ContainerConfig, host_config: HostConfig
    ) -> AbstractAsyncContextManager[None]:
        """Around the creation of a container.

        :raises WharfError: PERMISSION_DENIED: the role's number of containers, or a label that it doesn't allow;
            INVALID_ARGUMENT: more CPUs than the role has.
        """

    async def check_disk(self, owner: str) -> None:
        """Before anything is made that uses the disk.

        :raises WharfError: PERMISSION_DENIED: the owner uses all that its role allows.
        """

    async def ended(self, container: Container) -> None:
        """The process of a container has exited; its task and its network still exist. Errors are logged."""

    async def check_update(self, owner: str, resources: Resources) -> None:
        """:raises WharfError: INVALID_ARGUMENT: more CPUs than the role has."""


class Gpus(Protocol):
    """The allocation of GPUs (``server.gpus``), on an engine with a policy.

    A container *has* GPUs from ``wait`` or ``claim`` to ``release``, or to the hooks ``stopped`` and ``removed``;
    ``Container.gpus`` has them then. Containers without device requests are accepted and have none.
    """

    def waits(self, container: Container, *, by_policy: bool = False) -> bool:
        """Whether ``wait`` is to be called before the start: GPUs are requested, and the container has the label
        ``wharf.wait``, or starts by its restart policy."""

    async def wait(self, container: Container) -> None:
        """Waits until the container has its GPUs, at most for the time in its label. Call it without the container's
        lock. A cancelled caller leaves the queue.

        :raises WharfError: CONFLICT: the time is over, ``cancel`` was called, or the container waits already; else as
            ``claim``.
        """

    async def claim(self, container: Container) -> None:
        """Gives the container its GPUs now, unless it has them. The caller has locked the container.

        :raises WharfError: CONFLICT: they are in use, by whom and since when; PERMISSION_DENIED: the role does not
            allow them; INVALID_ARGUMENT: this host lacks them, or the request is invalid; INTERNAL: no driver of this
            host supports it.
        """

    def release(self, container: Container) -> None:
        """Ends the allocation of a container that doesn't run. Idempotent."""

    def cancel(self, container: Container) -> bool:
        """Ends the wait of a container; False: it doesn't wait."""

    def place(self, container: Container) -> tuple[int, int] | None:
        """The container's place in the queue, from 1, and the length of the queue; None: it doesn't wait."""

    async def devices(self, container: Container) -> Sequence[str]:
        """The names of all CDI devices that the spec of the container gets: its GPUs, and what it requests besides.

        :raises WharfError: as ``claim``, for an invalid request.
        """
