"""The everyday load: many containers with health checks, and a client that streams their statistics."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compat_tests.bench.measure import Row, at_most
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import marked_processes
from compat_tests.support.polling import until

HEALTH = ("--health-cmd", "true", "--health-interval", "5s")


def health(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Processor time of the engine, its shims and runtimes, in seconds per minute."""
    count, seconds = (20, 10) if quick else (200, 30)
    row = Row(f"CPU of {count} health checks every 5 s and `docker stats`", "s/min", at_most(0.5))
    for engine in engines:

        def start(number: int, engine: Engine = engine) -> None:
            engine.docker("run", "-d", "--name", f"sick{number}", *HEALTH, "busybox", "sleep", "3600", timeout=300)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(start, range(count)))

        def checked(engine: Engine = engine) -> bool:
            return len(engine.api.get("/containers/json", filters='{"health": ["healthy"]}').json()) == count

        assert until(checked, seconds=180), f"not all containers became healthy on {engine.kind}"
        with engine.popen("stats", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as watcher:
            try:
                time.sleep(3)  # until it streams all of them
                begin, before = time.monotonic(), used(engine)
                time.sleep(seconds)
                row.add(engine.kind, (used(engine) - before) / (time.monotonic() - begin) * 60)
            finally:
                watcher.terminate()
        engine.remove_all()
    yield row


def used(engine: Engine) -> float:
    """Return the processor seconds of the engine's processes and of their waited-for children."""
    ticks = 0
    for process in marked_processes(engine.resources.footprint.mark):
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
