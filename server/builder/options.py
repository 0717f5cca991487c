"""The options of a build, as the routes parse them. The daemon's start loads this module, so it imports nothing of the
builder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits and hosts that a client sets for every process: ``HostConfig``'s names and units."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    cgroup_parent: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()
    extra_hosts: tuple[str, ...] = ()
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class ClassicOptions:
    """The query of ``POST /build``. A ``None`` in ``build_args``: the client's environment has no value for it."""

    dockerfile: str = "Dockerfile"
    remote: str = ""
    tags: tuple[str, ...] = ()
    quiet: bool = False
    no_cache: bool = False
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    target: str = ""
    network_mode: str = "default"
    platform: str = ""
    limits: Limits = field(default_factory=Limits)
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    build_id: str = ""
    squash: bool = False


@dataclass(frozen=True, slots=True)
class BuildKitOptions:
    """The query of ``POST /build?version=2``. ``outputs``: exporters with their attributes."""

    common: ClassicOptions
    session: str = ""
    outputs: Sequence[tuple[str, Mapping[str, str]]] = ()
