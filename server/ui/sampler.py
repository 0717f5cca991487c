"""Samples what running containers and the machine use: every five seconds for the history, every two seconds while a
page is open. The counters are read in one thread; a pass costs 0.2 ms for each container."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from engine.common import limits
from server.containers.model import Container
from server.containers.run.cgroup import cgroup_of
from server.containers.service import Containers
from server.metrics.cgroups import Cgroups
from server.metrics.traffic import Devices, Interfaces
from server.ui.history import STEP, History, Sample

log = logging.getLogger(__name__)

#: Seconds between two passes while a page is open.
LIVE = 2.0


def _to_next_point() -> float:
    """Seconds until the middle of the next point of the history: a pass that is late is still within its point."""
    return STEP - time.time() % STEP + STEP / 2


@dataclass(frozen=True, slots=True)
class Pass:
    """``time``: seconds since the epoch. ``machine``: None in the first pass. ``containers``: by id; a container has
    its first sample in the second pass that finds it."""

    time: float
    machine: Sample | None
    containers: Mapping[str, Sample]


@dataclass(frozen=True, slots=True)
class _Counters:
    """The counters of one container at one time (``time.monotonic``), in the order of ``Sample``; memory is no
    counter."""

    at: float
    started_ns: int
    cpu: float
    memory: float
    received: int
    sent: int
    read: int
    written: int

    def since(self, earlier: "_Counters") -> Sample:
        seconds = max(self.at - earlier.at, 1e-3)
        return Sample(
            max(0.0, self.cpu - earlier.cpu) / seconds,
            self.memory,
            max(0, self.received - earlier.received) / seconds,
            max(0, self.sent - earlier.sent) / seconds,
            max(0, self.read - earlier.read) / seconds,
            max(0, self.written - earlier.written) / seconds,
        )


@dataclass(slots=True)
class Sampler:
    """``interfaces``: see ``Devices``. Run ``run`` as a task."""

    containers: Containers
    interfaces: Interfaces
    history: History
    _watchers: int = 0
    _before: dict[str, _Counters] = field(default_factory=dict)
    #: Busy and total time of all CPUs, in seconds, at the last pass.
    _cpu: tuple[float, float] = (0.0, 0.0)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _next: "asyncio.Future[Pass] | None" = None

    async def run(self) -> None:
        """Samples until it is cancelled."""
        while True:
            began = time.monotonic()
            try:
                done = await asyncio.to_thread(self._read, list(self.containers.registry))
            except OSError as error:
                log.warning("the use of containers could not be read: %s", error)
            else:
                self._publish(done)
            self._wanted.clear()
            pause = began + LIVE - time.monotonic() if self._watchers else _to_next_point()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, pause)):
                    await self._wanted.wait()

    @contextlib.contextmanager
    def watched(self) -> Iterator[AsyncIterator[Pass]]:
        """The passes from now on. A watcher that is late misses passes."""
        self._watchers += 1
        if self._watchers == 1:
            self._wanted.set()
        try:
            yield self._passes()
        finally:
            self._watchers -= 1

    async def _passes(self) -> AsyncIterator[Pass]:
        while True:
            if self._next is None:
                self._next = asyncio.get_running_loop().create_future()
            yield await asyncio.shield(self._next)

    def _publish(self, done: Pass) -> None:
        self.history.add(done.time, done.containers.items())
        if done.machine is not None:
            self.history.add(done.time, (("", done.machine),))
        if self._next is not None:
            self._next.set_result(done)
            self._next = None

    # in a thread

    def _read(self, containers: Iterable[Container]) -> Pass:
        cgroups = Cgroups(self.containers.context.facts.cgroups)
        devices = Devices(self.interfaces)
        found: dict[str, _Counters] = {}
        for container in containers:
            state = container.state
            if not state.running or state.restarting or len(found) >= limits.UI_HISTORIES:
                continue
            usage = cgroups.read(cgroup_of(self.containers.context, container), quota=False)
            if usage is None:
                continue
            traffic = devices.traffic(container)
            found[container.id] = _Counters(
                time.monotonic(),
                state.started_ns,
                usage.cpu_seconds,
                usage.working_set,
                sum(each.received_bytes for each in traffic),
                sum(each.sent_bytes for each in traffic),
                sum(each.read_bytes for each in usage.devices),
                sum(each.written_bytes for each in usage.devices),
            )
        before, self._before = self._before, found
        samples = {
            id: counters.since(earlier)
            for id, counters in found.items()
            # A container that was started anew has new counters.
            if (earlier := before.get(id)) is not None and earlier.started_ns == counters.started_ns
        }
        return Pass(time.time(), self._machine(), samples)

    def _machine(self) -> Sample | None:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        total, idle = sum(ticks), ticks[3] + ticks[4]
        busy_before, total_before = self._cpu
        self._cpu = total - idle, total
        passed = total - total_before
        if not total_before or passed <= 0:
            return None
        share = (total - idle - busy_before) / passed
        with open("/proc/meminfo") as file:
            memory = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in file)}
        return Sample(share * self.containers.context.facts.cpus, memory["MemTotal"] - memory.get("MemAvailable", 0))
