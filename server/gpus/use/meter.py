"""Whether containers compute on their GPUs."""

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.common import timeouts
from engine.common.system import cgroups
from engine.common.threads import run_in_thread
from server.gpus.catalog import Gpu
from server.gpus.use import drm, nvml

timeouts.define("gpus.measure", 10.0)  # one measurement of the use of GPUs; their use is unknown else

#: The part of the time that an engine of a GPU works, below which the GPU is unused.
BUSY = 0.01
_NVIDIA = "nvidia.com/"
_DRM = "/dev/dri/"


@dataclass(frozen=True, slots=True)
class Target:
    """A container with GPUs. ``started_ns``: of its run. ``cgroups``: the directories of its cgroup; its processes are
    in each of them. ``gpus``: None stands for one that the host's CDI specifications lack."""

    started_ns: int
    cgroups: tuple[str, ...]
    gpus: tuple[Gpu | None, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """What a container has done since the measurement before. ``unknown``: why the use of some GPU isn't known; "": it
    is."""

    used: bool = False
    unknown: str = ""


@dataclass(slots=True)
class _Before:
    """The last measurement of a container's run."""

    started_ns: int
    measured_ns: int
    counters: Mapping[drm.Engine, drm.Counter] = field(default_factory=dict)


class Meter:
    def __init__(self) -> None:
        self._before: dict[str, _Before] = {}
        self._measuring: asyncio.Future[dict[str, Use]] | None = None

    def forget(self, id: str) -> None:
        """The container is removed."""
        self._before.pop(id, None)

    async def measure(self, targets: Mapping[str, Target]) -> Mapping[str, Use]:
        """The use by these containers, by id. At the first measurement of a run, DRM's counters have no former values:
        they show no use."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.ensure_future(run_in_thread(self._measure, dict(targets)))
            # After a timeout nobody awaits the result: retrieve its exception, which asyncio would log.
            self._measuring.add_done_callback(lambda done: done.cancelled() or done.exception())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeouts.seconds("gpus.measure")):
                    return await asyncio.shield(self._measuring)
        # A driver that hangs has one thread of ours at most.
        return dict.fromkeys(targets, Use(unknown="the driver doesn't answer"))

    def _measure(self, targets: dict[str, Target]) -> dict[str, Use]:
        processes = None
        if nvidia := [id for id, target in targets.items() if any(map(_is_nvidia, target.gpus))]:
            processes = nvml.read(min(self._since(id, targets[id]).measured_ns for id in nvidia) // 1000)
        return {id: self._use(id, target, processes) for id, target in targets.items()}

    def _since(self, id: str, target: Target) -> _Before:
        """The last measurement of the present run; the run's start if there is none."""
        before = self._before.get(id)
        if before is None or before.started_ns != target.started_ns:
            return _Before(target.started_ns, target.started_ns)
        return before

    def _use(self, id: str, target: Target, processes: nvml.Processes | None) -> Use:
        now = time.time_ns()
        before = self._since(id, target)
        after = self._before[id] = _Before(target.started_ns, now)
        pids = _pids(target.cgroups)
        used, reasons = False, [f"{gpu.name}: no driver of this device is known" for gpu in _others(target.gpus)]
        if None in target.gpus:
            reasons.append("a GPU is in no CDI specification any more")
        if any(map(_is_drm, target.gpus)):
            clients = drm.read(pids)
            after.counters = clients.counters
            worked = clients.part(before.counters, now - before.measured_ns) > BUSY
            used = clients.computing or (before.measured_ns > before.started_ns and worked)
            reasons.append(clients.unknown)
        if processes is not None and any(map(_is_nvidia, target.gpus)):
            used = used or any(processes.used_us.get(pid, 0) * 1000 > before.measured_ns for pid in pids)
            reasons += [processes.failed, *(processes.unknown.get(pid, "") for pid in pids)]
        return Use(used, next(filter(None, reasons), ""))


def _is_nvidia(gpu: Gpu | None) -> bool:
    return gpu is not None and gpu.name.startswith(_NVIDIA)


def _is_drm(gpu: Gpu | None) -> bool:
    # NVIDIA's GPUs have nodes of DRM, too, whose files report nothing.
    return gpu is not None and not _is_nvidia(gpu) and any(node.startswith(_DRM) for node in gpu.nodes)


def _others(gpus: Iterable[Gpu | None]) -> list[Gpu]:
    return [gpu for gpu in gpus if gpu is not None and not _is_nvidia(gpu) and not _is_drm(gpu)]


def _pids(directories: Iterable[str]) -> list[int]:
    """The processes in a cgroup and below it."""
    for directory in directories:
        found: list[int] = []
        for place, _, _ in os.walk(directory):
            with contextlib.suppress(OSError):
                found += cgroups.processes(place)
        if found:
            return found
    return []
