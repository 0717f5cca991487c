"""python -m compat_tests.bench.growth: measures how costs grow, both engines in turn, and draws it.

Points are kept in a file, so partial and interrupted runs add up; `--plot` without `--only` and `--measure` draws what
is kept. The picture needs the extra `bench` (matplotlib).
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compat_tests.bench import report
from compat_tests.bench.disk import own_disk
from compat_tests.bench.growth import containers, images
from compat_tests.bench.growth.curves import Curves
from compat_tests.support import engines
from compat_tests.support.api import Api
from compat_tests.support.engines import Engine

SERIES = {"containers": containers.measure, "images": images.measure}
_QUICK_SHARE = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.bench.growth", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="measure; without it, draw what is kept")
    parser.add_argument("--only", action="append", choices=sorted(SERIES), help="measure this series (repeatable)")
    parser.add_argument("--quick", action="store_true", help="a twentieth of all numbers: to see that it works")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="keeps the points (in the temporary directory)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write this PNG")
    options = parser.parse_args()
    Api.checked = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the engines too
    name = f"wharf-bench-growth{'-quick' * options.quick}.json"
    curves = Curves(options.curves or Path(tempfile.gettempdir(), name))
    if options.measure or options.only:
        measure([name for name in SERIES if name in (options.only or SERIES)], curves, quick=options.quick)
    if options.plot:
        from compat_tests.bench.growth.plots import draw  # here: a measurement needs no matplotlib

        draw(curves, options.plot, caption=f"Python {platform.python_version()}, {report.machine()}")
    return 0


def measure(names: Sequence[str], curves: Curves, *, quick: bool) -> None:
    """Run these series on new engines."""
    for name in names:
        with contextlib.ExitStack() as stack:
            stack.enter_context(own_disk())
            with engines.wharf("compile"):
                pass  # compile modules beforehand, as in an installed engine
            both: list[Engine] = [
                stack.enter_context(engines.wharf("growth")),
                stack.enter_context(engines.dockerd("growth")),
            ]
            for engine in both:
                engine.load_busybox()
            SERIES[name](both, curves, share=_QUICK_SHARE if quick else 1)


if __name__ == "__main__":
    sys.exit(main())
