"""The throughput of container output: through attach, into the log and out of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

from compat_tests.bench.measure import Row, at_least, in_turn
from compat_tests.support.engines import Engine

MIB = 1 << 20


def attach(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """From the start of a container that writes 64 KiB at a time, without log, until its attached output ends."""
    megabytes = 50 if quick else 300
    row = Row(f"stdout through attach, {megabytes} MB", "MB/s", at_least(3.3))

    def once(engine: Engine) -> None:
        # Writes of 64 KiB and no log driver, so that the transport is measured.
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
            # connect first: otherwise the first bytes would fill the socket before reading starts
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

    in_turn(engines, 1 if quick else 5, once)
    yield row


def logs(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """A json-file log: from the start of a container until it exits, and reading the whole log through the API."""
    megabytes = 10 if quick else 60
    write = Row(f"log written, {megabytes} MB of short lines", "MB/s", at_least(1))
    read = Row(f"log read, {megabytes} MB of short lines", "MB/s", at_least(1))
    size = megabytes * 1_000_000

    def once(engine: Engine) -> None:
        script = f"yes 'a line of a usual log, neither long nor short' | head -c {size}"
        # Disable rotation on both. dockerd's default is no rotation; it has no option value for that.
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
            with closing(engine.api.connection(timeout=600)) as connection:
                connection.request("GET", f"{path}/logs?stdout=1")
                response = connection.getresponse()
                got = 0
                while piece := response.read(1 << 18):
                    got += len(piece)
            assert got >= size, f"{got} of {size} bytes"
            read.add(engine.kind, size / 1e6 / (time.perf_counter() - begin))
        finally:
            engine.api.delete(path, force=1)

    in_turn(engines, 1 if quick else 3, once)
    yield write
    yield read
