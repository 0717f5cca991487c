"""What the metrics are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.containers.service import Containers
from server.metrics.traffic import Interfaces

if TYPE_CHECKING:
    from server.metrics.engine import Gauges
    from server.shares.service import Shares


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer and its type."""

    body: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Sources:
    """``identity``: the engine's ID. ``snapshotter``: what dockerd calls the graph driver. ``gauges`` is called on the
    loop. ``shares`` None: the engine has no policy."""

    containers: Containers
    interfaces: Interfaces
    identity: str
    snapshotter: str
    gauges: "Callable[[], Gauges]"
    shares: "Shares | None" = None
