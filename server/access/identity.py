"""The caller of a connection: the process at the other end of a unix socket, or a client certificate."""

import asyncio
import errno
import pwd
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from typing import Any

from engine.common.errors import Kind, WharfError
from server.access.caller import Caller
from server.access.policy import Policy, valid_owner

# linux/socket.h; Python has no names for these two.
_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("iII")
# The largest result that Python's getsockopt takes.
_MOST_GROUPS = 256
# Seconds for which the name of a uid is remembered: the look-up may ask a directory server.
_NAMES_KEPT = 60.0


class Identity:
    """Finds callers by one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._names: dict[int, tuple[float, str]] = {}

    async def caller(self, sock: Any, tls: ssl.SSLObject | None) -> Caller:
        """The caller at the other end of a connected socket. ``tls``: the connection's, if it has TLS.

        :raises WharfError: PERMISSION_DENIED: the policy has no role for the client, or it can't be identified.
        """
        if sock.family == socket.AF_UNIX:
            return await self._of_process(sock)
        return self._of_certificate(tls)

    async def _of_process(self, sock: Any) -> Caller:
        _, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        gids = (gid, *_groups(sock))
        user = await self._name(uid)
        if self.policy.administers(user, uid, gids):
            return Caller(user=user, uid=uid, gids=gids)
        return self._user(user, uid, gids)

    def _of_certificate(self, tls: ssl.SSLObject | None) -> Caller:
        subject: Mapping[str, Any] = (tls.getpeercert() if tls is not None else None) or {}
        names = [value for part in subject.get("subject", ()) for name, value in part if name == "commonName"]
        if not names:
            raise _denied("a client without a certificate")
        if names[-1] in self.policy.administrators.certificates:
            return Caller(user=names[-1])
        return self._user(names[-1], -1, ())

    def _user(self, user: str, uid: int, gids: tuple[int, ...]) -> Caller:
        role = self.policy.role_of(user, gids) if valid_owner(user) else None
        if role is None:
            raise _denied(f"the user {user}")
        return Caller(owner=user, administrator=False, role=role, user=user, uid=uid, gids=gids)

    async def _name(self, uid: int) -> str:
        """The name of a uid; the number itself if the host has no such user."""
        until, name = self._names.get(uid, (0.0, ""))
        if until < time.monotonic():
            name = await asyncio.to_thread(_user_name, uid)
            self._names[uid] = (time.monotonic() + _NAMES_KEPT, name)
        return name


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups(sock: Any) -> tuple[int, ...]:
    """The supplementary groups that the process had when it connected.

    :raises WharfError: PERMISSION_DENIED: more than ``_MOST_GROUPS``.
    """
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raise _denied(f"a process in more than {_MOST_GROUPS} groups") from None
    return struct.unpack(f"{len(data) // 4}I", data)


def _denied(who: str) -> WharfError:
    return WharfError(Kind.PERMISSION_DENIED, f"the policy of this engine gives no role to {who}")
