"""python -m compat_tests.bench: measures, prints the table, and can put it into the README."""

from __future__ import annotations

import argparse
import contextlib
import platform
import re
import sys
from pathlib import Path

from compat_tests import engines
from compat_tests.bench.measure import Row, make_table
from compat_tests.bench.rows import ROWS
from compat_tests.engines import Engine
from compat_tests.images import ROOT

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few samples, small sizes: to see that it works")
    parser.add_argument("--only", action="append", choices=sorted(ROWS), help="this measurement (repeatable)")
    parser.add_argument("--engine", choices=("wharf", "dockerd"), help="one engine alone, without ratios")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    rows: list[Row] = []
    failed: list[str] = []
    with contextlib.ExitStack() as stack:
        used: list[Engine] = []
        if options.engine != "dockerd":
            used.append(stack.enter_context(engines.wharf("bench")))
        if options.engine != "wharf":
            used.append(stack.enter_context(engines.dockerd("bench")))
        for engine in used:
            engine.load_busybox()
        for name in options.only or ROWS:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            try:
                rows += ROWS[name](used, quick=options.quick)
            except Exception as error:
                # one that fails must not take the others' figures along
                failed.append(name)
                print(f"{name} failed: {error}", file=sys.stderr, flush=True)
                for engine in used:
                    engine.remove_all()
    version = re.sub(r"\s+", " ", platform.platform())
    table = f"{make_table(rows)}\n\nMedians; Python {platform.python_version()}, {version}, {cpus()}."
    print(table)
    if options.readme:
        put(ROOT / "README.md", table)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def cpus() -> str:
    """How many processors of which kind."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} × {models[0]}" if models else platform.machine()


def put(readme: Path, table: str) -> None:
    """Replaces what stands between the two marks."""
    text = readme.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
