"""The gate of an engine with a policy: finds the caller of each request, and the services for that caller."""

import logging
import ssl
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from server.access.caller import Caller
from server.access.identity import Identity
from server.access.policy import Policy

log = logging.getLogger(__name__)

# The number of callers whose services are remembered.
_KEPT = 256


class Connection(Protocol):
    """The part of a connection that identifies its client."""

    @property
    def transport(self) -> Any: ...


class Gate:
    """``identity`` makes a finder of callers for a policy; ``bind`` makes the services for a caller from the engine's
    own."""

    def __init__(
        self, policy: Policy, identity: Callable[[Policy], Identity], bind: Callable[[Caller], object]
    ) -> None:
        self._make_identity = identity
        self._identity = identity(policy)
        self._bind = bind
        self._callers: WeakKeyDictionary[Connection, Caller] = WeakKeyDictionary()
        self._services: dict[tuple[str, bool, int, tuple[int, ...]], object] = {}

    @property
    def policy(self) -> Policy:
        return self._identity.policy

    def reload(self, policy: Policy) -> None:
        """Applies a new policy, or the engine's new configuration with the same policy, to all later requests."""
        self._identity = self._make_identity(policy)
        self._callers.clear()
        self._services.clear()

    async def caller(self, connection: Connection) -> Caller:
        """The caller of a connection, which doesn't change for its later requests until a reload.

        :raises WharfError: PERMISSION_DENIED: the policy has no role for the client.
        """
        found = self._callers.get(connection)
        if found is None:
            transport = connection.transport
            tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
            found = await self._identity.caller(transport.get_extra_info("socket"), tls)
            self._callers[connection] = found
        return found

    def services(self, caller: Caller) -> object:
        """The services for a caller."""
        key = caller.owner, caller.administrator, caller.uid, caller.gids
        found = self._services.get(key)
        if found is None:
            if len(self._services) >= _KEPT:
                self._services.clear()
            found = self._services[key] = self._bind(caller)
        return found
