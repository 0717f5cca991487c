"""The event bus: services publish events, ``GET /events`` subscribes to them."""

from server.events.bus import EventBus, Subscription
from server.events.message import EventMessage

__all__ = ["EventBus", "EventMessage", "Subscription"]
