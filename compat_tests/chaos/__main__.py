"""python -m compat_tests.chaos --minutes 10 --seed 1: a mixed load, and kills of every process at random moments.

At the end each long-lived container has its expected state, nothing is left behind, and a fault explains every failed
operation. ``--network-faults`` also deletes the engine's bridge and firewall table.
"""

from __future__ import annotations

import argparse
import sys
import time

from compat_tests.chaos.experiment import run_experiment
from compat_tests.support import engines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m compat_tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="what happens, though not when exactly")
    parser.add_argument("--clients", type=int, default=4, help="how many at once (4)")
    parser.add_argument("--network-faults", action="store_true", help="delete bridge and table, too")
    parser.add_argument("--log", help="where the daemon's log goes if anything is wrong")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with engines.wharf("chaos") as engine:
        engine.load_busybox()
        report = run_experiment(
            engine,
            seconds=arguments.minutes * 60,
            seed=arguments.seed,
            clients=arguments.clients,
            networks=arguments.network_faults,
        )
        if report.failures and arguments.log:
            engine.daemon.log.rename(arguments.log)
    print("\n".join(report.figures))
    for line in report.failures:
        print(f"FAILED {line}")
    print(
        "nothing failed without a fault, nothing is left" if not report.failures else f"{len(report.failures)} failures"
    )
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
