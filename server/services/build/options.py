"""What a build may be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of the processes of ``RUN``."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Resources of the containers of ``RUN``; 0 and "" are no limit."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassicOptions:
    """The query of ``POST /build``. ``build_args``: ``None`` takes no value from the client's environment."""

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
    extra_hosts: tuple[str, ...] = ()
    platform: str = ""
    limits: Limits = Limits()
    credentials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    build_id: str = ""
    squash: bool = False
