"""Which events a filter lets through, by dockerd's rules."""

import re

from api_models.filters import Filters
from server.events.message import EventMessage

ACCEPTED = frozenset(
    {
        "config",
        "container",
        "daemon",
        "event",
        "image",
        "label",
        "network",
        "node",
        "plugin",
        "scope",
        "secret",
        "service",
        "type",
        "volume",
    }
)
# Actions that carry a detail after a colon, named in a filter without it.
_OPEN_ENDED = ("exec_create", "exec_start", "health_status")


# Kinds of objects that a filter names by the beginning of an ID or name.
_KINDS = ("container", "plugin", "volume", "network", "daemon", "service", "node", "secret", "config")


def matches(event: EventMessage, filters: Filters) -> bool:
    """True if every key of ``filters`` accepts the event.

    As in dockerd an object's filter looks at the actor, whatever its kind is.
    """
    if not len(filters):
        return True
    name = event.attributes.get("name", "")
    return (
        _action(event.action, filters)
        and filters.exact("type", event.kind)
        and filters.exact("scope", event.scope)
        and all(filters.fuzzy(kind, event.actor) or filters.fuzzy(kind, name) for kind in _KINDS if kind in filters)
        and _image(event, filters)
        and filters.labels("label", event.attributes)
    )


def _action(action: str, filters: Filters) -> bool:
    if any(value in _OPEN_ENDED for value in filters.get("event")):
        return filters.fuzzy("event", action)
    return filters.exact("event", action)


def _image(event: EventMessage, filters: Filters) -> bool:
    """An image's filter also takes the events of containers made from it, with and without the tag."""
    if "image" not in filters:
        return True
    name = event.attributes.get("name" if event.kind == "image" else "image", "")
    return any(filters.exact("image", each) for each in (event.actor, name, _untagged(event.actor), _untagged(name)))


def _untagged(name: str) -> str:
    """``repo:tag`` → ``repo``; a port of the registry stays."""
    return re.sub(r"(@[^@]*|:[^:/]*)\Z", "", name)
