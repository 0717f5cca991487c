"""The event bus as services use it."""

from collections.abc import Mapping
from typing import Protocol


class EventPublisher(Protocol):
    """Publishes events for ``GET /events``; call it on the event loop."""

    def publish(
        self,
        kind: str,
        action: str,
        actor: str,
        attributes: Mapping[str, str],
        *,
        scope: str = "local",
        owner: str = "",
    ) -> object:
        """Passes one event to all subscriptions and returns at once. Events keep the order of the calls.

        ``kind``: the type of the object (``container``). ``actor``: its id or name. ``owner``: the object's; its
        events are shown to nobody but the owner and administrators.
        """
