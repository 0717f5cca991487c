"""The limits of time: a maximum run time, and an idle limit.

A container is idle while it uses less than ``BUSY`` of a CPU and does not compute on its GPUs, no client is attached to
it, and no exec of a client runs in it. While the use of its GPUs is unknown, it is not idle, unless its role has
``ignore_unmeasured_gpus``.

It is warned in its log and by the event ``limit_warning`` before it is stopped; ``limit_reached`` says why it was. It
isn't restarted by a restart policy, as after ``docker stop``. A run begins with a start: a start on request begins
another. The time when a container was busy last is stored, and outlives the daemon.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.api.stdio import Stdio
from engine.common.errors import Kind, WharfError
from server.access.policy import Role
from server.access.roles import Roles
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.run.stop import stop_and_wait
from server.containers.stdio.stdio import socket_path
from server.shares.limits import is_kept
from server.shares.sampler import Reading
from server.shares.store import Store

log = logging.getLogger(__name__)

#: The part of one CPU below which a container is idle.
BUSY = 0.01
# Seconds between two checks at most, and between two samples of a container at least.
_LONGEST, _SHORTEST = 60.0, 0.5
# A warning comes a tenth of the limit before its end, but at most 10 minutes.
_LEAD = 600.0
_SECOND = 10**9

#: Reads the counters of running containers, by id.
Read = Callable[[Iterable[Container]], Awaitable[Mapping[str, Reading]]]


class GpuUse(Protocol):
    """What a container has done on its GPUs since it was measured before. ``unknown``: why it isn't known of all; "":
    it is."""

    @property
    def used(self) -> bool: ...
    @property
    def unknown(self) -> str: ...


#: Measures running containers; the result has those that have GPUs, by id.
Measure = Callable[[Iterable[Container]], Awaitable[Mapping[str, GpuUse]]]


@dataclass(slots=True)
class _Run:
    """One run of a container. ``busy_ns``: when it was busy last. ``warned``: the limits whose warning was sent.
    ``unknown``: why the use of its GPUs isn't known, as it was logged."""

    started_ns: int
    busy_ns: int
    sampled_ns: int = 0
    cpu_ns: int = 0
    warned: set[str] = field(default_factory=set)
    stopping: bool = False
    unknown: str = ""


