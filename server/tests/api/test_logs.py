"""GET /containers/{id}/logs of a file that the shim has written: frames, streams, times, tails; stats and top."""

import json
import os
from pathlib import Path

import pytest

from server.tests.daemon import Daemon

SECOND = 1_700_000_000


def stamp(second: int) -> str:
    """Seconds after 2023-11-14T22:13:20Z, as the file has them."""
    return f"2023-11-14T22:13:{20 + second:02d}.5Z"


def frame(stream: int, text: str) -> bytes:
    data = text.encode()
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


@pytest.fixture
def logged(daemon: Daemon) -> Daemon:
    """Containers "one" and, with a terminal, "tty", that wrote three lines each."""
    daemon.load("busybox:latest")
    for name, tty in (("one", False), ("tty", True)):
        daemon.create(name, Tty=tty, Labels={"a": "b"})
        container = daemon.services.containers.get(name)
        container.started_before = True
        lines = [("stdout", "first\n"), ("stderr", "second\n"), ("stdout", "third\n")]
        records = [
            json.dumps({"log": text, "stream": stream, "time": stamp(number)}) + "\n"
            for number, (stream, text) in enumerate(lines)
        ]
        Path(container.log_path).write_text("".join(records))
    return daemon


@pytest.mark.parametrize(
    ("query", "lines"),
    [
        ({"stdout": 1, "stderr": 1}, [(1, "first\n"), (2, "second\n"), (1, "third\n")]),
        ({"stdout": 1}, [(1, "first\n"), (1, "third\n")]),
        ({"stderr": 1}, [(2, "second\n")]),
        ({"stdout": 1, "stderr": 1, "tail": 2}, [(2, "second\n"), (1, "third\n")]),
        ({"stdout": 1, "stderr": 1, "tail": "all"}, [(1, "first\n"), (2, "second\n"), (1, "third\n")]),
        ({"stdout": 1, "tail": 0}, []),
        ({"stdout": 1, "stderr": 1, "since": SECOND + 1}, [(2, "second\n"), (1, "third\n")]),
        ({"stdout": 1, "stderr": 1, "until": f"{SECOND}.9"}, [(1, "first\n")]),
        ({"stdout": 1, "stderr": 1, "since": SECOND + 1, "until": SECOND + 2}, [(2, "second\n")]),
        ({"stdout": 1, "tail": 1, "timestamps": 1}, [(1, f"{stamp(2)[:-2]}500000000Z third\n")]),
        ({"stderr": 1, "details": 1}, [(2, " second\n")]),
    ],
)
def test_lines(logged: Daemon, query: dict[str, object], lines: list[tuple[int, str]]) -> None:
    answer = logged.get("/containers/one/logs", **query)
    assert answer.status_code == 200, answer.text
    assert answer.content == b"".join(frame(stream, text) for stream, text in lines)


def test_lines_as_json_since_1_54(logged: Daemon) -> None:
    def read(version: str = "1.54", accept: str = "", **query: object) -> tuple[str, bytes]:
        answer = logged.request(
            "GET",
            f"/v{version}/containers/one/logs",
            params={"stdout": 1, "stderr": 1, **query},
            headers={"Accept": accept},
        )
        assert answer.status_code == 200, answer.text
        return answer.headers["content-type"], answer.content

    media_type, content = read(format="json", tail=1)
    assert media_type == "application/x-ndjson"
    assert content.endswith(b"}\n")
    shown = {"Line": "third\n", "Source": "stdout", "Timestamp": stamp(2)[:-1].rstrip("0") + "Z"}
    assert json.loads(content) == shown
    assert read(accept="application/jsonl", tail=1) == ("application/jsonl", content)
    assert read(accept="application/json-seq", tail=1) == ("application/json-seq", b"\x1e" + content)
    assert read(format="json", accept="*/*", tail=1)[0] == "application/jsonl"
    assert [json.loads(line)["Line"] for line in read(format="json", stderr=0)[1].splitlines()] == [
        "first\n",
        "third\n",
    ]
    assert read("1.53", format="json", accept="application/jsonl")[0].startswith("application/vnd.docker")
    assert read("1.53", format="yaml")[0].startswith("application/vnd.docker")
    assert logged.refusal("GET", "/containers/one/logs?stdout=1&format=yaml") == (400, "unsupported log format")


def test_types_by_version_and_terminal(logged: Daemon) -> None:
    raw, multiplexed = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"
    for name, version, expected in (("one", "1.42", multiplexed), ("one", "1.41", raw), ("tty", "1.42", raw)):
        answer = logged.get(f"/v{version}/containers/{name}/logs", stdout=1)
        assert answer.headers["content-type"] == expected, (name, version)
    assert logged.get("/containers/tty/logs", stdout=1).content == b"first\nthird\n"


def test_no_stream_and_no_container(logged: Daemon) -> None:
    sentence = "must specify at least one of 'stdout' or 'stderr'"
    assert logged.refusal("GET", "/containers/one/logs") == (400, sentence)
    assert logged.refusal("GET", "/containers/nope/logs?stdout=1") == (404, "No such container: nope")


def test_statistics_of_a_container_that_does_not_run(shared_daemon: Daemon) -> None:
    shown = shared_daemon.get("/containers/created/stats", stream=0).json()
    assert (shown["name"], shown["read"]) == ("/created", "0001-01-01T00:00:00Z")
    sentence = "cannot have stream=true and one-shot=true"
    assert shared_daemon.refusal("GET", "/containers/created/stats?one-shot=1") == (400, sentence)


def test_top(shared_daemon: Daemon) -> None:
    created = shared_daemon.services.containers.get("created").id
    assert shared_daemon.refusal("GET", "/containers/created/top") == (409, f"container {created} is not running")
    shown = shared_daemon.get("/containers/running/top", ps_args="-o pid,comm").json()
    assert shown["Titles"] == ["PID", "COMMAND"]
    assert [row[0] for row in shown["Processes"]] == [str(os.getpid())]
    assert shared_daemon.refusal("GET", "/containers/running/top?ps_args=-o comm")[0] in (400, 500)
