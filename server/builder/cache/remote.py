"""The interface of imported caches."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from engine.api.client import Engine
from engine.api.labels import UNCOMPRESSED
from engine.api.types import Descriptor
from server.builder.cache.cache_config import CacheHit
from server.builder.plan.llbkey import Key
from server.builder.plan.steps import Layer, Result, Step

__all__ = ["CacheHit", "Remote", "download"]


class Remote(Protocol):
    """One imported cache."""

    @property
    def has_llb(self) -> bool:
        """Whether it may have records of BuildKit's keys."""

    def find_by_definition(self, key: str) -> CacheHit | None:
        """Look up a definition-based key."""

    def llb(self, key: Key) -> Sequence[CacheHit]:
        """Look up one of BuildKit's keys."""

    def find(self, key: str, step: Step, parent: Result, files: str) -> CacheHit | None:
        """Look up a content-based key, or the step on this parent. ``files``: see :class:`Result`."""

    def fetch(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        """Yield a layer's blob. Raises what fetching it raises."""


async def download(engine: Engine, id: str, remote: Remote, layer: Layer) -> None:
    """Fetch a layer's blob into the content store, under the caller's lease. Raises if its digest differs."""
    descriptor = layer.descriptor
    labels = {UNCOMPRESSED: layer.diff_id}
    async with engine.content.writer(id, expected=descriptor.digest, total=descriptor.size) as writer:
        await writer.truncate()
        if not writer.exists:
            async for piece in remote.fetch(descriptor):
                await writer.write(piece)
        await writer.commit(size=descriptor.size, digest=descriptor.digest, labels=labels)
