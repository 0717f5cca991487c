"""The processor time of what one change costs where many clients follow the engine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from selectors import EVENT_READ, DefaultSelector
from typing import cast

from compat_tests.bench.everyday import used
from compat_tests.bench.lists import with_containers
from compat_tests.bench.measure import Row, at_most
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until


def events(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Volumes are made and removed, two events each, while clients read all events."""
    clients, volumes = (50, 10) if quick else (1000, 50)
    row = Row(f"CPU of an event to {clients} subscribers", "ms", at_most(0.3))
    for engine in engines:
        with _Streams(engine, ["/events"] * clients, b'"Type":') as streams:

            def change(engine: Engine = engine, streams: _Streams = streams) -> bool:
                _change(engine, 1)
                return min(streams.counts) > 0

            assert until(change, seconds=60)  # until all have subscribed
            time.sleep(1)
            before, last = used(engine), sum(streams.counts) + 2 * volumes * clients

            def received(last: int = last, streams: _Streams = streams) -> bool:
                return sum(streams.counts) >= last

            _change(engine, volumes)
            assert until(received, seconds=60), min(streams.counts)
            row.add(engine.kind, (used(engine) - before) * 1000 / (2 * volumes))
    yield row


def _change(engine: Engine, volumes: int) -> None:
    for number in range(volumes):
        assert engine.api.post("/volumes/create", {"Name": f"followed{number}"}).status == 201
        assert engine.api.delete(f"/volumes/followed{number}").status == 204


def stats(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """One sample of each running container, as `docker stats` of all of them requests every second."""
    count, samples = (10, 3) if quick else (200, 10)
    row = Row(f"CPU of `docker stats` of {count} containers", "ms/s", at_most(0.3))
    for engine in engines:
        with with_containers([engine], running=count, ended=0):
            paths = [f"/containers/up{number}/stats" for number in range(count)]
            with _Streams(engine, paths, b'"preread"') as streams:
                time.sleep(3)
                before, begun = used(engine), sum(streams.counts)
                time.sleep(samples)
                row.add(engine.kind, (used(engine) - before) * 1000 * count / (sum(streams.counts) - begun))
    yield row


class _Streams:
    """Streams of answers of ``GET path`` for each of ``paths``, read by a thread. ``counts``: how often ``mark`` has
    occurred in each."""

    def __init__(self, engine: Engine, paths: Sequence[str], mark: bytes) -> None:
        self._mark = mark
        self.counts = [0] * len(paths)
        self._selector = DefaultSelector()
        self._ending = False
        self._thread = threading.Thread(target=self._read)
        for number, path in enumerate(paths):
            sock = engine.api.raw()
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
            self._selector.register(sock, EVENT_READ, number)

    def __enter__(self) -> _Streams:
        self._thread.start()
        return self

    def _read(self) -> None:
        while not self._ending:
            for key, _ in self._selector.select(timeout=0.1):
                self.counts[key.data] += cast(socket.socket, key.fileobj).recv(1 << 16).count(self._mark)

    def __exit__(self, *_: object) -> None:
        self._ending = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            cast(socket.socket, key.fileobj).close()
        self._selector.close()
