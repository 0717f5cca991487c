"""Loads swarm mode when this node is part of a swarm: what the rest of the daemon imports of ``server.swarm``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, conflict, invalid
from engine.common.system import installation
from server.swarmtext import JOIN_TIMEOUT, LOCKED, MAY_LOSE_CONSENSUS, NO_MANAGER, NO_SWARM, SWARM_EXISTS, WORKER

if TYPE_CHECKING:
    from api_models.swarm.cluster import InitRequest, JoinRequest
    from server.swarm.host import Host
    from server.swarm.keys import Keys
    from server.swarm.manager import Manager
    from server.swarm.requests import Requests
    from server.swarm.worker import Worker

log = logging.getLogger(__name__)

# That a request waits until the node has joined, a promotion for a place among the managers, and a new cluster of one
# node for its store.
timeouts.define("swarm.join", 20.0)

#: Seconds before a change of this node's part in the swarm is tried again.
_AGAIN = 5.0

_LEAVE_MANAGER = "You are attempting to leave the swarm on a node that is participating as a manager. "
_LEAVE_LOCKED = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
_REMOVED = "the swarm's managers have removed this node: leave the swarm with `docker swarm leave`"


class SwarmFacade:
    """Call ``start`` before use, ``stop`` at the end."""

    def __init__(self, directory: Path) -> None:
        """``directory``: of the swarm's files; it exists while this node is part of a swarm."""
        self._directory = directory
        self._join_file = directory.with_name(f"{directory.name}-join.json")
        self._make_host: Callable[[], Host] | None = None
        self._host: Host | None = None
        self._node: Manager | Worker | None = None
        self._change: asyncio.Task[None] | None = None
        #: The join that goes on after its request, or has failed then.
        self._join: asyncio.Task[None] | None = None
        #: The role that the managers want this node to have.
        self._role = ""
        self._locked = False
        #: Why the swarm can't be used, or this node's part in it can't be changed, for ``GET /info``.
        self._error = ""
        #: The managers have removed this node.
        self._removed = False
        #: The advertised address, while the swarm can't be used.
        self._address = ""
        # One change of the membership at a time.
        self._lock = asyncio.Lock()
        self._origin = installation.identity()

    async def start(self, make_host: Callable[[], Host]) -> None:
        """Continues the swarm of this data root, if there is one, and its join. A failure is logged and shown by
        ``info``. ``make_host`` is called on the loop, after the modules are imported."""
        self._make_host = make_host
        async with self._lock:
            if self._directory.exists():
                await self._resume()
            if self._join_file.exists():
                if self.local_state == "inactive":
                    self._begin_join(self._join_again())
                else:  # the former daemon was killed when the node had joined
                    self._join_file.unlink()

    async def stop(self) -> None:
        if self._change is not None:
            self._change.cancel()
            await asyncio.gather(self._change, return_exceptions=True)
        await self._end_join()
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            await node.close()

    async def _load(self) -> Host:
        """:raises WharfError: UNAVAILABLE: the installation is another one than that which started this daemon."""
        if self._host is None:
            if installation.identity() != self._origin:
                raise WharfError(Kind.UNAVAILABLE, "wharfd was upgraded: restart it before using swarm mode")
            await asyncio.to_thread(import_module, "server.swarm.transitions")
            assert self._make_host is not None, "the facade is not started"
            self._host = self._make_host()
        return self._host

    async def _resume(self, keys: Keys | None = None) -> None:
        """``keys``: of the manager that this process was, or has just become."""
        self._locked, self._error = False, ""
        try:
            host = await self._load()
            from server.swarm import membership
            from server.swarm.keys import Locked
            from server.swarm.transitions import resume

            known = await asyncio.to_thread(membership.load, self._directory)
            self._address = known.host if known is not None else ""
            try:
                self._node = await resume(host, self._requests(), keys=keys)
            except Locked:
                self._node, self._locked, self._error = None, True, LOCKED
        except Exception as error:  # the daemon serves containers without a swarm
            self._node, self._error = None, str(error) or type(error).__name__
            expected = isinstance(error, WharfError | OSError)
            log.error("the swarm can't be started: %s", self._error, exc_info=not expected)

    async def _join_again(self) -> Manager | Worker:
        host = await self._load()
        from server.swarm.pendingjoin import join_again

        return await join_again(host, self._requests(), self._join_file)

    # the state

    @property
    def local_state(self) -> str:
        """``LocalNodeState``: "inactive", "pending", "active", "locked" or "error"."""
        if self._node is not None:
            return "active"
        if self._join is not None:
            return "error" if self._join.done() else "pending"
        if self._locked:
            return "locked"
        return "error" if self._error else "inactive"

    @property
    def status(self) -> str:
        """The header ``Swarm`` of a ping."""
        return self.local_state if self._node is None else f"active/{self._node.membership.role}"

    def _manager(self) -> Manager | None:
        """The manager, also while it has no store."""
        node = self._node
        return None if node is None or node.worker else node

    def manager(self) -> Manager:
        """:raises WharfError: UNAVAILABLE: this node is no manager, the swarm is locked, or its store can't be
        reached."""
        node = self._node
        if node is None:
            if self.local_state == "pending":
                raise WharfError(Kind.UNAVAILABLE, WORKER)
            raise WharfError(Kind.UNAVAILABLE, LOCKED if self._locked else NO_MANAGER)
        if node.worker:
            raise WharfError(Kind.UNAVAILABLE, WORKER)
        node.check()
        return node

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
        node = self._node
        if node is not None:
            shown["NodeID"], shown["NodeAddr"] = node.membership.node_id, node.membership.host
            shown["RemoteManagers"] = node.managers()
            shown["Error"] = node.error or self._error
            if administrator and not node.worker:
                shown["ControlAvailable"] = True
                if not node.error:
                    shown.update(node.cluster.info())
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
            if self.local_state in ("pending", "locked", "error"):
                self.manager()
            host = await self._load()
            from server.swarm.membership import ETCD
            from server.swarm.transitions import create

            if self._node is None:
                self._node = await create(host, self._requests(), request)
                if host.options.store == ETCD:
                    await self._change_store()
            else:
                manager = self._manager()
                if manager is None:
                    raise WharfError(Kind.UNAVAILABLE, WORKER)
                from server.swarm.changes import isolate, stay_alone

                await isolate(manager, host, request)
                await self._begin_again()
                if (alone := self._manager()) is not None:
                    await stay_alone(alone)
            return self.manager().node_id

    async def join(self, request: JoinRequest) -> None:
        """After the deadline ``swarm.join`` the join goes on, in the next daemon, too, until it succeeds or fails, or
        ``leave`` ends it.

        :raises WharfError: UNAVAILABLE: this node is part of a swarm, no manager answers, or the deadline has passed;
            INVALID_ARGUMENT.
        """
        async with self._lock:
            if self.local_state != "inactive":
                raise WharfError(Kind.UNAVAILABLE, SWARM_EXISTS)
            from server.swarm.operations.addresses import listen_addr

            listen_addr(request.listen_addr)
            if not request.remote_addrs:
                raise invalid("at least 1 RemoteAddr is required to join")
            host = await self._load()
            from server.swarm.joining import join
            from server.swarm.pendingjoin import remember

            joining = self._begin_join(join(host, self._requests(), request))
            await asyncio.wait((joining,), timeout=timeouts.seconds("swarm.join"))
            if not joining.done():
                await remember(self._join_file, request)
            if not joining.done():
                raise WharfError(Kind.UNAVAILABLE, JOIN_TIMEOUT)
            self._join_file.unlink(missing_ok=True)
            self._join, self._error = None, ""
            joining.result()

    def _begin_join(self, join: Coroutine[object, object, Manager | Worker]) -> asyncio.Task[None]:
        self._join = asyncio.create_task(self._joined(join), name="swarm-join")
        return self._join

    async def _joined(self, join: Coroutine[object, object, Manager | Worker]) -> None:
        try:
            self._node = await join
        except Exception as error:
            self._join_file.unlink(missing_ok=True)
            self._error = str(error) or type(error).__name__
            log.warning("this node has not joined the swarm: %s", self._error)
            raise
        self._join_file.unlink(missing_ok=True)
        self._join, self._error = None, ""

    async def _end_join(self) -> bool:
        """Ends a join that goes on after its request, or has failed then. Returns whether nothing is left here."""
        join, self._join = self._join, None
        if join is None:
            return False
        join.cancel()
        await asyncio.gather(join, return_exceptions=True)
        self._error = ""
        return self._node is None

    async def leave(self, *, force: bool) -> None:
        """Ends the swarm on this node and removes its containers, networks and state.

        :raises WharfError: UNAVAILABLE: this node is not part of a swarm; or without ``force``, the state of the swarm
            would be lost.
        """
        async with self._lock:
            ended = await self._end_join()
            self._join_file.unlink(missing_ok=True)
            if ended:
                return
            if self.local_state == "inactive":
                raise WharfError(Kind.UNAVAILABLE, NO_SWARM)
            worker = self._node is not None and self._node.worker
            if not force and not worker and not self._removed:
                raise WharfError(Kind.UNAVAILABLE, self._why_not_leave())
            host = await self._load()
            if self._node is not None:
                await self._node.resign()
            await self._close()
            from server.swarm.transitions import remove

            await remove(host)
            self._locked, self._error, self._removed = False, "", False

    def _why_not_leave(self) -> str:
        if self._locked:
            return _LEAVE_LOCKED
        manager = self._manager()
        return _LEAVE_MANAGER + (MAY_LOSE_CONSENSUS if manager is None else manager.why_not_leave())

    async def unlock(self, key: str) -> None:
        """:raises WharfError: UNAVAILABLE: this node is no manager; CONFLICT: not locked; INVALID_ARGUMENT: no key;
        UNAUTHENTICATED: a wrong key."""
        async with self._lock:
            if self._manager() is not None:
                raise conflict("swarm is not locked")
            if not self._locked:
                raise WharfError(Kind.UNAVAILABLE, WORKER if self._node is not None else NO_MANAGER)
            host = await self._load()
            from server.swarm.transitions import resume

            self._node = await resume(host, self._requests(), key)
            self._locked, self._error = False, ""

    # what the running node asks for

    def _requests(self) -> Requests:
        from server.swarm.requests import Requests

        return Requests(
            role=self._want_role,
            etcd=lambda: self._begin(self._change_store),
            removed=lambda: self._begin(self._end),
        )

    def _want_role(self, role: str) -> None:
        # Also while a change is tried again: the managers may have taken it back.
        self._role = role
        self._begin(self._change_role)

    def _begin(self, change: Callable[[], Coroutine[None, None, None]]) -> None:
        if self._change is None or self._change.done():
            self._change = asyncio.create_task(self._run(change), name="swarm-change")

    async def _run(self, change: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            async with self._lock:
                try:
                    await change()
                    return
                except Exception as error:
                    self._error = str(error) or type(error).__name__
                    log.log(
                        logging.WARNING if isinstance(error, WharfError) else logging.ERROR,
                        "this node's part in the swarm can't be changed, and is tried again: %s",
                        error,
                        exc_info=not isinstance(error, WharfError),
                    )
                    if self._node is not None and self._node.closed:
                        await self._begin_again()
            await asyncio.sleep(_AGAIN)

    async def _begin_again(self, keys: Keys | None = None) -> None:
        """``keys``: of a worker that becomes a manager. Until the next one is there, the closed one is shown: the node
        is part of the swarm all the time."""
        node, manager = self._node, self._manager()
        if node is not None:
            await node.close()
        await self._resume(keys if manager is None else manager.keys)

    async def _change_role(self) -> None:
        from server.swarm.changes import demote, promote

        node, role = self._node, self._role
        if node is None or node.membership.role == role:
            self._error = ""
            return
        log.info("the swarm's managers want this node to be a %s", role)
        host, keys = self._host_loaded(), None
        if node.worker:
            keys = await promote(host, node)
        else:
            await demote(host, node)
        await self._begin_again(keys)

    async def _change_store(self) -> None:
        from server.swarm.changes import move
        from server.swarm.membership import SQLITE

        manager = self._manager()
        if manager is None or manager.membership.store != SQLITE:
            return
        await move(self._host_loaded(), manager)
        await self._begin_again()

    async def _end(self) -> None:
        """The managers have removed this node: it ends its tasks."""
        host, node = self._host_loaded(), self._node
        if node is None:
            return
        await self._close()
        await host.leave()
        self._error, self._removed = _REMOVED, True
        log.warning("%s", _REMOVED)

    def _host_loaded(self) -> Host:
        assert self._host is not None, "a running node has loaded it"
        return self._host
