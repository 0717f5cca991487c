"""python -m compat_tests.ecosystem: runs clients on Wharf and on dockerd, and prints which work where.

The dockerd is the one of PATH; `compat_tests/newer.sh` puts a newer one there. Needs mmdebstrap and npm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from compat_tests.ecosystem.installation import HERE, debian_root, install
from compat_tests.support import engines
from compat_tests.support.engines import Engine

CLIENTS = sorted(script.parent.name for script in (HERE / "clients").glob("*/run.sh"))
SECONDS = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.ecosystem", description=__doc__)
    parser.add_argument("client", nargs="*", metavar="CLIENT", help=f"one of {', '.join(CLIENTS)}; all without it")
    parser.add_argument("--engine", choices=("wharf", "dockerd"), action="append", help="on this engine only")
    options = parser.parse_args()
    names: list[str] = options.client or CLIENTS
    if unknown := set(names) - set(CLIENTS):
        parser.error(f"no client {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the engines too
    environment = install()
    base = debian_root()
    failed = 0
    for kind in options.engine or ("wharf", "dockerd"):
        with engines.running(kind, "ecosystem") as engine:
            engine.docker("import", "-c", 'CMD ["bash"]', str(base), "debian:latest", timeout=300)
            for name in names:
                works = run_client(engine, name, environment)
                failed += not works
                print(f"{kind}: {name}: {'works' if works else 'FAILED'}", flush=True)
                engine.remove_all()
                engine.docker("network", "prune", "-f")
                engine.docker("volume", "prune", "-a", "-f")
    return 1 if failed else 0


def run_client(engine: Engine, name: str, environment: Mapping[str, str]) -> bool:
    """Run a client's script in a copy of its folder; print its output if it fails."""
    with tempfile.TemporaryDirectory(prefix="wharf-ecosystem-") as work:
        folder = Path(work, name)
        shutil.copytree(HERE / "clients" / name, folder)
        env = {**environment, "PATH": f"{environment['PATH']}:{os.environ['PATH']}", "HOME": work}
        command = ["bash", "-euo", "pipefail", "-c", f"cd '{folder}'; . ./run.sh"]
        try:
            done = engine.run_in_netns(*command, env=env, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as expired:
            output = (expired.stdout or b"") + (expired.stderr or b"")
            print(output.decode(errors="replace"), f"not done after {SECONDS:.0f} s", sep="\n", file=sys.stderr)
            return False
        if done.status:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        return done.status == 0


if __name__ == "__main__":
    sys.exit(main())
