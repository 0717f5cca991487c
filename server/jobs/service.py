"""The service of job sockets: creates, keeps and closes them, and removes what was created through them."""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from engine.common import limits, timeouts
from engine.common.errors import Kind, WharfError, invalid, not_found
from engine.common.sockets import BACKLOG
from engine.common.system import private
from engine.common.system.processes import start_time
from server.access.caller import Caller
from server.access.policy import Policy, Role
from server.jobs.cleanup import Bound, remove_all
from server.jobs.model import Job
from server.jobs.store import JobStore

log = logging.getLogger(__name__)

# Between two attempts to remove what is left of a job, and until its requests that still run are cancelled.
timeouts.define("job.retry", 10.0)
# The loop's timers are not exact over days: the time is compared again after this long.
_LONGEST_TIMER = 3600.0
#: The limits of a role that a job socket may narrow.
NARROWED = ("cpus", "memory", "pids", "containers", "disk", "gpus")
_OF_CGROUPS = frozenset(("cpus", "memory", "pids"))
# What an administrator's job with limits may do: all that administrators may.
_ALL_RIGHTS = {
    **dict.fromkeys(("privileged", "host_namespaces", "devices", "cgroup_parent", "security_options"), True),
    **dict.fromkeys(("plugins", "keep"), True),
    "capabilities": ("ALL",),
}


class Sockets(Protocol):
    """The HTTP server."""

    async def listen(self, sock: socket.socket) -> asyncio.Server:
        """Accepts on a listening socket."""

    def drop(self, path: str) -> None:
        """Ends the connections of a unix socket."""


