"""What a running node of a swarm asks the facade for: changes that end the node and begin it anew."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requests:
    """All return at once, and may be called again while the change is under way.

    ``role``: the managers want this node to be a "manager" or a "worker". ``etcd``: another node wants to join, so the
    state must move from SQLite into etcd. ``removed``: the managers have removed this node.
    """

    role: Callable[[str], None]
    etcd: Callable[[], None]
    removed: Callable[[], None]
