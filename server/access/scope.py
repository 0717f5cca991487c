"""The scope of a socket."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from server.access.owners import user_of

_PARAMETER = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the clients of one socket may do, whoever they are: programs that watch or control a part of an engine.

    ``endpoints``: those of the route table, as ``GET /containers/{}/json``; None: all that only read. ``owners``: the
    users whose objects exist for the clients; None: all. ``labels``: only objects with all of these labels, with the
    value if one is given. ``mask_environment``: values of environment variables are not shown.
    """

    name: str
    endpoints: frozenset[str] | None = None
    owners: frozenset[str] | None = None
    labels: tuple[tuple[str, str | None], ...] = ()
    mask_environment: bool = False

    @property
    def everything(self) -> bool:
        """Whether it restricts endpoints only."""
        return self.owners is None and not self.labels

    def covers(self, owner: str, labels: Mapping[str, str]) -> bool:
        """Whether an object is within the scope."""
        if self.owners is not None and user_of(owner) not in self.owners:
            return False
        return all(name in labels and value in (None, labels[name]) for name, value in self.labels)


def spelled_endpoint(endpoint: str) -> str:
    """An endpoint without the names of its parameters: ``GET /containers/{}/json``."""
    return _PARAMETER.sub("{}", endpoint.strip())
