"""``fluentd``: the forward protocol over TCP, TLS or a unix socket."""

from collections.abc import Callable, Mapping

from engine.common.errors import WharfError, invalid
from server.logdrivers.address import Address, split
from server.logdrivers.driver import META, Info, LogDriver
from server.logdrivers.values import parse_bool, parse_milliseconds, parse_unsigned
from server.units import parse_size

_PARSERS: Mapping[str, Callable[[str], object]] = {
    "fluentd-buffer-limit": parse_size,
    "fluentd-retry-wait": parse_milliseconds,
    "fluentd-max-retries": parse_unsigned,
    "fluentd-async": parse_bool,
    "fluentd-async-connect": parse_bool,
    "fluentd-async-reconnect-interval": parse_milliseconds,
    "fluentd-sub-second-precision": parse_bool,
    "fluentd-request-ack": parse_bool,
}


def _address(text: str) -> Address:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not text:
        return Address("tcp", "127.0.0.1", 24224)
    prefix = f"invalid fluentd-address ({text}): "
    try:
        scheme, host, port, path = split(text if "://" in text else f"tcp://{text}")
    except WharfError as error:
        raise invalid(prefix + error.message) from None
    if scheme == "unix":
        if not path.strip("/"):
            raise invalid(f"{prefix}path is empty")
        return Address("unix", path=path)
    if scheme not in ("tcp", "tls"):
        raise invalid(f"{prefix}unsupported scheme: '{scheme}'")
    if path.strip("/"):
        raise invalid(f"{prefix}should not contain a path element")
    if port and int(port) > 65535:
        raise invalid(f'{prefix}invalid port: strconv.ParseUint: parsing "{port}": value out of range')
    return Address(scheme, host or "127.0.0.1", int(port or 24224))


def _check(options: Mapping[str, str]) -> None:
    _address(options.get("fluentd-address", ""))
    if "fluentd-async" in options and "fluentd-async-connect" in options:
        raise invalid("conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'")
    try:
        for key, parse in _PARSERS.items():
            if options.get(key):
                parse(options[key])
    except ValueError as error:
        raise invalid(str(error)) from None
    interval = options.get("fluentd-async-reconnect-interval", "")
    if interval and not 100 <= parse_milliseconds(interval) <= 10_000:
        raise invalid(
            f'invalid value for fluentd-async-reconnect-interval: value ("{interval}") must be between 100ms and 10s'
        )


def _settings(info: Info) -> dict[str, object]:
    def enabled(name: str) -> bool:
        return parse_bool(info.options.get(f"fluentd-{name}") or "false")

    retry = info.options.get("fluentd-retry-wait") or info.options.get("fluentd-async-reconnect-interval") or "1s"
    found: dict[str, object] = {
        **_address(info.options.get("fluentd-address", "")).wire(),
        "tag": info.tag,
        "record": {
            "container_id": info.container_id,
            "container_name": f"/{info.container_name}",
            **info.attributes(),
        },
        "precise": enabled("sub-second-precision"),
        "receipts": enabled("request-ack"),
        "asynchronous": enabled("async") or enabled("async-connect"),
        "retry": parse_milliseconds(retry),
        "attempts": parse_unsigned(info.options.get("fluentd-max-retries") or "0"),
    }
    if info.options.get("fluentd-buffer-limit"):
        found["limit"] = parse_size(info.options["fluentd-buffer-limit"])
    return found


_NAMES = (
    *("address", "async", "async-connect", "async-reconnect-interval", "buffer-limit", "max-retries"),
    *("request-ack", "retry-wait", "sub-second-precision"),
)

DRIVERS = (
    LogDriver(
        name="fluentd",
        options=META | frozenset(f"fluentd-{name}" for name in _NAMES),
        check=_check,
        settings=_settings,
    ),
)
