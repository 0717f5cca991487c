"""An event as clients read it."""

from typing import Any

from api_models.versions import Version
from server.events.bus import EventMessage


def document(event: EventMessage) -> dict[str, Any]:
    """The JSON object. ``status``, ``id`` and ``from`` are the old spelling, which clients below 1.52 read."""
    message: dict[str, Any] = {}
    if event.kind in ("container", "image"):
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
    """Events that older clients don't know: an image's ``create`` came with 1.46."""
    return version < (1, 46) and event.kind == "image" and event.action == "create"
