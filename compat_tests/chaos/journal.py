"""Records operations and faults by time: a failed operation that no fault explains is a defect."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SLACK = 1.0  # seconds after a recovery in which clients may still see its consequences


@dataclass(slots=True)
class Fault:
    """``over``: when everything works again. ``containers``: the ids that it ended; a fault that ends containers, or
    that clients can't see, leaves the engine usable (``breaks`` is False)."""

    kind: str
    began: float
    breaks: bool
    over: float = float("inf")
    containers: tuple[str, ...] = ()


@dataclass(slots=True)
class Operation:
    """``containers``: the ids that it used."""

    name: str
    began: float
    ended: float = float("inf")
    error: str = ""
    containers: list[str] = field(default_factory=list)


class Unexpected(Exception):
    """An answer that is wrong regardless of kills: no fault explains it."""


class Journal:
    """Shared by all threads of an experiment."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.faults: list[Fault] = []
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    @contextmanager
    def operation(self, name: str) -> Iterator[Operation]:
        """Record the block; its exception is recorded and suppressed."""
        done = Operation(name, time.monotonic())
        try:
            yield done
        except Unexpected as error:
            self.add_wrong(f"{name}: {error}")
        except Exception as error:
            done.error = f"{type(error).__name__}: {error}"
        finally:
            done.ended = time.monotonic()
            with self.lock:
                self.operations.append(done)

    @contextmanager
    def fault(self, kind: str, *, breaks: bool) -> Iterator[Fault]:
        """Record the block, from the kill to the recovery."""
        fault = Fault(kind, time.monotonic(), breaks)
        with self.lock:
            self.faults.append(fault)
        try:
            yield fault
        finally:
            fault.over = time.monotonic()

    def add_wrong(self, sentence: str) -> None:
        """Record a defect that no fault explains."""
        with self.lock:
            self.wrong.append(sentence)

    def explained(self, operation: Operation) -> bool:
        """Whether a fault overlaps the operation, and either breaks the engine or ended one of its containers."""
        with self.lock:
            faults = list(self.faults)
        for fault in faults:
            if fault.began > operation.ended or fault.over + SLACK < operation.began:
                continue
            if fault.breaks or set(fault.containers) & set(operation.containers):
                return True
        return False

    def ended(self, identity: str) -> bool:
        """Whether a fault has ended this container."""
        return any(identity in fault.containers for fault in self.faults)

    def failures(self) -> list[str]:
        """Return one line per unexplained failure."""
        failed = [each for each in self.operations if each.error and not self.explained(each)]
        return self.wrong + [f"{each.name}: {each.error[:1500]}" for each in failed]

    def figures(self) -> list[str]:
        """Return the report: operations and failures by name, and faults by kind."""
        done, failed = Counter(each.name for each in self.operations), Counter[str]()
        failed.update(each.name for each in self.operations if each.error)
        lines = [f"{sum(done.values())} operations, {sum(failed.values())} cut short, {len(self.faults)} faults"]
        lines += [f"  {name:<12} {count:>6}  cut short {failed[name]:>5}" for name, count in sorted(done.items())]
        words = Counter(f"{each.name}: {each.error[-160:]!r}" for each in self.operations if each.error)
        lines += [f"  cut short {count:>4} × {text}" for text, count in words.most_common(12)]
        kinds = Counter(fault.kind for fault in self.faults)
        return lines + [f"  fault {kind:<24} {count:>5}" for kind, count in sorted(kinds.items())]
