"""The shared state of the image services."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api.client import Engine
from engine.common.errors import WharfError
from server.events.bus import EventBus
from server.images.model import Users
from server.images.names import ImageNames
from server.images.resolve import Resolver
from server.images.trees import Tree, Trees
from server.images.unpacker import Unpacker

#: Applies Dockerfile instructions (``--change``) to an image config's ``config`` object. Raises INVALID_ARGUMENT for an
#: instruction that is not allowed.
ApplyChanges = Callable[[Mapping[str, Any], Sequence[str]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class ImageContext:
    engine: Engine
    names: ImageNames
    resolver: Resolver
    trees: Trees
    bus: EventBus
    users: Users
    unpacker: Unpacker
    apply_changes: ApplyChanges
    #: The owner of new names; see ``server.access``.
    owner: str = ""

    async def all_trees(self) -> dict[str, Tree]:
        """Return the trees of all images that exist for the owner, by target."""
        return await self.trees.get_all(record.target for record in await self.names.all())

    async def own_digests(self) -> set[str] | None:
        """Return the digests of all documents and blobs that the owner may have, which are those below its images;
        ``None`` for the administrators: all in the store."""
        if not self.owner:
            return None
        return {digest for tree in (await self.all_trees()).values() for digest in tree.blobs}

    def publish(self, action: str, actor: str, name: str, labels: Mapping[str, str] | None = None) -> None:
        attributes = dict(labels or {})
        if name:
            attributes["name"] = name
        self.bus.publish("image", action, actor, attributes, owner=self.owner)

    async def publish_with_labels(self, action: str, actor: str, name: str) -> None:
        """Publish an event with the image's own labels, if the image still exists."""
        labels: Mapping[str, str] = {}
        try:
            record = await self.resolver.record(actor)
            labels = (await self.resolver.resolve_record(record)).labels
        except WharfError:
            pass
        self.publish(action, actor, name, labels)
