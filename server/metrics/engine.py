"""The metrics of the engine itself: dockerd's by its names, and ours, which begin with ``wharf_``.

dockerd's metrics of its network controller, of swarm and of Go's runtime have no counterpart here.
"""

import platform
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Histogram, disable_created_metrics
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from engine.common.timeline import DONE, Record
from server.containers.model import Container
from server.containers.spec.host import HostFacts
from server.system import host
from server.version import GIT_COMMIT, SERVER_VERSION

#: The routes that dockerd times, with its names of the actions.
ACTIONS: Mapping[tuple[str, str], str] = {
    ("GET", "/containers/{name}/changes"): "changes",
    ("POST", "/commit"): "commit",
    ("POST", "/containers/create"): "create",
    ("DELETE", "/containers/{name:path}"): "delete",
    ("POST", "/containers/{name}/start"): "start",
}
#: The timelines whose phases are shown; others are of pulls and builds, whose names have no bound.
_TIMELINES = ("create", "start", "exit")
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_REQUEST = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0)
_LONG = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
#: dockerd's names of the reasons for which builds fail.
_BUILD_FAILURES = {"failed": "error_processing_commands_error", "cancelled": "build_canceled"}


@dataclass(frozen=True, slots=True)
class Gauges:
    """The state of the daemon at the time of a request. ``states``: containers by their status. ``listeners``:
    subscriptions to events. ``connections`` and ``requests``: those of the API that are open."""

    states: Mapping[str, int]
    events: int
    listeners: int
    connections: int
    requests: int


def count_states(containers: Iterable[Container]) -> Mapping[str, int]:
    """The numbers of containers by dockerd's three states."""
    states = Tally(container.state.status for container in containers)
    running, paused = states["running"] + states["restarting"], states["paused"]
    return {"paused": paused, "running": running, "stopped": states.total() - running - paused}


class Counters:
    """Counts the daemon's operations from now on; an observer of ``engine.common.timeline``."""

    def __init__(self) -> None:
        # A second sample for each counter and histogram, with the time of its creation, would say nothing here.
        disable_created_metrics()  # type: ignore[no-untyped-call] # of prometheus-client
        registry = self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        GCCollector(registry)
        self._actions = Histogram(
            "engine_daemon_container_actions_seconds",
            "The number of seconds it takes to process each container action",
            ("action",),
            registry=registry,
        )
        for action in sorted(ACTIONS.values()):
            self._actions.labels(action)
        self._builds = Counter("builder_builds_triggered", "Number of triggered image builds", registry=registry)
        self._failed_builds = Counter(
            "builder_builds_failed", "Number of failed image builds", ("reason",), registry=registry
        )
        for reason in _BUILD_FAILURES.values():
            self._failed_builds.labels(reason)
        self._requests = Histogram(
            "wharf_http_request_duration_seconds",
            "Time until the handler of a successful request had its response; the transfer of a stream comes after it.",
            ("method", "route"),
            registry=registry,
            buckets=_REQUEST,
        )
        self._errors = Counter(
            "wharf_http_request_errors", "Requests that ended with an error.", ("method", "route"), registry=registry
        )
        self._steps = Histogram(
            "wharf_container_phase_seconds",
            "Duration of each phase of creates, starts and exits of containers.",
            ("operation", "phase"),
            registry=registry,
        )
        self._operations = Histogram(
            "wharf_operation_seconds",
            "Duration of pulls, builds, and garbage collections of the build cache, by result.",
            ("operation", "result"),
            registry=registry,
            buckets=_LONG,
        )
        self.delay = Histogram(
            "wharf_event_loop_delay_seconds",
            "How late the event loop runs a timer; measured once a second while metrics are requested.",
            registry=registry,
            buckets=_FAST,
        )

    def request(self, method: str, path: str, seconds: float, *, failed: bool) -> None:
        """A handler has returned. ``path``: of its route."""
        if failed:
            self._errors.labels(method, path).inc()
            return
        self._requests.labels(method, path).observe(seconds)
        action = ACTIONS.get((method, path))
        if action is not None:
            self._actions.labels(action).observe(seconds)

    def ended(self, record: Record) -> None:
        if record.what in _TIMELINES:
            for phase in record.phases if record.result == DONE else ():
                if not phase.within:
                    self._steps.labels(record.what, phase.name).observe(phase.end - phase.begin)
            return
        self._operations.labels(record.what, record.result).observe(record.seconds)
        if record.what == "build":
            self._builds.inc()
            if (reason := _BUILD_FAILURES.get(record.result)) is not None:
                self._failed_builds.labels(reason).inc()


def families(gauges: Gauges, facts: HostFacts, *, identity: str, snapshotter: str) -> Iterator[Metric]:
    """The state of the engine. ``identity``: its ID. ``snapshotter``: what dockerd calls the graph driver."""
    states = GaugeMetricFamily(
        "engine_daemon_container_states_containers", "The count of containers in various states", labels=("state",)
    )
    for state, count in gauges.states.items():
        states.add_metric((state,), count)
    yield states
    yield GaugeMetricFamily("engine_daemon_engine_cpus_cpus", "The number of cpus of the host", facts.cpus)
    yield GaugeMetricFamily("engine_daemon_engine_memory_bytes", "The bytes of memory of the host", facts.memory)
    yield CounterMetricFamily("engine_daemon_events", "The number of events logged", gauges.events)
    yield GaugeMetricFamily(
        "engine_daemon_events_subscribers_total", "The number of current subscribers to events", gauges.listeners
    )
    about = {
        "architecture": platform.machine(),
        "commit": GIT_COMMIT,
        "daemon_id": identity,
        "graphdriver": snapshotter,
        "kernel": platform.release(),
        "os": host.operating_system(),
        "os_type": "linux",
        "os_version": host.os_release().get("VERSION_ID", ""),
        "version": SERVER_VERSION,
    }
    info = GaugeMetricFamily(
        "engine_daemon_engine_info",
        "The information related to the engine and the OS it is running on",
        labels=tuple(about),
    )
    info.add_metric(tuple(about.values()), 1)
    yield info
    yield GaugeMetricFamily("wharf_http_connections", "Open connections of the API.", gauges.connections)
    yield GaugeMetricFamily(
        "wharf_http_open_requests",
        "Requests of the API that are being answered: most of them are streams, such as events, logs and builds.",
        gauges.requests,
    )
