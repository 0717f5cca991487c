"""The volume service: create, find, remove, mount; counts references and mounts of volumes."""

import asyncio
import copy
import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from engine.common.batches import Batches
from engine.common.errors import Kind, WharfError, conflict, invalid, not_found
from engine.common.system import mounts
from server.access.caller import EVERYONE, Caller
from server.access.owners import qualified, unqualified
from server.events.publisher import EventPublisher
from server.volumes import confine
from server.volumes.base import ANONYMOUS_LABEL, Driver, Volume
from server.volumes.local import LocalDriver
from server.volumes.locks import Locks
from server.volumes.remotes import DriverSource, RemoteVolumes, with_state
from server.volumes.sizes import directory_sizes

log = logging.getLogger(__name__)

#: The maximum number of volumes that are measured before the next ones, which another client may wait for.
_BATCH = 256


class Store(Protocol):
    """The storage of volumes (``server/volumes/store.py``)."""

    async def put(self, volume: Volume) -> None: ...

    async def delete(self, name: str) -> None: ...

    async def load(self) -> Sequence[Volume]: ...


class Volumes:
    """All volumes of the daemon.

    Names are engine-wide ones (``Volume.name``) in the service itself and in all operations for containers. In the
    service for a caller (``seen_by``) and for the containers of an owner (``of``), ``create``, ``inspect`` and
    ``remove`` get the names that each owner has for itself, and ``find`` and ``all`` return what exists for the caller.
    Sentences and events have the owner's names.

    A *reference* is a container with the volume in its configuration: a volume with references can't be removed. A
    *user* has mounted the volume: the file system of a volume with driver options is mounted for the first user and
    unmounted after the last.
    """

    def __init__(
        self, store: Store, bus: EventPublisher, local: LocalDriver, plugins: DriverSource | None = None
    ) -> None:
        self._store = store
        self._bus = bus
        self._local = local
        self._remotes = RemoteVolumes(plugins)
        self._volumes: dict[str, Volume] = {}
        self._references: dict[str, set[str]] = {}
        self._users: dict[str, set[str]] = {}
        self._locks = Locks()
        self._caller: Caller | None = None
        #: The owners whose volumes are being pruned.
        self.pruning: set[str] = set()
        #: The sizes of directories of volumes.
        self.sizes = Batches(directory_sizes, most=_BATCH)

    def seen_by(self, caller: Caller) -> "Volumes":
        """The same service for one caller."""
        bound = copy.copy(self)
        bound._caller = caller
        return bound

    def of(self, owner: str) -> "Volumes":
        """The same service for the containers of an owner."""
        return self.seen_by(Caller(owner, administrator=False))

    @property
    def caller(self) -> Caller:
        return self._caller or EVERYONE

    @property
    def _plugins_visible(self) -> bool:
        """Whether the caller may use volumes that only plugins know."""
        caller = self.caller
        return not caller.owner or (caller.role is not None and caller.role.plugins)

    def _key(self, name: str) -> str:
        """The engine-wide name of a volume that the caller names. An administrator finds one as by ``Caller.choose``,
        and any by its engine-wide name.

        :raises WharfError: INVALID_ARGUMENT: several owners have the name.
        """
        caller = self._caller
        if caller is None:
            return name
        if not caller.administrator:
            return qualified(caller.owner, name)
        if name in self._volumes:
            return name
        holders = {volume.owner: volume.name for volume in self._volumes.values() if volume.own_name == name}
        if len(holders) > 1:
            others = ", ".join(sorted(holders.values()))
            raise invalid(f"volumes of several owners have the name {name}: use one of {others}")
        return caller.choose(holders) or name

    def _sees(self, volume: Volume) -> bool:
        return self._caller is None or self._caller.sees(volume.owner, volume.labels or {})

    def _seen(self, volumes: Iterable[Volume]) -> list[Volume]:
        """Those that exist for the caller."""
        if self._caller is None or self._caller.unrestricted:
            return list(volumes)
        return list(filter(self._sees, volumes))

    # start

    async def load(self) -> None:
        """Reads the volumes; call it before containers refer to them."""
        for volume in await self._store.load():
            self._volumes[volume.name] = volume

    def adopt(self, name: str, user: str) -> None:
        """A running container has the volume mounted (at the daemon's start)."""
        self._users.setdefault(name, set()).add(user)

    async def sweep(self) -> None:
        """Unmounts unused mounts that a crash left (at the daemon's start, after ``adopt``)."""
        for volume in list(self._volumes.values()):
            if volume.driver != "local" or not volume.options or self._users.get(volume.name):
                continue
            if await asyncio.to_thread(mounts.is_mountpoint, self._local.directory(volume.name)):
                log.info("volume %s was left mounted: unmounted it", volume.name)
                await self._local.unmount(volume.name, volume.options, user="")

    def driver_names(self) -> list[str]:
        """The drivers' names for ``docker info``."""
        return sorted({self._local.name, *self._remotes.names()})

    async def driver(self, name: str) -> Driver:
        """The driver of this name.

        :raises WharfError: NOT_FOUND if there is none.
        """
        return self._local if name in ("", self._local.name) else await self._remotes.driver(name)

    # API operations

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
        """Creates a volume, or returns the existing one of this name. ``reference``: a container's id. ``on_name``
        is called with the generated name of an anonymous volume before it is created.

        :raises WharfError: ``create <name>: …``; CONFLICT if another driver has a volume of that name;
            PERMISSION_DENIED: the caller's role does not allow it.
        """
        if self.caller.role is not None:
            confine.check(self.caller.role, driver, options or {})
        fresh = not name
        if fresh:
            name = secrets.token_hex(32)
            labels = {**(labels or {}), ANONYMOUS_LABEL: ""}
        # An administrator who creates a volume has none of another owner in mind.
        owner = self.caller.owner
        key = name if self._caller is None else qualified(owner, name)
        if fresh and on_name is not None:
            on_name(key)
        async with self._locks.hold(key):
            found = await self._existing(key, name, driver)
            if found is None and not driver and not fresh and self._plugins_visible:
                # A plugin's volume of this name precedes a new local one, as in dockerd.
                found = await self._remotes.probe(key)
                if found is not None:
                    found.owner = owner
                    await self._store.put(found)
                    self._volumes[key] = found
            if found is None:
                found = await self._create(key, name, driver or self._local.name, options, labels)
                found.made_for = reference
            elif found.made_for != reference:
                found.made_for = ""
            if reference:
                self._references.setdefault(key, set()).add(reference)
            return found

    async def _existing(self, key: str, name: str, driver: str) -> Volume | None:
        """The existing volume of this name, unless its driver has lost it.

        :raises WharfError: CONFLICT: it is another driver's, or its driver can't tell whether it still exists.
        """
        found = self._volumes.get(key)
        if found is None:
            return None
        if driver:
            await self._check_driver(name, driver)
        if found.driver != self._local.name:
            try:
                state = await self._remotes.state(found)
            except WharfError as error:
                raise conflict(
                    f"create {name}: found reference to volume '{name}' in driver '{found.driver}', "
                    f"but got an error while checking the driver: {error.message}: volume name must be unique"
                ) from error
            if state is None:
                if self._references.get(key):
                    raise conflict(
                        f"create {name}: found references to volume '{name}' in driver '{found.driver}' but the volume "
                        "was not found in the driver -- you may need to remove containers referencing this volume or "
                        "force remove the volume to re-create it: volume name must be unique"
                    )
                await self._forget(key)
                return None
        if driver and driver != found.driver:
            raise conflict(
                f"create {name}: driver '{found.driver}' already has volume '{name}': volume name must be unique"
            )
        return found

    async def _check_driver(self, name: str, driver: str) -> None:
        """:raises WharfError: NOT_FOUND: the driver doesn't exist."""
        try:
            await self.driver(driver)
        except WharfError as error:
            raise WharfError(error.kind, f"create {name}: {error.message}") from error

    async def _create(
        self, key: str, name: str, driver: str, options: Mapping[str, str] | None, labels: Mapping[str, str] | None
    ) -> Volume:
        try:
            backend = await self.driver(driver)
            await backend.check(name, options or {})
            mountpoint = await backend.create(key, options or {})
        except WharfError as error:
            raise WharfError(error.kind, f"create {name}: {error.message}") from error
        volume = Volume(
            name=key,
            driver=driver,
            labels=dict(labels) if labels is not None else None,
            options=dict(options) if options else None,
            created_ns=time.time_ns(),
            mountpoint=mountpoint,
            scope=backend.scope,
            owner=self.caller.owner,
        )
        try:
            await self._store.put(volume)
        except BaseException:
            # A plugin may have had the volume before, so it must not remove it; its own list still has it.
            if backend is self._local:
                await backend.remove(key)
            raise
        self._volumes[key] = volume
        self.publish("create", key, {"driver": driver})
        return volume

    async def inspect(self, name: str) -> Volume:
        """The volume with its driver's current state; also one that only a plugin knows.

        :raises WharfError: NOT_FOUND ``get x: no such volume``; or its driver doesn't answer.
        """
        key = self._key(name)
        async with self._locks.hold(key):
            return await self._current(key, name)

    async def _current(self, key: str, name: str) -> Volume:
        found = self._volumes.get(key)
        if found is not None and not self._sees(found):
            raise not_found(f"get {name}: no such volume")
        if found is not None and found.driver == self._local.name:
            return found
        if found is None:
            found = await self._remotes.probe(key) if self._plugins_visible else None
        else:
            try:
                state = await self._remotes.state(found)
            except WharfError as error:
                raise WharfError(error.kind, f"get {name}: {error.message}") from error
            if state is None and not self._references.get(key):
                await self._forget(key)
            found = with_state(found, state) if state is not None else None
        if found is None:
            raise not_found(f"get {name}: no such volume")
        return found

    async def find(self, drivers: Collection[str] = ()) -> tuple[list[Volume], list[str]]:
        """Every volume, including those that only plugins know, and the plugins' errors as sentences.

        ``drivers``: only these, if any are given.
        """
        if not self._plugins_visible:
            return [volume for volume in self.all() if not drivers or volume.driver in drivers], []
        found, problems = await self._remotes.merge(self._volumes, drivers)
        return self._seen(found), problems

    async def _forget(self, name: str) -> None:
        """Removes the record of a volume that its driver has lost."""
        await self._store.delete(name)
        self._volumes.pop(name, None)
        self._users.pop(name, None)

    def get(self, name: str) -> Volume:
        """A volume with a record here.

        :raises WharfError: NOT_FOUND ``get x: no such volume``.
        """
        volume = self._volumes.get(name)
        if volume is None:
            raise not_found(f"get {unqualified(name)[1]}: no such volume")
        return volume

    def all(self) -> Iterable[Volume]:
        """The volumes with a record here: created here, or used by a container."""
        return self._seen(self._volumes.values())

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Removes an unused volume. ``force``: a missing volume or driver is no error.

        :raises WharfError: NOT_FOUND; CONFLICT while a container refers to it.
        """
        key = self._key(name)
        name = unqualified(key)[1]
        async with self._locks.hold(key):
            references = self._references.get(key)
            if references:
                raise conflict(f"remove {name}: volume is in use - [{', '.join(sorted(references))}]")
            try:
                volume = await self._current(key, name)
            except WharfError:
                if not force:
                    raise
                known = self._volumes.get(key)
                if known is None or not self._sees(known):
                    return
                volume = known
            try:
                await (await self.driver(volume.driver)).remove(key)
            except (WharfError, OSError) as error:
                if not force:
                    kind = error.kind if isinstance(error, WharfError) else Kind.INTERNAL
                    raise WharfError(kind, f"remove {name}: {error}") from error
                log.warning("volume %s: its driver failed to remove it; its record is removed: %s", name, error)
            await self._forget(key)
            self.publish("destroy", key, {"driver": volume.driver})

    # operations for containers

    async def clear(self, name: str) -> None:
        """Removes the parts of a volume that an interrupted create or removal left, also without a record. Does nothing
        if the volume has references."""
        if not self._references.get(name):
            await self.remove(name, force=True)
            await self._local.remove(name)

    def refer(self, name: str, container: str) -> None:
        """The container has the volume in its configuration."""
        self._references.setdefault(name, set()).add(container)

    def release(self, name: str, container: str) -> None:
        """The container no longer has it."""
        references = self._references.get(name)
        if references is not None:
            references.discard(container)
            if not references:
                del self._references[name]

    def references(self, name: str) -> int:
        return len(self._references.get(name, ()))

    async def mount(self, name: str, user: str) -> str:
        """The volume's directory, with its file system mounted. Pass the same ``user`` to ``unmount``.

        :raises WharfError: NOT_FOUND, or the reason why it could not be mounted.
        """
        async with self._locks.hold(name):
            volume = self.get(name)
            driver = await self.driver(volume.driver)
            users = self._users.setdefault(name, set())
            if users:
                path = volume.mountpoint
            else:
                path = await driver.mount(name, volume.options or {}, user=user)
                volume.mountpoint = path
            users.add(user)
            return path

    async def unmount(self, name: str, user: str) -> bool:
        """Undoes ``mount``. Returns False if this user has not mounted it."""
        async with self._locks.hold(name):
            users = self._users.get(name)
            volume = self._volumes.get(name)
            if not users or user not in users or volume is None:
                return False
            users.discard(user)
            if not users:
                del self._users[name]
                await (await self.driver(volume.driver)).unmount(name, volume.options or {}, user=user)
            return True

    def publish(self, action: str, name: str, attributes: Mapping[str, str]) -> None:
        """Publishes an event of a volume, or of all volumes of the caller ("")."""
        owner, own_name = unqualified(name) if name else (self.caller.owner, "")
        self._bus.publish("volume", action, own_name, attributes, owner=owner)
