"""Characters that are escaped in JSON, compared with dockerd: those of HTML in streams, but not in other answers."""

from __future__ import annotations

import base64
import json
import time
import uuid
from urllib.parse import quote

import pytest

from compat_tests.support import images
from compat_tests.support.engines import Dockerd, Engine

TEXT = "<a>&b\u2028\u2029é"
JSON = {"Content-Type": "application/json"}
TAR = {"Content-Type": "application/x-tar"}


def answers(engine: Engine) -> dict[str, bytes]:
    """Return the engine's output that contains ``TEXT``, without what differs by engine."""
    name = f"e{uuid.uuid4().hex[:10]}"

    def ask(method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
        return engine.api.request(method, f"/v1.45{path}", body=body, headers=headers or {}).body

    found = {"an error": ask("GET", f"/containers/{quote(TEXT)}/json")}
    config = {"Image": "busybox", "Cmd": ["true"], "Labels": {"l": TEXT}, "HostConfig": {"NetworkMode": "none"}}
    ask("POST", f"/containers/create?name={name}", json.dumps(config).encode(), JSON)
    try:
        inspected = ask("GET", f"/containers/{name}/json")
        found["inspect"] = inspected[inspected.index(b'"Labels"') :].split(b"}")[0]
        archive = images.layer({TEXT: b""})
        ask("PUT", f"/containers/{name}/archive?path=/tmp", archive, TAR)
        head = engine.api.request("HEAD", f"/v1.45/containers/{name}/archive?path=/tmp/{quote(TEXT)}")
        stat = base64.b64decode(head.headers["X-Docker-Container-Path-Stat"])
        found["the header of a path"] = stat.split(b",")[0]
        events = ask("GET", f"/events?since={int(time.time()) - 60}&until={int(time.time()) + 1}")
        (created,) = (line for line in events.splitlines() if b'"create"' in line and name.encode() in line)
        found["an event"] = created[created.index(b'"l"') :].split(b",")[0].rstrip(b"}")
    finally:
        ask("DELETE", f"/containers/{name}?force=1")
    context = images.layer({"Dockerfile": f"FROM busybox\nRUN echo 'a<b>&c' && false # {TEXT}\n".encode()})
    built = ask("POST", "/build?forcerm=1", context, TAR)
    found["a build"] = b"\n".join(line for line in built.splitlines() if b'"stream":" ---' not in line)
    return found


def test_escapes_beside_dockerd(engine: Engine, oracle: Dockerd) -> None:
    ours, theirs = answers(engine), answers(oracle)
    assert rb"\u003c" in theirs["an event"]
    for case, answer in theirs.items():
        assert ours[case] == answer, case


@pytest.mark.parametrize("keyword", ["FOO", "foo", "Foo", "RUNx", "runn", "enV2", "COPI"])
def test_a_misspelt_instruction(engine: Engine, oracle: Dockerd, keyword: str) -> None:
    """The suggestion has the case of the input."""
    context = images.layer({"Dockerfile": f"FROM busybox\n{keyword} x\n".encode()})
    found = [each.api.request("POST", "/v1.45/build", body=context, headers=TAR) for each in (engine, oracle)]
    assert (found[0].status, found[0].body) == (found[1].status, found[1].body)


def test_arguments_of_ps_with_a_nul(engine: Engine) -> None:
    """dockerd returns 500 for a program that can't be started."""
    box = engine.docker("run", "-d", "--network", "none", "busybox", "sleep", "1000").stdout.strip()
    try:
        for arguments in ("-e%00f", "%00"):
            answer = engine.api.request("GET", f"/containers/{box}/top?ps_args={arguments}")
            assert answer.status == 400
            assert answer.json() == {"message": "ps_args contains a NUL character"}
    finally:
        engine.docker("rm", "-f", box)
