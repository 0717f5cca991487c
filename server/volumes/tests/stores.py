"""A store and a bus in memory, and services on them, for the tests of this package."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from api_models.filters import Filters
from server.plugins.discovery import Plugins
from server.volumes import query
from server.volumes.base import Volume
from server.volumes.local import LocalDriver
from server.volumes.plugin import VolumePlugins
from server.volumes.service import Volumes


class MemoryStore:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def put(self, volume: Volume) -> None:
        self.kept[volume.name] = volume.to_doc()

    async def delete(self, name: str) -> None:
        self.kept.pop(name, None)

    async def load(self) -> Sequence[Volume]:
        return [Volume.from_doc(document) for document in self.kept.values()]


class MemoryBus:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def publish(
        self,
        kind: str,
        action: str,
        actor: str,
        attributes: Mapping[str, str],
        *,
        scope: str = "local",
        owner: str = "",
    ) -> None:
        self.events.append((action, actor))


def make(tmp_path: Path, store: MemoryStore | None = None, bus: MemoryBus | None = None) -> Volumes:
    """A service whose plugins have their sockets in ``tmp_path`` and their specifications in ``specs`` below it."""
    plugins = VolumePlugins(Plugins((tmp_path,), (tmp_path / "specs",)))
    return Volumes(store or MemoryStore(), bus or MemoryBus(), LocalDriver(tmp_path / "volumes"), plugins)


async def listed(volumes: Volumes, **filters: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Names and drivers of the listed volumes, and the warnings."""
    answer = await query.listing(volumes, Filters({key: (value,) for key, value in filters.items()}))
    return [(row["Name"], row["Driver"]) for row in answer["Volumes"]], answer["Warnings"] or []
