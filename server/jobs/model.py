"""The record of a job socket."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

import orjson


@dataclass(slots=True)
class Job:
    """A job socket.

    ``user`` created it ("" for the administrators); ``uid`` and ``gids`` are that process's. ``expires_ns``: ns since
    the epoch, 0: never. ``holder``: the pid of the process that holds it, 0: none; ``holder_started``: its start time
    in clock ticks since boot, which tells it from a later process with its pid. ``limits``: fields of the role that are
    narrower here. ``closing``: its objects are being removed; after a crash the removal continues.
    """

    id: str
    user: str
    uid: int
    gids: tuple[int, ...]
    created_ns: int
    expires_ns: int = 0
    holder: int = 0
    holder_started: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    closing: bool = False

    @property
    def owner(self) -> str:
        """The owner of what is created through it."""
        return f"{self.user}:{self.id}"

    def to_doc(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def from_doc(cls, document: bytes) -> Self:
        """:raises ValueError, TypeError: the document is no record."""
        raw: dict[str, Any] = orjson.loads(document)
        return cls(**{**raw, "gids": tuple(raw["gids"])})
