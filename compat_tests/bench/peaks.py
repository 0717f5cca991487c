"""The peak memory of an engine while a gibibyte passes through it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from compat_tests.bench.images import Subject, laid_out, registry_of, remove
from compat_tests.bench.measure import Row, within
from compat_tests.bench.memory import memory, settled
from compat_tests.support.engines import Engine
from compat_tests.support.polling import sampled

MIB = 1 << 20
VERBS = ("load", "save", "pull", "`docker cp` in", "`docker cp` out")
PAUSE = 0.05


def peaks(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """The highest PSS of all processes of the engine, sampled many times a second, above the initial one."""
    layers, size = 4, 16 if quick else 256
    rows = {verb: Row(f"memory added by {verb} of {layers * size:,} MiB", "MiB", within(60)) for verb in VERBS}
    subject = Subject("", "", 0, (size * MIB,) * layers)
    for engine in engines:
        idle = settled(engine)
        mark = f"noise-{uuid.uuid4().hex}"
        image = f"{mark}:1"
        with registry_of(engine) as server, tempfile.TemporaryDirectory(prefix="wharf-bench-") as name:
            folder = Path(name)
            with subject.archive(image, mark) as path:
                server.copy_archive(path, image)
                with _watched(rows["load"], engine, idle):
                    engine.docker("load", "-q", "-i", str(path), timeout=600)
            with _watched(rows["save"], engine, idle):
                engine.docker("save", "-o", str(folder / "saved"), image, timeout=600)
            remove(engine, laid_out(engine, mark), image)
            with _watched(rows["pull"], engine, idle):
                engine.docker("pull", "-q", server.name(image), timeout=600)
            remove(engine, laid_out(engine, mark), server.name(image))
            engine.docker("create", "--name", mark, "busybox", "true")
            with _watched(rows["`docker cp` in"], engine, idle):
                engine.docker("cp", str(folder / "saved"), f"{mark}:/file", timeout=600)
            with _watched(rows["`docker cp` out"], engine, idle):
                engine.docker("cp", f"{mark}:/file", str(folder / "back"), timeout=600)
            engine.docker("rm", mark)
    yield from rows.values()


@contextmanager
def _watched(row: Row, engine: Engine, idle: float) -> Iterator[None]:
    """Add the rise of the engine's memory above `idle` during the block."""
    with sampled(lambda: memory(engine), pause=PAUSE) as samples:
        yield
    row.add(engine.kind, max(idle, *samples) - idle)
