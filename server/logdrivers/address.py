"""Addresses of log servers in the drivers' options; the sentences of errors are dockerd's."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from engine.common.errors import invalid


@dataclass(frozen=True, slots=True)
class Address:
    """``scheme`` "": this host's syslog. ``path``: of a unix socket; else ``host`` and ``port`` are set."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""

    def wire(self) -> dict[str, object]:
        """The JSON form for the shim."""
        return {"scheme": self.scheme, "host": self.host, "port": self.port, "path": self.path}


def split(text: str) -> tuple[str, str, str, str]:
    """Scheme, host, port and path of an address; without ``://`` all of it is the host.

    :raises WharfError: INVALID_ARGUMENT, in the words of Go's url.Parse.
    """
    scheme, separator, _ = text.partition("://")
    if not separator:
        return "", text, "", ""
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise invalid(f'parse "{text}": {error}') from None
    host_port = parts.netloc.rpartition("@")[2]
    if host_port.startswith("["):
        host, _, rest = host_port[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = host_port.partition(":")
        if ":" in port:
            port = ":" + port.rpartition(":")[2]
    if port and not port.isdecimal():
        raise invalid(f'parse "{text}": invalid port ":{port.removeprefix(":")}" after host')
    return scheme.lower(), host, port, parts.path


def parse_port(text: str) -> int:
    """:raises WharfError: INVALID_ARGUMENT, in the words of Go's strconv: ``text`` (digits) exceeds 65535."""
    number = int(text)
    if number > 65535:
        raise invalid(f'strconv.ParseUint: parsing "{text}": value out of range')
    return number
