"""python -m compat_tests.hostile.requests.fuzz --minutes 5: requests by the API's description, and invalid HTTP.

Every request is answered; no answer is 5xx except those listed here; the log has no stack trace; and the engine's
resources (memory, descriptors, tasks of its loop) at the end equal those after the first requests. A seed reproduces a
run.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from compat_tests.hostile.requests import malformed
from compat_tests.hostile.requests.swagger import Description, Generator, Request
from compat_tests.support import engines
from compat_tests.support.engines import Engine
from compat_tests.support.host.processes import open_descriptors, resident_memory
from compat_tests.support.openapi import DESCRIPTION
from compat_tests.support.polling import until

#: Seconds within which the head of an answer must arrive.
DEADLINE = 60.0
#: Seconds to read from an answer without an end.
PATIENCE = 0.05
#: Answers that end only when the client disconnects.
ENDLESS = frozenset(
    {
        "ContainerAttach",
        "ContainerAttachWebsocket",
        "ContainerLogs",
        "ContainerStats",
        "ContainerWait",
        "ExecStart",
        "Session",
        "SystemEvents",
    }
)
#: 500s that dockerd returns too: operation (a pattern) → the start of its sentence (a pattern).
AS_DOCKERD = (
    ("ContainerExec", r"Invalid escape keys \("),
    ("NetworkDisconnect", r"container \S+ is not connected to (the )?network"),
    ("NetworkCreate", r"could not find an available, non-overlapping IPv4 address pool"),
    ("ContainerDelete", r"Conflict, cannot remove the default link name of the container"),
    ("ContainerUnpause", r"Container \S+ is not paused"),
    ("ContainerTop", r"ps: |Couldn't find PID field"),
    ("ContainerStop", r"cannot stop container: .*: invalid signal: "),
    # Registries that can't be reached: the fuzzer invents some.
    ("SystemAuth|DistributionInspect|ImageCreate", r'(Get|Head) \\"https?://\S+\\": (dial tcp|\[SSL|tls: )'),
    ("ContainerStart|ContainerRestart", r"(Cannot restart container \S+: )?failed to create task for container: "),
)
MEMORY = 64 << 20
#: Log output of defects.
DEFECTS = re.compile(r"Traceback \(most|was destroyed but|never retrieved|never awaited|Unhandled|Fatal error on")
NAMES = {
    "containers": ("fuzz-running", "fuzz-stopped"),
    "images": ("busybox", "fuzz"),
    "networks": ("fuzz-network", "bridge", "none"),
    "volumes": ("fuzz-volume",),
    "distribution": ("127.0.0.1:1/a",),
}


@dataclass(slots=True)
class Findings:
    """The findings of a run."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    raw: int = 0

    @property
    def requests(self) -> int:
        return sum(self.statuses.values())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.hostile.requests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long (5)")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run")
    parser.add_argument("--engine", choices=("wharf", "dockerd"), default="wharf")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the engine too
    seed = options.seed if options.seed is not None else random.randrange(2**32)
    print(f"seed {seed}", flush=True)
    with (engines.wharf if options.engine == "wharf" else engines.dockerd)("fuzz") as engine:
        engine.load_busybox()
        found = run(engine, seed, seconds=options.minutes * 60)
    print(f"{found.requests} requests: {dict(sorted(found.statuses.items()))}; {found.raw} malformed connections")
    print("\n".join(found.wrong))
    return 1 if found.wrong else 0


def run(engine: Engine, seed: int, *, seconds: float) -> Findings:
    """Run both fuzzers, the one of malformed HTTP for a quarter of the time."""
    found = Findings()
    written = engine.daemon.written
    requests = Generator(Description(DESCRIPTION), seed, NAMES).endless()
    with objects(engine):
        _send_requests(engine, requests, found, until_time=time.monotonic() + seconds * 0.2)
        before = _resources(engine)
        _send_requests(engine, requests, found, until_time=time.monotonic() + seconds * 0.55)
        chance = random.Random(seed)
        end = time.monotonic() + seconds * 0.25
        while time.monotonic() < end:
            malformed.send(engine.api.raw, chance)
            found.raw += 1
            if found.raw % 100 == 0 and engine.api.get("/_ping").status != 200:
                found.wrong.append("no answer to a ping")
        found.wrong += _growth(engine, before)
    log = engine.daemon.tail(50_000_000, since=written)
    found.wrong += sorted({_context(log, match.start()) for match in DEFECTS.finditer(log)})[:20]
    return found


def _context(log: str, at: int) -> str:
    begin = log.rfind("\n", 0, max(0, log.rfind("\n", 0, at))) + 1
    return f"in the log: {log[begin : at + 3000]}"