class Times:
    """``active``: whether an exec of a client runs in a container, also one that an earlier daemon started."""

    def __init__(
        self,
        context: ContainerContext,
        roles: Roles,
        store: Store,
        *,
        read: Read,
        active: Callable[[Container], Awaitable[bool]],
        gpu_use: Measure,
    ) -> None:
        self._context = context
        self._roles = roles
        self._store = store
        self._read = read
        self._active = active
        self._gpu_use = gpu_use
        self._runs: dict[str, _Run] = {}
        self._stored: dict[str, tuple[int, int]] = {}
        self._changed = asyncio.Event()
        context.hooks.started.append(lambda container: self.recheck())

    def recheck(self) -> None:
        """A container has started, or the policy has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Checks the containers until it is cancelled."""
        self._stored = await self._store.busy()
        while True:
            self._changed.clear()
            try:
                seconds = await self._check()
            except Exception:
                log.exception("limits of time could not be checked")
                seconds = _LONGEST
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(_SHORTEST, seconds)):
                    await self._changed.wait()

    async def _check(self) -> float:
        """Seconds until the next check is due."""
        limited: list[tuple[Container, Role, _Run]] = []
        for container in self._context.registry:
            state = container.state
            if not container.owner or not state.running or state.restarting:
                continue
            role = await self._roles.of(container.owner)
            if role is None or (role.max_run_time is None and role.idle_limit is None):
                continue
            if not (role.keep and is_kept(container.labels)):
                limited.append((container, role, self._run_of(container)))
        running = {container.id for container, _, _ in limited}
        self._runs = {id: run for id, run in self._runs.items() if id in running}
        await self._sample([each for each in limited if each[1].idle_limit is not None])
        due = _LONGEST
        for container, role, run in limited:
            if role.max_run_time is not None:
                due = min(due, await self._apply(container, run, "max_run_time", role.max_run_time, run.started_ns))
            if role.idle_limit is not None:
                left = await self._apply(container, run, "idle_limit", role.idle_limit, run.busy_ns)
                due = min(due, left, role.idle_limit / 10)
        return due

    def _run_of(self, container: Container) -> _Run:
        started_ns = container.state.started_ns
        run = self._runs.get(container.id)
        if run is None or run.started_ns != started_ns:
            stored_run, busy_ns = self._stored.pop(container.id, (0, 0))
            run = _Run(started_ns, busy_ns if stored_run == started_ns else started_ns)
            self._runs[container.id] = run
        return run

    async def _sample(self, runs: list[tuple[Container, Role, _Run]]) -> None:
        """Finds out which containers are busy; skips those that were sampled just before, as each start of any
        container causes a check."""
        now = time.time_ns()
        runs = [each for each in runs if not 0 <= now - each[2].sampled_ns < _SHORTEST * _SECOND]
        readings = await self._read(container for container, _, _ in runs)
        uses = await self._gpu_use(container for container, _, _ in runs)
        changed: dict[str, tuple[int, int]] = {}
        for container, role, run in runs:
            now = time.time_ns()
            cpu_ns = reading.cpu_ns if (reading := readings.get(container.id)) is not None else run.cpu_ns
            # The first sample of this daemon has no former one to compare with.
            worked = run.sampled_ns > 0 and cpu_ns - run.cpu_ns > BUSY * (now - run.sampled_ns)
            run.sampled_ns, run.cpu_ns = now, cpu_ns
            computes = (use := uses.get(container.id)) is not None and self._computes(container, role, run, use)
            if worked or computes or await self._active(container) or await self._attached(container):
                run.busy_ns = now
                changed[container.id] = run.started_ns, now
        await self._store.put_busy(changed)

    def _computes(self, container: Container, role: Role, run: _Run, use: GpuUse) -> bool:
        """Whether a container is busy by the use of its GPUs; what isn't known is logged when the reason changes."""
        if use.used:
            return True
        if use.unknown != run.unknown:
            run.unknown = use.unknown
            if use.unknown:
                result = "it can be idle" if role.ignore_unmeasured_gpus else "it is never idle"
                log.warning("container=%s the use of its GPUs is unknown, so %s: %s", container.id, result, use.unknown)
        return bool(use.unknown) and not role.ignore_unmeasured_gpus

    async def _attached(self, container: Container) -> bool:
        try:
            return await Stdio(socket_path(self._context, container)).clients() > 0
        except WharfError as error:
            # A shim of an earlier version doesn't count its clients: one may be attached.
            return error.kind is Kind.NOT_IMPLEMENTED

    async def _apply(self, container: Container, run: _Run, name: str, limit: int, since_ns: int) -> float:
        """Warns or stops a container. Seconds until the next step."""
        left = limit - (time.time_ns() - since_ns) / _SECOND
        lead = min(limit / 10, _LEAD)
        if left > lead:
            run.warned.discard(name)
            return left - lead
        if left > 0:
            if name not in run.warned:
                run.warned.add(name)
                text = f"in {left:.0f} seconds this container is stopped: the policy's {name} is {limit} seconds"
                await self._announce(container, "limit_warning", name, limit, text)
            return left
        if not run.stopping:
            run.stopping = True
            text = f"this container is stopped: the policy's {name} is {limit} seconds"
            await self._announce(container, "limit_reached", name, limit, text)
            self._context.spawn(self._stop(container, run), f"stop {container.id[:12]}")
        return _LONGEST

    async def _announce(self, container: Container, action: str, name: str, limit: int, text: str) -> None:
        log.info("container=%s %s", container.id, text)
        self._context.publish(container, action, {"limit": name, "seconds": str(limit)})
        try:
            await Stdio(socket_path(self._context, container)).note(f"wharf: {text}")
        except WharfError as error:
            log.warning("container=%s the limit is not noted in its log: %s", container.id, error)

    async def _stop(self, container: Container, run: _Run) -> None:
        try:
            if container.state.started_ns == run.started_ns:
                await stop_and_wait(self._context, container)
        except WharfError as error:
            log.error("container=%s could not be stopped at its limit: %s", container.id, error)
        finally:
            run.stopping = False
