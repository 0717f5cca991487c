"""POST /build over the fake engine: the stream of the classic builder, its sentences, and what becomes of the image.

No RUN: it needs a network, a shim and a runtime.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from server.tests import samples
from server.tests.daemon import Daemon, serving

# The context is extracted in a root of the thread's own (chroot).
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
NOT_LOWER = "invalid reference format: repository name (library/UPPER) must be lowercase"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with serving(tmp_path_factory.mktemp("builder")) as daemon:
        daemon.load("busybox:latest")
        yield daemon


def build(daemon: Daemon, text: str, /, name: str = "Dockerfile", **query: object) -> httpx.Response:
    context = samples.layer({name: text.encode(), "a": b"hello"})
    headers = {"content-type": "application/x-tar"}
    return daemon.request("POST", "/build", params=query, content=context, headers=headers)


def messages(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def text_of(answer: httpx.Response) -> str:
    return "".join(message.get("stream", "") for message in messages(answer))


def config_of(daemon: Daemon, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.get(f"/images/{name}/json").json()["Config"]
    return found


def test_the_stream_and_the_image(builder: Daemon) -> None:
    answer = build(builder, 'FROM busybox\nENV A=1\nCMD ["x"]\n', t=["made:1", "made:2"])
    found = messages(answer)
    [identity] = [message["aux"]["ID"] for message in found if "aux" in message]
    lines = text_of(answer).splitlines()
    assert [line for line in lines if line.startswith("Step")] == [
        "Step 1/3 : FROM busybox",
        "Step 2/3 : ENV A=1",
        'Step 3/3 : CMD ["x"]',
    ]
    assert lines[-2:] == ["Successfully tagged made:1", "Successfully tagged made:2"]
    assert f"Successfully built {identity[7:19]}\n" in text_of(answer)
    assert builder.get("/images/made:2/json").json()["Id"] == identity
    config = config_of(builder, "made:1")
    assert (config["Cmd"], "A=1" in config["Env"]) == (["x"], True)
    quiet = messages(build(builder, 'FROM busybox\nENV A=1\nCMD ["x"]\n', q=1))
    assert [message["stream"] for message in quiet if "stream" in message] == [f"{identity}\n"]


@pytest.mark.parametrize(
    ("dockerfile", "query", "sentence"),
    [
        ("", {}, "the Dockerfile (Dockerfile) cannot be empty"),
        ("FRM x\n", {}, "dockerfile parse error on line 1: unknown instruction: FRM (did you mean FROM?)"),
        ("ENV A=1\n", {}, "no build stage in current context"),
        ("FROM busybox\nENV A\n", {}, "failed to parse Dockerfile: ENV must have two arguments"),
        ("FROM busybox\n", {"t": "UPPER"}, NOT_LOWER),
        ("FROM busybox\n", {"target": "nope"}, 'target stage "nope" could not be found'),
        ("FROM busybox\n", {"dockerfile": "nope"}, None),
        ("FROM busybox\n", {"buildargs": "{"}, None),
        ("FROM busybox\n", {"version": "3"}, None),
    ],
)  # fmt: skip
def test_refused_with_a_status(builder: Daemon, dockerfile: str, query: dict[str, str], sentence: str | None) -> None:
    answer = build(builder, dockerfile, **query)
    assert answer.status_code in (400, 500), answer.text
    assert sentence is None or answer.json() == {"message": sentence}


def test_an_error_in_the_stream(builder: Daemon) -> None:
    answer = build(builder, "FROM busybox\nUSER $X\nCOPY nope /\n")
    *_, last = messages(answer)
    sentence = (
        "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"
    )
    assert last == {"errorDetail": {"message": sentence}, "error": sentence}
    assert "Step 3/3 : COPY nope /" in text_of(answer)


def test_arguments_labels_and_targets(builder: Daemon) -> None:
    dockerfile = "ARG V=1\nFROM busybox AS one\nARG V\nLABEL v=$V\nFROM one AS two\nLABEL two=2\n"
    query = {"buildargs": '{"V":"7"}', "labels": '{"own":"x"}', "target": "one", "t": "made:args"}
    assert "Successfully tagged made:args" in text_of(build(builder, dockerfile, **query))
    assert config_of(builder, "made:args")["Labels"] == {"v": "7", "own": "x"}
    other = build(builder, "FROM busybox\n", name="other", dockerfile="other", t="made:other")
    assert "Successfully tagged made:other" in text_of(other)
    unused = build(builder, "FROM busybox\n", buildargs='{"NOPE":"1"}')
    assert "[Warning] One or more build-args [NOPE] were not consumed" in text_of(unused)


def test_a_second_build_is_cached(builder: Daemon) -> None:
    dockerfile = "FROM busybox\nENV CACHED=1\nENV MORE=2\n"
    first, second = build(builder, dockerfile), build(builder, dockerfile)
    assert "Using cache" not in text_of(first)
    assert text_of(second).count(" ---> Using cache") == 2
    assert [m["aux"] for m in messages(first) if "aux" in m] == [m["aux"] for m in messages(second) if "aux" in m]
    assert "Using cache" not in text_of(build(builder, dockerfile, nocache=1))


def test_prune_and_cancel(builder: Daemon) -> None:
    answer = builder.post("/build/prune")
    assert answer.status_code == 200
    assert set(answer.json()) == {"CachesDeleted", "SpaceReclaimed"}
    assert builder.refusal("POST", "/build/prune?filters={%22nope%22:[%22x%22]}")[0] == 400


def test_copied_files_are_a_layer(builder: Daemon) -> None:
    assert "Successfully tagged made:copied" in text_of(build(builder, "FROM busybox\nCOPY a /b\n", t="made:copied"))
    base, copied = (builder.get(f"/images/{name}/json").json() for name in ("busybox", "made:copied"))
    assert copied["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    [step] = [row for row in builder.get("/images/made:copied/history").json() if "COPY" in row["CreatedBy"]]
    assert step["Size"] == 5
