"""The metrics of ``--metrics-addr`` in Prometheus' text format, by dockerd's names.

dockerd's metrics of the builder, of swarm and of Go's runtime have no counterpart here and are omitted.
"""

import os
import platform
import resource
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from server.containers.service import Containers
from server.containers.spec.host import HostFacts
from server.events import EventBus
from server.system import host
from server.version import GIT_COMMIT, SERVER_VERSION

#: The upper bounds of a histogram's buckets in seconds (those of Prometheus' client libraries).
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: The routes that are timed, with dockerd's names of the actions.
ACTIONS: Mapping[tuple[str, str], str] = {
    ("GET", "/containers/{name}/changes"): "changes",
    ("POST", "/commit"): "commit",
    ("POST", "/containers/create"): "create",
    ("DELETE", "/containers/{name:path}"): "delete",
    ("POST", "/containers/{name}/start"): "start",
}


class _Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class Metrics:
    """``identity``: the engine's ID. ``snapshotter``: what dockerd calls the graph driver."""

    def __init__(
        self, containers: Containers, bus: EventBus, facts: HostFacts, *, identity: str, snapshotter: str
    ) -> None:
        self._containers = containers
        self._bus = bus
        self._facts = facts
        self._identity = identity
        self._snapshotter = snapshotter
        self._actions = {name: _Histogram() for name in sorted(ACTIONS.values())}

    def observe(self, method: str, path: str, seconds: float) -> None:
        """Count a request that succeeded; ``path`` is the path of its route."""
        action = ACTIONS.get((method, path))
        if action is not None:
            self._actions[action].add(seconds)

    def text(self) -> bytes:
        """Return all metrics, in version 0.0.4 of the text format."""
        return "".join(f"{line}\n" for line in self._lines()).encode()

    def _lines(self) -> Iterator[str]:
        yield from self._histograms()
        states = Counter(container.state.status for container in self._containers.registry)
        running = states["running"] + states["restarting"]
        paused = states["paused"]
        counts = {"paused": paused, "running": running, "stopped": states.total() - running - paused}
        yield from _family(
            "engine_daemon_container_states_containers",
            "gauge",
            "The count of containers in various states",
            ((f'{{state="{state}"}}', count) for state, count in counts.items()),
        )
        single = (
            ("engine_daemon_engine_cpus_cpus", "gauge", "The number of cpus of the host", self._facts.cpus),
            ("engine_daemon_engine_memory_bytes", "gauge", "The bytes of memory of the host", self._facts.memory),
            ("engine_daemon_events_total", "counter", "The number of events logged", self._bus.published),
            (
                "engine_daemon_events_subscribers_total",
                "gauge",
                "The number of current subscribers to events",
                self._bus.listeners,
            ),
        )
        for name, kind, text, value in single:
            yield from _family(name, kind, text, [("", value)])
        yield from _family(
            "engine_daemon_engine_info",
            "gauge",
            "The information related to the engine and the OS it is running on",
            [(_labels(self._about()), 1)],
        )
        yield from _process()

    def _histograms(self) -> Iterator[str]:
        name = "engine_daemon_container_actions_seconds"
        yield f"# HELP {name} The number of seconds it takes to process each container action"
        yield f"# TYPE {name} histogram"
        for action, histogram in self._actions.items():
            below = 0
            for bound, count in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
                below += count
                yield f'{name}_bucket{{action="{action}",le="{bound.removesuffix(".0")}"}} {below}'
            yield f'{name}_sum{{action="{action}"}} {histogram.total:.6f}'
            yield f'{name}_count{{action="{action}"}} {below}'

    def _about(self) -> dict[str, str]:
        return {
            "architecture": platform.machine(),
            "commit": GIT_COMMIT,
            "daemon_id": self._identity,
            "graphdriver": self._snapshotter,
            "kernel": platform.release(),
            "os": host.operating_system(),
            "os_type": "linux",
            "os_version": host.os_release().get("VERSION_ID", ""),
            "version": SERVER_VERSION,
        }


def _labels(labels: Mapping[str, str]) -> str:
    def quoted(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{quoted(value)}"' for name, value in labels.items()) + "}"


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{labels} {value}"


def _process() -> Iterator[str]:
    """The daemon's own process, with the metrics of Prometheus' client libraries."""
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    with open("/proc/stat") as file:
        booted = next((int(line.split()[1]) for line in file if line.startswith("btime ")), int(time.time()))
    ticks = os.sysconf("SC_CLK_TCK")
    for name, kind, text, value in (
        ("cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", sum(os.times()[:2])),
        ("max_fds", "gauge", "Maximum number of open file descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("open_fds", "gauge", "Number of open file descriptors.", host.open_files()),
        (
            "resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        ),
        (
            "start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            booted + int(fields[19]) / ticks,
        ),
        ("virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", int(fields[20])),
    ):
        yield from _family(f"process_{name}", kind, text, [("", value)])