class Jobs:
    """``bind`` makes the services of a caller. Call ``load`` before containers are started, ``open`` before use, and
    ``close`` at the end: the sockets stay for the next daemon."""

    def __init__(self, store: JobStore, directory: Path, bind: Callable[[Caller], Bound]) -> None:
        """``directory`` gets a directory for each socket."""
        self._store = store
        self._directory = directory
        self._bind = bind
        self._policy: Policy | None = None
        self._sockets: Sockets | None = None
        self._jobs: dict[str, Job] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._holders: dict[str, int] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        # The tasks of running requests, by their owner.
        self._requests: dict[str, set[asyncio.Task[Any]]] = {}

    async def load(self) -> None:
        """Reads the records of the last daemon: from now on the limits are known."""
        self._jobs = {job.id: job for job in await self._store.load()}

    async def open(self, sockets: Sockets) -> None:
        """Opens the sockets of the last daemon again, and continues to close those that it was closing."""
        self._sockets = sockets
        for job in list(self._jobs.values()):
            if job.closing:
                self._spawn_close(job)
            else:
                await self._serve(job)

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for id in list(self._holders):
            self._forget_holder(id)
        for server in self._servers.values():
            server.close()
        tasks = list(self._closing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def apply(self, policy: Policy) -> None:
        """Applies a new policy to all later requests."""
        self._policy = policy

    def path(self, id: str) -> Path:
        return self._directory / id / "docker.sock"

    def caller(self, path: str) -> Caller | None:
        """The caller of the connections of a job socket; None: the path is none of a job socket.

        :raises WharfError: PERMISSION_DENIED: the policy no longer has a role for the user.
        """
        job = self._jobs.get(os.path.basename(os.path.dirname(path)))
        return self._caller(job) if job is not None and str(self.path(job.id)) == path else None

    def of(self, owner: str) -> Caller:
        """The caller for processes in containers of a job socket.

        :raises WharfError: PERMISSION_DENIED: the socket is closed, or its user no longer has a role.
        """
        return self._caller(self._open_job(owner))

    def _open_job(self, owner: str) -> Job:
        job = self._find(owner)
        if job is None or job.closing:
            raise WharfError(Kind.PERMISSION_DENIED, "the job socket of this client is closed")
        return job

    @contextlib.contextmanager
    def request(self, owner: str) -> Iterator[None]:
        """Around each request of a job socket's owner. The request may create an object after its client has gone, so
        the removal waits for its end.

        :raises WharfError: PERMISSION_DENIED: the socket is closed.
        """
        self._open_job(owner)
        task = asyncio.current_task()
        assert task is not None
        running = self._requests.setdefault(owner, set())
        running.add(task)
        try:
            yield
        finally:
            running.discard(task)
            if not running:
                self._requests.pop(owner, None)

    def _find(self, owner: str) -> Job | None:
        job = self._jobs.get(owner.partition(":")[2])
        return job if job is not None and job.owner == owner else None

    def bounds(self, owner: str) -> Role | None:
        """The limits that a job socket was made with, by the owner of what is created through it; None: none."""
        job = self._find(owner)
        return Role(**job.limits) if job is not None and job.limits else None

    def _caller(self, job: Job) -> Caller:
        user = job.user or "root"
        return Caller(job.owner, administrator=False, role=self._role(job), user=user, uid=job.uid, gids=job.gids)

    def _role(self, job: Job) -> Role | None:
        if not job.user:
            return Role(**_ALL_RIGHTS, **job.limits) if job.limits else None  # type: ignore[arg-type]
        role = self._policy.role_of(job.user, job.gids) if self._policy is not None else None
        if role is None:
            raise WharfError(Kind.PERMISSION_DENIED, f"the policy of this engine gives no role to the user {job.user}")
        narrowed = {name: _least(getattr(role, name), value) for name, value in job.limits.items()}
        if not _OF_CGROUPS.isdisjoint(narrowed):
            narrowed["cgroup_parent"] = False  # another parent would not have the limits
        return role.model_copy(update=narrowed)

    def visible(self, caller: Caller) -> list[Job]:
        """The sockets of the caller's user; for an administrator all. The oldest first."""
        found = [job for job in self._jobs.values() if caller.administrator or job.user == caller.owner]
        return sorted(found, key=lambda job: job.created_ns)

    async def create(
        self,
        caller: Caller,
        *,
        labels: Mapping[str, str],
        ttl: int = 0,
        holder: int = 0,
        narrowed: Mapping[str, Any] | None = None,
    ) -> Job:
        """Makes a socket. ``ttl``: seconds, 0: no end. ``holder``: the pid of the process that holds it, 0: none.
        ``narrowed``: limits of the role by their names.

        :raises WharfError: PERMISSION_DENIED: a job socket or a client without a user of this host asks;
            INVALID_ARGUMENT: a limit, or the holder is no process of the caller; RESOURCE_EXHAUSTED: too many.
        """
        if ":" in caller.owner:
            raise WharfError(Kind.PERMISSION_DENIED, "a job socket can't create job sockets")
        if len(self.visible(caller)) >= limits.JOB_SOCKETS:
            raise limits.exceeded("JOB_SOCKETS", "the number of job sockets")
        if ttl < 0:
            raise invalid(f"invalid TTL: {ttl}")
        bounds = _checked(narrowed or {})
        job = Job(
            id=secrets.token_hex(8),
            user=caller.owner,
            uid=max(caller.uid, 0) if caller.administrator else caller.uid,
            gids=caller.gids,
            created_ns=time.time_ns(),
            expires_ns=time.time_ns() + ttl * 10**9 if ttl else 0,
            holder=holder,
            holder_started=_started(holder, caller) if holder else 0,
            labels=dict(labels),
            limits=bounds,
        )
        await self._store.put(job)
        self._jobs[job.id] = job
        try:
            await self._serve(job)
        except BaseException:
            self._spawn_close(job)
            raise
        return job

    async def remove(self, caller: Caller, id: str) -> None:
        """Closes a socket and removes what was created through it; waits for the end.

        :raises WharfError: NOT_FOUND; INTERNAL: what could not be removed yet. The removal continues.
        """
        job = next((job for job in self.visible(caller) if job.id == id), None)
        if job is None:
            raise not_found(f"No such socket: {id}")
        await asyncio.shield(self._spawn_close(job))

    # one socket

    async def _serve(self, job: Job) -> None:
        """Binds the socket, and waits for the end of its time and of its holder."""
        assert self._sockets is not None
        path = self.path(job.id)
        sock = await asyncio.to_thread(_listen, path, max(job.uid, 0))
        self._servers[job.id] = await self._sockets.listen(sock)
        self._wait_for_time(job)
        if job.holder:
            self._wait_for_holder(job)

    def _wait_for_time(self, job: Job) -> None:
        if not job.expires_ns or job.id not in self._jobs:
            return
        left = (job.expires_ns - time.time_ns()) / 1e9
        if left <= 0:
            log.info("job socket %s: its time has ended", job.id)
            self._spawn_close(job)
            return
        loop = asyncio.get_running_loop()
        self._timers[job.id] = loop.call_later(min(left, _LONGEST_TIMER), self._wait_for_time, job)

    def _wait_for_holder(self, job: Job) -> None:
        try:
            pidfd = os.pidfd_open(job.holder)
            if start_time(job.holder) != job.holder_started:
                os.close(pidfd)
                raise ProcessLookupError
        except ProcessLookupError:
            self._holder_ended(job)
            return
        self._holders[job.id] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._holder_ended, job)

    def _holder_ended(self, job: Job) -> None:
        log.info("job socket %s: the process %d that held it has exited", job.id, job.holder)
        self._spawn_close(job)

    def _forget_holder(self, id: str) -> None:
        pidfd = self._holders.pop(id, -1)
        if pidfd >= 0:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)

    def _spawn_close(self, job: Job) -> "asyncio.Task[None]":
        task = self._closing.get(job.id)
        if task is None:
            job.closing = True
            task = asyncio.create_task(self._close(job), name=f"close job socket {job.id}")
            self._closing[job.id] = task
            task.add_done_callback(lambda _: self._closing.pop(job.id, None))
        return task

    async def _close(self, job: Job) -> None:
        """Ends the socket and its connections, then removes the objects until nothing is left and no request runs."""
        if (timer := self._timers.pop(job.id, None)) is not None:
            timer.cancel()
        self._forget_holder(job.id)
        if (server := self._servers.pop(job.id, None)) is not None:
            server.close()
        if self._sockets is not None:
            self._sockets.drop(str(self.path(job.id)))
        await self._store.put(job)
        services = self._bind(Caller(job.owner, administrator=False))
        while True:
            # Before the removal, which does not see what these create meanwhile.
            running = list(self._requests.get(job.owner, ()))
            left = await remove_all(services, job.owner)
            if running:
                # With their containers most that are attached to them have ended.
                _, late = await asyncio.wait(running, timeout=timeouts.seconds("job.retry"))
                for task in late:
                    task.cancel()
            elif left:
                log.warning("job socket %s: not removed yet: %s", job.id, "; ".join(left))
                await asyncio.sleep(timeouts.seconds("job.retry"))
            else:
                break
        await asyncio.to_thread(shutil.rmtree, self._directory / job.id, ignore_errors=True)
        await self._store.delete(job.id)
        self._jobs.pop(job.id, None)


