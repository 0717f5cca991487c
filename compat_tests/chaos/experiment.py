"""One experiment: load, long-lived containers and faults at once, then the checks."""

from __future__ import annotations

import os
import random
import re
import threading
from dataclasses import dataclass

from compat_tests.chaos.faults import Faults
from compat_tests.chaos.journal import Journal
from compat_tests.chaos.load import Load
from compat_tests.chaos.long_lived import LongLivedContainers
from compat_tests.endurance.crash import footprint
from compat_tests.support.engines import Wharf
from compat_tests.support.polling import until
from compat_tests.support.servers.registry import registry

#: Log lines of daemons that no kill explains.
BAD = re.compile(
    r"Traceback \(most recent call last\)|Task was destroyed|was never (retrieved|awaited)|another supervisor"
)


@dataclass(frozen=True, slots=True)
class Report:
    figures: list[str]
    failures: list[str]


def run_experiment(engine: Wharf, *, seconds: float, seed: int, clients: int, networks: bool) -> Report:
    """Run for so many seconds, then check for leftovers; the engine is empty again afterwards."""
    chance, journal = random.Random(seed), Journal()
    before = _resources(engine)
    with registry() as plain:
        load, long_lived = Load(engine, journal, plain), LongLivedContainers(engine, journal)
        faults = Faults(engine, journal, chance, networks=networks)
        stop, calm = threading.Event(), threading.Event()
        workers = [threading.Thread(target=load.work, args=(stop, chance.getrandbits(32))) for _ in range(clients)]
        workers.append(threading.Thread(target=long_lived.follow, args=(stop,)))
        faulting = threading.Thread(target=faults.run, args=(calm,))
        for thread in (*workers, faulting):
            thread.start()
        try:
            stop.wait(seconds)
            calm.set()
            faulting.join()
        finally:
            # Stop also if the program is interrupted.
            calm.set()
            stop.set()
            for thread in (*workers, faulting):
                thread.join()
        try:
            _afterwards(engine, journal, load, long_lived, before)
        except AssertionError as error:
            journal.add_wrong(str(error))
    return Report(journal.figures(), journal.failures() + _bad_lines(engine))


def _afterwards(
    engine: Wharf, journal: Journal, load: Load, long_lived: LongLivedContainers, before: dict[str, list[str]]
) -> None:
    long_lived.check("after the faults")
    engine.restart()
    long_lived.check("after a restart")
    load.clear()
    long_lived.remove()
    leftovers: dict[str, list[str]] = {}

    def nothing() -> bool:
        nonlocal leftovers
        now = _resources(engine)
        leftovers = {
            kind: sorted(set(found) - set(before[kind]))
            for kind, found in now.items()
            if set(found) - set(before[kind])
        }
        return not leftovers

    if not until(nothing, seconds=30):
        journal.add_wrong(f"left behind: {leftovers}")


def _resources(engine: Wharf) -> dict[str, list[str]]:
    """Return what exists of containers (see ``crash``), and prepared namespaces and links beyond the pool's size."""
    resources = footprint(engine)
    spaces = sorted(os.listdir(engine.resources.root / "run/netns"))
    pool = 4  # the size of the pool, and one that is being prepared
    resources["namespaces"] = spaces[pool:]
    resources["bridge"] = resources["bridge"] if len(resources["bridge"]) > pool else []
    return resources


def _bad_lines(engine: Wharf) -> list[str]:
    lines = engine.daemon.log.read_text(errors="replace").splitlines()
    return [
        f"log: {' | '.join(lines[number : number + 12])}"[:1500]
        for number, line in enumerate(lines)
        if BAD.search(line)
    ]
