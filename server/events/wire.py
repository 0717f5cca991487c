"""The JSON form of an event."""

from typing import Any

from api_models import changes
from api_models.supported import Version
from server.events.message import EventMessage


def document(event: EventMessage, *, old_names: bool = True) -> dict[str, Any]:
    """The JSON object. ``status``, ``id`` and ``from`` are the old names of its fields: docker CLI before 25 fails
    without them."""
    message: dict[str, Any] = {}
    if old_names and event.kind in ("container", "image"):
        message["status"] = event.action
        if event.actor:
            message["id"] = event.actor
        if event.kind == "container" and "image" in event.attributes:
            message["from"] = event.attributes["image"]
    message |= {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.actor, "Attributes": dict(event.attributes)},
        "scope": event.scope,
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
    return message


def hidden(event: EventMessage, version: Version) -> bool:
    """Whether clients of ``version`` don't get the event."""
    return event.kind == "image" and event.action == "create" and not changes.IMAGE_CREATE_EVENTS.within(version)
