"""From the start of the daemon's process until it answers `/_ping`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from compat_tests.bench.lists import with_containers
from compat_tests.bench.measure import Row, at_most, clock, in_turn
from compat_tests.support.daemons import START
from compat_tests.support.engines import Engine
from compat_tests.support.engines import running as engine_running


def startup(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Without any process of the engine, as after a boot; and of the daemon alone, as after an upgrade.

    The engine has an image and no container. dockerd's containerd stops and starts with it in both cases, by its
    design."""
    boot = Row("start until `/_ping`, all processes anew", "ms", at_most(1))
    again = Row("… the daemon alone", "ms", at_most(1))

    def once(engine: Engine) -> None:
        engine.daemon.stop()
        engine.resources.footprint.end_processes()
        with clock(boot, engine):
            start(engine)
        engine.daemon.stop()
        with clock(again, engine):
            start(engine)

    in_turn(engines, 1 if quick else 5, once)
    yield boot
    yield again


def restart(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """The daemon alone, with containers, until it lists those that run. dockerd leaves them running with an option."""
    running, ended = (5, 35) if quick else (100, 700)
    row = Row(f"restart beside {running} running and {ended} other containers", "ms", at_most(0.25))

    def once(engine: Engine) -> None:
        engine.daemon.stop()
        with clock(row, engine):
            start(engine)
            rows = engine.api.get("/containers/json").json()
        assert len(rows) == running, engine.log()

    with ExitStack() as stack:
        own = [stack.enter_context(engine_running(engine.kind, "restart", "--live-restore")) for engine in engines]
        with with_containers(own, running=running, ended=ended):
            in_turn(own, 1 if quick else 5, once)
    yield row


def start(engine: Engine) -> None:
    """Start the daemon and poll it every few milliseconds until it answers."""
    engine.daemon.start()
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        with suppress(OSError):
            if engine.api.request("GET", "/_ping", timeout=5).status == 200:
                return
        assert engine.daemon.running, engine.log()
        time.sleep(0.003)
    raise AssertionError(f"{engine.kind} did not answer within {START} s\n{engine.log()}")
