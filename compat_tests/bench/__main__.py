"""python -m compat_tests.bench: measures, prints each finished row, and can write the table into the README.

A file keeps the newest row of each name, so partial (`--only`) and interrupted runs add up to one table, which
`--table` prints without measuring and `--readme` publishes.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from compat_tests.bench import report
from compat_tests.bench.disk import own_disk
from compat_tests.bench.rows import ROWS
from compat_tests.support import engines
from compat_tests.support.api import Api
from compat_tests.support.engines import Engine
from compat_tests.support.images import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples, small sizes: to see that it works")
    parser.add_argument("--only", action="append", choices=sorted(ROWS), help="this measurement (repeatable)")
    parser.add_argument("--engine", choices=("wharf", "dockerd"), help="one engine alone, without ratios")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="where rows are kept (in the temporary directory)")
    parser.add_argument("--beside", type=Path, metavar="FILE", help="rows of another Python: a column of the table")
    parser.add_argument("--table", action="store_true", help="measure nothing: print the rows that are kept")
    parser.add_argument("--readme", action="store_true", help="put the table of all rows that are kept into README.md")
    options = parser.parse_args()
    Api.checked = False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the engines too
    if options.readme and (options.quick or options.engine):
        parser.error("the README shows full measurements of both engines")
    partial = "-quick" * options.quick + f"-{options.engine}" * bool(options.engine)
    kept = report.Rows(options.rows or Path(tempfile.gettempdir(), f"wharf-bench-rows{partial}.json"))
    other_python = report.Rows(options.beside) if options.beside else None
    if options.table:
        print(report.table(kept, ROWS, other_python))
        failed = []
    else:
        wanted = [name for name in ROWS if name in (options.only or ROWS)]
        failed = measure(wanted, kept, quick=options.quick, only=options.engine)
    if options.readme:
        report.put(ROOT / "README.md", report.table(kept, ROWS, other_python))
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def measure(names: Sequence[str], kept: report.Rows, *, quick: bool, only: str | None) -> list[str]:
    """Run these measurements; return the names of those that failed, without aborting the others."""
    failed: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_disk())
        used: list[Engine] = []
        if only != "dockerd":
            with engines.wharf("compile"):
                pass  # compile modules beforehand, as in an installed engine: compiling uses memory
            used.append(stack.enter_context(engines.wharf("bench")))
        if only != "wharf":
            used.append(stack.enter_context(engines.dockerd("bench")))
        for engine in used:
            engine.load_busybox()
        print("\n".join(report.HEAD), flush=True)
        for name in names:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            done, begin = [], time.monotonic()
            try:
                for row in ROWS[name](used, quick=quick):
                    print(report.line(row), flush=True)
                    kept.add(name, row)
                    done.append(row.name)
                kept.finish(name, done)
                print(f"measured {name} in {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            except Exception as error:
                failed.append(name)
                print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                for engine in used:
                    engine.remove_all()
    return failed


if __name__ == "__main__":
    sys.exit(main())
