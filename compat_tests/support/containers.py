"""Containers created from a request's body, examined from inside and from the host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compat_tests.support.engines import Engine

UNIFIED = not Path("/sys/fs/cgroup/memory").is_dir()
MIB = 1 << 20


def create(engine: Engine, body: dict[str, Any], **query: str) -> tuple[str, list[str]]:
    """Create a container, without network unless the body has one; return its id and the warnings."""
    host = {"NetworkMode": "none", **body.get("HostConfig", {})}
    answer = engine.api.post("/containers/create", {"Image": "busybox", **body, "HostConfig": host}, **query)
    assert answer.status == 201, answer.body
    return answer.json()["Id"], answer.json()["Warnings"]


@contextmanager
def container(engine: Engine, *, start: bool = True, **body: Any) -> Iterator[str]:
    """Create a container and start it by default; remove it at the end."""
    identity, _ = create(engine, body)
    with _removed(engine, identity, start=start):
        yield identity


@contextmanager
def running(engine: Engine, body: dict[str, Any], **query: str) -> Iterator[str]:
    """Run a container that sleeps, unless the body has a command; remove it at the end."""
    identity, _ = create(engine, {"Cmd": ["sleep", "600"], **body}, **query)
    with _removed(engine, identity, start=True):
        yield identity


@contextmanager
def _removed(engine: Engine, identity: str, *, start: bool) -> Iterator[None]:
    try:
        if start:
            answer = engine.api.post(f"/containers/{identity}/start")
            assert answer.status == 204, answer.body
        yield
    finally:
        engine.api.delete(f"/containers/{identity}", force=1, v=1)


def output(engine: Engine, body: dict[str, Any], script: str) -> list[str]:
    """Return the lines that a shell prints in the container."""
    with running(engine, {**body, "Cmd": ["sh", "-c", script]}) as identity:
        engine.api.post(f"/containers/{identity}/wait")
        return engine.docker("logs", identity).output.splitlines()


def inspect(engine: Engine, identity: str) -> dict[str, Any]:
    """Return what inspect answers."""
    answer: dict[str, Any] = engine.api.get(f"/containers/{identity}/json").json()
    return answer


def state(engine: Engine, identity: str) -> dict[str, Any]:
    """Return the state that inspect answers."""
    answer: dict[str, Any] = inspect(engine, identity)["State"]
    return answer


def pid_of(engine: Engine, identity: str) -> int:
    """Return the pid of the container's first process on the host."""
    return int(state(engine, identity)["Pid"])


def spec_of(engine: Engine, identity: str) -> dict[str, Any]:
    """Return the OCI specification of a container on our own supervisor: the runtime's input."""
    (path,) = engine.resources.root.glob(f"run/containerd/tasks/*/{identity}/config.json")
    spec: dict[str, Any] = json.loads(path.read_text())
    return spec


def cgroup_of(engine: Engine, identity: str, controller: str) -> Path:
    """Return the container's directory in a controller's hierarchy (or in v2's single one)."""
    for line in Path(f"/proc/{pid_of(engine, identity)}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if UNIFIED and names == "":
            return Path(f"/sys/fs/cgroup{path}")
        if not UNIFIED and controller in names.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}")
    raise AssertionError(f"no {controller} cgroup")


def create_and_remove(engine: Engine, body: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what inspect answers for a container that isn't started, and the warnings of its create."""
    identity, warnings = create(engine, body)
    try:
        return inspect(engine, identity), warnings
    finally:
        engine.api.delete(f"/containers/{identity}", v=1)


def start_error(engine: Engine, body: dict[str, Any]) -> str:
    """Return the error of such a container's start; "" if it starts."""
    identity, _ = create(engine, {"Cmd": ["true"], **body})
    try:
        answer = engine.api.post(f"/containers/{identity}/start")
        return "" if answer.status == 204 else answer.message
    finally:
        engine.api.delete(f"/containers/{identity}", force=1)
