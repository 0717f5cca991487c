"""What every part of the image services works with."""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.api.client import Engine
from engine.common.errors import WharfError
from server.events.bus import EventBus
from server.images.model import Users
from server.images.names import Names
from server.images.resolve import Resolver
from server.images.unpacking import Unpacking


@dataclass(frozen=True, slots=True)
class Room:
    engine: Engine
    names: Names
    resolver: Resolver
    bus: EventBus
    users: Users
    unpacking: Unpacking

    def publish(self, action: str, actor: str, name: str, labels: Mapping[str, str] | None = None) -> None:
        attributes = dict(labels or {})
        if name:
            attributes["name"] = name
        self.bus.publish("image", action, actor, attributes)

    async def publish_with_labels(self, action: str, actor: str, name: str) -> None:
        """The image's own labels go with the event, as far as the image is still there."""
        labels: Mapping[str, str] = {}
        try:
            record = await self.resolver.record(actor)
            labels = (await self.resolver.of_record(record)).labels
        except WharfError:
            pass
        self.publish(action, actor, name, labels)
