"""The metrics of containers. Names, labels and meanings are cAdvisor's; those that it lacks begin with ``wharf_``."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.samples import Sample

from server.containers.model import Container
from server.metrics.targets import Collection, Measured


@dataclass(frozen=True, slots=True)
class _Family:
    """A family of samples. Names of counters end with ``_total``. ``value``: the attribute of ``Usage``, ``Traffic`` or
    ``DeviceUsage``."""

    name: str
    text: str
    value: str = ""

    def metric(self) -> Metric:
        if self.name.endswith("_total"):
            return CounterMetricFamily(self.name, self.text)
        return GaugeMetricFamily(self.name, self.text)


def _cpu_period(container: Container) -> float:
    return container.host_config.cpu_period or 100_000


def _cpu_quota(container: Container) -> float:
    """µs in each period; 0: no quota."""
    host = container.host_config
    return host.cpu_quota or host.nano_cpus * _cpu_period(container) / 1e9


def _health(container: Container) -> float:
    """As cAdvisor: 1 healthy, 0 starting or unhealthy, -1 without a health check."""
    health = container.state.health
    return -1 if health is None else float(health.status == "healthy")


_RECORD: tuple[tuple[_Family, Callable[[Container], float]], ...] = (
    (
        _Family("container_start_time_seconds", "Start time of the container since unix epoch in seconds."),
        lambda one: one.state.started_ns / 1e9,
    ),
    (
        _Family("container_spec_memory_limit_bytes", "Memory limit for the container."),
        lambda one: one.host_config.memory,
    ),
    (_Family("container_health_state", "The result of the container's health check"), _health),
    (
        _Family("wharf_container_restarts_total", "Restarts by the restart policy since the last start on request."),
        lambda one: one.restart_count,
    ),
)
_QUOTA: tuple[tuple[_Family, Callable[[Container], float]], ...] = (
    (_Family("container_spec_cpu_period", "CPU period of the container."), _cpu_period),
    (_Family("container_spec_cpu_quota", "CPU quota of the container."), _cpu_quota),
)
_CPU = _Family("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "cpu_seconds")
_USAGE = (
    _Family("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", "user_seconds"),
    _Family("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", "system_seconds"),
    _Family("container_memory_usage_bytes", "Current memory usage in bytes, page cache included.", "memory"),
    _Family("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", "memory_peak"),
    _Family("container_memory_working_set_bytes", "Current working set in bytes.", "working_set"),
    _Family("container_memory_rss", "Size of RSS in bytes.", "rss"),
    _Family("container_memory_cache", "Number of bytes of page cache memory.", "cache"),
    _Family("container_memory_swap", "Container swap usage in bytes.", "swap"),
    _Family("container_oom_events_total", "Count of out of memory events observed for the container", "oom_kills"),
    _Family("container_processes", "Number of processes running inside the container.", "processes"),
    _Family("container_threads", "Number of threads running inside the container", "threads"),
)
_THROTTLING = (
    _Family("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", "periods"),
    _Family("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", "throttled"),
    _Family(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        "throttled_seconds",
    ),
)
_RECEIVE, _TRANSMIT = "container_network_receive", "container_network_transmit"
_TRAFFIC = (
    _Family(f"{_RECEIVE}_bytes_total", "Cumulative count of bytes received", "received_bytes"),
    _Family(f"{_RECEIVE}_packets_total", "Cumulative count of packets received", "received_packets"),
    _Family(f"{_RECEIVE}_errors_total", "Cumulative count of errors while receiving", "received_errors"),
    _Family(
        f"{_RECEIVE}_packets_dropped_total", "Cumulative count of packets dropped while receiving", "received_dropped"
    ),
    _Family(f"{_TRANSMIT}_bytes_total", "Cumulative count of bytes transmitted", "sent_bytes"),
    _Family(f"{_TRANSMIT}_packets_total", "Cumulative count of packets transmitted", "sent_packets"),
    _Family(f"{_TRANSMIT}_errors_total", "Cumulative count of errors while transmitting", "sent_errors"),
    _Family(
        f"{_TRANSMIT}_packets_dropped_total", "Cumulative count of packets dropped while transmitting", "sent_dropped"
    ),
)
_DEVICES = (
    _Family("container_fs_reads_bytes_total", "Cumulative count of bytes read", "read_bytes"),
    _Family("container_fs_writes_bytes_total", "Cumulative count of bytes written", "written_bytes"),
)
_BLKIO = _Family("container_blkio_device_usage_total", "Blkio Device bytes usage")
_SEEN = _Family("container_last_seen", "Last time a container was seen by the exporter")
_LOGS = _Family("wharf_container_log_bytes", "Size of the container's log files in bytes.")
_GPU = _Family("wharf_container_gpu_allocated", "A GPU that is allocated to the container, by its CDI name.")
_OMITTED = _Family(
    "wharf_containers_omitted", "Running containers without metrics in this answer, see METRICS_CONTAINERS."
)

_Labels = dict[str, str]


def families(collection: Collection) -> Iterator[Metric]:
    """All metrics of the containers of a collection."""
    found = collection.containers
    for family, value in _RECORD:
        yield _filled(family, ((one.labels, value(one.container)) for one in found))
    quota = [one for one in found if _cpu_quota(one.container) > 0]
    for family, value in _QUOTA:
        yield _filled(family, ((one.labels, value(one.container)) for one in quota))
    yield _filled(_SEEN, ((one.labels, collection.read_ns // 10**9) for one in found))
    yield _filled(_LOGS, ((one.labels, one.log_bytes) for one in found if one.log_bytes is not None))
    yield _filled(_GPU, (({**one.labels, "gpu": gpu}, 1) for one in found for gpu in list(one.container.gpus)))
    usages = [(one.labels, one.usage) for one in found if one.usage is not None]
    yield _read(_CPU, [({**labels, "cpu": "total"}, usage) for labels, usage in usages])
    for each in _USAGE:
        yield _read(each, usages)
    throttled = [(one.labels, one.usage) for one in quota if one.usage is not None]
    for each in _THROTTLING:
        yield _read(each, throttled)
    yield from _traffic(found)
    yield from _devices(collection)
    yield _filled(_OMITTED, [({}, collection.omitted)])


def _filled(family: _Family, samples: Iterable[tuple[_Labels, float]]) -> Metric:
    metric, name = family.metric(), family.name
    metric.samples = [Sample(name, labels, value) for labels, value in samples]
    return metric


def _read(family: _Family, items: Iterable[tuple[_Labels, object]]) -> Metric:
    """The family's attribute of each item."""
    value = attrgetter(family.value)
    return _filled(family, ((labels, value(item)) for labels, item in items))


def _traffic(found: Iterable[Measured]) -> Iterator[Metric]:
    interfaces = [({**one.labels, "interface": each.interface}, each) for one in found for each in one.traffic]
    for family in _TRAFFIC:
        yield _read(family, interfaces)


def _devices(collection: Collection) -> Iterator[Metric]:
    name = collection.devices.name
    used = [
        ({**one.labels, "device": name(each.major, each.minor)}, each)
        for one in collection.containers
        if one.usage is not None
        for each in one.usage.devices
    ]
    for family in _DEVICES:
        yield _read(family, used)
    yield _filled(
        _BLKIO,
        (
            ({**labels, "major": each.major, "minor": each.minor, "operation": operation}, value)
            for labels, each in used
            for operation, value in (("Read", each.read_bytes), ("Write", each.written_bytes))
        ),
    )
