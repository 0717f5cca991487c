"""What a log driver declares of itself; ``drivers`` holds one module for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Options of the drivers that name a container in their records.
META = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))


@dataclass(frozen=True, slots=True)
class Info:
    """What a driver may say of a container (dockerd's ``logger.Info``). ``created`` is RFC 3339, ``tag`` is rendered.

    ``attributes``: what the options ``labels``, ``env`` and their regexes choose; it raises INTERNAL for a bad pattern.
    """

    container_id: str
    container_name: str
    image_id: str
    image_name: str
    command: str
    created: str
    tag: str
    options: Mapping[str, str]
    attributes: Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDriver:
    """``options``: those besides the ones that all drivers take. ``unknown``: dockerd's sentence for any other.

    ``check`` raises INVALID_ARGUMENT for values that make no sense, in dockerd's words. ``settings`` makes what the
    shim's module of the same name (``engine.shim.logs.remote``) reads of a driver that sends lines away; None: the
    driver keeps a file, or nothing.
    """

    name: str
    options: frozenset[str]
    unknown: str = "unknown log opt '{key}' for {kind} log driver"
    check: Callable[[Mapping[str, str]], None] | None = None
    settings: Callable[[Info], Mapping[str, object]] | None = None
