"""Samples, aims and rounds: the parts of every measurement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from compat_tests.support.engines import Engine

OURS, THEIRS = "wharf", "dockerd"
#: The least that a row's work needs, measured without an engine (``floors``).
FLOOR = "floor"

#: What is measured in turn: engines, or names of clients.
Side = TypeVar("Side")


class Measurement(Protocol):
    """Measures the engines and yields each finished row; leaves nothing in the engines."""

    def __call__(self, engines: Sequence[Engine], *, quick: bool) -> Iterable[Row]: ...


@dataclass(frozen=True, slots=True)
class Aim:
    """A target: a bound for our median, as a multiple of dockerd's or in the unit of the row."""

    limit: float
    at_least: bool = False
    absolute: bool = False

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def text(self, unit: str) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {unit if self.absolute else '×'}"


def at_most(limit: float) -> Aim:
    """At most this multiple of dockerd's value."""
    return Aim(limit)


def at_least(limit: float) -> Aim:
    """At least this multiple of dockerd's value."""
    return Aim(limit, at_least=True)


def within(limit: float) -> Aim:
    """At most this value, independent of dockerd's."""
    return Aim(limit, absolute=True)


@dataclass(slots=True)
class Row:
    """One line of the table: the samples of each engine, in `unit`."""

    name: str
    unit: str
    aim: Aim
    baseline: str = THEIRS  # the reference: dockerd's samples, or ours of a simpler case
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, engine: str, value: float) -> None:
        self.samples.setdefault(engine, []).append(value)

    def median(self, engine: str) -> float:
        return statistics.median(self.samples[engine])

    @property
    def compared(self) -> bool:
        """Whether both sides were measured."""
        return {OURS, self.baseline} <= self.samples.keys()

    @property
    def ratio(self) -> float:
        theirs = self.median(self.baseline)
        return self.median(OURS) / theirs if theirs else float("inf")

    @property
    def reached(self) -> bool:
        return self.aim.reached(self.median(OURS) if self.aim.absolute else self.ratio)


def clock(row: Row, engine: Engine, *, share: int = 1) -> AbstractContextManager[None]:
    """Add the wall time of the block, in milliseconds, divided by the number of operations, for an engine."""
    return clock_of(row, engine.kind, share=share)


@contextmanager
def clock_of(row: Row, who: str, *, share: int = 1) -> Iterator[None]:
    """As ``clock``, for one side of the row by its name."""
    begin = time.perf_counter()
    yield
    row.add(who, (time.perf_counter() - begin) * 1000 / share)


def in_turn(engines: Sequence[Side], times: int, once: Callable[[Side], None], *, seconds: float = 60) -> None:
    """Measure the engines, or other sides, in turn, so that other load on the machine affects all alike.

    One turn of all of them is a round; there are at most `times` rounds, and none starts after `seconds`.
    """
    end = time.monotonic() + seconds
    for number in range(times):
        for engine in engines if number % 2 == 0 else reversed(engines):
            once(engine)
        if time.monotonic() > end:
            break
