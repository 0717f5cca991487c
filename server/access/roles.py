"""The role of an owner by the present policy: that of its user, whoever asks."""

import asyncio
import time
from collections.abc import Callable

from server.access.identity import Account, account_of_name
from server.access.owners import user_of
from server.access.policy import Policy, Role

# Seconds for which a user's role is remembered: the look-up of groups may ask a directory server.
_KEPT = 60.0


class Roles:
    """``bounds_of_job`` returns the limits of a job socket by the owner of what is created through it, None for other
    owners. ``by_name`` looks up the host's users, in a thread."""

    def __init__(
        self,
        policy: Policy,
        *,
        bounds_of_job: Callable[[str], Role | None] = lambda owner: None,
        by_name: Callable[[str], Account | None] = account_of_name,
    ) -> None:
        self._policy = policy
        self._by_name = by_name
        #: The limits of what is created through a job socket together, as a role without rights; None: it has none of
        #: its own, or the owner is no job socket's. The role of the user bounds it, too.
        self.of_job = bounds_of_job
        self._found: dict[str, tuple[float, Role | None]] = {}

    @property
    def policy(self) -> Policy:
        return self._policy

    def apply(self, policy: Policy) -> None:
        """Replaces the policy."""
        self._policy = policy
        self._found.clear()

    async def of(self, owner: str) -> Role | None:
        """The role of an owner's user; None: the user has none, or the owner is the administrators'."""
        user = user_of(owner)
        if not user:
            return None
        until, role = self._found.get(user, (0.0, None))
        if until < time.monotonic():
            account = await asyncio.to_thread(self._by_name, user)
            role = self._policy.role_of(user, account.gids if account is not None else ())
            self._found[user] = (time.monotonic() + _KEPT, role)
        return role
