"""A few stalled clients of each kind; ``python -m compat_tests.hostile.connections.stalled`` runs 200 of each."""

from __future__ import annotations

from compat_tests.hostile.connections.stalled import ANSWERS, BODIES, stall
from compat_tests.support.engines import Engine

COUNT = 20


def test_unfinished_bodies(own_engine: Engine) -> None:
    stall(own_engine, list(BODIES), COUNT)


def test_unread_answers(own_engine: Engine) -> None:
    stall(own_engine, list(ANSWERS), COUNT)
