"""`docker logs`: stored and new lines, rotation, and refused parameters."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import frames

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")


def finish(engine: Engine, box: str) -> None:
    assert engine.api.post(f"/containers/{box}/wait").status == 200


def logs(engine: Engine, box: str, **query: Any) -> bytes:
    answer = engine.api.get(f"/containers/{box}/logs", **{"stdout": 1, "stderr": 1, **query})
    assert answer.status == 200, answer.body
    return answer.body


@pytest.mark.core
def test_both_streams_through_the_cli(engine: Engine) -> None:
    script = "echo one; echo two >&2; echo three; printf tail"
    with container(engine, Cmd=["sh", "-c", script]) as box:
        finish(engine, box)
        done = engine.docker("logs", box)
        assert (done.stdout, done.stderr) == ("one\nthree\ntail", "two\n")
        assert engine.docker("logs", "--tail", "1", box).stdout == "tail"
        assert engine.docker("logs", "--tail", "0", box).output == ""
        stamped = engine.docker("logs", "-t", box).stdout.splitlines()
        assert all(STAMP.match(line) for line in stamped), stamped


@pytest.mark.core
def test_an_entry_is_a_frame(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "echo a; echo b >&2"]) as box:
        finish(engine, box)
        assert sorted(frames(logs(engine, box))) == [(1, b"a\n"), (2, b"b\n")]
        assert frames(logs(engine, box, stdout=0)) == [(2, b"b\n")]
        types = [
            engine.api.get(f"/{version}/containers/{box}/logs", stdout=1).headers["Content-Type"]
            for version in ("v1.41", "v1.42")
        ]
        assert types == ["application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"]
    with container(engine, Cmd=["sh", "-c", "echo a; echo b >&2"], Tty=True) as box:
        finish(engine, box)
        assert logs(engine, box) == b"a\r\nb\r\n"


def test_since_and_until(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "echo first; sleep 1.1; echo second"]) as box:
        finish(engine, box)
        stamps = [line.split(" ")[0] for line in engine.docker("logs", "-t", box).stdout.splitlines()]
        later = stamps[1]
        assert engine.docker("logs", "--since", later, box).stdout == "second\n"
        assert engine.docker("logs", "--until", stamps[0], box).stdout == "first\n"
        assert engine.docker("logs", "--since", "1h", box).stdout == "first\nsecond\n"


def test_details_show_labels_and_environment(engine: Engine) -> None:
    log = {"Type": "json-file", "Config": {"labels": "color,shape", "env": "MODE"}}
    with container(
        engine,
        Cmd=["echo", "hi"],
        Labels={"color": "dark red", "other": "x"},
        Env=["MODE=fast"],
        HostConfig={"LogConfig": log},
    ) as box:
        finish(engine, box)
        assert frames(logs(engine, box, details=1)) == [(1, b"MODE=fast,color=dark+red hi\n")]


@pytest.mark.core
def test_follow_until_the_end(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "echo ready; read x; echo $x; exit 3"], OpenStdin=True) as box:
        with engine.popen("logs", "-f", box) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == b"ready\n"
            engine.docker("attach", "--no-stdin=false", box, input="more\n", check=False)
            assert following.stdout.read() == b"more\n"
            assert following.wait(60) == 0
        assert engine.docker("logs", "-f", box).stdout == "ready\nmore\n"


@pytest.mark.core
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_followers_across_rotation(engine: Engine, driver: str) -> None:
    """The files are much smaller than the output, which three followers read while it is written."""
    if engine.kind == "dockerd":
        pytest.skip("dockerd's followers lose lines")
    options = {"max-size": "40k", "max-file": "60", "compress": "false"}
    host = {"LogConfig": {"Type": driver, "Config": options}}
    script = "i=0; while [ $i -lt 6000 ]; do echo line $i; i=$((i+1)); done"
    got: list[bytes] = []

    def follow(box: str) -> None:
        got.append(logs(engine, box, follow=1))

    with container(engine, Cmd=["sh", "-c", f"read x; {script}"], OpenStdin=True, HostConfig=host) as box:
        threads = [threading.Thread(target=follow, args=(box,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        engine.docker("attach", box, input="go\n", check=False)
        for thread in threads:
            thread.join(90)
        finish(engine, box)
        expected = [f"line {number}\n".encode() for number in range(6000)]
        assert [[data for _, data in frames(each)] for each in got] == [expected] * 3
        assert [data for _, data in frames(logs(engine, box))] == expected
        assert [data for _, data in frames(logs(engine, box, tail=2500))] == expected[-2500:]


def test_long_lines_and_arbitrary_bytes(engine: Engine) -> None:
    script = (
        "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'quote\" back\\\\slash tab\\t bell\\a <&> \\303\\274\\n'"
    )
    with container(engine, Cmd=["sh", "-c", script]) as box:
        finish(engine, box)
        text = b"".join(data for _, data in frames(logs(engine, box)))
        assert text == b"x" * 40000 + b'\nquote" back\\slash tab\t bell\a <&> \xc3\xbc\n'


def test_restarted_containers_keep_their_log(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "echo run"]) as box:
        finish(engine, box)
        assert engine.api.post(f"/containers/{box}/start").status == 204
        finish(engine, box)
        assert engine.docker("logs", box).stdout == "run\nrun\n"


def test_invalid_parameters_are_refused(engine: Engine) -> None:
    def status_and_message(path: str, **query: Any) -> tuple[int, str]:
        return engine.api.get(path, **query).error

    assert status_and_message("/containers/nosuch/logs", stdout=1) == (404, "No such container: nosuch")
    with container(engine, start=False, Cmd=["true"]) as box:
        path = f"/containers/{box}/logs"
        assert status_and_message(path) == (400, "must specify at least one of 'stdout' or 'stderr'")
        assert status_and_message(path, stdout=1, since="foo") == (
            400,
            'strconv.ParseInt: parsing "foo": invalid syntax',
        )
        assert status_and_message(path, stdout=1, until="1.x") == (400, 'strconv.ParseInt: parsing "x": invalid syntax')
        assert logs(engine, box, follow=1) == b""
    with container(engine, Cmd=["true"], HostConfig={"LogConfig": {"Type": "none"}}) as box:
        finish(engine, box)
        refused = status_and_message(f"/containers/{box}/logs", stdout=1)
        assert refused == (501, "configured logging driver does not support reading")


def test_docker_py_yields_lines(engine: Engine) -> None:
    with container(engine, Cmd=["sh", "-c", "echo a; echo b"]) as box:
        finish(engine, box)
        py_container = engine.client.containers.get(box)
        assert list(py_container.logs(stream=True)) == [b"a\n", b"b\n"]
        assert py_container.logs(tail=1) == b"b\n"


def test_disconnected_follower_is_noticed(engine: Engine) -> None:
    with container(engine, Cmd=["sleep", "600"]) as box:
        for _ in range(5):
            with engine.popen("logs", "-f", box) as following:
                following.kill()
        assert until(lambda: engine.api.get("/_ping").status == 200, seconds=60)
