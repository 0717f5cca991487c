"""python -m compat_tests.endurance.swarm --faults 200 --seed 1: random faults over three managers and two workers.

During each fault the managers that are a majority must accept writes and serve, and a minority must refuse; after it
all must agree, and each service must have exactly its replicas. The seed decides what happens, though not when exactly.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from compat_tests.endurance.swarm.experiment import DISKS, MANAGERS, Experiment
from compat_tests.support.hosts.group import Hosts, hosts
from compat_tests.support.hosts.swarm import Swarm


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.endurance.swarm", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", action="append", help="the names of faults, instead of all")
    parser.add_argument("--workers", type=int, default=2, help="how many (2), beside three managers")
    parser.add_argument("--engine", choices=("wharf", "dockerd"), default="wharf")
    parser.add_argument("--logs", type=Path, help="where the daemons' logs go if anything is wrong")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the engines too
    print(f"seed {options.seed}", flush=True)
    with hosts(MANAGERS + options.workers, kind=options.engine, disks=DISKS) as group:
        swarm = Swarm(group, managers=MANAGERS)
        # Any exception is a failure, too.
        failures: Sequence[str] = ("the run has not ended",)
        try:
            swarm.form()
            experiment = Experiment(swarm, seed=options.seed, report=lambda line: print(line, flush=True))
            failures = experiment.run(options.faults, only=options.only or ())
        finally:
            if failures and options.logs:
                _keep_logs(group, options.logs)
    for line in experiment.figures():
        print(line)
    print("\n".join(f"FAILED {line}" for line in failures) or "every check passed")
    return bool(failures)


def _keep_logs(group: Hosts, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for host in group:
        (directory / f"{host.name}.log").write_bytes(host.daemon.log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
