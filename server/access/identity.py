"""The caller of a connection: the process at the other end of a unix socket, or a client certificate."""

import asyncio
import contextlib
import errno
import os
import pwd
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.common import limits
from engine.common.errors import Kind, WharfError
from server.access.caller import Caller
from server.access.owners import user_of
from server.access.policy import Policy, valid_owner

# linux/socket.h; Python has no names for these two. SO_PEERPIDFD is of Linux 6.5.
_SO_PEERGROUPS = 59
_SO_PEERPIDFD = 77
_CREDENTIALS = struct.Struct("iII")
# The largest result that Python's getsockopt takes.
_MAX_GROUPS = 256
# Seconds for which an account is remembered: the look-up may ask a directory server.
_ACCOUNTS_KEPT = 60.0

#: Returns the owner of the container with a process; None: the process is in no container. Raises ProcessLookupError.
OwnerOfProcess = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the host."""

    user: str
    uid: int
    gids: tuple[int, ...] = ()


def account_of_uid(uid: int) -> Account | None:
    """The host's user with a uid. Blocks."""
    try:
        return Account(pwd.getpwuid(uid).pw_name, uid)
    except KeyError:
        return None


def account_of_name(name: str) -> Account | None:
    """The host's user with a name, and its groups. Blocks."""
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, found.pw_uid, tuple(os.getgrouplist(name, found.pw_gid)))


class Identity:
    """Finds callers by one policy. ``by_uid`` and ``by_name`` look up the host's users, in a thread."""

    def __init__(
        self,
        policy: Policy,
        owner_of_process: OwnerOfProcess,
        *,
        by_uid: Callable[[int], Account | None] = account_of_uid,
        by_name: Callable[[str], Account | None] = account_of_name,
    ) -> None:
        self.policy = policy
        self._owner_of_process = owner_of_process
        self._by_uid = by_uid
        self._by_name = by_name
        self._accounts: dict[int | str, tuple[float, Account | None]] = {}

    async def caller(self, sock: Any, tls: ssl.SSLObject | None) -> Caller:
        """The caller at the other end of a connection. ``sock``: None with TLS; ``tls``: the connection's, if it has
        TLS.

        A process in a container speaks as the owner of the container, whatever its uid there; any other as its user.

        :raises WharfError: PERMISSION_DENIED: the policy has no role for the client, or it can't be identified.
        """
        if sock is None or sock.family != socket.AF_UNIX:
            return self._of_certificate(tls)
        pid, uid, gid = _CREDENTIALS.unpack(_credentials(sock))
        owner = self._owner_of_peer(sock, pid)
        if owner is not None:
            return await self._of_container(owner)
        gids = (gid, *_groups(sock))
        account = await self._account(uid, self._by_uid)
        if account is None:
            raise _denied(f"the uid {uid}, which is no user of this host")
        return self._of_account(Account(account.user, uid, gids))

    async def of_user(self, name: str) -> Caller:
        """The caller for a user of this host who has proved to be it.

        :raises WharfError: PERMISSION_DENIED: the policy has no role for the user.
        """
        account = await self._account(name, self._by_name)
        if account is None:
            raise _denied(f"the user {name}")
        return self._of_account(account)

    # For the count of connections, which is done before the caller of a request is asked for.

    def uid_of(self, sock: Any) -> int | None:
        """The uid of the process that connected; None: it is no unix socket."""
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        uid: int = _CREDENTIALS.unpack(_credentials(sock))[1]
        return uid

    def is_known(self, uid: int) -> bool:
        """Whether a look-up of this uid has ended."""
        return uid in self._accounts

    async def look_up(self, uid: int) -> None:
        """Looks the account of a uid up, unless that was done a short time ago."""
        await self._account(uid, self._by_uid)

    def bound_of(self, sock: Any, tls: ssl.SSLObject | None) -> tuple[str, int | None]:
        """The user of a connection, "" for none, and how many connections its role allows; None: any number.

        The uid's account must have been looked up; the groups of containers' owners are used as far as they are known.
        """
        if sock is None or sock.family != socket.AF_UNIX:
            name = _common_name(tls)
            if name in self.policy.administrators.certificates:
                return name, None
            return self._bound(name, ())
        pid, uid, gid = _CREDENTIALS.unpack(_credentials(sock))
        account = self._accounts[uid][1] if uid in self._accounts else None
        if account is not None:
            with contextlib.suppress(WharfError):
                gids = (gid, *_groups(sock))
                if self.policy.administers(account.user, uid, gids):
                    return account.user, None
                return self._bound(account.user, gids)
            return account.user, limits.USER_CONNECTIONS
        try:
            owner = self._owner_of_process(pid)
        except ProcessLookupError:
            owner = None
        if owner is None:
            return "", limits.USER_CONNECTIONS
        user = user_of(owner)
        known = self._accounts.get(user, (0.0, None))[1]
        return self._bound(user, known.gids if known is not None else ()) if user else ("root", None)

    def _bound(self, user: str, gids: tuple[int, ...]) -> tuple[str, int]:
        role = self.policy.role_of(user, gids)
        return user, (role.connections if role is not None else None) or limits.USER_CONNECTIONS

    def _owner_of_peer(self, sock: Any, pid: int) -> str | None:
        """The owner of the container of the process that connected.

        :raises WharfError: PERMISSION_DENIED: the process has ended: its pid tells nothing.
        """
        pidfd = _peer_pidfd(sock)
        try:
            owner = self._owner_of_process(pid)
            # If it lives still, the answer was about this process, and not about a later one with its pid.
            if pidfd >= 0 and _has_exited(pidfd):
                raise ProcessLookupError
        except ProcessLookupError:
            raise _denied("a client whose process or container has ended") from None
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        return owner

    async def _of_container(self, owner: str) -> Caller:
        if not owner:
            return Caller(user="root", uid=0, gids=(0,))
        user = user_of(owner)
        account = await self._account(user, self._by_name) or Account(user, -1)
        caller = self._user(user, account.uid, account.gids)
        return Caller(owner, administrator=False, role=caller.role, user=user, uid=caller.uid, gids=caller.gids)

    def _of_certificate(self, tls: ssl.SSLObject | None) -> Caller:
        name = _common_name(tls)
        if not name:
            raise _denied("a client without a certificate")
        if name in self.policy.administrators.certificates:
            return Caller(user=name)
        return self._user(name, -1, ())

    def _of_account(self, account: Account) -> Caller:
        if self.policy.administers(account.user, account.uid, account.gids):
            return Caller(user=account.user, uid=account.uid, gids=account.gids)
        return self._user(account.user, account.uid, account.gids)

    def _user(self, user: str, uid: int, gids: tuple[int, ...]) -> Caller:
        role = self.policy.role_of(user, gids) if valid_owner(user) else None
        if role is None:
            raise _denied(f"the user {user}")
        return Caller(owner=user, administrator=False, role=role, user=user, uid=uid, gids=gids)

    async def _account(self, key: Any, look_up: Callable[[Any], Account | None]) -> Account | None:
        until, account = self._accounts.get(key, (0.0, None))
        if until < time.monotonic():
            account = await asyncio.to_thread(look_up, key)
            self._accounts[key] = (time.monotonic() + _ACCOUNTS_KEPT, account)
        return account


