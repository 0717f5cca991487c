"""Queries to an engine with many containers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

from compat_tests.bench.lifecycle import ok
from compat_tests.bench.measure import Row, at_most, clock, in_turn
from compat_tests.support.api import UnixConnection
from compat_tests.support.engines import Engine

LIST = "/containers/json?all=1"


def many(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Ping, list and inspect on a persistent connection, with 60 containers, 20 of them running."""
    with with_containers(engines, running=20, ended=40) as connections:
        for name, path, aim in (
            ("`/_ping`", "/_ping", at_most(0.7)),
            ("list of 60 containers", LIST, at_most(0.7)),
            ("inspect", "/containers/up3/json", at_most(0.7)),
        ):
            row = Row(name, "ms", aim)
            _ask(engines, connections, row, path, times=20 if quick else 200)
            yield row


def crowd(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """The list of `docker ps -a` on a persistent connection, with 500 containers, 20 of them running."""
    count = 50 if quick else 500
    row = Row(f"list of {count} containers (`ps -a`)", "ms", at_most(0.3))
    with with_containers(engines, running=20, ended=count - 20) as connections:
        _ask(engines, connections, row, LIST, times=5 if quick else 51)
    yield row


Connections = Mapping[str, UnixConnection]


@contextmanager
def with_containers(engines: Sequence[Engine], *, running: int, ended: int) -> Iterator[Connections]:
    """Create containers on each engine, and connect to it."""
    body = {"Image": "busybox", "Cmd": ["sleep", "3600"]}
    with ExitStack() as stack:
        for engine in engines:
            stack.callback(engine.remove_all)

            def create(name: str, engine: Engine = engine) -> None:
                assert engine.api.post("/containers/create", body, name=name).status == 201
                if name.startswith("up"):
                    assert engine.api.post(f"/containers/{name}/start").status == 204

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(create, [f"up{n}" for n in range(running)] + [f"down{n}" for n in range(ended)]))
        yield {engine.kind: stack.enter_context(closing(engine.api.connection())) for engine in engines}


def _ask(engines: Sequence[Engine], connections: Connections, row: Row, path: str, *, times: int) -> None:
    """Until the whole answer is read; no client parses it."""

    def once(engine: Engine) -> None:
        with clock(row, engine):
            assert engine.api.request("GET", path, on=connections[engine.kind]).status == 200

    for engine in engines:
        ok(engine.api, connections[engine.kind], "GET", path)
    in_turn(engines, times, once)
