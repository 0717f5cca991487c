"""What builds need of the services beside them: one Protocol per neighbour, with the contract of each call."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from engine.api.types import Descriptor
from server.images.model import Image
from server.images.service import BuildMessages
from server.registry.auth import Ask
from server.registry.client import Repository


class Images(Protocol):
    """The images, as base images and as results of builds. ``ask`` is called only when a registry wants to know who
    the client is, with the registry's name, and returns user and secret ("" and "" for nobody)."""

    async def resolve(self, ref: str, *, platform: str | None = None) -> Image:
        """The image of a name, an id or an unambiguous prefix of an id, for ``platform`` or the host.

        :raises WharfError: NOT_FOUND; INVALID_ARGUMENT: no reference or no platform.
        """

    async def pull_for_build(
        self,
        ref: str,
        *,
        platform: str | None,
        credentials: Mapping[str, Mapping[str, Any]] | Ask,
        messages: BuildMessages,
    ) -> None:
        """Pulls a base image, with its progress in ``messages``. ``credentials``: the object of ``X-Registry-Config``
        by registry, or ``ask``.

        :raises WharfError: the registry has no such image, refuses it or can't be reached.
        """

    async def is_built(self, digest: str, tags: Sequence[str]) -> bool:
        """Whether :meth:`built` would change nothing: ``digest`` has all of these names, or any without ``tags``."""

    async def built(self, target: Descriptor, tags: Sequence[str]) -> None:
        """Names the result of a build, whose content is in the store under a lease of the caller's; without ``tags`` it
        becomes a dangling image. Publishes the events."""

    async def chains(self) -> set[str]:
        """The chain ids of all layers of all images: the snapshots that builds share with images."""

    async def push_built(self, ref: str, target: Descriptor, ask: Ask) -> None:
        """Pushes ``target`` under the name ``ref``.

        :raises WharfError: the registry refuses it or can't be reached.
        """

    def archive(self, target: Descriptor, tags: Sequence[str]) -> AsyncIterator[bytes]:
        """The image as ``docker save`` writes it, under ``tags``; it need not have a name here."""

    async def repository(self, ref: str, ask: Ask) -> Repository:
        """The repository of a name, for reading: an async context manager.

        :raises WharfError: INVALID_ARGUMENT: ``ref`` is no name.
        """
