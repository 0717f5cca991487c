"""The CLI's overviews of an engine with many containers and images.

The CLI is the one of PATH: the rows compare newer versions where `compat_tests/newer.sh` runs the measurement.
"""

from __future__ import annotations

import io
import resource
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from compat_tests.bench.lists import with_containers
from compat_tests.bench.measure import FLOOR, Row, at_most, clock, in_turn
from compat_tests.support.engines import Engine

#: Commands, with their aims. The CLI itself takes 15 to 20 ms of each.
COMMANDS = (
    ("info", 1), ("ps", 1), ("ps -a", 1), ("ps -a --size", 0.5), ("images", 1), ("images --format json", 1),
    ("image ls -a", 1), ("system df", 0.5),
)  # fmt: skip


def overviews(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of the CLI's whole command, with 500 containers, 20 of them running, and 500 images. The floor is the
    processor time of the CLI itself."""
    count = 50 if quick else 500
    with ExitStack() as stack:
        for engine in engines:
            stack.enter_context(_with_images(engine, count))
        stack.enter_context(with_containers(engines, running=20, ended=count - 20))
        for command, aim in COMMANDS:
            row = Row(f"`docker {command}`, {count} containers and images", "ms", at_most(aim))

            def once(engine: Engine, row: Row = row, command: str = command) -> None:
                before = _used_by_children()
                with clock(row, engine):
                    engine.docker(*command.split())
                row.add(FLOOR, (_used_by_children() - before) * 1000)

            for engine in engines:
                engine.docker(*command.split())
            in_turn(engines, 3 if quick else 21, once)
            yield row


def _used_by_children() -> float:
    """The processor seconds of the programs that have ended: here, of the CLI."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def _with_images(engine: Engine, count: int) -> Iterator[None]:
    """Import images with one small layer each, and remove them afterwards."""
    names = [f"overview:{number}" for number in range(count)]
    try:
        for number, name in enumerate(names):
            layer = io.BytesIO()
            with tarfile.open(fileobj=layer, mode="w") as archive:
                archive.addfile(tarfile.TarInfo(f"file{number}"))
            query = {"fromSrc": "-", "repo": "overview", "tag": name.partition(":")[2]}
            answer = engine.api.request("POST", "/images/create", query=query, body=layer.getvalue())
            assert answer.status == 200, answer.body
        yield
    finally:
        for name in names:
            engine.api.delete(f"/images/{name}")
