"""One event, as services publish it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventMessage:
    """One event. ``actor`` is the ID (or name) of what it happened to."""

    kind: str
    action: str
    actor: str
    attributes: Mapping[str, str]
    scope: str
    time_ns: int
