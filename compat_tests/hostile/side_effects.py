"""Side effects of a costly request: the latency of concurrent pings, and the memory of the daemons."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import daemon_pids, private_memory
from compat_tests.support.patience import FACTOR

MIB = 1 << 20
PING = 10.0 * FACTOR  # seconds that a ping may take: a blocked event loop takes longer than any of these
ADDED = 700  # MiB that one request may add; unbounded requests add GiB
KILL = 3000  # MiB at which the daemon is killed, so that a failed test does not exhaust the host's memory


@dataclass(slots=True)
class SideEffects:
    """The worst values seen."""

    slowest: float = 0.0
    pings: int = 0
    first: int = 0
    peak: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def added(self) -> int:
        """MiB of the peak above the start."""
        return (self.peak - self.first) // MIB


@contextlib.contextmanager
def monitored(engine: Engine, *, added: int = ADDED) -> Iterator[SideEffects]:
    """Ping and sample memory during the block; fail if a ping was too slow or the memory too high."""
    effects, stop = SideEffects(), threading.Event()
    pids = daemon_pids(engine.resources.footprint.mark)
    effects.first = effects.peak = private_memory(pids)

    def ping() -> None:
        while not stop.is_set():
            begin = time.monotonic()
            try:
                answer = engine.api.request("GET", "/_ping", timeout=PING + 60)
                if answer.status != 200:
                    effects.failed.append(f"status {answer.status}")
            except OSError as error:
                effects.failed.append(repr(error))
                return
            finally:
                effects.slowest = max(effects.slowest, time.monotonic() - begin)
            effects.pings += 1
            stop.wait(0.02)

    def watch() -> None:
        while not stop.wait(0.02):
            effects.peak = max(effects.peak, private_memory(pids))
            if effects.peak > KILL * MIB:
                engine.kill("wharfd")
                return

    threads = [threading.Thread(target=work, daemon=True) for work in (ping, watch)]
    for thread in threads:
        thread.start()
    try:
        yield effects
    finally:
        stop.set()
        for thread in threads:
            thread.join(PING + 90)
    assert not effects.failed, effects.failed
    assert effects.slowest < PING, f"a ping took {effects.slowest:.1f} s"
    assert effects.added < added, f"{effects.added} MiB more than before"


def send(
    engine: Engine,
    method: str,
    path: str,
    *,
    query: Mapping[str, object] | None = None,
    body: bytes | Iterable[bytes] = b"",
    headers: Mapping[str, str] | None = None,
    seconds: float = 10.0,
) -> tuple[int, bytes]:
    """Return the status of a request and what is received within ``seconds``; then disconnect.

    The status is 0 without an answer in that time.
    """
    connection = engine.api.connection(timeout=seconds + 5)
    url = path + (f"?{urlencode(query, doseq=True)}" if query else "")
    got = bytearray()
    status = 0
    connection.connect()
    timer = threading.Timer(seconds, connection.sock.shutdown, (socket.SHUT_RDWR,))
    timer.start()
    try:
        # A request that is refused early may not be read completely.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, url, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        status = response.status
        while piece := response.read1(65536):
            got += piece
            del got[:-65536]
    except (OSError, http.client.HTTPException):
        pass
    finally:
        timer.cancel()
        connection.close()
    return status, bytes(got)
