"""Concurrent builds on cache mounts (``RUN --mount=type=cache``), with concurrent prunes of the cache."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from compat_tests.clients.builder.posted import Posted, context, post
from compat_tests.support.engines import Engine

pytestmark = pytest.mark.usefixtures("remove_new_images")

BUILDS = 6


@contextmanager
def repeated_prunes(engine: Engine) -> Iterator[None]:
    """Prune the build cache repeatedly during the block."""
    stop = threading.Event()

    def prune() -> None:
        while not stop.wait(0.02):
            assert engine.api.request("POST", "/build/prune", query={"all": 1}).status == 200

    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(prune)
        try:
            yield
        finally:
            stop.set()
            pruning.result()


def build(engine: Engine, mount: str, script: str) -> Posted:
    """Build one step with the mount at ``/c``, different from every other step."""
    line = f"RUN --mount=type=cache,target=/c,{mount} : {uuid.uuid4()}; {script}"
    return post(engine, context(f"FROM busybox\n{line}\n"), outputs='[{"Type": "cacheonly"}]')


def build_concurrently(engine: Engine, mount: str, scripts: Sequence[str]) -> list[Posted]:
    """Start builds at the same time."""
    barrier = threading.Barrier(len(scripts))

    def one(script: str) -> Posted:
        barrier.wait()
        return build(engine, mount, script)

    with ThreadPoolExecutor(len(scripts)) as pool:
        return list(pool.map(one, scripts))


def succeeded(builds: Sequence[Posted]) -> list[str]:
    for each in builds:
        assert each.error == "", each.output
    return [each.output for each in builds]


def test_shared_loses_nothing(engine: Engine) -> None:
    """All builds that start while one uses the cache share a directory, even a new one, and keep it despite prunes."""
    mount = f"id=shared-{uuid.uuid4()},sharing=shared"
    # Each waits for the files of all others, which exist only in a shared directory.
    count = f"until [ $(ls /c | wc -l) -ge {BUILDS} ]; do sleep 0.05; done"
    scripts = [f"touch /c/{number}; {count}; sleep 0.5; ls /c" for number in range(BUILDS)]
    with repeated_prunes(engine):
        outputs = succeeded(build_concurrently(engine, mount, scripts))
    assert set(outputs) == {"".join(f"{number}\n" for number in range(BUILDS))}


def test_locked_is_exclusive(engine: Engine) -> None:
    mount = f"id=locked-{uuid.uuid4()},sharing=locked"
    script = "mkdir /c/busy || exit 9; sleep 0.2; echo x >> /c/all; rmdir /c/busy"
    succeeded(build_concurrently(engine, mount, [script] * BUILDS))
    assert succeeded([build(engine, mount, "cat /c/all")]) == ["x\n" * BUILDS]
    with repeated_prunes(engine):  # a directory in use is not pruned; between two steps it may be
        succeeded(build_concurrently(engine, mount, [script] * BUILDS))


def test_private_gets_separate_directories(engine: Engine) -> None:
    mount = f"id=private-{uuid.uuid4()},sharing=private"
    script = "mkdir /c/busy || exit 9; touch /c/kept; sleep 0.5; ls /c; rmdir /c/busy"
    with repeated_prunes(engine):
        assert succeeded(build_concurrently(engine, mount, [script] * BUILDS)) == ["busy\nkept\n"] * BUILDS
    succeeded([build(engine, mount, "touch /c/again")])
    assert "again" in succeeded([build(engine, mount, "ls /c")])[0]


def test_sharing_modes_use_separate_directories(engine: Engine) -> None:
    """A shared directory is never used as a private one at the same time, and vice versa."""
    id = f"mixed-{uuid.uuid4()}"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(build, engine, f"id={id},sharing=shared", "touch /c/shared; sleep 3; ls /c")
        # Start in the middle of the first build; after its end, the directory would be free.
        private = build(engine, f"id={id},sharing=private", "touch /c/private; sleep 1; ls /c")
        assert "private" not in succeeded([first.result()])[0]
    assert "private" in succeeded([private])[0]


def test_one_step_mounts_a_cache_twice(engine: Engine) -> None:
    id = f"twice-{uuid.uuid4()}"
    built = build(
        engine, f"id={id},sharing=locked --mount=type=cache,id={id},target=/d,sharing=locked", "touch /c/x; ls /d"
    )
    assert succeeded([built]) == ["x\n"]


def test_a_new_cache_begins_with_its_files_for_all(engine: Engine) -> None:
    """``from=``: no step sees a directory while it is being filled."""
    mount = f"id=filled-{uuid.uuid4()},sharing=shared,from=busybox,source=/bin"
    outputs = succeeded(build_concurrently(engine, mount, ["ls /c | wc -l"] * BUILDS))
    assert len(set(outputs)) == 1
    assert int(outputs[0]) > 1
