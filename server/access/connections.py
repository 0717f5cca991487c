"""The open connections of each user, of which the role allows so many.

The kernel says at the connect which uid connects; the user's name and role are known after a look-up, which may take
long. Until its first one has ended, connections of a uid are counted by the uid. Subordinate ids are no users: their
processes count for the owner of their container, all others together.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

from engine.common import limits
from engine.common.errors import Kind, Reason, WharfError

if TYPE_CHECKING:
    from server.access.identity import Identity

log = logging.getLogger(__name__)

# How many connections of a user above the bound are open at a time, until their first bytes come and they are answered.
# Any further one is closed at once.
_ANSWERED = 64
# Seconds between two messages in the log about a user.
_QUIET = 60.0


class Connection(Protocol):
    """A connection of the HTTP server."""

    @property
    def transport(self) -> Any: ...

    def refuse(self, error: WharfError) -> None:
        """Answers the next request with this error, and closes the connection."""


class Connections:
    """``identity``: of the present policy."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        # By user ("" for clients that are none): the connections that are served, and those that are refused.
        self._served: dict[str, set[Connection]] = {}
        self._refused: dict[str, set[Connection]] = {}
        self._user: dict[Connection, str] = {}
        # By uid: those that wait for the first look-up of its account, the oldest first; they are served till then.
        self._unknown: dict[int, dict[Connection, None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged: dict[str, float] = {}

    def opened(self, connection: Connection) -> None:
        """Serves the connection, or refuses it with 429."""
        uid = self.identity.uid_of(connection.transport.get_extra_info("socket"))
        if uid == 0:
            return  # root on the host, as which no container of a user runs unless its role allows that
        if uid is None or self.identity.is_known(uid):
            self._count(connection)
            return
        waiting = self._unknown.get(uid)
        if waiting is None:
            waiting = self._unknown[uid] = {}
            task = asyncio.create_task(self._look_up(uid), name=f"account of uid {uid}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(waiting) < limits.USER_CONNECTIONS:
            waiting[connection] = None
        else:
            connection.transport.abort()

    def closed(self, connection: Connection) -> None:
        """Ends the count of a connection."""
        user = self._user.pop(connection, None)
        if user is None:
            for waiting in self._unknown.values():
                waiting.pop(connection, None)
            return
        for found in (self._served, self._refused):
            open_ = found.get(user)
            if open_ is not None:
                open_.discard(connection)
                if not open_:
                    del found[user]

    async def _look_up(self, uid: int) -> None:
        try:
            await self.identity.look_up(uid)
        finally:
            for connection in self._unknown.pop(uid):
                self._count(connection)

    def _count(self, connection: Connection) -> None:
        info = connection.transport.get_extra_info
        user, limit = self.identity.bound_of(info("socket"), info("ssl_object"))
        if limit is None:
            return
        served = self._served.setdefault(user, set())
        if len(served) < limit:
            served.add(connection)
            self._user[connection] = user
            return
        self._report(user, limit)
        refused = self._refused.setdefault(user, set())
        if len(refused) >= _ANSWERED:
            connection.transport.abort()
            return
        refused.add(connection)
        self._user[connection] = user
        connection.refuse(
            WharfError(
                Kind.RESOURCE_EXHAUSTED,
                f"the policy allows you {limit} connections, and as many are open",
                reason=Reason.TOO_MANY_REQUESTS,
            )
        )

    def _report(self, user: str, limit: int) -> None:
        now = time.monotonic()
        if now - self._logged.get(user, -_QUIET) >= _QUIET:
            self._logged[user] = now
            log.warning("%s has %d connections, and gets no more", user or "clients that are no users", limit)