def _credentials(sock: Any) -> bytes:
    """pid, uid and gid of the process that connected."""
    data: bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return data


def _common_name(tls: ssl.SSLObject | None) -> str:
    """The name in a client's verified certificate; "" without one."""
    subject: Mapping[str, Any] = (tls.getpeercert() if tls is not None else None) or {}
    names = [value for part in subject.get("subject", ()) for name, value in part if name == "commonName"]
    return names[-1] if names else ""


def _peer_pidfd(sock: Any) -> int:
    """A descriptor of the process that connected; -1: the kernel has none.

    :raises WharfError: PERMISSION_DENIED: the process has ended and is reaped.
    """
    try:
        pidfd: int = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            return -1
        raise _denied("a client whose process has ended") from None
    return pidfd


def _has_exited(pidfd: int) -> bool:
    poll = select.poll()  # select(2) takes no descriptor above 1023, and any client can open that many connections
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _groups(sock: Any) -> tuple[int, ...]:
    """The supplementary groups that the process had when it connected.

    :raises WharfError: PERMISSION_DENIED: more than ``_MAX_GROUPS``.
    """
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MAX_GROUPS * 4)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        raise _denied(f"a process in more than {_MAX_GROUPS} groups") from None
    return struct.unpack(f"{len(data) // 4}I", data)


def _denied(who: str) -> WharfError:
    return WharfError(Kind.PERMISSION_DENIED, f"the policy of this engine gives no role to {who}")
