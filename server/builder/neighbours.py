"""The interfaces of the services that builds use: one Protocol per service, with the contract of each call."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from engine.api.types import Descriptor
from server.images.model import Image
from server.images.service import BuildMessages
from server.registry.auth import Ask
from server.registry.client import Repository


class Images(Protocol):
    """Images as base images and as results of builds. ``ask`` is called with the registry's name only if the registry
    demands authentication; it returns user and secret ("" and "" for anonymous access)."""

    async def resolve(self, ref: str, *, platform: str | None = None) -> Image:
        """Return the image of a name, an id or an unambiguous prefix of an id, for ``platform`` or the host.

        :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: an invalid reference or platform.
        """

    async def pull_for_build(
        self,
        ref: str,
        *,
        platform: str | None,
        credentials: Mapping[str, Mapping[str, Any]] | Ask,
        messages: BuildMessages,
    ) -> None:
        """Pull a base image, with its progress in ``messages``. ``credentials``: the object of ``X-Registry-Config`` by
        registry, or ``ask``.

        :raises WharfError: the image does not exist, access is denied, or the registry can't be reached.
        """

    async def is_built(self, digest: str, tags: Sequence[str]) -> bool:
        """Whether ``digest`` has all of these names, or any name without ``tags``: then :meth:`built` changes
        nothing."""

    async def built(self, target: Descriptor, tags: Sequence[str], *, ref: str = "") -> None:
        """Name the result of a build, whose content is under the caller's lease; without ``tags`` it becomes a dangling
        image. ``ref``: the build's record in the history, for the image's ``Identity``. Publishes the events."""

    async def may_read(self, digest: str) -> bool:
        """Whether the owner of the builds may have stored content: content is stored once for all owners."""

    async def check_layers(self, image: Image) -> None:
        """Check that an image which a client sent claims no layers of other owners.

        :raises WharfError: INVALID_ARGUMENT: a layer has another diff id.
        """

    async def chains(self) -> set[str]:
        """Return the chain ids of all layers of all images: the snapshots that builds share with images."""

    async def push_built(self, ref: str, target: Descriptor, ask: Ask) -> None:
        """Push ``target`` under the name ``ref``.

        :raises WharfError: the registry denies access or can't be reached.
        """

    def archive(self, target: Descriptor, tags: Sequence[str]) -> AsyncIterator[bytes]:
        """Yield the image as ``docker save`` writes it, under ``tags``; the image may lack a name."""

    async def repository(self, ref: str, ask: Ask) -> Repository:
        """Return the repository of a name, for reading: an async context manager.

        :raises WharfError: INVALID_ARGUMENT: ``ref`` is not a name.
        """
