"""The points of the last hour."""

import pytest

from engine.common import limits
from server.ui.history import FIELDS, POINTS, STEP, History, Sample

START = 1_000_000 * STEP


def sample(cpu: float) -> Sample:
    return Sample(cpu, 1000.0, 1.0, 2.0, 3.0, 4.0)


def cpu(history: History, now: float, seconds: int = 4 * STEP) -> list[float | None]:
    found = history.of("a", now, seconds)
    assert found["time"] == [int(now) // STEP * STEP - STEP * at for at in reversed(range(seconds // STEP))]
    points: list[float | None] = found["cpu"]
    return points


def test_points_are_in_the_order_of_time() -> None:
    history = History()
    for at in range(3):
        history.add(START + at * STEP + 1.5, [("a", sample(at + 1.0))])
    found = history.of("a", START + 2 * STEP + 3, 4 * STEP)
    assert found["cpu"] == [None, 1.0, 2.0, 3.0]
    assert [found[name][-1] for name in FIELDS] == [3.0, 1000.0, 1.0, 2.0, 3.0, 4.0]
    assert history.of("nobody", START, 2 * STEP)["cpu"] == [None, None]


def test_a_gap_is_a_gap() -> None:
    history = History()
    history.add(START, [("a", sample(1.0))])
    history.add(START + 3 * STEP, [("a", sample(4.0))])
    assert cpu(history, START + 3 * STEP) == [1.0, None, None, 4.0]
    assert cpu(history, START + 5 * STEP) == [None, 4.0, None, None]


def test_old_points_give_way() -> None:
    history = History()
    for at in range(POINTS + 10):
        history.add(START + at * STEP, [("a", sample(float(at)))])
    now = START + (POINTS + 9) * STEP
    assert cpu(history, now, POINTS * STEP) == [float(at) for at in range(10, POINTS + 10)]
    # A gap of more than an hour leaves nothing of the hour before.
    history.add(now + 2 * POINTS * STEP, [("a", sample(7.0))])
    assert cpu(history, now + 2 * POINTS * STEP, POINTS * STEP) == [None] * (POINTS - 1) + [7.0]


def test_a_clock_that_is_set_back_adds_nothing() -> None:
    history = History()
    history.add(START, [("a", sample(1.0))])
    history.add(START - 100 * STEP, [("a", sample(2.0))])
    assert cpu(history, START) == [None, None, None, 1.0]


def test_the_number_of_histories_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UI_HISTORIES", 3)
    history = History()
    for at, id in enumerate("abcd"):
        history.add(START + at * STEP, [(id, sample(1.0))])
    assert history.of("a", START, STEP)["cpu"] == [None]
    assert history.of("d", START + 3 * STEP, STEP)["cpu"] == [1.0]
    history.forget("d")
    assert history.of("d", START + 3 * STEP, STEP)["cpu"] == [None]
