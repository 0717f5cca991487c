"""What happened: the bus that every service publishes on and ``GET /events`` listens to."""

from server.events.bus import EventBus, Subscription
from server.events.message import EventMessage

__all__ = ["EventBus", "EventMessage", "Subscription"]
