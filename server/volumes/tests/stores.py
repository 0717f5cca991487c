"""A store and a bus in memory, for the tests of this package."""

from collections.abc import Mapping, Sequence

from server.volumes.base import Volume


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
