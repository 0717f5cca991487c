"""A remote log driver: splits the output into lines, encodes and delivers each, and writes a copy for ``docker
logs``."""

import json
import socket
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType

from engine.shim.logs.driver import Lines, LogDriver, Mark
from engine.shim.logs.remote.delivery import LIMIT, Delivery
from engine.shim.logs.remote.encoder import Encoder, Part, Settings
from engine.shim.loop import Loop


class RemoteLog:
    """Sends lines to a server; ``cache`` is the local copy for ``docker logs``."""

    def __init__(self, encoder: Encoder, delivery: Delivery, cache: LogDriver) -> None:
        self._encoder = encoder
        self.delivery = delivery
        self._cache = cache
        self._lines: dict[str, Lines] = {}
        self._part: dict[str, tuple[str, int]] = {}

    @property
    def lagging(self) -> bool:
        return self.delivery.lagging

    def set_on_writable(self, callback: Callable[[], None]) -> None:
        self.delivery.on_writable = callback

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        self._cache.write(stream, data, now_ns)
        lines = self._lines.get(stream)
        if lines is None:
            lines = self._lines[stream] = Lines()
        for block, whole in lines.cut(data):
            self._block(stream, block, now_ns, whole=whole)
        self.delivery.flush()

    def finish(self, stream: str, now_ns: int) -> None:
        self._cache.finish(stream, now_ns)
        lines = self._lines.pop(stream, None)
        if lines is not None and (rest := lines.rest()):
            self._send(stream, rest, now_ns, self._next_part(stream, now_ns, last=True))
        self.delivery.flush()

    def _block(self, stream: str, block: bytes, now_ns: int, *, whole: bool) -> None:
        if not whole:
            self._send(stream, block, now_ns, self._next_part(stream, now_ns, last=False))
            return
        lines = block[:-1].split(b"\n")
        self._send(stream, lines[0], now_ns, self._next_part(stream, now_ns, last=True))
        for line in lines[1:]:
            self._send(stream, line, now_ns, None)

    def _next_part(self, stream: str, now_ns: int, *, last: bool) -> Part | None:
        identity, ordinal = self._part.get(stream, (f"{now_ns:064x}", 0))
        if last:
            self._part.pop(stream, None)
            if not ordinal:
                return None
        else:
            self._part[stream] = (identity, ordinal + 1)
        return Part(identity, ordinal + 1, last)

    def _send(self, stream: str, line: bytes, now_ns: int, part: Part | None) -> None:
        for message in self._encoder.encode(stream, line, now_ns, part):
            self.delivery.offer(message)

    def mark(self) -> Mark:
        return self._cache.mark()

    def open_reader(self) -> int:
        return self._cache.open_reader()

    def close(self) -> None:
        self._cache.close()
        self.delivery.close()


def open_remote(driver: str, options: Mapping[str, str], cache: LogDriver, loop: Loop) -> RemoteLog:
    """Opens a driver. The option ``remote`` is a JSON object with the driver's settings; ``mode`` and ``buffer`` tell
    whether the container waits.

    Blocks until the server answers, as dockerd's start does.

    :raises ValueError: malformed options, or dockerd's sentence about a server that can't be reached.
    """
    parsed = json.loads(options.get("remote") or "{}")
    if not isinstance(parsed, dict):
        raise ValueError("log option remote is not a JSON object")
    waits = options.get("mode") != "non-blocking"
    settings = Settings(LIMIT if waits else int(options.get("buffer") or LIMIT), waits, parsed)
    module = _protocol(driver)
    make: Callable[[Settings, Loop], tuple[Encoder, Delivery]] = module.make
    try:
        encoder, delivery = make(settings, loop)
    except socket.gaierror:
        host = settings.text("host")
        raise ValueError(f"dial {settings.text('scheme')}: lookup {host}: no such host") from None
    log = RemoteLog(encoder, delivery, cache)
    if settings.options.get("asynchronous"):
        delivery.connect()
        return log
    try:
        delivery.open()
    except OSError as error:
        delivery.abandon()
        raise ValueError(_explain(module, settings, error)) from None
    return log


def _protocol(driver: str) -> ModuleType:
    """The module of this package that has the driver's name. Its ``make`` makes encoder and delivery; ``unreachable``,
    if it has that, dockerd's sentence for a server that can't be reached. Only this one is imported: shims are small.

    :raises ValueError: there is none.
    """
    name = f"{__package__}.{driver}"
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    else:
        if hasattr(module, "make"):
            return module
    raise ValueError(f"log driver {driver!r} is none of the shim's")


def _explain(module: ModuleType, settings: Settings, error: OSError) -> str:
    scheme = settings.text("scheme")
    network = {"tcp+tls": "tcp", "tls": "tcp"}.get(scheme, scheme or "unixgram")
    place = settings.text("path") or f"{settings.text('host')}:{settings.number('port', 0)}"
    text = f"dial {network} {place}: connect: {(error.strerror or str(error)).lower()}"
    unreachable: Callable[[Settings, str, str], str] | None = getattr(module, "unreachable", None)
    return unreachable(settings, place, text) if unreachable is not None else text
