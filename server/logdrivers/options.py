"""Log drivers and their options: the one place that knows them, for containers and for the daemon's defaults.

Values are checked here as far as dockerd checks them at create; file sizes and tags are read when the log is opened.
The daemon's configuration is checked with it before anything else is loaded: it imports no models.
"""

import re
from collections.abc import Callable, Mapping

from engine.common.errors import invalid
from server.logdrivers.address import fluentd_address, gelf_address, syslog_address
from server.units import parse_size

_COMMON = frozenset(("mode", "max-buffer-size"))
_CACHE = frozenset(("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"))
_META = frozenset(("labels", "labels-regex", "env", "env-regex", "tag"))
_FILE = frozenset(("max-file", "max-size", "compress"))
#: driver → its options besides those that all take. A driver that isn't here is refused by name.
DRIVERS: Mapping[str, frozenset[str]] = {
    "json-file": _FILE | _META,
    "local": _FILE,
    "none": frozenset(),
    "syslog": _META
    | frozenset(f"syslog-{name}" for name in ("address", "facility", "format"))
    | frozenset(f"syslog-tls-{name}" for name in ("ca-cert", "cert", "key", "skip-verify")),
    "gelf": _META
    | frozenset(
        f"gelf-{name}"
        for name in ("address", "compression-level", "compression-type", "tcp-max-reconnect", "tcp-reconnect-delay")
    ),
    "fluentd": _META
    | frozenset(
        f"fluentd-{name}"
        for name in (
            *("address", "async", "async-connect", "async-reconnect-interval", "buffer-limit", "max-retries"),
            *("request-ack", "retry-wait", "sub-second-precision"),
        )
    ),
    "journald": _META,
}
#: Those that keep a file of their own; the others' lines are read from a copy ("dual logging").
FILES = frozenset(("json-file", "local"))
#: dockerd's other drivers: they speak the protocols of single vendors, for which there is no library here.
_VENDORS = frozenset(("splunk", "awslogs", "gcplogs", "etwlogs", "logentries"))

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)
SYSLOG_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")

_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+|0")
_MILLISECONDS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}


def parse_bool(text: str) -> bool:
    """:raises ValueError: in the words of Go's strconv."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def parse_unsigned(text: str) -> int:
    """:raises ValueError: in the words of Go's strconv."""
    if not text.isdecimal() or not text.isascii():
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def parse_milliseconds(text: str) -> int:
    """A duration of Go (``1s``, ``1m30s``). :raises ValueError: in the words of Go's time."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f'time: invalid duration "{text}"')
    parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", text)
    return int(sum(float(number) * _MILLISECONDS[unit] for number, unit in parts))


def parse_facility(text: str) -> int:
    """A name or a number. :raises ValueError: neither."""
    if not text:
        return FACILITIES.index("daemon")
    if text in FACILITIES:
        return FACILITIES.index(text)
    if text.isdecimal() and int(text) < len(FACILITIES):
        return int(text)
    raise ValueError("invalid syslog facility")


def check_log_options(kind: str, options: Mapping[str, str]) -> None:
    """:raises WharfError: INVALID_ARGUMENT in dockerd's sentences."""
    if kind == "none":
        return
    check_common(options)
    known = DRIVERS.get(kind)
    if known is None:
        if kind in _VENDORS:
            raise invalid(f"log driver {kind} is not supported by this engine: use syslog, gelf, fluentd or journald")
        raise invalid(f'error looking up logging plugin {kind}: plugin "{kind}" not found')
    for key in options:
        if key not in known and key not in _COMMON and key not in _CACHE:
            text = _UNKNOWN.get(kind, "unknown log opt '{key}' for {kind} log driver")
            raise invalid(text.format(key=key, kind=kind))
    if (check := _CHECKS.get(kind)) is not None:
        check(options)


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
    if "cache-disabled" in options and options["cache-disabled"] not in _TRUE + _FALSE:
        raise invalid(f"invalid value for option cache-disabled: {options['cache-disabled']}")


_UNKNOWN = {
    "local": "unknown log opt '{key}' for log driver {kind}",
    "gelf": 'unknown log opt "{key}" for {kind} log driver',
}


def _check_syslog(options: Mapping[str, str]) -> None:
    syslog_address(options.get("syslog-address", ""))
    try:
        parse_facility(options.get("syslog-facility", ""))
    except ValueError as error:
        raise invalid(str(error)) from None
    if options.get("syslog-format", "") not in SYSLOG_FORMATS:
        raise invalid("Invalid syslog format")


def _check_gelf(options: Mapping[str, str]) -> None:
    udp = gelf_address(options.get("gelf-address", "")).scheme == "udp"
    for key, value in options.items():
        if key.startswith("gelf-tcp-"):
            if udp:
                raise invalid(f'"{key}" is only valid for TCP')
            if not value.isdecimal():
                raise invalid(f'"{key}" must be a positive integer')
        elif key.startswith("gelf-compression-"):
            if not udp:
                raise invalid("compression is only supported on UDP")
            allowed = ("gzip", "zlib", "none") if key == "gelf-compression-type" else tuple(map(str, range(-1, 10)))
            if value not in allowed:
                raise invalid(f'unknown value "{value}" for log opt "{key}" for gelf log driver')


def _check_fluentd(options: Mapping[str, str]) -> None:
    fluentd_address(options.get("fluentd-address", ""))
    if "fluentd-async" in options and "fluentd-async-connect" in options:
        raise invalid("conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'")
    try:
        for key, parse in _FLUENTD.items():
            if options.get(key):
                parse(options[key])
    except ValueError as error:
        raise invalid(str(error)) from None
    interval = options.get("fluentd-async-reconnect-interval", "")
    if interval and not 100 <= parse_milliseconds(interval) <= 10_000:
        raise invalid(
            f'invalid value for fluentd-async-reconnect-interval: value ("{interval}") must be between 100ms and 10s'
        )


_FLUENTD: Mapping[str, Callable[[str], object]] = {
    "fluentd-buffer-limit": parse_size,
    "fluentd-retry-wait": parse_milliseconds,
    "fluentd-max-retries": parse_unsigned,
    "fluentd-async": parse_bool,
    "fluentd-async-connect": parse_bool,
    "fluentd-async-reconnect-interval": parse_milliseconds,
    "fluentd-sub-second-precision": parse_bool,
    "fluentd-request-ack": parse_bool,
}

_CHECKS: Mapping[str, Callable[[Mapping[str, str]], None]] = {
    "syslog": _check_syslog,
    "gelf": _check_gelf,
    "fluentd": _check_fluentd,
}
