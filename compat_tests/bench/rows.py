"""What is measured. Each function takes both engines and returns finished rows; nothing of it stays in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from compat_tests.api import Api, UnixConnection
from compat_tests.bench import builds, everyday, files, images, memory, networks
from compat_tests.bench.measure import Measurement, Row, clock, in_turn
from compat_tests.engines import Engine

MIB = 1 << 20


def command(engine: Engine, *args: str) -> None:
    engine.docker(*args, timeout=300)


def run(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    bridge, none = Row("`docker run --rm busybox true`", "ms", 0.40), Row("… with `--network none`", "ms", 0.40)
    _runs(bridge, engines, quick, "run", "--rm", "busybox", "true")
    _runs(none, engines, quick, "run", "--rm", "--network", "none", "busybox", "true")
    added = Row("… what the bridge adds", "ms", 0.40)
    for engine in engines:
        added.add(engine.kind, bridge.median(engine.kind) - none.median(engine.kind))
    return [bridge, none, added]


def _runs(row: Row, engines: Sequence[Engine], quick: bool, *args: str) -> list[Row]:
    for engine in engines:
        command(engine, *args)

    def once(engine: Engine) -> None:
        with clock(row, engine):
            command(engine, *args)

    in_turn(engines, 5 if quick else 25, once)
    return [row]


def exec_true(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    row = Row("`docker exec … true`", "ms", 0.60)
    for engine in engines:
        command(engine, "run", "-d", "--name", "bench", "busybox", "sleep", "3600")
    try:
        return _runs(row, engines, quick, "exec", "bench", "true")
    finally:
        for engine in engines:
            command(engine, "rm", "-f", "bench")


def lifecycle(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    row = Row("create, start, wait, remove on one connection", "ms", 0.40)

    def once(engine: Engine) -> None:
        connection = engine.api.connection()
        try:
            ok(engine.api, connection, "GET", "/_ping")
            with clock(row, engine):
                one_life(engine.api, connection)
        finally:
            connection.close()

    in_turn(engines, 5 if quick else 25, once)
    return [row]


def one_life(api: Api, connection: UnixConnection) -> None:
    body = {"Image": "busybox", "Cmd": ["true"]}
    made = ok(api, connection, "POST", "/containers/create", body)
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


def burst(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    row = Row("20 containers, 8 at a time: each", "ms", 0.40)

    def life(engine: Engine) -> None:
        connection = engine.api.connection()
        try:
            one_life(engine.api, connection)
        finally:
            connection.close()

    def once(engine: Engine) -> None:
        begin = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(life, engine) for _ in range(20)]:
                done.result()
        row.add(engine.kind, (time.perf_counter() - begin) * 1000 / 20)

    in_turn(engines, 1 if quick else 5, once)
    return [row]


def many(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    """Ping, list and inspect with 60 containers there, 20 of them running."""
    ping, listing = Row("`/_ping`", "ms", 1.5), Row("list of 60 containers (`ps -a`)", "ms", 1.5)
    inspect = Row("inspect", "ms", 1.5)
    for engine in engines:
        for number in range(20):
            command(engine, "run", "-d", "--name", f"up{number}", "busybox", "sleep", "3600")
        for number in range(40):
            command(engine, "create", "--name", f"down{number}", "busybox", "true")
    connections = {engine.kind: engine.api.connection() for engine in engines}
    try:
        for row, path in ((ping, "/_ping"), (listing, "/containers/json?all=1"), (inspect, "/containers/up3/json")):

            def once(engine: Engine, row: Row = row, path: str = path) -> None:
                with clock(row, engine):
                    ok(engine.api, connections[engine.kind], "GET", path)

            in_turn(engines, 20 if quick else 200, once)
    finally:
        for engine in engines:
            connections[engine.kind].close()
            engine.remove_all()
    return [ping, listing, inspect]


def attach(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    megabytes = 50 if quick else 300
    row = Row(f"stdout through attach, {megabytes} MB", "MB/s", 1.0, more_is_better=True)

    def once(engine: Engine) -> None:
        # One write of 64 KiB at a time and the log driver off: the way of the bytes is what counts.
        command_line = ["dd", "if=/dev/zero", "bs=65536", f"count={megabytes * MIB // 65536}"]
        body = {"Image": "busybox", "Cmd": command_line, "HostConfig": {"LogConfig": {"Type": "none"}}}
        made = engine.api.request("POST", "/containers/create", data=body).json()
        path = f"/containers/{made['Id']}"
        sock = engine.api.raw(timeout=300)
        try:
            head = (
                f"POST {path}/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            )
            sock.sendall(head.encode() + b"Content-Length: 0\r\n\r\n")
            # answered at once: reading must begin before the start, or the first bytes fill the socket
            got = len(sock.recv(65536))
            begin = time.perf_counter()
            assert engine.api.request("POST", f"{path}/start").status == 204
            buffer = bytearray(1 << 18)
            while size := sock.recv_into(buffer):
                got += size
            seconds = time.perf_counter() - begin
        finally:
            sock.close()
            engine.api.delete(path, force=1)
        assert got >= megabytes * MIB, f"{got} bytes came of {megabytes * MIB}"
        row.add(engine.kind, megabytes * MIB / 1e6 / seconds)

    in_turn(engines, 1 if quick else 3, once)
    return [row]


def logs(engines: Sequence[Engine], *, quick: bool) -> list[Row]:
    megabytes = 10 if quick else 60
    write = Row(f"log written, {megabytes} MB of short lines", "MB/s", 1.0, more_is_better=True)
    read = Row(f"log read, {megabytes} MB of short lines", "MB/s", 1.0, more_is_better=True)
    size = megabytes * 1_000_000

    def once(engine: Engine) -> None:
        script = f"yes 'a line of a usual log, neither long nor short' | head -c {size}"
        # The same on both: nothing is rotated away, which dockerd does unasked and has no word for.
        log = {"Type": "json-file", "Config": {} if engine.kind == "dockerd" else {"max-size": "-1"}}
        body = {"Image": "busybox", "Cmd": ["sh", "-c", script], "HostConfig": {"LogConfig": log}}
        made = engine.api.request("POST", "/containers/create", data=body)
        path = f"/containers/{made.json()['Id']}"
        try:
            begin = time.perf_counter()
            assert engine.api.request("POST", f"{path}/start").status == 204
            assert engine.api.request("POST", f"{path}/wait", timeout=600).json()["StatusCode"] == 0
            write.add(engine.kind, size / 1e6 / (time.perf_counter() - begin))
            begin = time.perf_counter()
            connection = engine.api.connection(timeout=600)
            try:
                connection.request("GET", f"{path}/logs?stdout=1")
                response = connection.getresponse()
                got = 0
                while piece := response.read(1 << 18):
                    got += len(piece)
            finally:
                connection.close()
            assert got >= size, f"{got} of {size} bytes"
            read.add(engine.kind, size / 1e6 / (time.perf_counter() - begin))
        finally:
            engine.api.delete(path, force=1)

    in_turn(engines, 1 if quick else 3, once)
    return [write, read]


ROWS: dict[str, Measurement] = {
    "memory-fresh": memory.fresh,
    "run": run,
    "exec": exec_true,
    "lifecycle": lifecycle,
    "burst": burst,
    "many": many,
    "memory-each": memory.each,
    "health": everyday.health,
    "attach": attach,
    "logs": logs,
    "networks": networks.created,
    "traffic": networks.traffic,
    "images": images.transfers,
    "images-made": images.made,
    "files": files.copies,
    "build-steps": builds.steps,
    "build-large": builds.large,
    "build-stages": builds.stages,
    "memory-used": memory.used,
}