def _send_requests(engine: Engine, requests: Iterator[Request], found: Findings, *, until_time: float) -> None:
    connection = engine.api.connection(timeout=DEADLINE)
    for number, request in enumerate(requests):
        if time.monotonic() > until_time:
            break
        if number % 200 == 0:
            prepare(engine)
        try:
            status, body = ask(connection, request)
        except (OSError, http.client.HTTPException) as error:
            found.statuses[0] += 1
            found.wrong.append(f"no answer ({error!r}): {request}")
            connection.close()
            continue
        found.statuses[status] += 1
        if status >= 500 and status not in (501, 503) and not _as_dockerd(request, body):
            found.wrong.append(f"{status} {body[:300]!r}: {request}")
    connection.close()


def ask(connection: http.client.HTTPConnection, request: Request) -> tuple[int, bytes]:
    """Return the status and as much of the body as arrives."""
    connection.putrequest(request.method, request.target, skip_accept_encoding=True)
    for name, value in request.headers.items():
        connection.putheader(name, value)
    if request.body or request.method in ("POST", "PUT"):
        connection.putheader("Content-Length", str(len(request.body)))
    if request.operation.startswith(("ContainerAttach", "ExecStart", "Session")):
        connection.putheader("Connection", "Upgrade")
        connection.putheader("Upgrade", "websocket" if request.operation.endswith("Websocket") else "tcp")
    connection.endheaders(request.body or None)
    if request.operation == "ContainerWait":
        # As dockerd, the engine sends the head with the body, unless a condition is given.
        assert connection.sock is not None
        connection.sock.settimeout(PATIENCE)
        try:
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError:
            return 200, b""
        finally:
            connection.close()
    response = connection.getresponse()
    if request.operation not in ENDLESS:
        return response.status, response.read()
    body = b""
    with contextlib.suppress(TimeoutError):
        assert connection.sock is not None or response.status >= 400 or response.will_close
        if connection.sock is not None:
            connection.sock.settimeout(PATIENCE)
        body = response.read1() if response.status != 101 else b""
    connection.close()
    return response.status, body


def _as_dockerd(request: Request, body: bytes) -> bool:
    """Whether dockerd also answers this with 500."""
    sentence = re.search(rb'"message":"(.*)', body)
    return sentence is not None and any(
        re.fullmatch(operation, request.operation) and re.match(words.encode(), sentence[1])
        for operation, words in AS_DOCKERD
    )


@contextlib.contextmanager
def objects(engine: Engine) -> Iterator[None]:
    """Remove at the end what the requests have created."""
    try:
        yield
    finally:
        for container in engine.api.get("/containers/json", all=1).json():
            engine.api.delete(f"/containers/{container['Id']}", force=1, v=1)
        for network in engine.api.get("/networks").json():
            if network["Name"] not in ("bridge", "host", "none"):
                engine.api.delete(f"/networks/{network['Id']}")
        for volume in engine.api.get("/volumes").json()["Volumes"] or ():
            engine.api.request("DELETE", "/volumes/" + volume["Name"])
        engine.api.delete("/images/fuzz", force=1)


def prepare(engine: Engine) -> None:
    """Create the objects that requests refer to; remove those that requests created, as they would slow it down."""
    api = engine.api
    for container in api.get("/containers/json", all=1).json():
        api.delete(f"/containers/{container['Id']}", force=1, v=1)
    if api.get("/images/busybox/json").status != 200:
        engine.load_busybox()
    for network in api.get("/networks").json():
        if network["Name"] not in ("bridge", "host", "none", "fuzz-network"):
            api.delete(f"/networks/{network['Id']}")
    api.post("/images/busybox/tag", repo="fuzz")
    api.post("/networks/create", {"Name": "fuzz-network", "Internal": True})
    api.post("/volumes/create", {"Name": "fuzz-volume"})
    host = {"NetworkMode": "none"}
    api.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}, name="fuzz-stopped")
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "SIGKILL", "HostConfig": host}
    api.post("/containers/create", body, name="fuzz-running")
    api.post("/containers/fuzz-running/start")


@dataclass(frozen=True, slots=True)
class _Resources:
    memory: int
    files: int
    tasks: int


def _resources(engine: Engine) -> _Resources:
    prepare(engine)
    pid = engine.daemon.pid
    stacks = engine.daemon.stacks()
    return _Resources(resident_memory(pid), open_descriptors(pid), stacks.count("\nTask "))


def _growth(engine: Engine, before: _Resources) -> list[str]:
    """Return the resources that have grown, once the engine is idle."""
    now = before

    def same() -> bool:
        nonlocal now
        now = _resources(engine)
        return now.memory < before.memory + MEMORY and now.files <= before.files + 10 and now.tasks <= before.tasks + 5

    return [] if until(same, seconds=30) else [f"grown from {before} to {now}"]


if __name__ == "__main__":
    sys.exit(main())
