"""The declaration of a log driver; ``drivers`` has one module for each driver."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

#: Options that add a container's tag, labels and variables to records.
META = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))


@dataclass(frozen=True, slots=True)
class Info:
    """The properties of a container for a driver's records (dockerd's ``logger.Info``).

    ``created``: RFC 3339. ``tag``: rendered from its template. ``options``: the container's log options.
    ``attributes``: returns the labels and variables that ``labels``, ``env`` and their regexes select; raises INTERNAL
    for a malformed regex.
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
    """``options``: the driver's own options, besides those of all drivers. ``unknown``: dockerd's sentence for an
    unknown option.

    ``check`` raises INVALID_ARGUMENT for invalid values, in dockerd's words; None: there is nothing to check.
    ``settings`` returns the settings of a driver that sends lines to a server, for the shim's module of the same name
    (``engine.shim.logs.remote``); None: the driver writes a file, or nothing.
    """

    name: str
    options: frozenset[str]
    unknown: str = "unknown log opt '{key}' for {kind} log driver"
    check: Callable[[Mapping[str, str]], None] | None = None
    settings: Callable[[Info], Mapping[str, object]] | None = None
