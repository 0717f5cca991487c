"""``gelf``: GELF 1.1 over UDP or TCP."""

import os
from collections.abc import Mapping

from engine.common.errors import invalid
from server.logdrivers.address import Address, parse_port, split
from server.logdrivers.driver import META, Info, LogDriver


def _address(text: str) -> Address:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not text:
        raise invalid("gelf-address is a required parameter")
    scheme, host, port, _ = split(text)
    if scheme not in ("udp", "tcp"):
        raise invalid("gelf: endpoint needs to be TCP or UDP")
    if not port:
        raise invalid("gelf: please provide gelf-address as proto://host:port")
    return Address(scheme, host, parse_port(port))


def _check(options: Mapping[str, str]) -> None:
    udp = _address(options.get("gelf-address", "")).scheme == "udp"
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


def _settings(info: Info) -> dict[str, object]:
    fields = {
        "_container_id": info.container_id,
        "_container_name": info.container_name,
        "_image_id": info.image_id,
        "_image_name": info.image_name,
        "_command": info.command,
        "_tag": info.tag,
        "_created": info.created,
    }
    for key, value in info.attributes().items():
        fields[key if key.startswith("_") else f"_{key}"] = value
    return {
        **_address(info.options.get("gelf-address", "")).wire(),
        "hostname": os.uname().nodename,
        "fields": fields,
        "compression": info.options.get("gelf-compression-type", "gzip"),
        "level": int(info.options.get("gelf-compression-level", "1")),
        "attempts": int(info.options.get("gelf-tcp-max-reconnect", "3")),
        "delay": int(info.options.get("gelf-tcp-reconnect-delay", "1")),
    }


_NAMES = ("address", "compression-level", "compression-type", "tcp-max-reconnect", "tcp-reconnect-delay")

DRIVERS = (
    LogDriver(
        name="gelf",
        options=META | frozenset(f"gelf-{name}" for name in _NAMES),
        unknown='unknown log opt "{key}" for {kind} log driver',
        check=_check,
        settings=_settings,
    ),
)
