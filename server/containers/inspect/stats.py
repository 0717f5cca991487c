"""``docker stats``: one record a second for each stream.

All streams share one sampler, which requests the metrics of all their containers with one call a second. It runs only
while there are streams.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from api_models.times import rfc3339
from engine.common.errors import WharfError
from server.containers.context import ContainerContext
from server.containers.inspect.stats_shape import (
    EMPTY,
    HostSample,
    Json,
    Sample,
    host_cpu,
    network_counters,
    record,
    sample,
)
from server.containers.model import Container
from server.containers.run.process import process_of

log = logging.getLogger(__name__)

INTERVAL = 1.0


@dataclass(slots=True, eq=False)
class _Listener:
    """A stream's queue of samples; None ends the stream."""

    container: Container
    queue: "asyncio.Queue[Sample | None]"

    def put(self, item: Sample | None) -> None:
        """Adds a sample. Drops the oldest one if the queue is full, as the client doesn't read."""
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(item)


class Stats:
    """Statistics of running containers; a container that doesn't run has empty records, as in dockerd."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._listeners: set[_Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        context.hooks.removed.append(self._removed)

    async def once(self, container: Container, *, one_shot: bool) -> Json:
        """One record. Without ``one_shot`` it comes after a second, with the former sample in ``precpu_stats``, from
        which clients compute the CPU percentage."""
        if not _has_process(container):
            return record(container.name, container.id, EMPTY)
        if one_shot:
            samples = await self._sample([container])
            return record(container.name, container.id, samples.get(container.id, EMPTY))
        before: Sample | None = None
        async for now in self._follow(container):
            if before is not None and before is not EMPTY:
                return record(container.name, container.id, now, before)
            if now is EMPTY:
                break
            before = now
        return record(container.name, container.id, EMPTY)

    async def stream(self, container: Container) -> AsyncIterator[Json]:
        """One record a second, until the container is removed or the caller closes the iterator."""
        before = EMPTY
        async for now in self._follow(container):
            yield record(container.name, container.id, now, before)
            before = now

    async def _follow(self, container: Container) -> AsyncIterator[Sample]:
        listener = _Listener(container, asyncio.Queue(2))
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="statistics")
        try:
            first = (await self._sample([container])).get(container.id, EMPTY)
            yield first
            while (item := await listener.queue.get()) is not None:
                if item is EMPTY or item.read != first.read:
                    yield item
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + INTERVAL
        while True:
            await asyncio.sleep(max(0.0, due - loop.time()))
            # After a slow call the missed samples are not caught up.
            due = max(due + INTERVAL, loop.time())
            watched = {listener.container.id: listener.container for listener in self._listeners}
            try:
                samples = await self._sample(list(watched.values()))
            except WharfError as error:
                log.warning("statistics: %s", error)
                continue
            for listener in tuple(self._listeners):
                listener.put(samples.get(listener.container.id, EMPTY))

    async def _sample(self, containers: list[Container]) -> dict[str, Sample]:
        """Samples by container id; without containers that don't run."""
        running = {container.id: container for container in containers if _has_process(container)}
        if not running:
            return {}
        metrics = await self._context.engine.tasks.metrics(list(running))
        host = self._host()
        found = {}
        for metric in metrics:
            container = running.get(metric.id)
            if container is None or metric.data is None:
                continue
            read = rfc3339(metric.timestamp_ns or time.time_ns())
            found[metric.id] = sample(read, metric.data, host, _networks(container))
        return found

    def _host(self) -> HostSample:
        with open("/proc/stat") as file:
            system, cpus = host_cpu(file.read(), self._ticks)
        return HostSample(system, cpus, self._memory)

    def _removed(self, container: Container) -> None:
        for listener in self._listeners:
            if listener.container is container:
                listener.put(None)

    async def close(self) -> None:
        """Ends all streams."""
        for listener in self._listeners:
            listener.put(None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None


def _has_process(container: Container) -> bool:
    return container.state.running and not container.state.restarting


def _networks(container: Container) -> dict[str, dict[str, int]] | None:
    """The counters of the container's interfaces; None: it uses the host's network, or has exited."""
    if container.host_config.network_mode == "host":
        return None
    try:
        with process_of(container) as process:
            return network_counters(process.read("net/dev").decode())
    except OSError:
        return None  # it has exited
