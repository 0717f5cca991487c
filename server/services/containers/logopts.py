"""Log drivers and their options, as far as create checks them (the values are read when the log is opened)."""

import re

from api_models.container import LogConfig
from engine.errors import invalid

_COMMON = frozenset(("mode", "max-buffer-size"))
_CACHE = frozenset(("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"))
_META = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
#: driver → its options. A driver that isn't here is refused by name.
DRIVERS: dict[str, frozenset[str] | None] = {
    "json-file": frozenset(("max-file", "max-size", "compress")) | _META,
    "local": frozenset(("max-file", "max-size", "compress")),
    "none": None,
}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(?:i?b)?\s*", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}


def parse_size(text: str) -> int:
    """``10m`` → bytes (binary units, as ``docker`` reads memory sizes).

    :raises ValueError: in dockerd's words.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def merge_log_config(own: LogConfig, default: LogConfig) -> LogConfig:
    """The container's log settings with the daemon's defaults filled in, checked.

    :raises WharfError: INVALID_ARGUMENT naming the driver or option.
    """
    kind = own.type or default.type
    options = dict(own.config or {})
    if kind == default.type:
        for key, value in (default.config or {}).items():
            options.setdefault(key, value)
    check_log_options(kind, options)
    return LogConfig(type=kind, config=options)


def check_log_options(kind: str, options: dict[str, str]) -> None:
    """:raises WharfError: INVALID_ARGUMENT in dockerd's sentences."""
    if kind == "none":
        return
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise invalid(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            parse_size(options["max-buffer-size"])
        except ValueError as error:
            raise invalid(f"error parsing option max-buffer-size: {error}") from None
    known = DRIVERS.get(kind)
    if known is None:
        raise invalid(f'error looking up logging plugin {kind}: plugin "{kind}" not found')
    for key in options:
        if key not in known and key not in _COMMON and key not in _CACHE:
            where = "for log driver local" if kind == "local" else f"for {kind} log driver"
            raise invalid(f"unknown log opt '{key}' {where}")
