"""The record of an event."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventMessage:
    """An event. ``kind``: the type of the object (``container``), ``actor``: its id or name. ``time_ns``: ns since the
    epoch. ``owner``: the object's (``server.access``); clients don't see it."""

    kind: str
    action: str
    actor: str
    attributes: Mapping[str, str]
    scope: str
    time_ns: int
    owner: str = ""
