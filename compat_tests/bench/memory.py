"""The memory of an engine: fresh, after use, and per container."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from compat_tests.bench.measure import Aim, Row, at_most, within
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import marked_processes
from compat_tests.support.polling import until

CONTAINERS = 20


def fresh(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Before anything has run on it; must be the first measurement."""
    yield _row("memory idle, fresh (PSS of all processes)", engines, at_most(0.45))


def used(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """After all previous measurements."""
    yield _row("memory idle, after all of this", engines, at_most(0.6))


def _row(name: str, engines: Sequence[Engine], aim: Aim) -> Row:
    row = Row(name, "MiB", aim)
    for engine in engines:
        row.add(engine.kind, settled(engine))
    return row


def each(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """What a running container adds to the engine: its shim and its share of the daemons, not its own processes."""
    row = Row("memory of each container", "MiB", within(0.7))
    for engine in engines:
        before = settled(engine)
        for number in range(CONTAINERS):
            engine.docker("run", "-d", "--name", f"up{number}", "busybox", "sleep", "3600", timeout=300)
        row.add(engine.kind, max(0.0, (settled(engine) - before) / CONTAINERS))
        engine.remove_all()
    yield row


def settled(engine: Engine, *, alone: bool = False) -> float:
    """Return the memory once it changes by less than half a percent, or after 20 s. ``alone``: of the API daemon."""
    measure = of_daemon if alone else memory
    values = [measure(engine)]

    def steady() -> bool:
        time.sleep(0.5)
        values.append(measure(engine))
        return len(values) > 4 and max(values[-4:]) - min(values[-4:]) < values[-1] * 0.005

    until(steady, seconds=20)
    return min(values[-4:])


def of_daemon(engine: Engine) -> float:
    """MiB: the PSS of the API daemon alone."""
    return pss(engine.daemon.pid) / 1024


def pss(pid: int) -> int:
    """KiB of a process; 0: the process has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def memory(engine: Engine) -> float:
    """MiB: the PSS of every process of the engine, without the containers' own processes."""
    return sum(pss(process.pid) for process in marked_processes(engine.resources.footprint.mark)) / 1024
