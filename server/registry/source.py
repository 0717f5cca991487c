"""Where a pull gets documents and blobs from: a repository of a registry, or other nodes of a swarm."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from server.registry.reference import Reference


class Source(Protocol):
    """Methods raise RegistryError; ``again``: a repetition may succeed, also because another server is asked then."""

    @property
    def reference(self) -> Reference: ...

    @property
    def attempts(self) -> int:
        """How often a request for a document is made, at least once."""

    @property
    def is_registry(self) -> bool:
        """Whether blobs are labelled with the repository, so that a push to the same registry can mount them."""

    async def head(self, selector: str) -> tuple[str, str, int] | None:
        """(digest, media type, size) of a manifest; None: only the manifest itself says it."""

    async def manifest(self, selector: str) -> tuple[bytes, str]:
        """(data, media type) of a manifest; the data has the digest that ``selector`` may be."""

    def blob(
        self, digest: str, offset: int = 0, url: str = ""
    ) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        """(offset, pieces) of a blob. The offset is 0 if the server can't resume. ``url``: the blob's location, if
        another."""

    def reject(self, digest: str) -> bool:
        """The blob had other content: uses that server no more. Returns whether a retry may get the right one."""
