"""What happened: the bus that every service publishes on and ``GET /events`` listens to."""

from server.events.bus import EventBus, EventMessage, Subscription

__all__ = ["EventBus", "EventMessage", "Subscription"]
