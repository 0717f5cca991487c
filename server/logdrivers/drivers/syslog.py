"""``syslog``: RFC 3164 and 5424 to this host's daemon or to a server."""

import os
from collections.abc import Mapping

from engine.common.errors import invalid
from server.logdrivers.address import Address, parse_port, split
from server.logdrivers.driver import META, Info, LogDriver

_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)
_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")


def _facility(text: str) -> int:
    """The number of a facility, from its name or number; "" is ``daemon``.

    :raises ValueError: an unknown facility.
    """
    if not text:
        return _FACILITIES.index("daemon")
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isdecimal() and int(text) < len(_FACILITIES):
        return int(text)
    raise ValueError("invalid syslog facility")


def _address(text: str) -> Address:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not text:
        return Address()
    scheme, host, port, path = split(text)
    if scheme in ("unix", "unixgram"):
        if not os.path.exists(path):
            raise invalid(f"stat {path}: no such file or directory")
        return Address(scheme, path=path)
    if scheme not in ("udp", "tcp", "tcp+tls"):
        raise invalid(f"unsupported scheme: '{scheme}'")
    return Address(scheme, host, parse_port(port or "514"))


def _check(options: Mapping[str, str]) -> None:
    _address(options.get("syslog-address", ""))
    try:
        _facility(options.get("syslog-facility", ""))
    except ValueError as error:
        raise invalid(str(error)) from None
    if options.get("syslog-format", "") not in _FORMATS:
        raise invalid("Invalid syslog format")


def _settings(info: Info) -> dict[str, object]:
    return {
        **_address(info.options.get("syslog-address", "")).wire(),
        "facility": _facility(info.options.get("syslog-facility", "")),
        "format": info.options.get("syslog-format", ""),
        "tag": info.tag,
        "hostname": os.uname().nodename,
        "ca": info.options.get("syslog-tls-ca-cert", ""),
        "cert": info.options.get("syslog-tls-cert", ""),
        "key": info.options.get("syslog-tls-key", ""),
        # As in dockerd, the option is true with any value.
        "skip-verify": "syslog-tls-skip-verify" in info.options,
    }


DRIVERS = (
    LogDriver(
        name="syslog",
        options=META
        | frozenset(f"syslog-{name}" for name in ("address", "facility", "format"))
        | frozenset(f"syslog-tls-{name}" for name in ("ca-cert", "cert", "key", "skip-verify")),
        check=_check,
        settings=_settings,
    ),
)