def _listen(path: Path, uid: int) -> socket.socket:
    """Binds a socket that every process may use that reaches it: the directory is the user's, and a container gets the
    socket by a bind."""
    private.make_directory(path.parent.parent, private.PASSABLE)
    private.make_directory(path.parent)
    os.chown(path.parent, uid, -1)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        path.chmod(0o666)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _started(pid: int, caller: Caller) -> int:
    """The start time of the holder.

    :raises WharfError: INVALID_ARGUMENT: it is no process of the caller.
    """
    try:
        owned = caller.administrator or os.stat(f"/proc/{pid}").st_uid == caller.uid
        started = start_time(pid)
    except (FileNotFoundError, ProcessLookupError):
        owned, started = False, 0
    if not owned:
        raise invalid(f"invalid holder: {pid} is no process of yours")
    return started


def _checked(narrowed: Mapping[str, Any]) -> dict[str, Any]:
    """:raises WharfError: INVALID_ARGUMENT: an unknown limit, or an invalid value."""
    for name in narrowed:
        if name not in NARROWED:
            raise invalid(f"invalid limit: {name}: a job socket can limit {', '.join(NARROWED)}")
    try:
        role = Role(**narrowed)
    except ValueError as error:
        raise invalid(f"invalid limits: {error}") from None
    return {name: getattr(role, name) for name in narrowed}


def _least(one: Any, other: Any) -> Any:
    return other if one is None else min(one, other)
