"""The addresses of ``-H``, on which the API listens."""

import ipaddress
import os
import re
from dataclasses import dataclass

from engine.common.sockets import join_host_port
from server.config.types import ConfigError

DEFAULT_TCP_PORT = 2375
DEFAULT_TLS_PORT = 2376


@dataclass(frozen=True, slots=True)
class Host:
    """``scheme`` is unix (``path``; ``mode`` of the socket; ``scope`` of its clients, "" for none), tcp (``address``,
    ``port``) or fd (``path`` names one, or "" for all)."""

    scheme: str
    path: str = ""
    address: str = ""
    port: int = 0
    mode: int = 0o660
    scope: str = ""

    def __str__(self) -> str:
        if self.scheme == "tcp":
            return f"tcp://{self.authority}"
        return f"{self.scheme}://{self.path}"

    @property
    def authority(self) -> str:
        """``address:port`` of a URL."""
        return join_host_port(self.address, self.port)


def parse_page(text: str) -> Host:
    """Reads the address of the page, ``127.0.0.1:9780``, ``[::1]:9780``, ``localhost:9780`` or ``unix:///path``.

    :raises ConfigError: anything else. The page has no TLS of its own, so other machines must not reach it directly.
    """
    if text.startswith("unix://"):
        host = parse_host(text)
        if host.scope:
            raise ConfigError(f"invalid ui: {text}: the socket of the page has no scope")
        return host
    address, _, port = text.rpartition(":")
    address = address.strip("[]")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigError(f"invalid ui: {text}: use 127.0.0.1:port or unix:///path")
    if address != "localhost" and not _is_loopback(address):
        raise ConfigError(
            f"invalid ui: {text}: without TLS, use a loopback address or a unix socket, behind ssh -L or a proxy"
        )
    return Host("tcp", address=address, port=int(port))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def parse_host(text: str, *, tls: bool = False) -> Host:
    """Reads ``unix:///path[?mode=0666&scope=read]``, ``tcp://[address][:port]`` or ``fd://[name]``; without a scheme it
    is tcp.

    :raises ConfigError: anything else.
    """
    text = text.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text
    match scheme:
        case "unix":
            rest, _, query = rest.partition("?")
            mode, scope = _options(text, query) if query else (0o660, "")
            rest = rest or "/run/wharf/docker.sock"
            if not os.path.isabs(rest):
                raise ConfigError(f"invalid unix bind address ({text}): the path must be absolute")
            if len(os.fsencode(rest)) > 107:
                raise ConfigError(f"invalid unix bind address ({text}): the path is too long")
            return Host("unix", rest, mode=mode, scope=scope)
        case "fd":
            return Host("fd", rest)
        case "tcp":
            return _tcp(text, rest.rstrip("/"), tls=tls)
    raise ConfigError(f"invalid bind address ({text}): unsupported proto '{scheme}'")


def _options(text: str, query: str) -> tuple[int, str]:
    mode, scope = 0o660, ""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "mode" and re.fullmatch(r"0?[0-7]{3}", value):
            mode = int(value, 8)
        elif name == "scope" and value:
            scope = value
        elif name in ("mode", "scope"):
            expected = "an octal number such as 0666" if name == "mode" else "a name"
            raise ConfigError(f"invalid unix bind address ({text}): {name} must be {expected}")
        else:
            raise ConfigError(f"invalid unix bind address ({text}): unknown option {name}")
    return mode, scope


def _tcp(text: str, rest: str, *, tls: bool) -> Host:
    if "/" in rest or "@" in rest:
        raise ConfigError(f"invalid bind address ({text}): should not contain a path element")
    address, separator, port = rest.rpartition(":")
    if not separator or (rest.startswith("[") and rest.endswith("]")):
        address, port = rest, ""
    number = DEFAULT_TLS_PORT if tls else DEFAULT_TCP_PORT
    if port:
        if not port.isdigit() or int(port) > 65535:
            raise ConfigError(f"invalid bind address ({text}): invalid port {port}")
        number = int(port)
    return Host("tcp", address=address.strip("[]") or "127.0.0.1", port=number)
