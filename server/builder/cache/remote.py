"""The interface of imported caches."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from engine.api.client import Engine
from engine.api.types import Descriptor
from server.builder.cache.cache_config import CacheHit
from server.builder.plan.llbkey import Key
from server.builder.plan.steps import Layer, Result, Step
from server.images.ownership.layers import check_layer, receive

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


async def download(engine: Engine, id: str, remote: Remote, layer: Layer, *, owned: bool) -> None:
    """Fetch a layer's blob into the content store, under the caller's lease. ``owned``: for a user, who may not have
    every stored blob or snapshot.

    :raises WharfError: INVALID_ARGUMENT: the bytes or their diff id differ.
    """
    descriptor = layer.descriptor
    async with engine.content.writer(id, expected=descriptor.digest, total=descriptor.size) as writer:
        await writer.truncate()
        if not writer.exists:
            async for piece in remote.fetch(descriptor):
                await writer.write(piece)
        elif owned:
            await receive(remote.fetch(descriptor), descriptor)
        # Without the diff id: it is what the cache claims.
        await writer.commit(size=descriptor.size, digest=descriptor.digest)
    if owned:
        await check_layer(engine, descriptor, layer.diff_id)
