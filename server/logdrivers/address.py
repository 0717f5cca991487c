"""Addresses of log servers, as the drivers' options name them; the sentences of a refusal are dockerd's."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.common.errors import WharfError, invalid


@dataclass(frozen=True, slots=True)
class Address:
    """``scheme`` "" is this host's own syslog. ``path`` for unix sockets, else ``host`` and ``port``."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""

    def wire(self) -> dict[str, object]:
        """As the shim reads it."""
        return {"scheme": self.scheme, "host": self.host, "port": self.port, "path": self.path}


def _split(text: str) -> tuple[str, str, str, str]:
    """Scheme, host, port and path. :raises WharfError: INVALID_ARGUMENT in the words of Go's url.Parse."""
    scheme, separator, _ = text.partition("://")
    if not separator:
        return "", text, "", ""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise invalid(f'parse "{text}": {error}') from None
    place = parts.netloc.rpartition("@")[2]
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = place.partition(":")
        if ":" in port:
            port = ":" + port.rpartition(":")[2]
    if port and not port.isdecimal():
        raise invalid(f'parse "{text}": invalid port ":{port.removeprefix(":")}" after host')
    return scheme.lower(), host, port, parts.path


def _port(text: str) -> int:
    number = int(text)
    if number > 65535:
        raise invalid(f'strconv.ParseUint: parsing "{text}": value out of range')
    return number


def syslog_address(text: str) -> Address:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not text:
        return Address()
    scheme, host, port, path = _split(text)
    if scheme in ("unix", "unixgram"):
        if not os.path.exists(path):
            raise invalid(f"stat {path}: no such file or directory")
        return Address(scheme, path=path)
    if scheme not in ("udp", "tcp", "tcp+tls"):
        raise invalid(f"unsupported scheme: '{scheme}'")
    return Address(scheme, host, _port(port or "514"))


def gelf_address(text: str) -> Address:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not text:
        raise invalid("gelf-address is a required parameter")
    scheme, host, port, _ = _split(text)
    if scheme not in ("udp", "tcp"):
        raise invalid("gelf: endpoint needs to be TCP or UDP")
    if not port:
        raise invalid("gelf: please provide gelf-address as proto://host:port")
    return Address(scheme, host, _port(port))


def fluentd_address(text: str) -> Address:
    """:raises WharfError: INVALID_ARGUMENT."""
    if not text:
        return Address("tcp", "127.0.0.1", 24224)
    where = f"invalid fluentd-address ({text}): "
    try:
        scheme, host, port, path = _split(text if "://" in text else f"tcp://{text}")
    except WharfError as error:
        raise invalid(where + error.message) from None
    if scheme == "unix":
        if not path.strip("/"):
            raise invalid(f"{where}path is empty")
        return Address("unix", path=path)
    if scheme not in ("tcp", "tls"):
        raise invalid(f"{where}unsupported scheme: '{scheme}'")
    if path.strip("/"):
        raise invalid(f"{where}should not contain a path element")
    if port and int(port) > 65535:
        raise invalid(f'{where}invalid port: strconv.ParseUint: parsing "{port}": value out of range')
    return Address(scheme, host or "127.0.0.1", int(port or 24224))
