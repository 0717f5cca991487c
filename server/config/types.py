"""The types of settings that are no plain values, and the error of an invalid one."""

from collections.abc import Mapping
from dataclasses import dataclass, field


class ConfigError(Exception):
    """An invalid flag or key; the text is for the administrator."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An OCI runtime registered by name: a program, and arguments that precede every call's."""

    path: str = ""
    args: tuple[str, ...] = ()
    type: str = ""
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ulimit:
    """Default limits of a resource; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Networks without a subnet in their request get one of ``/size`` from ``base``."""

    base: str
    size: int


@dataclass(frozen=True, slots=True)
class GcRule:
    """One rule of ``builder.gc``: which records it affects, and how much of them stays. Sizes are bytes or "10%" of the
    disk.

    ``filters``: (name, value), as in ``docker builder prune --filter``. ``everything``: includes records that others
    are built on. ``reserved``: the size that always stays; ``most``: the maximum size; ``free``: the space to leave
    free on the disk. 0 is no limit.
    """

    filters: tuple[tuple[str, str], ...] = ()
    everything: bool = False
    reserved: int | str = 0
    most: int | str = 0
    free: int | str = 0


@dataclass(frozen=True, slots=True)
class BuilderGc:
    """The garbage collection of the build cache. Without ``rules``: all records, with the sizes given here."""

    enabled: bool = True
    rules: tuple[GcRule, ...] = ()
    reserved: int | str = "10%"
    most: int | str = 0
    free: int | str = 0
