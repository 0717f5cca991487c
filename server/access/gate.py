"""The gate of an engine with a policy: finds the caller of each request, and the services for that caller."""

import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from engine.common.errors import Kind, WharfError
from server.access.audit import AuditLog
from server.access.caller import EVERYONE, Caller
from server.access.connections import Connections
from server.access.identity import Identity
from server.access.policy import Audit, Policy
from server.config.types import ConfigError

# The number of callers whose services are remembered.
_KEPT = 256


class Connection(Protocol):
    """The part of a connection that identifies its client."""

    @property
    def transport(self) -> Any: ...


def _open(table: Audit) -> AuditLog:
    try:
        return AuditLog(Path(table.file), size=table.size, files=table.files, reads=table.reads)
    except OSError as error:
        raise ConfigError(f"audit log {table.file}: {(error.strerror or str(error)).lower()}") from None


class Gated(Protocol):
    """The engine behind a gate."""

    def owner_of_process(self, pid: int) -> str | None:
        """The owner of the container with this process; None: it is in no container.

        :raises ProcessLookupError: the process doesn't exist.
        """

    def seen_by(self, caller: Caller) -> object:
        """The services for a caller."""

    def apply(self, policy: Policy) -> None:
        """Applies a new policy."""

    def caller_of_owner(self, owner: str) -> Caller:
        """The caller for processes in containers of a job socket, with the socket's limits.

        :raises WharfError: PERMISSION_DENIED: the socket is closed, or its user no longer has a role.
        """

    def request_of(self, owner: str) -> AbstractContextManager[None]:
        """Around each request of a job socket's owner.

        :raises WharfError: PERMISSION_DENIED: the socket is closed.
        """

    async def check_disk(self, owner: str) -> None:
        """Called before a request that stores something.

        :raises WharfError: PERMISSION_DENIED: the owner uses as much of the disk as its role allows.
        """

    def caller_of_job(self, path: str) -> Caller | None:
        """The caller of the connections of a job socket; None: the path is none of a job socket.

        :raises WharfError: PERMISSION_DENIED: its user no longer has a role.
        """


class Gate:
    """``policy`` None: only the sockets of ``fixed`` are restricted. ``identity`` makes a finder of callers for a
    policy. ``fixed``: the caller of all connections of a unix socket, by its path."""

    def __init__(
        self,
        engine: Gated,
        policy: Policy | None,
        fixed: Mapping[str, Caller],
        identity: Callable[[Policy], Identity] | None = None,
    ) -> None:
        self._engine = engine
        self._make_identity = identity or partial(Identity, owner_of_process=engine.owner_of_process)
        self._callers: WeakKeyDictionary[Connection, Caller] = WeakKeyDictionary()
        self._services: dict[object, object] = {}
        self._audit_table: Audit | None = None
        self.audit: AuditLog | None = None
        #: Counts the connections of users; None without a policy.
        self.connections: Connections | None = None
        self.reload(policy, fixed)

    def reload(self, policy: Policy | None, fixed: Mapping[str, Caller]) -> None:
        """Applies a new policy, or the engine's new configuration with the same policy, to all later requests.

        :raises ConfigError: the file of the audit log can't be opened.
        """
        self.policy = policy
        self._identity = self._make_identity(policy) if policy is not None else None
        self._fixed = dict(fixed)
        self._callers.clear()
        self._services.clear()
        if self._identity is not None and policy is not None:
            if self.connections is None:
                self.connections = Connections(self._identity)
            self.connections.identity = self._identity
            self._engine.apply(policy)
        table = policy.audit if policy is not None else None
        if table != self._audit_table:
            self.close()
            self._audit_table = table
            self.audit = _open(table) if table is not None else None

    def close(self) -> None:
        """Writes the rest of the audit log."""
        if self.audit is not None:
            self.audit.close()
            self.audit = None

    async def caller(self, connection: Connection) -> Caller:
        """The caller of a connection, which doesn't change for its later requests until a reload.

        :raises WharfError: PERMISSION_DENIED: the policy has no role for the client.
        """
        found = self._callers.get(connection)
        if found is None:
            found = self._callers[connection] = await self._find(connection.transport)
        return found

    async def caller_of_user(self, name: str) -> Caller:
        """The caller for a user of this host whose password was checked.

        :raises WharfError: PERMISSION_DENIED: the policy has no role for the user, or there is no policy.
        """
        if self._identity is None:
            raise WharfError(Kind.PERMISSION_DENIED, "this engine has no policy: it knows no users")
        return await self._identity.of_user(name)

    async def _find(self, transport: Any) -> Caller:
        # None with TLS, whose transport doesn't expose the socket.
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            path = sock.getsockname()
            found = self._fixed.get(path) or self._engine.caller_of_job(path)
            if found is not None:
                return found
        if self._identity is None:
            return EVERYONE
        found = await self._identity.caller(sock, transport.get_extra_info("ssl_object"))
        return self._engine.caller_of_owner(found.owner) if ":" in found.owner else found

    def request(self, caller: Caller) -> AbstractContextManager[None]:
        """Around each request.

        :raises WharfError: PERMISSION_DENIED: the caller is of a job socket that is closed.
        """
        return self._engine.request_of(caller.owner) if ":" in caller.owner else nullcontext()

    async def check_disk(self, owner: str) -> None:
        """See ``Gated.check_disk``."""
        await self._engine.check_disk(owner)

    def services(self, caller: Caller) -> object:
        """The services for a caller."""
        key = caller.owner, caller.administrator, caller.uid, caller.gids, caller.scope
        found = self._services.get(key)
        if found is None:
            if len(self._services) >= _KEPT:
                self._services.clear()
            found = self._services[key] = self._engine.seen_by(caller)
        return found
