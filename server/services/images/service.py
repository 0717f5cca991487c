"""Images: everything that the Engine API does with them, on the engine's content store and snapshotter."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from engine.api.client import Engine
from engine.api.types import Mount
from engine.registry import oci
from engine.registry.progress import Report
from server.services.events.bus import EventBus
from server.services.images import loading, rootfs
from server.services.images.model import Image, Users
from server.services.images.names import Names
from server.services.images.resolve import Resolver
from server.services.images.room import Room

Messages = AsyncIterator[Mapping[str, Any]]


class Images:
    """``users`` lists the containers, for what may not be removed. ``start`` before use, ``stop`` at the end."""

    def __init__(self, engine: Engine, bus: EventBus, users: Users) -> None:
        names = Names(engine)
        self._room = Room(engine, names, Resolver(engine, names), bus, users)

    async def start(self) -> None:
        await self._room.names.start()

    async def stop(self) -> None:
        await self._room.names.stop()

    # for containers

    async def resolve(self, ref: str, *, platform: str | None = None) -> Image:
        """The image that a name, an id or the beginning of one means; for ``platform`` or else for this host.

        :raises WharfError: NOT_FOUND "No such image: …"; INVALID_ARGUMENT for what is no reference or platform.
        """
        return await self._room.resolver.resolve(ref, platform=platform)

    async def rootfs(self, image: Image, key: str, *, labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """A writable root file system under ``key``; the caller removes the snapshot.

        :raises WharfError: ALREADY_EXISTS: the key is taken; NOT_FOUND: a layer's blob is missing.
        """
        return await rootfs.prepare(self._room.engine, image, key, labels)

    # archives

    def load(self, body: AsyncIterator[bytes], *, platform: str | None = None) -> Messages:
        """``docker load``: the messages of the stream."""
        report = Report()
        wanted = oci.parse_platform(platform) if platform else None
        return report.run(loading.load_archive(self._room, body, report, platform=wanted))
