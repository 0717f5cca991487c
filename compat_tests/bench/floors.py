"""What no engine in Python can do without: the floors of rows whose aim is missed.

Each floor is measured without an engine, by the least that does the row's work on this machine: the CLI alone, the OCI
runtime alone, tar, bare interpreters, one system call for each client. Its rows have the names of those that they
belong to.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from compat_tests.bench.builds import STEPS, context
from compat_tests.bench.images import subjects
from compat_tests.bench.measure import FLOOR, Row, at_most, clock_of
from compat_tests.bench.memory import pss
from compat_tests.support.api import Api
from compat_tests.support.engines import Engine
from compat_tests.support.images import busybox_layer, layer
from compat_tests.support.polling import until

MIB = 1 << 20
#: The packages that Wharf's API daemon is made of.
_PACKAGES = "uvicorn, starlette.applications, pydantic, orjson, pyroute2.netlink.nlsocket"
_PING = """
import sys, uvicorn
from starlette.responses import Response
async def app(scope, receive, send):
    await Response(b"OK", media_type="text/plain")(scope, receive, send)
uvicorn.run(app, uds=sys.argv[1], log_level="error", lifespan="off", access_log=False)
"""


def floors(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """``engines`` is not used: only programs that they use."""
    times = 3 if quick else 15
    yield from _memory()
    yield from _starts(times)
    yield from _requests(200 if quick else 3000)
    yield from _streams(50 if quick else 300)
    yield from _layers(quick=quick)
    yield from _files(quick=quick)


def _row(name: str, unit: str = "ms") -> Row:
    return Row(name, unit, at_most(1), baseline=FLOOR)


# ---- memory --------------------------------------------------------------------------------------------------------


def _memory() -> Iterator[Row]:
    row = _row("memory idle, fresh (PSS of all processes)", "MiB")
    # The API daemon, the supervisor and the process that shims are forked from.
    scripts = (f"import {_PACKAGES}", "import asyncio, sqlite3", "import json, socket")
    with ExitStack() as stack:
        processes = [stack.enter_context(_idle(script)) for script in scripts]
        row.add(FLOOR, sum(pss(process) for process in processes) / 1024)
    yield row
    row = _row("memory of each container", "MiB")
    count = 20
    with _idle(
        f"import gc, json, os, selectors, socket\ngc.freeze()\nall(os.fork() for _ in range({count}))"
    ) as parent:
        assert until(lambda: len(_children(parent)) == count)
        row.add(FLOOR, sum(map(pss, _children(parent))) / 1024 / count)
    yield row


@contextmanager
def _idle(script: str) -> Iterator[int]:
    """Run a Python process that executes the script and sleeps; yield its pid. Its children end with it."""
    code = f"{script}\nprint(flush=True)\nimport time\ntime.sleep(600)"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# ---- starts --------------------------------------------------------------------------------------------------------


def _starts(times: int) -> Iterator[Row]:
    """The CLI until it finds no engine, and crun with an ordinary container that runs ``true``."""
    cli, parsing, life, exec_ = map(_row, ("cli", "parsing", "life", "exec"))
    with _bundle() as bundle:
        for _ in range(times):
            with clock_of(cli, FLOOR):
                _cli("run", "--rm", "busybox", "true")
            with clock_of(parsing, FLOOR):
                _cli("create", "-p", "40000-41999:1000-2999", "busybox")
            with clock_of(life, FLOOR):
                _crun("run", "--bundle", str(bundle), _name())
        name = _name()
        spec = json.loads((bundle / "config.json").read_text())
        (bundle / "config.json").write_text(json.dumps(_with_args(spec, "sleep", "600")))
        _crun("run", "--detach", "--bundle", str(bundle), name)
        try:
            for _ in range(times):
                with clock_of(exec_, FLOOR):
                    _crun("exec", name, "true")
        finally:
            _crun("delete", "--force", name)
        (bundle / "config.json").write_text(json.dumps(_with_args(spec, "true")))
        burst = _row("20 containers, 8 at a time: each")
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                with clock_of(burst, FLOOR, share=20):
                    list(pool.map(lambda _: _crun("run", "--bundle", str(bundle), _name()), range(20)))
    client, runtime, run = cli.median(FLOOR), life.median(FLOOR), STEPS.count("RUN")
    for name, value in (
        ("`docker run --rm busybox true`", client + runtime),
        ("… with `--network none`", client + runtime),
        ("… with `-p 80`", client + runtime),
        ("`docker exec … true`", client + exec_.median(FLOOR)),
        ("create, start, wait, remove on one connection", runtime),
        ("run with 2,000 published ports, and rm, against one port", client + parsing.median(FLOOR) + runtime),
        ("build of 10 steps without cache, classic", client + run * runtime),
        ("build of 10 steps without cache, BuildKit", _buildx(times) + run * runtime),
        ("build of 10 steps, all cached, classic", client),
    ):
        yield Row(name, "ms", cli.aim, FLOOR, {FLOOR: [value]})
    yield burst


def _cli(*args: str) -> None:
    """Run the CLI with the address of no engine."""
    env = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    subprocess.run(["docker", *args], env=env, check=False, capture_output=True, timeout=60)


def _buildx(times: int) -> float:
    row = _row("buildx")
    with context(STEPS) as folder:
        for _ in range(times):
            with clock_of(row, FLOOR):
                _cli("build", "-q", str(folder))
    return row.median(FLOOR)


@contextmanager
def _bundle() -> Iterator[Path]:
    """A bundle of the test's busybox with crun's own specification, which has namespaces, a cgroup and mounts."""
    with tempfile.TemporaryDirectory(prefix="wharf-bench-") as name:
        bundle = Path(name)
        (bundle / "rootfs").mkdir()
        subprocess.run(["tar", "-x", "-C", str(bundle / "rootfs")], input=busybox_layer(), check=True)
        subprocess.run(["crun", "spec"], cwd=bundle, check=True)
        spec = json.loads((bundle / "config.json").read_text())
        (bundle / "config.json").write_text(json.dumps(_with_args(spec, "true")))
        yield bundle


def _with_args(spec: dict[str, dict[str, object]], *args: str) -> dict[str, dict[str, object]]:
    return {**spec, "process": {**spec["process"], "args": list(args), "terminal": False}}


def _crun(*args: str) -> None:
    subprocess.run(["crun", *args], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60)


def _name() -> str:
    return f"wharf-floor-{uuid.uuid4().hex[:12]}"


# ---- requests and events -------------------------------------------------------------------------------------------


def _requests(count: int) -> Iterator[Row]:
    """The median of requests to an application of uvicorn and Starlette that only answers."""
    with tempfile.TemporaryDirectory(prefix="wharf-bench-") as name:
        path = Path(name, "s")
        with subprocess.Popen([sys.executable, "-c", _PING, str(path)]) as server:
            try:
                assert until(path.exists)
                api, rows = Api(path), (_row("`/_ping`"), _row("inspect"))
                with closing(api.connection()) as connection:
                    for number in range(count):
                        with clock_of(rows[0], FLOOR):
                            api.request("GET", "/_ping", on=connection)
                        if number == 20:
                            rows[0].samples[FLOOR].clear()
                rows[1].samples[FLOOR] = rows[0].samples[FLOOR]
                yield from rows
            finally:
                server.terminate()
    yield _event()


def _event() -> Row:
    """The processor time of one send to each of 1,000 sockets."""
    row, message = _row("CPU of an event to 1000 subscribers"), b"x" * 300
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    pairs = [socket.socketpair() for _ in range(1000)]
    try:
        for _ in range(20):
            begin = time.process_time()
            for ours, _theirs in pairs:
                ours.send(message)
            row.add(FLOOR, (time.process_time() - begin) * 1000)
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
    return row


# ---- streams, layers and files -------------------------------------------------------------------------------------


def _streams(megabytes: int) -> Iterator[Row]:
    """A process that writes into a pipe, a splice from it to a socket, a client that reads the socket."""
    row = _row(f"stdout through attach, {megabytes} MB", "MB/s")
    for _ in range(5):
        ours, client = socket.socketpair()
        argv = ["busybox", "dd", "if=/dev/zero", "bs=65536", f"count={megabytes * MIB // 65536}"]
        begin = time.perf_counter()
        with (
            subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer,
            ThreadPoolExecutor(1) as pool,
        ):
            assert writer.stdout is not None
            reading = pool.submit(_read, client)
            while os.splice(writer.stdout.fileno(), ours.fileno(), MIB):
                pass
            ours.close()
            got = reading.result()
        row.add(FLOOR, got / 1e6 / (time.perf_counter() - begin))
        client.close()
    yield row


def _read(client: socket.socket) -> int:
    got, buffer = 0, bytearray(1 << 18)
    while size := client.recv_into(buffer):
        got += size
    return got


def _layers(*, quick: bool) -> Iterator[Row]:
    """tar unpacks the layers, onto the disk of both engines, as they lie in memory. An import is one layer."""
    for subject in subjects(quick=quick):
        row = _row(subject.label)
        for _ in range(1 if quick else 3):
            layers = [layer(nodes) for nodes in subject.nodes(uuid.uuid4().hex)]
            os.sync()
            with _folder() as folder, clock_of(row, FLOOR):
                for each in layers:
                    subprocess.run(["tar", "-x", "-C", str(folder)], input=each, check=True)
        for name in (f"load: {subject.label}", f"pull: {subject.label}", f"import: {subject.flat_label}"):
            yield Row(name, "ms", row.aim, FLOOR, row.samples)


def _files(*, quick: bool) -> Iterator[Row]:
    """tar copies what `docker cp` copies, from the page cache to the disk."""
    large, count = (64, 2000) if quick else (1024, 20000)
    with _folder() as folder:
        with (folder / "large").open("wb") as file:
            for _ in range(large):
                file.write(b"0123456789abcdef" * (MIB // 16))
        for number in range(count):
            place = folder / "many" / f"d{number // 500}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"f{number}").write_text(f"the text of file {number}\n" * 4)
        for subject, ways in ((f"{large} MiB in one file", ("in",)), (f"{count:,} small files", ("in", "out"))):
            row = _row(subject)
            source = "large" if "one file" in subject else "many"
            for _ in range(1 if quick else 3):
                os.sync()
                with _folder() as target, clock_of(row, FLOOR):
                    line = f"tar -c -C {folder} {source} | tar -x -C {target}"
                    subprocess.run(["sh", "-c", line], check=True)
            for way in ways:
                yield Row(f"`docker cp` {way}: {subject}", "ms", row.aim, FLOOR, row.samples)
            if len(ways) > 1:
                reading = _row(f"`docker cp` out as a stream: {subject}")
                for _ in range(1 if quick else 3):
                    with clock_of(reading, FLOOR):
                        subprocess.run(["sh", "-c", f"tar -c -C {folder} {source} | cat >/dev/null"], check=True)
                yield reading


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wharf-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
