"""The metrics of owners, on an engine with a policy. The label ``owner`` is a user, with the user's job sockets; it is
empty for administrators.

Counters are today's accounts (UTC), which the daemon brings up to date once a minute: they start at 0 each day, which
Prometheus handles as it handles the restart of a program.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.access.owners import user_of
from server.containers.model import Container

if TYPE_CHECKING:
    from server.shares.store import Usage

_GIB_HOUR = 2**30 * 3600


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a user has at present. ``gpus``: different ones."""

    containers: int
    running: int
    gpus: int


def count(containers: Iterable[Container]) -> dict[str, Holdings]:
    """The holdings of the owners of these containers, by user."""
    every: Counter[str] = Counter()
    running: Counter[str] = Counter()
    gpus: dict[str, set[str]] = {}
    for one in containers:
        user = user_of(one.owner)
        every[user] += 1
        running[user] += one.state.running
        gpus.setdefault(user, set()).update(one.gpus if one.state.running else ())
    return {user: Holdings(number, running[user], len(gpus[user])) for user, number in every.items()}


def families(held: dict[str, Holdings], accounts: "Iterable[Usage]") -> Iterator[Metric]:
    """``accounts``: a row for each owner."""
    for name, text, attribute in (
        ("wharf_owner_containers", "Containers of the owner.", "containers"),
        ("wharf_owner_running_containers", "Running containers of the owner.", "running"),
        ("wharf_owner_gpus", "GPUs that are allocated to the owner's containers.", "gpus"),
    ):
        gauge = GaugeMetricFamily(name, text, labels=("owner",))
        for user in sorted(held):
            gauge.add_metric((user,), getattr(held[user], attribute))
        yield gauge
    rows = list(accounts)
    for name, text, attribute, factor in (
        ("wharf_owner_cpu_seconds_total", "CPU time of today.", "cpu_seconds", 1),
        ("wharf_owner_memory_byte_seconds_total", "Memory of today, times seconds.", "memory_gib_hours", _GIB_HOUR),
        ("wharf_owner_gpu_seconds_total", "GPU time of today.", "gpu_hours", 3600),
        ("wharf_owner_network_receive_bytes_total", "Bytes received today.", "received_bytes", 1),
        ("wharf_owner_network_transmit_bytes_total", "Bytes sent today.", "sent_bytes", 1),
    ):
        sums: Counter[str] = Counter()
        for row in rows:
            sums[user_of(row.owner)] += getattr(row, attribute) * factor
        counter = CounterMetricFamily(name, text, labels=("owner",))
        for user in sorted(sums):
            counter.add_metric((user,), sums[user])
        yield counter
