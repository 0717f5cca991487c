"""Reads what running containers have used until now: files of cgroups and counters of network devices. All functions
block for some microseconds for each container."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.common.system.cgroups import CgroupLayout, container_directories


@dataclass(frozen=True, slots=True)
class Target:
    """What to read of one container. ``cgroup``: its path in every hierarchy. ``links``: devices of the host."""

    cgroup: str
    links: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters of one run. ``memory``: bytes at present, page cache included. Traffic as the container sees it."""

    cpu_ns: int
    memory: int
    received: int = 0
    sent: int = 0


def read(layout: CgroupLayout, target: Target) -> Reading | None:
    """None: the container has no cgroup any more."""
    places = container_directories(layout, target.cgroup)
    if layout.v2:
        cpu = _number(places.get(""), "cpu.stat", 1000)  # begins with usage_usec
        memory = _number(places.get(""), "memory.current")
    else:
        cpu = _number(places.get("cpuacct"), "cpuacct.usage")
        memory = _number(places.get("memory"), "memory.usage_in_bytes")
    if cpu is None:
        return None
    received, sent = traffic(target.links)
    return Reading(cpu, memory or 0, received, sent)


def read_all(layout: CgroupLayout, targets: Mapping[str, Target]) -> dict[str, Reading]:
    """As ``read`` for several containers, by their ids; without those that have no cgroup."""
    found = ((id, read(layout, target)) for id, target in targets.items())
    return {id: reading for id, reading in found if reading is not None}


def traffic(links: Sequence[str]) -> tuple[int, int]:
    """Bytes that a container has received and sent over the host's ends of its devices."""
    received = sent = 0
    for link in links:
        place = f"/sys/class/net/{link}/statistics"
        received += _number(place, "tx_bytes") or 0
        sent += _number(place, "rx_bytes") or 0
    return received, sent


def _number(place: str | None, name: str, factor: int = 1) -> int | None:
    """The last word of a file's first line."""
    if place is None:
        return None
    try:
        with open(os.path.join(place, name)) as file:
            return int(file.readline().split()[-1]) * factor
    except (OSError, ValueError, IndexError):
        return None
