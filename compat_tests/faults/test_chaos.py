"""A short experiment; ``python -m compat_tests.chaos`` runs longer ones."""

from __future__ import annotations

import pytest

from compat_tests.chaos.experiment import run_experiment
from compat_tests.chaos.journal import Journal
from compat_tests.chaos.long_lived import contiguous
from compat_tests.support import engines

SECONDS = 12.0


@pytest.mark.slow
def test_a_short_experiment() -> None:
    with engines.wharf("chaos") as engine:
        engine.load_busybox()
        report = run_experiment(engine, seconds=SECONDS, seed=11, clients=2, networks=False)
    assert not report.failures, "\n".join([*report.figures, *report.failures])


def test_faults_explain_failures() -> None:
    """A failure is explained only by a fault at its time that affects its container."""
    journal = Journal()
    with journal.operation("before") as before:
        raise AssertionError("no fault yet")
    before.began, before.ended = 0.0, 1.0
    with journal.fault("wharfd", breaks=True) as fault, journal.operation("beside"):
        raise AssertionError("cut off")
    fault.over = fault.began
    with journal.operation("of its shim") as own, journal.fault("shim", breaks=False) as shim:
        own.containers.append("a")
        shim.containers = ("a",)
        raise AssertionError("ended")
    with journal.operation("of another") as other, journal.fault("shim", breaks=False) as shim:
        other.containers.append("b")
        shim.containers = ("a",)
        raise AssertionError("ended")
    for each in (own, other):
        each.began, each.ended = each.began + 100, each.ended + 100
    for each in journal.faults[1:]:
        each.began, each.over = each.began + 100, each.over + 100
    assert [line.partition(":")[0] for line in journal.failures()] == ["before", "of another"]


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        (["start", "0", "1", "start", "0"], True),
        (["7", "8", "start", "0"], True),
        (["start", "0", "2"], False),
        (["start", "0", "0"], False),
        (["start", "1"], False),
    ],
)
def test_gaps_and_repeats(lines: list[str], right: bool) -> None:
    assert (contiguous(lines) == "") is right
