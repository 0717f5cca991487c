"""Addresses of log servers, as the drivers' options name them; the sentences of a refusal are dockerd's."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.common.errors import invalid


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


def split(text: str) -> tuple[str, str, str, str]:
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


def parse_port(text: str) -> int:
    number = int(text)
    if number > 65535:
        raise invalid(f'strconv.ParseUint: parsing "{text}": value out of range')
    return number
