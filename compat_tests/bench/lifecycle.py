"""Life cycles of containers: `docker run`, `docker exec`, bare API calls, many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from compat_tests.bench.measure import Row, at_most, clock, in_turn, within
from compat_tests.support.api import Api, UnixConnection
from compat_tests.support.engines import Engine

NETWORK = "bench-lives"


def run(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of the CLI's whole command, on the default bridge, without network, and with a published port."""
    bridge = Row("`docker run --rm busybox true`", "ms", at_most(0.17))
    none = Row("… with `--network none`", "ms", at_most(0.2))
    port = Row("… with `-p 80`", "ms", at_most(0.15))
    added = Row("… what the bridge adds", "ms", within(15))

    def once(engine: Engine) -> None:
        with clock(bridge, engine):
            engine.docker("run", "--rm", "busybox", "true")
        with clock(none, engine):
            engine.docker("run", "--rm", "--network", "none", "busybox", "true")
        with clock(port, engine):
            engine.docker("run", "--rm", "-p", "80", "busybox", "true")
        # of consecutive runs: the machine's speed varies more than this difference
        added.add(engine.kind, bridge.samples[engine.kind][-1] - none.samples[engine.kind][-1])

    for engine in engines:
        engine.docker("run", "--rm", "busybox", "true")
    in_turn(engines, 5 if quick else 61, once, seconds=120)
    yield bridge
    yield none
    yield port
    yield added


def exec_true(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of the CLI's whole command in a running container."""
    row = Row("`docker exec … true`", "ms", at_most(0.4))

    def once(engine: Engine) -> None:
        with clock(row, engine):
            engine.docker("exec", "bench", "true")

    for engine in engines:
        engine.docker("run", "-d", "--name", "bench", "busybox", "sleep", "3600")
        engine.docker("exec", "bench", "true")
    try:
        in_turn(engines, 5 if quick else 31, once)
    finally:
        for engine in engines:
            engine.docker("rm", "-f", "bench")
    yield row


def lifecycle(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Four requests on a persistent connection, without the CLI and without attach."""
    row = Row("create, start, wait, remove on one connection", "ms", at_most(0.1))

    def once(engine: Engine) -> None:
        with closing(engine.api.connection()) as connection:
            ok(engine.api, connection, "GET", "/_ping")
            with clock(row, engine):
                one_life(engine.api, connection)

    in_turn(engines, 5 if quick else 31, once)
    yield row


def burst(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Twenty life cycles by eight clients: the total time divided by twenty."""
    row = Row("20 containers, 8 at a time: each", "ms", at_most(0.12))

    def life(engine: Engine) -> None:
        with closing(engine.api.connection()) as connection:
            one_life(engine.api, connection)

    def once(engine: Engine) -> None:
        with ThreadPoolExecutor(8) as pool, clock(row, engine, share=20):
            for done in [pool.submit(life, engine) for _ in range(20)]:
                done.result()

    in_turn(engines, 1 if quick else 5, once)
    yield row


def at_once(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Existing containers, each started by a client of its own at the same time: until the last answer."""
    count = 10 if quick else 50
    row = Row(f"{count} containers of one network started at once: all", "ms", at_most(0.4))

    def once(engine: Engine) -> None:
        engine.docker("network", "create", NETWORK)
        try:
            body = {"Image": "busybox", "Cmd": ["sleep", "3600"], "HostConfig": {"NetworkMode": NETWORK}}
            made = [engine.api.post("/containers/create", body).json()["Id"] for _ in range(count)]
            with ThreadPoolExecutor(count) as pool, clock(row, engine):
                answers = list(pool.map(lambda each: engine.api.post(f"/containers/{each}/start"), made))
            assert not (refused := [answer.body for answer in answers if answer.status != 204]), (engine.kind, refused)
        finally:
            engine.remove_all()
            engine.docker("network", "rm", NETWORK)

    in_turn(engines, 1 if quick else 3, once)
    yield row


def one_life(api: Api, connection: UnixConnection) -> None:
    made = ok(api, connection, "POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    assert isinstance(made, dict)
    path = f"/containers/{made['Id']}"
    ok(api, connection, "POST", f"{path}/start")
    ended = ok(api, connection, "POST", f"{path}/wait")
    assert isinstance(ended, dict)
    assert ended["StatusCode"] == 0, ended
    ok(api, connection, "DELETE", path)


def ok(api: Api, connection: UnixConnection, method: str, path: str, data: object = None) -> object:
    answer = api.request(method, path, data=data, on=connection)
    assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body!r}"
    return answer.json() if answer.body[:1] in (b"{", b"[") else None
