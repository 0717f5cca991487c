"""syslog: RFC 3164, RFC 5424 and the form of the local ``/dev/log``, over UDP, TCP, TLS and unix sockets."""

import os
import socket
import time
from collections.abc import Callable, Iterator

from engine.shim.logs.remote.delivery import Delivery
from engine.shim.logs.remote.encoder import Part, Settings
from engine.shim.logs.remote.sockets import Address, Datagrams, Stream, resolve
from engine.shim.loop import Loop

_ERROR, _INFO = 3, 6
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def stamp(now_ns: int) -> bytes:
    """``Nov  7 15:04:05``, in local time and always in English."""
    now = time.localtime(now_ns // 1_000_000_000)
    return f"{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} {now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d}".encode()


def rfc3339(now_ns: int, *, micro: bool) -> bytes:
    """With the local offset; ``Z`` for UTC."""
    now = time.localtime(now_ns // 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", now)
    if micro:
        text += f".{now_ns // 1000 % 1_000_000:06d}"
    minutes, sign = divmod(abs(now.tm_gmtoff) // 60, 60), "-" if now.tm_gmtoff < 0 else "+"
    return (text + (f"{sign}{minutes[0]:02d}:{minutes[1]:02d}" if now.tm_gmtoff else "Z")).encode()


class Syslog:
    """``kind``: ``""`` (local), ``rfc3164``, ``rfc5424``, ``rfc5424micro``. ``counted``: with the octet count that RFC
    5425 requires before a message on TLS."""

    def __init__(self, kind: str, facility: int, tag: str, hostname: str, *, counted: bool) -> None:
        priority = {"stderr": facility << 3 | _ERROR, "stdout": facility << 3 | _INFO}
        self._priority = {stream: b"<%d>" % value for stream, value in priority.items()}
        self._counted = counted
        self._make = _FORMS[kind]
        self._middle = _middle(kind, tag.encode(), hostname.encode(), os.getpid())

    def encode(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> Iterator[bytes]:
        if not line:
            return
        message = self._priority[stream] + self._make(now_ns) + self._middle + line + b"\n"
        yield b"%d %s" % (len(message), message) if self._counted else message


def _middle(kind: str, tag: bytes, hostname: bytes, pid: int) -> bytes:
    """The fields between time stamp and line."""
    if kind == "":
        return b" %s[%d]: " % (tag, pid)
    if kind == "rfc3164":
        return b" %s %s[%d]: " % (hostname, tag, pid)
    return b" %s %s %d %s - " % (hostname, tag, pid, tag)


_FORMS: dict[str, Callable[[int], bytes]] = {
    "": stamp,
    "rfc3164": stamp,
    "rfc5424": lambda now_ns: b"1 " + rfc3339(now_ns, micro=False),
    "rfc5424micro": lambda now_ns: b"1 " + rfc3339(now_ns, micro=True),
}


def make(settings: Settings, loop: Loop) -> tuple[Syslog, Delivery]:
    """``scheme`` (``""``: this host's socket; ``udp``, ``tcp``, ``tcp+tls``, ``unix``, ``unixgram``), ``host``,
    ``port``, ``path``, ``facility``, ``format``, ``tag``, ``hostname``; for TLS ``ca``, ``cert``, ``key``,
    ``skip-verify``.

    :raises OSError: the name has no address.
    :raises ValueError: an unknown format, or invalid TLS files.
    """
    scheme, kind = settings.text("scheme"), settings.text("format")
    if kind not in _FORMS:
        raise ValueError("Invalid syslog format")
    encoder = Syslog(
        kind,
        settings.number("facility", 3),
        settings.text("tag"),
        settings.text("hostname"),
        counted=scheme == "tcp+tls" and kind.startswith("rfc5424"),
    )
    if scheme in {"", "unixgram"}:
        paths = _LOCAL if not scheme else (settings.text("path"),)
        found: list[Address] = [(int(socket.AF_UNIX), int(socket.SOCK_DGRAM), path) for path in paths]
        return encoder, Datagrams(loop, found, limit=settings.limit, waits=settings.waits)
    if scheme == "udp":
        found = resolve(settings.text("host"), settings.number("port", 514), socket.SOCK_DGRAM)
        return encoder, Datagrams(loop, found, limit=settings.limit, waits=settings.waits)
    if scheme == "unix":
        found = [(int(socket.AF_UNIX), int(socket.SOCK_STREAM), settings.text("path"))]
        return encoder, Stream(loop, found, limit=settings.limit, waits=settings.waits)
    tls = None
    if scheme == "tcp+tls":
        from engine.shim.logs.remote.tls import context

        tls = context(settings)
    found = resolve(settings.text("host"), settings.number("port", 514), socket.SOCK_STREAM)
    return encoder, Stream(loop, found, limit=settings.limit, waits=settings.waits, tls=tls, host=settings.text("host"))


def unreachable(settings: Settings, _place: str, text: str) -> str:
    return text if settings.text("scheme") else "Unix syslog delivery error"
