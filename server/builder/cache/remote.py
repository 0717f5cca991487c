"""Caches that come from elsewhere, as the solver sees them."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from engine.api.client import Engine
from engine.api.types import Descriptor
from server.builder.cache.cache_config import Known
from server.builder.plan.llbkey import Key
from server.builder.plan.steps import Layer, Result, Step

__all__ = ["Known", "Remote", "download"]


class Remote(Protocol):
    """One imported cache."""

    @property
    def has_llb(self) -> bool:
        """Whether it may know any of BuildKit's keys."""

    def defined(self, key: str) -> Known | None:
        """What it knows of a key by definition."""

    def llb(self, key: Key) -> Sequence[Known]:
        """What it knows of one of BuildKit's keys."""

    def find(self, key: str, step: Step, parent: Result, files: str) -> Known | None:
        """What it knows of a key, or of a step on this result. ``files``: see :class:`Result`."""

    def fetch(self, descriptor: Descriptor) -> AsyncIterator[bytes]:
        """A layer's blob. Raises what fetching it raises."""


async def download(engine: Engine, id: str, remote: Remote, layer: Layer) -> None:
    """The layer's blob into the content store, under the lease of the caller. Raises for another content."""
    descriptor = layer.descriptor
    labels = {"containerd.io/uncompressed": layer.diff_id}
    async with engine.content.writer(id, expected=descriptor.digest, total=descriptor.size) as writer:
        await writer.truncate()
        if not writer.exists:
            async for piece in remote.fetch(descriptor):
                await writer.write(piece)
        await writer.commit(size=descriptor.size, digest=descriptor.digest, labels=labels)
