"""Caches the names of images in memory: ``docker run`` looks a name up without a call to the supervisor.

The supervisor's store is authoritative. Our own changes are written there first; changes by others (``ctr``) arrive as
events. While the event stream is broken, every look-up reloads the list.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine.api.client import Engine
from engine.api.extensions import CONTENT_DROPPED
from engine.api.types import ImageRecord
from engine.common.errors import Kind, WharfError
from server.access.owners import qualified
from server.images.model import dangling_name, is_dangling, owner_of, reference_of

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
#: Events after which less is stored.
_SHRUNK = ("/content/delete", CONTENT_DROPPED)


class ImageNames(ABC):
    """The names of images that exist for one owner, or for the engine. All methods run on the loop.

    The engine's names of a user's images are qualified (``@alice/docker.io/library/…``, see ``server.access.owners``).
    """

    @abstractmethod
    async def get(self, name: str) -> ImageRecord | None: ...

    @abstractmethod
    async def all(self) -> list[ImageRecord]: ...

    @abstractmethod
    async def own(self) -> list[ImageRecord]:
        """Return the names that the owner may remove."""

    def owns(self, record: ImageRecord) -> bool:
        """Whether the owner may remove a record of ``all``."""
        return True

    @abstractmethod
    async def find_by_digest(self, digest: str) -> list[ImageRecord]:
        """Return every name of a target, sorted by name."""

    @abstractmethod
    async def find_by_prefix(self, hexadecimal: str) -> list[ImageRecord]:
        """Return every name whose target's digest starts with these digits."""

    @abstractmethod
    async def put(self, record: ImageRecord) -> ImageRecord:
        """Create the name, or move it to another target."""

    @abstractmethod
    async def delete(self, name: str, *, sync: bool = False) -> bool:
        """Delete a name; return ``False`` if it did not exist.

        :raises WharfError: PERMISSION_DENIED: the name is not the owner's.
        """

    async def ensure_dangling(self, record: ImageRecord) -> None:
        """Keep the target as a dangling image of the record's owner."""
        name = qualified(owner_of(record), dangling_name(record.target.digest))
        if await self.get(name) is None:
            await self.put(replace(record, name=name, created_at_ns=0, updated_at_ns=0))

    async def assign(self, record: ImageRecord) -> bool:
        """Assign a name to a target. The name's previous target becomes a dangling image if this was its only name; a
        dangling image of the new target loses its placeholder name. Return ``True`` if the name's target changed.
        """
        old = await self.get(record.name)
        if old is not None and not self.owns(old):
            old = None
        changed = old is None or old.target.digest != record.target.digest
        if old is not None and changed:
            names = [each for each in await self.find_by_digest(old.target.digest) if self.owns(each)]
            if sum(owner_of(each) == owner_of(record) for each in names) == 1:
                await self.ensure_dangling(old)
        await self.put(record)
        if not is_dangling(record):
            dangling = qualified(owner_of(record), dangling_name(record.target.digest))
            if await self.get(dangling) is not None:
                await self.delete(dangling)
        return changed


