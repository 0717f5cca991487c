"""Loads swarm mode when this node is part of a swarm: what the rest of the daemon imports of ``server.swarm``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.common.errors import Kind, WharfError, conflict, invalid, not_implemented
from engine.common.system import installation
from server.swarmtext import LOCKED, NO_MANAGER, NO_SWARM, SWARM_EXISTS

if TYPE_CHECKING:
    from api_models.swarm.cluster import InitRequest, JoinRequest
    from server.swarm.host import Host
    from server.swarm.manager import Manager

log = logging.getLogger(__name__)

_LEAVE_MANAGER = "You are attempting to leave the swarm on a node that is participating as a manager. "
_LEAVE_LAST = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
_LEAVE_FAILED = (
    "Doing so may lose the consensus of your cluster. The only way to restore a swarm that has lost consensus is to"
    " reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message."
)
_LEAVE_LOCKED = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
_NO_JOIN = "joining a swarm of several machines is not part of this engine yet"


class SwarmFacade:
    """Call ``start`` before use, ``stop`` at the end."""

    def __init__(self, directory: Path) -> None:
        """``directory``: of the swarm's files; it exists while this node is part of a swarm."""
        self._directory = directory
        self._make_host: Callable[[], Host] | None = None
        self._host: Host | None = None
        self._manager: Manager | None = None
        self._locked = False
        #: Why the swarm can't be used, for ``GET /info``.
        self._error = ""
        #: The advertised address, while the swarm can't be used.
        self._address = ""
        # One change of the membership at a time.
        self._lock = asyncio.Lock()
        self._origin = installation.identity()

    async def start(self, make_host: Callable[[], Host]) -> None:
        """Continues the swarm of this data root, if there is one. A failure is logged and shown by ``info``.

        ``make_host`` is called on the loop, after the modules are imported."""
        self._make_host = make_host
        if self._directory.exists():
            async with self._lock:
                await self._resume()

    async def stop(self) -> None:
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        manager, self._manager = self._manager, None
        if manager is not None:
            await manager.close()

    async def _load(self) -> Host:
        """:raises WharfError: UNAVAILABLE: the installation is another one than that which started this daemon."""
        if self._host is None:
            if installation.identity() != self._origin:
                raise WharfError(Kind.UNAVAILABLE, "wharfd was upgraded: restart it before using swarm mode")
            await asyncio.to_thread(import_module, "server.swarm.manager")
            assert self._make_host is not None, "the facade is not started"
            self._host = self._make_host()
        return self._host

    async def _resume(self) -> None:
        try:
            host = await self._load()
            from server.swarm import membership
            from server.swarm.keys import Locked
            from server.swarm.manager import resume

            known = await asyncio.to_thread(membership.load, self._directory)
            self._address = known.host if known is not None else ""
            try:
                self._manager = await resume(host)
            except Locked:
                self._locked, self._error = True, LOCKED
        except Exception as error:
            # The daemon serves containers without a swarm.
            self._error = str(error) or type(error).__name__
            expected = isinstance(error, WharfError | OSError)
            log.error("the swarm can't be started: %s", self._error, exc_info=not expected)

    # the state

    @property
    def local_state(self) -> str:
        """``LocalNodeState``: "inactive", "active", "locked" or "error"."""
        if self._manager is not None:
            return "active"
        if self._locked:
            return "locked"
        return "error" if self._error else "inactive"

    @property
    def status(self) -> str:
        """The header ``Swarm`` of a ping."""
        return "active/manager" if self._manager is not None else self.local_state

    def manager(self) -> Manager:
        """:raises WharfError: UNAVAILABLE: this node is no manager, or the swarm is locked."""
        if self._manager is None:
            raise WharfError(Kind.UNAVAILABLE, LOCKED if self._locked else NO_MANAGER)
        return self._manager

    def info(self, *, administrator: bool = True) -> dict[str, Any]:
        """``Swarm`` of ``GET /info``. Others than administrators can't control the swarm, so they see it as on a
        worker."""
        shown: dict[str, Any] = {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": self.local_state,
            "ControlAvailable": False,
            "Error": self._error,
            "RemoteManagers": None,
        }
        manager = self._manager
        if manager is not None:
            shown["NodeID"], shown["NodeAddr"] = manager.node_id, manager.membership.host
            shown["RemoteManagers"] = manager.cluster.managers()
            if administrator:
                shown["ControlAvailable"] = True
                shown.update(manager.cluster.info())
        elif self._error:
            shown["NodeAddr"] = self._address
        return shown

    # changes

    async def init(self, request: InitRequest) -> str:
        """Makes a swarm; returns the node's id.

        :raises WharfError: UNAVAILABLE: this node is part of one already; INVALID_ARGUMENT; NOT_IMPLEMENTED.
        """
        async with self._lock:
            if self.local_state != "inactive" and not request.force_new_cluster:
                raise WharfError(Kind.UNAVAILABLE, SWARM_EXISTS)
            if self.local_state in ("locked", "error"):
                self.manager()
            host = await self._load()
            from server.swarm.manager import create, isolate

            if self._manager is None:
                self._manager = await create(host, request)
            else:
                await isolate(self._manager, host, request)
                await self._close()
                await self._resume()
            return self.manager().node_id

    async def join(self, request: JoinRequest) -> None:
        """:raises WharfError: UNAVAILABLE: this node is part of a swarm; INVALID_ARGUMENT; NOT_IMPLEMENTED."""
        if self.local_state != "inactive":
            raise WharfError(Kind.UNAVAILABLE, SWARM_EXISTS)
        from server.swarm.operations.addresses import listen_addr

        listen_addr(request.listen_addr)
        if not request.remote_addrs:
            raise invalid("at least 1 RemoteAddr is required to join")
        raise not_implemented(_NO_JOIN)

    async def leave(self, *, force: bool) -> None:
        """Ends the swarm on this node and removes its containers, networks and state.

        :raises WharfError: UNAVAILABLE: this node is not part of a swarm; or without ``force``, the state of the swarm
            would be lost.
        """
        async with self._lock:
            if self.local_state == "inactive":
                raise WharfError(Kind.UNAVAILABLE, NO_SWARM)
            if not force:
                raise WharfError(Kind.UNAVAILABLE, self._why_not_leave())
            host = await self._load()
            await self._close()
            from server.swarm.manager import remove

            await remove(host)
            self._locked, self._error = False, ""

    def _why_not_leave(self) -> str:
        if self._locked:
            return _LEAVE_LOCKED
        return _LEAVE_MANAGER + (_LEAVE_LAST if self._manager is not None else _LEAVE_FAILED)

    async def unlock(self, key: str) -> None:
        """:raises WharfError: UNAVAILABLE: this node is no manager; CONFLICT: not locked; INVALID_ARGUMENT: no key;
        UNAUTHENTICATED: a wrong key."""
        async with self._lock:
            if self._manager is not None:
                raise conflict("swarm is not locked")
            if not self._locked:
                raise WharfError(Kind.UNAVAILABLE, NO_MANAGER)
            host = await self._load()
            from server.swarm.manager import resume

            self._manager = await resume(host, key)
            self._locked, self._error = False, ""
