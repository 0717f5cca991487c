"""Log options checked, for containers and for the daemon's defaults.

Values are checked here as far as dockerd checks them at create; file sizes and tags are read when the log is opened.
"""

from collections.abc import Mapping

from engine.common.errors import invalid
from server.logdrivers.drivers import DRIVERS
from server.logdrivers.values import FALSE, TRUE
from server.units import parse_size

_COMMON = frozenset(("mode", "max-buffer-size"))
_CACHE = frozenset(("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"))
#: Those that keep a file of their own; the others' lines are read from a copy ("dual logging").
FILES = frozenset(("json-file", "local"))
#: dockerd's other drivers: they speak the protocols of single vendors, for which there is no library here.
_VENDORS = frozenset(("splunk", "awslogs", "gcplogs", "etwlogs", "logentries"))


def check_log_options(kind: str, options: Mapping[str, str]) -> None:
    """:raises WharfError: INVALID_ARGUMENT in dockerd's sentences."""
    if kind == "none":
        return
    check_common(options)
    driver = DRIVERS.get(kind)
    if driver is None:
        if kind in _VENDORS:
            raise invalid(f"log driver {kind} is not supported by this engine: use syslog, gelf, fluentd or journald")
        raise invalid(f'error looking up logging plugin {kind}: plugin "{kind}" not found')
    for key in options:
        if key not in driver.options and key not in _COMMON and key not in _CACHE:
            raise invalid(driver.unknown.format(key=key, kind=kind))
    if driver.check is not None:
        driver.check(options)


def check_common(options: Mapping[str, str]) -> None:
    """What all drivers take. :raises WharfError: INVALID_ARGUMENT in dockerd's sentences."""
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
    if "cache-disabled" in options and options["cache-disabled"] not in TRUE + FALSE:
        raise invalid(f"invalid value for option cache-disabled: {options['cache-disabled']}")
