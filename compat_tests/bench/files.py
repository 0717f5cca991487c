"""`docker cp` of one large file and of many small ones, into a container and out of it.

Out of it twice: as a stream to /dev/null, which measures the engine, and into a directory, where the CLI creates the
files one by one (for 20,000 files nearly all of the time). Nothing is renamed on the way: the CLI would rewrite the
archive, which takes longer than either engine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from compat_tests.bench.measure import Row, at_most, clock, in_turn
from compat_tests.support.engines import Engine

MIB = 1 << 20


def copies(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """Wall time of the CLI's whole command on a container that was never started, a new one in each round."""
    large, count = (64, 2000) if quick else (1024, 20000)
    names = (f"{large} MiB in one file", f"{count:,} small files")
    ways = ("in", "out as a stream", "out")
    rows = [Row(f"`docker cp` {way}: {name}", "ms", at_most(0.6)) for name in names for way in ways]
    with tempfile.TemporaryDirectory(prefix="wharf-bench-") as name:
        folder = Path(name)
        with (folder / "large").open("wb") as file:
            for _ in range(large):
                file.write(b"0123456789abcdef" * (MIB // 16))
        for number in range(count):
            place = folder / "many" / f"d{number // 500}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"f{number}").write_text(f"the text of file {number}\n" * 4)

        def once(engine: Engine) -> None:
            engine.docker("create", "--name", "bench-cp", "busybox", "true")
            try:
                for subject, (there, stream, back) in zip(("large", "many"), (rows[:3], rows[3:]), strict=True):
                    os.sync()  # flush earlier writes outside the measured time
                    with clock(there, engine):
                        engine.docker("cp", str(folder / subject), "bench-cp:/", timeout=600)
                    os.sync()
                    with clock(stream, engine):
                        engine.run("sh", "-c", f"docker cp bench-cp:/{subject} - >/dev/null", timeout=600)
                    with tempfile.TemporaryDirectory(dir=folder) as target, clock(back, engine):
                        engine.docker("cp", f"bench-cp:/{subject}", target, timeout=600)
            finally:
                engine.docker("rm", "-f", "bench-cp")

        in_turn(engines, 1 if quick else 5, once)
    yield from rows
