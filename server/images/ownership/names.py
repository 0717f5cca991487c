"""The names of images that exist for one user: the user's own, and those of the administrators that are published.

A user's own name hides a published one. Published names can be used, but neither moved nor removed.
"""

from collections.abc import Callable
from dataclasses import replace

from engine.api.types import ImageRecord
from engine.common.errors import Kind, WharfError
from server.access.owners import qualified, unqualified
from server.images.names import ImageNames, Names


class OwnedNames(ImageNames):
    """Records have plain names here. ``published``: whether a name of the administrators is published."""

    def __init__(self, names: Names, owner: str, published: Callable[[str], bool]) -> None:
        self._names = names
        self._owner = owner
        self._published = published

    async def get(self, name: str) -> ImageRecord | None:
        found = await self._names.get(qualified(self._owner, name))
        if found is not None:
            return replace(found, name=name)
        return await self._names.get(name) if not name.startswith("@") and self._published(name) else None

    async def all(self) -> list[ImageRecord]:
        return self._visible(await self._names.all())

    async def own(self) -> list[ImageRecord]:
        return [record for record in map(self._plain, await self._names.all()) if record is not None]

    def owns(self, record: ImageRecord) -> bool:
        return self._names.has(qualified(self._owner, record.name))

    async def find_by_digest(self, digest: str) -> list[ImageRecord]:
        return self._visible(await self._names.find_by_digest(digest))

    async def find_by_prefix(self, hexadecimal: str) -> list[ImageRecord]:
        return self._visible(await self._names.find_by_prefix(hexadecimal))

    async def put(self, record: ImageRecord) -> ImageRecord:
        stored = await self._names.put(replace(record, name=qualified(self._owner, record.name)))
        return replace(stored, name=record.name)

    async def delete(self, name: str, *, sync: bool = False) -> bool:
        if await self._names.delete(qualified(self._owner, name), sync=sync):
            return True
        if await self.get(name) is not None:
            raise WharfError(
                Kind.PERMISSION_DENIED, f"the image {name} is published by the administrators of this engine"
            )
        return False

    def _plain(self, record: ImageRecord) -> ImageRecord | None:
        """The record under its plain name; None for other owners' records."""
        owner, name = unqualified(record.name)
        return replace(record, name=name) if owner == self._owner else None

    def _visible(self, records: list[ImageRecord]) -> list[ImageRecord]:
        found = [record for each in records if (record := self._plain(each)) is not None]
        for each in records:
            if not each.name.startswith("@") and self._published(each.name):
                hidden = self._names.has(qualified(self._owner, each.name))
                found += () if hidden else (each,)
        return sorted(found, key=lambda record: record.name)
