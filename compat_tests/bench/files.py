"""`docker cp` of one large file and of many small ones, into a container and out of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from compat_tests.bench.measure import Row, at_most, clock, in_turn
from compat_tests.engines import Engine

MIB = 1 << 20


def copies(engines: Sequence[Engine], *, quick: bool) -> Iterator[Row]:
    """The wall time of the CLI's whole command on a container that was never started, each round with a new one."""
    large, count = (64, 2000) if quick else (1024, 20000)
    names = (f"{large} MiB in one file", f"{count:,} small files")
    rows = [Row(f"`docker cp` {way}: {name}", "ms", at_most(0.7)) for name in names for way in ("in", "out")]
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
                for subject, (there, back) in zip(("large", "many"), (rows[:2], rows[2:]), strict=True):
                    with clock(there, engine):
                        engine.docker("cp", str(folder / subject), f"bench-cp:/{subject}", timeout=600)
                    with clock(back, engine):
                        engine.docker("cp", f"bench-cp:/{subject}", str(folder / "back"), timeout=600)
                    shutil.rmtree(folder / "back", ignore_errors=True)
                    (folder / "back").unlink(missing_ok=True)
            finally:
                engine.docker("rm", "-f", "bench-cp")

        in_turn(engines, 1 if quick else 3, once)
    yield from rows
