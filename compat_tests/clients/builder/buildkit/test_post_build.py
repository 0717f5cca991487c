"""``POST /build?version=2``: BuildKit without buildx, as dockerode, testcontainers and old CLIs request it."""

from __future__ import annotations

import json
import re
import socket
import threading
import uuid
from pathlib import Path
from urllib.parse import urlencode

import pytest

from compat_tests.clients.builder import sessions
from compat_tests.clients.builder.posted import DOCKERFILE, Posted, context, post
from compat_tests.clients.builder.sessions import Client
from compat_tests.support.engines import Dockerd, Engine
from compat_tests.support.host.processes import pids_of
from compat_tests.support.polling import until
from compat_tests.support.servers.web import repository, serving

FAILS = "FROM busybox\nRUN echo out''put; exit 4\n"


def test_output_image_and_cache_of_a_build(engine: Engine) -> None:
    built = post(engine, context(), t=["posted:1", "posted:2"], buildargs='{"A": "7"}', labels='{"given": "x"}')
    assert built.answer.headers["Content-Type"] == "application/json"
    assert built.output == "ran 7\ndata\n"
    assert any(name.endswith("COPY f /f") and step.HasField("completed") for name, step in built.steps.items())
    inspected = engine.api.get("/images/posted:1/json").json()
    assert inspected["Id"] == built.image
    assert sorted(inspected["RepoTags"]) == ["posted:1", "posted:2"]
    assert inspected["Config"]["Labels"] == {"given": "x", "own": "7"}
    again = post(engine, context(), buildargs='{"A": "7"}')
    assert again.output == ""
    assert sum(step.cached for step in again.steps.values()) >= 2
    assert post(engine, context(), buildargs='{"A": "7"}', nocache=1).output == "ran 7\ndata\n"
    base = post(engine, context(), target="base", t="posted:base")
    assert "LAST=1" not in engine.api.get(f"/images/{base.image}/json").json()["Config"]["Env"]
    assert post(engine, context(name="other"), dockerfile="other").image
    quiet = post(engine, context(), q=1)
    assert quiet.messages == [{"stream": f"{post(engine, context()).image}\n"}]


def test_single_dockerfile_and_outputs(engine: Engine) -> None:
    alone = post(engine, b"FROM busybox\nLABEL alone=1\n")
    assert engine.api.get(f"/images/{alone.image}/json").json()["Config"]["Labels"] == {"alone": "1"}
    assert post(engine, context(), outputs='[{"Type": "moby", "Attrs": {}}]', t="posted:out").image
    cached = post(engine, context(), outputs='[{"Type": "cacheonly"}]')
    assert cached.error == ""
    assert {message["id"] for message in cached.messages} == {"moby.buildkit.trace"}


REFUSED: tuple[tuple[str, dict[str, object]], ...] = (
    (DOCKERFILE, {"dockerfile": "nope"}),
    (DOCKERFILE, {"target": "nope"}),
    (DOCKERFILE, {"networkmode": "nope"}),
    (DOCKERFILE, {"t": "BAD::tag"}),
    (DOCKERFILE, {"outputs": "junk"}),
    (DOCKERFILE, {"outputs": '[{"Type": "moby"}, {"Type": "moby"}]'}),
    (DOCKERFILE, {"extrahosts": "nope"}),
    (DOCKERFILE, {"squash": 1}),
    (DOCKERFILE, {"version": 3}),
    (FAILS, {}),
    (FAILS, {"q": 1}),
    ("FROM busybox\nWRONG\n", {}),
    ("FROM busybox\nCOPY missing /\n", {}),
)


def test_refused_in_dockerds_words(engine: Engine, oracle: Dockerd) -> None:
    for dockerfile, query in REFUSED:
        ours, theirs = (post(each, context(dockerfile), **query) for each in (engine, oracle))
        assert without_references(ours.error) == without_references(theirs.error), query
        assert ours.error
        assert (ours.answer.status == 200) == (theirs.answer.status == 200), query
    for body in (b"", b"zzzzzzzz yy\n" * 10):
        assert post(engine, body).error == post(oracle, body).error
    failed = post(engine, context(FAILS))
    assert failed.output == "output\n"
    assert next(step.error for name, step in failed.steps.items() if "RUN" in name) == failed.error


def without_references(text: str) -> str:
    return re.sub(r"ref \S+::\w+", "ref", text)


def test_remote_contexts(engine: Engine, tmp_path: Path) -> None:
    repository(tmp_path, "one", {"Dockerfile": "FROM busybox\nCOPY f /f\nRUN cat /f\n", "f": "of git\n"})
    (tmp_path / "context.tar").write_bytes(context())
    (tmp_path / "plain").write_text("FROM busybox\nRUN echo pl''ain\n")
    with serving(tmp_path) as url:
        assert post(engine, b"", remote=f"{url}/one.git").output == "of git\n"
        assert post(engine, b"", remote=f"{url}/context.tar", buildargs='{"A": "r"}').output == "ran r\ndata\n"
        assert post(engine, b"", remote=f"{url}/plain").output == "plain\n"
        assert f"{url}/nothing" in post(engine, b"", remote=f"{url}/nothing").error
    assert "could not access local files without session" in post(engine, b"", remote="client-session").error


def test_a_session_as_an_old_cli_has_it(engine: Engine) -> None:
    """DOCKER_BUILDKIT=1 without buildx: the session serves files, secrets and credentials, this request the build."""
    files = {
        "dockerfile": {"Dockerfile": b"FROM busybox\nCOPY f /f\nRUN --mount=type=secret,id=s cat /f /run/secrets/s\n"},
        "context": {"f": b"from the session\n"},
    }
    client = Client(engine, files, leaves="")

    def work(session: str) -> Posted:
        return post(engine, b"", remote="client-session", session=session, buildid=session, t="posted:session")

    built = client.serve(work)
    assert built.output == "from the session\nhush"
    assert engine.api.get("/images/posted:session/json").json()["Id"] == built.image
    outputs = json.dumps([{"Type": "tar", "Attrs": {}}])
    client.serve(lambda id: post(engine, b"", remote="client-session", session=id, outputs=outputs))
    assert sessions.SEND_FILES in client.calls

    def upload(session: str) -> Posted:
        """A context from stdin comes in a second request, before or after the build's."""
        answers: list[Posted] = []
        arguments = {"buildid": f"upload-request:{session}", "session": session}
        secret = context("FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s\n")
        sends = threading.Thread(target=lambda: answers.append(post(engine, secret, **arguments)))
        sends.start()
        found = post(engine, b"", remote="upload-request", session=session, buildid=session)
        sends.join()
        assert answers[0].answer.status == 200
        assert answers[0].messages == []
        return found

    assert client.serve(upload).output == "hush"


@pytest.mark.parametrize("version", [1, 2])
def test_cancel_and_disconnect(engine: Engine, version: int) -> None:
    marker = str(10**8 + uuid.uuid4().int % 10**8)
    body = context(f"FROM busybox\nRUN sleep {marker}\n")
    answers: list[Posted] = []
    builds = threading.Thread(target=lambda: answers.append(post(engine, body, version=version, buildid=marker)))
    builds.start()
    assert until(lambda: bool(pids_of("sleep", marker)))
    assert engine.api.request("POST", "/build/cancel", query={"id": marker}).status == 200
    builds.join()
    assert answers[0].error == "context canceled"
    assert until(lambda: not pids_of("sleep", marker))

    sock = engine.api.raw()
    query = urlencode({"version": version})
    sock.sendall(f"POST /build?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert until(lambda: bool(pids_of("sleep", marker)))
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()
    assert until(lambda: not pids_of("sleep", marker))
