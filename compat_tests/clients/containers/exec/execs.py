"""Execs by the API, for the tests of `docker exec`."""

from __future__ import annotations

from typing import Any

from compat_tests.support.engines import Engine


def create(engine: Engine, box: str, *cmd: str, **config: Any) -> str:
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(cmd), **config}
    answer = engine.api.post(f"/containers/{box}/exec", body)
    assert answer.status == 201, answer.body
    return str(answer.json()["Id"])


def inspect(engine: Engine, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.api.get(f"/exec/{identity}/json").json()
    return found
