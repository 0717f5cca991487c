"""Accounts: what each container has used, by day. Running containers are read once a minute, all in one pass, and each
once more at its exit; the time since the last pass is lost only if the shim was killed."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from engine.api.stdio import Stdio
from engine.common.errors import WharfError
from engine.shim import protocol
from server.containers.context import ContainerContext
from server.containers.model import Container
from server.containers.stdio.stdio import socket_path
from server.shares.sampler import Reading, traffic
from server.shares.store import Counters, Store, Usage
from server.shares.times import Read

log = logging.getLogger(__name__)

#: Seconds between two passes.
INTERVAL = 60.0
_GIB_HOUR = 2**30 * 3600 * 10**9
_DAY = 86400


class Accounting:
    """``layer``: the bytes of a container's writable layer, as far as they are known. ``links``: its devices on the
    host."""

    def __init__(
        self,
        context: ContainerContext,
        store: Store,
        *,
        read: Read,
        layer: Callable[[Container], int],
        links: Callable[[Container], list[str]],
    ) -> None:
        self._context = context
        self._store = store
        self._read = read
        self._layer = layer
        self._links = links
        #: The number of GPUs that a container has.
        self.gpus: Callable[[Container], float] = lambda container: 0.0
        #: Seconds for which sums are kept.
        self.keep = 90 * _DAY
        self._last: dict[str, Counters] = {}
        self._lock = asyncio.Lock()
        self._expired = ""
        context.hooks.removed.append(self._removed)

    async def load(self) -> None:
        """Continues with the counters of the last daemon."""
        self._last = await self._store.runs()

    async def usage(self, days: int, owner: str | None, most: int) -> list[Usage]:
        """What each container used today and on the days before, ``days`` together (UTC), with what runs now; at most
        ``most`` rows. ``owner``: also of its jobs; None: of all."""
        await self.sample()
        return await self._store.usage(first=_first_of(days), owner=owner, most=most)

    async def sums(self, days: int, owner: str | None) -> list[Usage]:
        """The same for all containers of each owner together."""
        await self.sample()
        return await self._store.sums(first=_first_of(days), owner=owner)

    async def today(self, owner: str | None) -> list[Usage]:
        """The sums of today (UTC) as they were at the last pass, without another one."""
        return await self._store.sums(first=_first_of(1), owner=owner)

    async def sample(self) -> None:
        """One pass over all running containers."""
        async with self._lock:
            running = [one for one in self._context.registry if one.state.running and not one.state.restarting]
            readings = await self._read(running)
            await self._add([(one, readings[one.id]) for one in running if one.id in readings])
        first = _day_before(self.keep)
        if first != self._expired:
            await self._store.expire(first)
            self._expired = first

    async def ended(self, container: Container) -> None:
        """The container's process has exited; its devices and its shim still exist. Errors are logged."""
        try:
            used: Mapping[str, object] = await Stdio(socket_path(self._context, container)).usage()
        except WharfError as error:
            log.debug("container=%s its shim has no usage: %s", container.id, error)
            used = {}
        received, sent = traffic(self._links(container))
        async with self._lock:
            last = self._last_of(container)
            cpu_ns = protocol.integer(used, "cpu_ns", last.cpu_ns if last is not None else 0)
            memory = last.memory if last is not None else protocol.integer(used, "memory")
            final = Reading(cpu_ns, memory, received, sent)
            try:
                await self._add([(container, final)])
            except WharfError as error:
                log.warning("container=%s its usage is not recorded: %s", container.id, error)

    async def _add(self, readings: Iterable[tuple[Container, Reading]]) -> None:
        now = time.time_ns()
        day = time.strftime("%Y-%m-%d", time.gmtime(now // 10**9))
        rows: list[Usage] = []
        counters: dict[str, Counters] = {}
        for container, reading in readings:
            started_ns = container.state.started_ns
            last = self._last_of(container) or Counters(started_ns, started_ns)
            elapsed = max(0, now - last.read_ns)
            rows.append(
                Usage(
                    day,
                    container.owner,
                    container.id,
                    container.name,
                    cpu_seconds=max(0, reading.cpu_ns - last.cpu_ns) / 1e9,
                    memory_gib_hours=reading.memory * elapsed / _GIB_HOUR,
                    gpu_hours=self.gpus(container) * elapsed / 3600e9,
                    disk_bytes=self._layer(container),
                    received_bytes=max(0, reading.received - last.received),
                    sent_bytes=max(0, reading.sent - last.sent),
                )
            )
            counters[container.id] = Counters(
                started_ns, now, reading.cpu_ns, reading.memory, reading.received, reading.sent
            )
        await self._store.add(rows, counters)
        self._last |= counters

    def _last_of(self, container: Container) -> Counters | None:
        """The counters of the container's present run, as they were read last."""
        last = self._last.get(container.id)
        return last if last is not None and last.started_ns == container.state.started_ns else None

    def _removed(self, container: Container) -> None:
        self._context.spawn(self._forget(container), f"account {container.id[:12]}")

    async def _forget(self, container: Container) -> None:
        self._last.pop(container.id, None)
        try:
            await self._store.forget(container.id)
        except WharfError as error:
            log.warning("container=%s its counters are not removed: %s", container.id, error)


def _first_of(days: int) -> str:
    return _day_before((days - 1) * _DAY)


def _day_before(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(max(0.0, time.time() - seconds)))
