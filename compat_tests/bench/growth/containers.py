"""The cost of a start, of a list, of memory and of idling against the number of containers that exist."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from compat_tests.bench import memory
from compat_tests.bench.growth.curves import Curves
from compat_tests.bench.lifecycle import ok, one_life
from compat_tests.bench.lists import LIST
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import marked_processes

NUMBERS = (0, 50, 100, 200, 400, 600, 800, 1000)
_THINGS = "containers"


def measure(engines: Sequence[Engine], curves: Curves, *, share: int) -> None:
    """Add containers step by step; they are created, not running. ``share``: the numbers are divided by it."""
    rounds, seconds = (3, 2.0) if share > 1 else (15, 20.0)
    there = 0
    try:
        for number in sorted({number // share for number in NUMBERS}):
            for engine in engines:
                _create(engine, there, number)
            there = number
            for engine in engines:
                with closing(engine.api.connection()) as connection:
                    ok(engine.api, connection, "GET", LIST)
                    starts = _median(rounds, lambda: one_life(engine.api, connection))  # noqa: B023  # called at once
                    lists = _median(rounds, lambda: ok(engine.api, connection, "GET", LIST))  # noqa: B023
                curves.add("create, start, wait, remove", _THINGS, "ms", engine.kind, number, starts)
                curves.add("list of all containers", _THINGS, "ms", engine.kind, number, lists)
            for engine in engines:
                curves.add("memory", _THINGS, "MiB", engine.kind, number, memory.settled(engine))
                curves.add("CPU while idle", _THINGS, "ms/min", engine.kind, number, _idle(engine, seconds))
    finally:
        for engine in engines:
            engine.remove_all()


def _create(engine: Engine, first: int, end: int) -> None:
    body = {"Image": "busybox", "Cmd": ["sleep", "3600"]}

    def create(number: int) -> None:
        assert engine.api.post("/containers/create", body, name=f"there{number}").status == 201

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(first, end)))


def _median(rounds: int, work: Callable[[], object]) -> float:
    """The median wall time in ms."""
    samples = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        samples.append((time.perf_counter() - begin) * 1000)
    return statistics.median(samples)


def _idle(engine: Engine, seconds: float) -> float:
    """The CPU time of the engine's processes without a request, in ms per minute."""
    begin, before = time.monotonic(), _cpu(engine)
    time.sleep(seconds)
    return (_cpu(engine) - before) / (time.monotonic() - begin) * 60


def _cpu(engine: Engine) -> float:
    """Milliseconds of all threads of all processes of the engine until now."""
    total = 0
    for process in marked_processes(engine.resources.footprint.mark):
        for thread in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            try:
                total += int(thread.read_text().split()[0])
            except OSError:
                continue
    return total / 1e6
