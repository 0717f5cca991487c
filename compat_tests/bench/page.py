"""What the page costs the daemon: memory and CPU with many running containers, with a viewer and without one."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from compat_tests.bench.measure import OURS, Row, within
from compat_tests.bench.memory import settled
from compat_tests.bench.scrapes import cpu
from compat_tests.support.engines import Engine, wharf
from compat_tests.support.host.ports import free_ports


def page(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Two engines of ours with equal containers, one of which has the page. The viewer reads what a browser reads, and
    draws nothing: ``compat_tests/endurance/page.py`` measures a browser."""
    if all(engine.kind != OURS for engine in engines):
        return
    count, seconds = (10, 5) if quick else (500, 20)
    address = f"127.0.0.1:{free_ports()}"
    with ExitStack() as stack:
        with_page = stack.enter_context(wharf("bench-page", "--ui", address))
        without = stack.enter_context(wharf("bench-no-page"))
        alone = Row("memory that the page adds to wharfd (`--ui`)", "MiB", within(10))
        alone.add(OURS, settled(with_page, alone=True) - settled(without, alone=True))
        yield alone
        for engine in (with_page, without):
            engine.load_busybox()
            stack.callback(engine.remove_all)
            _fill(engine, count)
        kept = Row(f"… with {count} running containers and their last minute", "MiB", within(25))
        seen = Row("… and one viewer", "MiB", within(25))
        idle = Row(f"CPU for the history of {count} running containers", "ms/s", within(60))
        watched = Row("… and for one viewer", "ms/s", within(120))
        time.sleep(3 * seconds)
        plain = settled(without, alone=True)
        kept.add(OURS, settled(with_page, alone=True) - plain)
        idle.add(OURS, _cpu(with_page, seconds) - _cpu(without, seconds))
        with viewer(with_page, address):
            watched.add(OURS, _cpu(with_page, seconds) - _cpu(without, seconds))
            seen.add(OURS, settled(with_page, alone=True) - plain)
        yield from (kept, seen, idle, watched)


def _fill(engine: Engine, count: int) -> None:
    create = engine.client.api.create_container
    host = engine.client.api.create_host_config(network_mode="none")
    for number in range(count):
        engine.client.api.start(create("busybox", ["sleep", "36000"], name=f"up{number}", host_config=host))


def _cpu(engine: Engine, seconds: float) -> float:
    """Milliseconds of CPU time in each second of the next ``seconds``."""
    before, began = cpu(engine), time.monotonic()
    time.sleep(seconds)
    return (cpu(engine) - before) / (time.monotonic() - began)


@contextlib.contextmanager
def viewer(engine: Engine, address: str) -> Iterator[None]:
    """A client that has logged in, and reads the stream of a page."""
    command = (sys.executable, "-m", "server.cli", "--json", "ui")
    done = subprocess.run(command, env=engine.environment(), capture_output=True, check=True, timeout=60)
    token = json.loads(done.stdout)["Path"].partition("#")[2]
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", "/login", json.dumps({"token": token}), {"Origin": f"http://{address}"})
    answer = connection.getresponse()
    answer.read()
    cookie = str(answer.headers["set-cookie"]).partition(";")[0]
    for path in ("/", "/trends?seconds=200", "/api/containers/json?all=1"):
        connection.request("GET", path, headers={"Cookie": cookie})
        connection.getresponse().read()
    connection.request("GET", "/live", headers={"Cookie": cookie})
    stream = connection.getresponse()

    def read() -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            while stream.read1(1 << 16):
                pass

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        if connection.sock is not None:
            connection.sock.shutdown(2)
        thread.join()
        connection.close()
