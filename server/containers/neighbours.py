"""What containers need of the services beside them: one Protocol per neighbour, and no more than is called.

Each docstring is the contract that an implementation keeps and a fake must keep too. Errors are ``WharfError`` with
the kind named; their messages are dockerd's sentences. All methods are called on the event loop.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.api.types import Mount
from server.containers.model import Container
from server.containers.plan import ContainerPlan
from server.images.model import Image
from server.volumes.base import Volume


class Bus(Protocol):
    """The event bus of ``GET /events``."""

    def publish(
        self, kind: str, action: str, actor: str, attributes: Mapping[str, str], *, scope: str = "local"
    ) -> object:
        """Sends one event to every subscriber and returns at once. Events keep the order of the calls.

        ``kind`` is the type of the object (``container``), ``actor`` its id.
        """


class Store(Protocol):
    """The records of containers on disk. A call returns when the change is durable."""

    async def put(self, container: Container, *, frees: bool = False) -> None:
        """Writes a container's record, over the one it has. ``frees``: the change may use the space that the database
        reserves for a full disk (ends and removals).

        :raises WharfError: RESOURCE_EXHAUSTED: the disk is full; the former record stays.
        """

    async def delete(self, id: str) -> None:
        """Removes the record of the container ``id``. A record that isn't there is no error."""

    async def load(self) -> Sequence[Container]:
        """Every record; once, at the start of the daemon."""


