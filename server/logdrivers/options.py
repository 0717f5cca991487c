"""The checks of log options, for containers and for the daemon's defaults.

They check the values that dockerd checks at create. File sizes and tags are parsed at start, as in dockerd.
"""

from collections.abc import Mapping

from engine.common.errors import invalid
from server.logdrivers.drivers import DRIVERS
from server.logdrivers.values import FALSE, TRUE
from server.units import parse_size

_COMMON = frozenset(("mode", "max-buffer-size"))
_CACHE = frozenset(("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"))
#: The drivers that write a file. ``docker logs`` reads the lines of other drivers from a copy ("dual logging").
FILES = frozenset(("json-file", "local"))
#: Drivers of dockerd that this engine doesn't have: each needs the library of one vendor.
_VENDORS = frozenset(("splunk", "awslogs", "gcplogs", "etwlogs", "logentries"))


def check_log_options(kind: str, options: Mapping[str, str]) -> None:
    """Checks the options of the driver ``kind``.

    :raises WharfError: INVALID_ARGUMENT, with dockerd's sentences: an unknown driver, an unknown option or a bad value.
    """
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
    """Checks the options of all drivers.

    :raises WharfError: INVALID_ARGUMENT, with dockerd's sentences.
    """
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
