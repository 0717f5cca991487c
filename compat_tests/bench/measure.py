"""Samples, medians and the table they end in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from compat_tests.engines import Engine


class Measurement(Protocol):
    """Takes the engines to compare and returns finished rows; nothing of it stays in them."""

    def __call__(self, engines: Sequence[Engine], *, quick: bool) -> list[Row]: ...


@dataclass(slots=True)
class Row:
    """One line of the table: the samples of each engine, in `unit`."""

    name: str
    unit: str
    target: float  # ours is to be at most this many times dockerd's (at least, when more is better)
    more_is_better: bool = False
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, engine: str, value: float) -> None:
        self.samples.setdefault(engine, []).append(value)

    def median(self, engine: str) -> float:
        return statistics.median(self.samples[engine])

    @property
    def ratio(self) -> float:
        theirs = self.median("dockerd")
        return self.median("wharf") / theirs if theirs else float("inf")

    @property
    def reached(self) -> bool:
        return self.ratio >= self.target if self.more_is_better else self.ratio <= self.target


@contextmanager
def clock(row: Row, engine: Engine) -> Iterator[None]:
    """Adds the wall time of the block, in milliseconds."""
    begin = time.perf_counter()
    yield
    row.add(engine.kind, (time.perf_counter() - begin) * 1000)


def in_turn(engines: Sequence[Engine], times: int, once: Callable[[Engine], None]) -> None:
    """Runs a measurement on each engine in turn, so that what else the machine does hits both alike."""
    for number in range(times):
        for engine in engines if number % 2 == 0 else reversed(engines):
            once(engine)


def make_table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | Wharf | dockerd | ratio | aim | |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        if not {"wharf", "dockerd"} <= row.samples.keys():
            only = ", ".join(f"{engine} {_number(row.median(engine))} {row.unit}" for engine in row.samples)
            lines.append(f"| {row.name} | {only} | | | | |")
            continue
        sign = "≥" if row.more_is_better else "≤"
        lines.append(
            f"| {row.name} | {_number(row.median('wharf'))} {row.unit} | {_number(row.median('dockerd'))} {row.unit} "
            f"| {row.ratio:.2f} | {sign} {row.target:g} | {'✓' if row.reached else '✗'} |"
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