class Images(Protocol):
    """The images, for a container's root file system and for mounts of type image."""

    async def resolve(self, ref: str, *, platform: str | None = None) -> Image:
        """The image of a name, an id or an unambiguous prefix of an id. ``platform`` (``os[/arch[/variant]]``) selects
        the manifest of an index; None selects the host's.

        :raises WharfError: NOT_FOUND ``No such image: …``; INVALID_ARGUMENT: ``ref`` or ``platform`` can't be parsed.
        """

    async def rootfs(self, image: Image, key: str, *, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Prepares a writable snapshot ``key`` on the image's layers, which are unpacked first if they are not, and
        returns how it is mounted. The caller removes the snapshot. The caller's lease owns it.

        :raises WharfError: ALREADY_EXISTS: a snapshot has this key; NOT_FOUND: the blob of a layer is missing.
        """

    async def children(self, digest: str) -> list[str]:
        """The ids of the images that were built on the image ``digest``; [] for an unknown one."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The network of a container that starts.

    ``netns_path`` None: the host's own namespace. ``joins``: the id of the container that owns the namespace;
    ``of_process``: the namespace has no path and is found through this container's process.
    ``files``: path in the container → path on the host. ``link_env``: the environment of legacy links.
    """

    netns_path: str | None = None
    joins: str | None = None
    of_process: Container | None = None
    host: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    link_env: Sequence[str] = ()


class Networks(Protocol):
    """The networks of a container from create to remove.

    The states of a container here: ``check`` once at create; then ``start`` and ``stop`` alternate; ``remove`` ends it.
    ``recover`` comes before all of them in a daemon's life. The caller holds the container's lock, except in the
    look-ups (``settings``, ``link_names``, ``links_of``, ``linked``).
    """

    async def recover(self, running: Sequence[Container]) -> None:
        """Once, at the daemon's start: the containers in ``running`` keep their network, and everything else that an
        earlier daemon left in the kernel and in the records is removed."""

    async def check(self, container: ContainerPlan) -> None:
        """At create: checks modes, names and addresses, and completes ``container.networking``. Allocates nothing.

        :raises WharfError: INVALID_ARGUMENT; NOT_FOUND: a network of a legacy link or of a joined container.
        """

    async def start(self, container: ContainerPlan) -> Sandbox:
        """Makes the namespace, the interfaces, the addresses, the published ports and the files in the container's
        directory. Waits for the teardown of its last run. A failure leaves nothing behind.

        :raises WharfError: NOT_FOUND: a network or a container to join; CONFLICT: the container to join doesn't run,
            or an address is in use; INTERNAL: a port is taken.
        """

    async def stop(self, container: ContainerPlan) -> None:
        """Releases what ``start`` made, in the background; the next ``start`` waits for it. Idempotent. At the end of
        the daemon it does nothing: the next daemon's ``recover`` releases it."""

    async def remove(self, container: ContainerPlan) -> None:
        """``stop``, and forgets what the container's last run had. Idempotent."""

    async def rename(self, container: Container, old: str) -> None:
        """The container has a new name: its DNS names on all networks follow. ``old`` has no leading slash. A
        container that doesn't run has nothing to change."""

    def settings(self, container: Container) -> dict[str, Any]:
        """``NetworkSettings`` of inspect as JSON values, at the newest API version; the caller may change it."""

    def link_names(self) -> dict[str, list[str]]:
        """The names that legacy links give to containers: ``/client/alias``, by the id of the link's target."""

    def links_of(self, container: Container) -> list[str] | None:
        """``HostConfig.Links`` of inspect: ``/target:/container/alias``; None without links."""

    def linked(self, key: str) -> Container:
        """The target of the legacy link ``client/alias``.

        :raises WharfError: NOT_FOUND.
        """

    async def remove_link(self, key: str) -> None:
        """``docker rm --link``: removes the legacy link ``/client/alias``; both containers stay.

        :raises WharfError: NOT_FOUND; INTERNAL: ``key`` is a container's own name.
        """


class Volumes(Protocol):
    """The volumes of containers.

    A *reference* is a container with the volume in its configuration: it protects the volume from removal. A *user*
    has the volume mounted; the file system of a volume with driver options is mounted for the first user and unmounted
    after the last. Users are keys of the caller's choice, one for each ``mount``.
    """

    async def create(
        self,
        name: str,
        driver: str = "",
        *,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        reference: str = "",
        invented: Callable[[str], None] | None = None,
    ) -> Volume:
        """Makes a volume, or returns the one that has the name. ``name`` "": an anonymous volume with a name of its
        own, which ``invented`` gets before the volume is made. ``driver`` "": the local one, or that of the volume that
        has the name. ``reference``: the id of a container that becomes a reference.

        :raises WharfError: CONFLICT: another driver has a volume of this name; INVALID_ARGUMENT: an option or a name;
            NOT_FOUND: no such driver. The message begins with ``create <name>:``.
        """

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Removes a volume with its content. ``force``: an unknown volume, or one whose driver fails, is no error.

        :raises WharfError: NOT_FOUND; CONFLICT: a container refers to it.
        """

    async def clear(self, name: str) -> None:
        """Removes what an interrupted create left of a volume, with or without a record, unless it has references."""

    def all(self) -> Iterable[Volume]:
        """The volumes with a record here: a copy, so that volumes may be made and removed during the iteration."""

    def refer(self, name: str, container: str) -> None:
        """Makes the container with this id a reference. Idempotent; the volume need not exist."""

    def release(self, name: str, container: str) -> None:
        """Ends the reference of a container. Idempotent."""

    def references(self, name: str) -> int:
        """How many containers refer to the volume."""

    async def mount(self, name: str, user: str) -> str:
        """Mounts the volume for ``user`` and returns its directory on the host. Each ``mount`` needs one ``unmount``
        with the same ``user``.

        :raises WharfError: NOT_FOUND ``get <name>: no such volume``; or why its driver can't mount it.
        """

    async def unmount(self, name: str, user: str) -> bool:
        """Ends what ``mount`` began. False: ``user`` had not mounted it.

        :raises WharfError: the driver can't unmount it; ``user`` doesn't have it mounted any more.
        """

    def adopt(self, name: str, user: str) -> None:
        """At the daemon's start: ``user`` runs and has had the volume mounted since an earlier daemon."""

    async def sweep(self) -> None:
        """At the daemon's start, after every ``adopt``: unmounts the volumes that have no user."""
