"""The CPU time of the daemon for the counters of all containers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from compat_tests.bench.lifecycle import ok
from compat_tests.bench.lists import with_containers
from compat_tests.bench.measure import OURS, Row, in_turn, within
from compat_tests.support.engines import Engine

# The aim is 200 ms for 500 containers.
_EACH = 0.4


def scrape(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """``GET /metrics``; with dockerd, which has no metrics of containers, the statistics of each, as exporters ask."""
    count = 10 if quick else 60
    row = Row(f"metrics of {count} running containers (CPU time)", "ms", within(_EACH * count))
    with with_containers(engines, running=count, ended=0) as connections:

        def once(engine: Engine) -> None:
            before = cpu(engine)
            if engine.kind == OURS:
                ok(engine.api, connections[engine.kind], "GET", "/metrics")
            else:
                for number in range(count):
                    path = f"/containers/up{number}/stats?stream=0&one-shot=1"
                    ok(engine.api, connections[engine.kind], "GET", path)
            row.add(engine.kind, cpu(engine) - before)

        for engine in engines:
            if engine.kind == OURS:
                # The first request loads the modules.
                ok(engine.api, connections[engine.kind], "GET", "/metrics")
        in_turn(engines, 3 if quick else 21, once)
    yield row


def cpu(engine: Engine) -> float:
    """Milliseconds of all threads of the API daemon until now. Threads of a pool don't end."""
    threads = Path(f"/proc/{engine.daemon.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e6
