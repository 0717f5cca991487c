"""The cost of pulls and builds against an image's layers and files: wall time of the CLI's whole command.

Each image is new to engine and registry.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack

from compat_tests.bench.builds import build, context
from compat_tests.bench.growth.curves import Curves
from compat_tests.bench.images import Subject, laid_out, registry_of, remove
from compat_tests.support.engines import Engine
from compat_tests.support.servers.registry import Registry

LAYERS = (1, 10, 20, 40, 80)
FILES = (100, 5_000, 10_000, 20_000, 40_000)
_BYTES = 20_000_000  # of all layers together
_STEPS, _LARGE = "classic", "BuildKit"


def measure(engines: Sequence[Engine], curves: Curves, *, share: int) -> None:
    """``share``: the numbers are divided by it."""
    layers, files = ([max(1, number // share) for number in numbers] for numbers in (LAYERS, FILES))
    with ExitStack() as stack:
        registries = {engine.kind: stack.enter_context(registry_of(engine)) for engine in engines}
        for engine in engines:
            for number in layers:
                taken = _pull(engine, registries[engine.kind], Subject("", "", 0, (_BYTES // number,) * number))
                curves.add("pull of 20 MB", "layers", "ms", engine.kind, number, taken)
            for number in files:
                taken = _pull(engine, registries[engine.kind], Subject("", "", number, (1,)))
                curves.add("pull of one layer", "files", "ms", engine.kind, number, taken)
    for engine in engines:
        for number in layers:
            steps = "FROM busybox\n" + "".join(f"COPY f /f{step}\n" for step in range(number))
            curves.add(f"build, {_STEPS}", "layers", "ms", engine.kind, number, _build(engine, steps, _STEPS, 1))
        for number in files:
            copy = "FROM busybox\nCOPY many /many\n"
            curves.add(f"build, {_LARGE}", "files", "ms", engine.kind, number, _build(engine, copy, _LARGE, number))
        engine.docker("image", "prune", "-f", timeout=300)
        engine.docker("builder", "prune", "-af", timeout=300)


def _pull(engine: Engine, server: Registry, subject: Subject) -> float:
    mark = f"noise-{uuid.uuid4().hex}"
    with subject.archive(f"{mark}:1", mark) as path:
        server.copy_archive(path, f"pulled/{mark}:1")
    name = server.name(f"pulled/{mark}:1")
    begin = time.perf_counter()
    engine.docker("pull", "-q", name, timeout=600)
    taken = (time.perf_counter() - begin) * 1000
    remove(engine, laid_out(engine, mark), name)
    return taken


def _build(engine: Engine, dockerfile: str, front_end: str, files: int) -> float:
    with context(dockerfile, files=max(files, 1)) as folder:
        begin = time.perf_counter()
        build(engine, folder, front_end, "--no-cache")
        return (time.perf_counter() - begin) * 1000