class Names(ImageNames):
    """The names of all owners. Call ``start`` before use, ``stop`` at the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._records: dict[str, ImageRecord] = {}
        self._by_digest: dict[str, set[str]] = {}
        # Counts our own changes per name, so that a reply requested before a change does not overwrite it.
        self._changes: dict[str, int] = {}
        self._followed = False
        self._changed = asyncio.Event()
        #: Called when another client has removed a name or a blob, when the supervisor has dropped a blob's file, and
        #: when such events may have been missed.
        self.on_removed: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._reload()
        self._task = asyncio.create_task(self._follow(), name="image names")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    # reading

    @property
    def followed(self) -> bool:
        """Whether changes by others arrive as events; after a break, ``on_removed`` is called first."""
        return self._followed

    async def get(self, name: str) -> ImageRecord | None:
        await self._current()
        return self._records.get(name)

    async def all(self) -> list[ImageRecord]:
        await self._current()
        return list(self._records.values())

    async def own(self) -> list[ImageRecord]:
        return await self.all()

    def known(self) -> tuple[list[ImageRecord], asyncio.Event]:
        """The records as far as the last look-up knew, and what is set when one of them is added, moved or removed."""
        return list(self._records.values()), self._changed

    def has(self, name: str) -> bool:
        """Whether there is a record of this name, as far as the last look-up knew."""
        return name in self._records

    async def find_by_digest(self, digest: str) -> list[ImageRecord]:
        await self._current()
        return [self._records[name] for name in sorted(self._by_digest.get(digest, ()))]

    async def find_by_prefix(self, hexadecimal: str) -> list[ImageRecord]:
        await self._current()
        found: list[ImageRecord] = []
        start = f"sha256:{hexadecimal}"
        for digest in sorted(self._by_digest):
            if digest.startswith(start):
                found += await self.find_by_digest(digest)
        return found

    # changing

    async def put(self, record: ImageRecord) -> ImageRecord:
        try:
            stored = await self._engine.images.create(record)
        except WharfError as error:
            if error.kind is not Kind.ALREADY_EXISTS:
                raise
            stored = await self._engine.images.update(record, fields=("target", "labels"))
        self._changes[record.name] = self._changes.get(record.name, 0) + 1
        self._set(stored)
        return stored

    async def delete(self, name: str, *, sync: bool = False) -> bool:
        found = True
        try:
            await self._engine.images.delete(name, sync=sync)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            found = False
        self._changes[name] = self._changes.get(name, 0) + 1
        self._drop(name)
        return found

    # updates

    async def _current(self) -> None:
        if not self._followed:
            await self._reload()

    async def _reload(self) -> None:
        changes = dict(self._changes)
        records = await self._engine.images.list()
        names = {record.name for record in records}
        for name in [name for name in self._records if name not in names]:
            if self._changes.get(name) == changes.get(name):
                self._drop(name)
        for record in records:
            if self._changes.get(record.name) == changes.get(record.name):
                self._set(record)

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _set(self, record: ImageRecord) -> None:
        former = self._records.get(record.name)
        if former is None or former.target.digest != record.target.digest:
            self._note_change()
        self._forget(record.name)
        self._records[record.name] = record
        self._by_digest.setdefault(record.target.digest, set()).add(record.name)

    def _drop(self, name: str) -> None:
        if name in self._records:
            self._note_change()
            self._forget(name)

    def _forget(self, name: str) -> None:
        old = self._records.pop(name, None)
        if old is None:
            return
        names = self._by_digest[old.target.digest]
        names.discard(name)
        if not names:
            del self._by_digest[old.target.digest]

    async def _follow(self) -> None:
        while True:
            try:
                namespace = self._engine.namespace
                topics = ('topic~="^/images/"', *(f'topic=="{topic}"' for topic in _SHRUNK))
                subscription = self._engine.events.subscribe(*(f'{one},namespace=="{namespace}"' for one in topics))
                async with subscription:
                    await self._reload()
                    self.on_removed()
                    self._followed = True
                    async for event in subscription:
                        if event.topic in _SHRUNK:
                            self.on_removed()
                        elif name := getattr(event.event, "name", ""):
                            await self._refresh([name])
            except WharfError as error:
                log.debug("image events: %s", error.message)
            finally:
                self._followed = False
            await asyncio.sleep(_RETRY_SECONDS)

    async def _refresh(self, names: Iterable[str]) -> None:
        for name in names:
            change = self._changes.get(name)
            record: ImageRecord | None
            try:
                record = await self._engine.images.get(name)
            except WharfError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
                record = None
            if self._changes.get(name) != change:
                continue  # our own change came in between; its event follows
            if record is None:
                self._drop(name)
                self.on_removed()
            else:
                self._set(record)


def repo_names(group: Sequence[ImageRecord]) -> tuple[list[str], list[str]]:
    """Return RepoTags and RepoDigests of a target's names."""
    tags: list[str] = []
    digests: dict[str, None] = {}
    for record in group:
        if is_dangling(record):
            continue
        name = reference_of(record)
        if name is None:
            tags.append(record.name)  # another client's name: shown unchanged
            continue
        if name.tag and not name.digest:
            tags.append(f"{name.familiar_name}:{name.tag}")
        digests[f"{name.familiar_name}@{record.target.digest}"] = None
    return tags, list(digests)
