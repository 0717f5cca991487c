"""The caller of a request, as services see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from server.access.scope import Scope

if TYPE_CHECKING:
    from server.access.policy import Role

_T = TypeVar("_T")
_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for whose objects.

    ``owner``: the owner of what the caller creates, and the owner in whose names it looks up.
    ``administrator``: sees and changes the objects of all owners. ``role``: rights and limits; None: no limits.
    ``user``: the name for the audit log. ``uid`` and ``gids``: of the process that connected, in the host's user
    namespace; -1 and () without one (TLS). ``scope``: restricts all of this; None: no restriction.
    """

    owner: str = ""
    administrator: bool = True
    role: Role | None = None
    user: str = ""
    uid: int = -1
    gids: tuple[int, ...] = ()
    scope: Scope | None = None

    @property
    def unrestricted(self) -> bool:
        """Whether it is an administrator without a scope."""
        return self.administrator and self.scope is None

    def sees(self, owner: str, labels: Mapping[str, str] = _NO_LABELS) -> bool:
        """Whether an object with this owner and these labels exists for the caller."""
        if self.scope is not None and not self.scope.covers(owner, labels):
            return False
        return self.administrator or owner == self.owner

    def choose(self, holders: Mapping[str, _T]) -> _T | None:
        """The object that the caller means by a name, of those that have it, by owner: the own one; else, for an
        administrator, the only one of all owners."""
        found = holders.get(self.owner)
        if found is None and self.administrator and len(holders) == 1:
            found = next(iter(holders.values()))
        return found


#: Every caller of an engine without a policy, and the engine itself.
EVERYONE = Caller()
