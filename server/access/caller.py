"""The caller of a request, as services see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.access.policy import Role

#: The label of inspect and of lists, with which an administrator sees an object's owner.
OWNER_LABEL = "io.wharf.owner"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and for whose objects.

    ``owner``: the owner of what the caller creates, and the owner in whose names it looks up.
    ``administrator``: sees and changes the objects of all owners. ``role``: rights and limits; None: no limits.
    ``user``: the name for the audit log. ``uid`` and ``gids``: of the process that connected, in the host's user
    namespace; -1 and () without one (TLS).
    """

    owner: str = ""
    administrator: bool = True
    role: Role | None = None
    user: str = ""
    uid: int = -1
    gids: tuple[int, ...] = ()

    def sees(self, owner: str) -> bool:
        """Whether an object of this owner exists for the caller."""
        return self.administrator or owner == self.owner


#: Every caller of an engine without a policy, and the engine itself.
EVERYONE = Caller()


def user_of(owner: str) -> str:
    """The user to whom an owner belongs; "" for the administrators."""
    return owner.partition(":")[0]


def qualified(owner: str, name: str) -> str:
    """The engine-wide form of a name that each owner may use: ``@alice/data``; the name itself for administrators.

    Names of volumes and images can't begin with ``@``.
    """
    return f"@{owner}/{name}" if owner else name


def unqualified(name: str) -> tuple[str, str]:
    """The owner and the name of a ``qualified`` name."""
    if not name.startswith("@"):
        return "", name
    owner, _, own = name[1:].partition("/")
    return owner, own
