"""Clients that read and follow the log while it is rotated and containers start."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from compat_tests.support.containers import container
from compat_tests.support.engines import Engine
from compat_tests.support.polling import until
from compat_tests.support.streams import frames, hijack

# Exceeds the socket buffers: a client that doesn't read is not sent the whole log.
COUNT = 8000
DRIVERS = pytest.mark.parametrize(("driver", "compress"), [("json-file", "false"), ("local", "true")])


def count(begin: int, end: int) -> str:
    return f"awk 'BEGIN {{ for (i = {begin}; i <= {end}; i++) printf \"%0100d\\n\", i }}'"


def numbers(data: bytes) -> list[int]:
    """Parse the numbers; AssertionError for a truncated line or frame."""
    text = b"".join(part for _, part in frames(data))
    assert text[-1:] in (b"", b"\n")
    assert all(len(line) == 100 for line in text.split())
    return [int(line) for line in text.split()]


def logs(engine: Engine, box: str, **query: Any) -> list[int]:
    return numbers(engine.api.get(f"/containers/{box}/logs", stdout=1, **query).body)


def settings(driver: str, compress: str, size: str, files: int) -> dict[str, Any]:
    options = {"max-size": size, "max-file": str(files), "compress": compress}
    return {"HostConfig": {"LogConfig": {"Type": driver, "Config": options}}}


@pytest.mark.core
def test_start_while_a_client_reads_the_log(engine: Engine) -> None:
    if engine.kind == "dockerd":
        pytest.skip("dockerd's client misses what is written meanwhile")
    script = f"if [ -e /ran ]; then {count(COUNT + 1, COUNT + 300)}; else touch /ran; {count(1, COUNT)}; fi"
    with container(engine, Cmd=["sh", "-c", script]) as box:
        assert engine.api.post(f"/containers/{box}/wait").json()["StatusCode"] == 0
        with hijack(engine, f"/containers/{box}/attach?logs=1&stream=1&stdout=1") as stream:
            assert engine.api.post(f"/containers/{box}/start").status == 204
            assert engine.api.post(f"/containers/{box}/wait").json()["StatusCode"] == 0
            assert numbers(stream.read()) == list(range(1, COUNT + 301))
        # Clients that come with the start, before the first line, or after the last.
        with hijack(engine, f"/containers/{box}/attach?logs=1&stdout=1") as stream:
            assert numbers(stream.read()) == list(range(1, COUNT + 301))
    with container(engine, start=False, Cmd=["sh", "-c", count(1, 300)]) as box:
        with hijack(engine, f"/containers/{box}/attach?logs=1&stream=1&stdout=1") as stream:
            assert engine.api.post(f"/containers/{box}/start").status == 204
            assert numbers(stream.read()) == list(range(1, 301))


@DRIVERS
def test_a_client_that_joins_a_log_that_is_dropped(engine: Engine, driver: str, compress: str) -> None:
    """The log is completely rotated while the client reads; then the client gets what was written meanwhile."""
    last = 4 * COUNT
    script = f"{count(1, COUNT)}; read x; {count(COUNT + 1, last)}"
    with container(engine, Cmd=["sh", "-c", script], OpenStdin=True, **settings(driver, compress, "700k", 3)) as box:
        assert until(lambda: logs(engine, box, tail=1) == [COUNT])
        before = logs(engine, box)
        with hijack(engine, f"/containers/{box}/attach?logs=1&stream=1&stdout=1") as stream:
            with hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1") as other:
                other.write(b"go\n")
            assert engine.api.post(f"/containers/{box}/wait").json()["StatusCode"] == 0
            assert numbers(stream.read()) == list(range(before[0], last + 1))
        assert logs(engine, box)[0] > COUNT


@DRIVERS
def test_tails_that_follow_across_rotation(engine: Engine, driver: str, compress: str) -> None:
    """Followers start at any position of a log that is constantly rotated."""
    if engine.kind == "dockerd":
        pytest.skip("dockerd's followers lose lines")
    last, found = 3 * COUNT, dict[int, list[int]]()
    script = f"{count(1, 500)}; read x; {count(501, last)}; read x"
    with container(engine, Cmd=["sh", "-c", script], OpenStdin=True, **settings(driver, compress, "60k", 200)) as box:

        def follow(tail: int) -> None:
            with engine.popen("logs", "-f", "--tail", str(tail), box) as following:
                assert following.stdout is not None
                found[tail] = [int(line) for line in following.stdout]

        assert until(lambda: logs(engine, box, tail=1) == [500])
        threads = [threading.Thread(target=follow, args=(tail,)) for tail in (0, 1, 700, 5000)]
        threads[0].start()
        with hijack(engine, f"/containers/{box}/attach?stream=1&stdin=1") as other:
            other.write(b"go\n")
            for thread in threads[1:]:
                thread.start()
            until(lambda: logs(engine, box, tail=1) == [last])
            other.write(b"end\n")
        for thread in threads:
            thread.join(90)
        for tail, lines in found.items():
            first = lines[0] if lines else last + 1
            assert lines == list(range(first, last + 1)), tail
            assert first <= last + 1 - tail if tail < last else first == 1, tail
        assert sorted(found) == [0, 1, 700, 5000]
        assert logs(engine, box) == list(range(1, last + 1))
