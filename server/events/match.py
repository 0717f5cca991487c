"""Matches events against filters, by dockerd's rules."""

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
# Actions with a detail after a colon; a filter names them without the detail.
_WITH_DETAIL = ("exec_create", "exec_start", "health_status")
# Filters with the type of an object, whose value is the beginning of its id or name.
_KINDS = ("container", "plugin", "volume", "network", "daemon", "service", "node", "secret", "config")


def matches(event: EventMessage, filters: Filters) -> bool:
    """Whether every key of ``filters`` accepts the event.

    As in dockerd, the filter of an object's type (``container=…``) compares the actor of events of all types.
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
    if any(value in _WITH_DETAIL for value in filters.get("event")):
        return filters.fuzzy("event", action)
    return filters.exact("event", action)


def _image(event: EventMessage, filters: Filters) -> bool:
    """The filter ``image`` also accepts events of containers with the image; its value may lack the tag."""
    if "image" not in filters:
        return True
    name = event.attributes.get("name" if event.kind == "image" else "image", "")
    return any(filters.exact("image", each) for each in (event.actor, name, _untagged(event.actor), _untagged(name)))


def _untagged(name: str) -> str:
    """The name without tag and digest; keeps the port of a registry."""
    return re.sub(r"(@[^@]*|:[^:/]*)\Z", "", name)
