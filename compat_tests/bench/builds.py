"""Builds by both front ends: without cache, fully cached, a large context with one change, parallel stages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compat_tests.bench.measure import Row, at_most, clock, in_turn, within
from compat_tests.support.engines import Engine

STEPS = (
    "FROM busybox\n" + "".join(f"RUN echo {number} > /f{number}\n" for number in range(8)) + "COPY f /f\nWORKDIR /w\n"
)
STAGES = (
    "FROM busybox AS a\nRUN sleep 1; echo a > /a\n"
    "FROM busybox AS b\nRUN sleep 1; echo b > /b\n"
    "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
)
FRONT_ENDS = {"classic": "0", "BuildKit": "1"}


def build(engine: Engine, folder: Path, front_end: str, *args: str) -> None:
    engine.docker("build", "-q", *args, str(folder), env={"DOCKER_BUILDKIT": FRONT_ENDS[front_end]}, timeout=600)


@contextmanager
def context(dockerfile: str, *, files: int = 1) -> Iterator[Path]:
    """Create a directory to build."""
    with tempfile.TemporaryDirectory(prefix="wharf-bench-") as name:
        folder = Path(name)
        (folder / "Dockerfile").write_text(dockerfile)
        for number in range(files):
            place = folder / "many" / f"d{number // 500}" if files > 1 else folder
            place.mkdir(parents=True, exist_ok=True)
            (place / (f"f{number}" if files > 1 else "f")).write_text(f"the text of file {number}\n" * 4)
        yield folder


@contextmanager
def _cleared(engines: Sequence[Engine]) -> Iterator[None]:
    """Remove untagged images and the cache afterwards."""
    try:
        yield
    finally:
        for engine in engines:
            engine.docker("image", "prune", "-f", timeout=300)
            engine.docker("builder", "prune", "-af", timeout=300)


def steps(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Ten steps, eight of which run a process: without cache, then fully cached; wall time of `docker build -q`."""
    with context(STEPS) as folder, _cleared(engines):
        for front_end, aim in (("classic", at_most(0.2)), ("BuildKit", at_most(0.3))):
            anew = Row(f"build of 10 steps without cache, {front_end}", "ms", aim)
            cached = Row(f"build of 10 steps, all cached, {front_end}", "ms", at_most(0.9))

            def once(engine: Engine, front_end: str = front_end, anew: Row = anew, cached: Row = cached) -> None:
                with clock(anew, engine):
                    build(engine, folder, front_end, "--no-cache")
                build(engine, folder, front_end)
                with clock(cached, engine):
                    build(engine, folder, front_end)

            in_turn(engines, 1 if quick else 5, once, seconds=40)
            yield anew
            yield cached


def large(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """20,000 files, one of which has changed since this engine's previous (untimed) build of them."""
    count = 2000 if quick else 20000
    dockerfile = "FROM busybox\nCOPY many /many\nRUN ls /many > /list\n"
    with context(dockerfile, files=count) as folder, _cleared(engines):
        for front_end in FRONT_ENDS:
            row = Row(f"context of {count:,} files, one changed, {front_end}", "ms", at_most(0.7))
            for engine in engines:
                build(engine, folder, front_end)
            changes = iter(range(1000))

            def once(
                engine: Engine, front_end: str = front_end, row: Row = row, changes: Iterator[int] = changes
            ) -> None:
                (folder / "many" / "d1" / "f600").write_text(f"changed {front_end} {next(changes)}\n")
                with clock(row, engine):
                    build(engine, folder, front_end)

            in_turn(engines, 1 if quick else 5, once, seconds=40)
            yield row


def stages(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Two independent stages that sleep one second each: run in parallel they take one second."""
    with context(STAGES) as folder, _cleared(engines):
        for front_end in FRONT_ENDS:
            row = Row(f"two independent stages of 1 s, {front_end}", "ms", within(1500))

            def once(engine: Engine, front_end: str = front_end, row: Row = row) -> None:
                with clock(row, engine):
                    build(engine, folder, front_end, "--no-cache")

            in_turn(engines, 1 if quick else 3, once)
            yield row
