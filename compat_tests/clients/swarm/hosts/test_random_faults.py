"""A few random faults; ``python -m compat_tests.endurance.swarm`` runs many."""

from __future__ import annotations

import pytest

from compat_tests.endurance.swarm.experiment import Experiment
from compat_tests.support.hosts.swarm import Swarm

FAULTS = 5
#: Those that take a few seconds each.
SHORT = ("kill the leader's engine", "kill the supervisor", "kill etcd", "partition a worker", "cut a link")


@pytest.mark.slow
def test_the_swarm_survives_faults(swarm: Swarm) -> None:
    lines: list[str] = []
    experiment = Experiment(swarm, seed=15, report=lines.append)
    failures = experiment.run(FAULTS, only=SHORT)
    assert not failures, "\n".join([*lines, *experiment.figures()])
