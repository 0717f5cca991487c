"""Timelines of operations: which phases an operation has had, when each began and ended, and what it has waited for.

A :class:`Timeline` is made at the begin of each create, start, exit, pull and build. ``done`` makes its
:class:`Record`, which observers get: the metrics, the exporter of OpenTelemetry, and the list of the last pulls and
builds. With ``WHARF_TIMELINE=1`` each record is also logged as one line. A mark costs less than a microsecond.

The clock of the phases is ``CLOCK_MONOTONIC``, which all processes of a host share.
"""

import asyncio
import logging
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from engine.common import limits

log = logging.getLogger(__name__)
ENABLED = os.environ.get("WHARF_TIMELINE", "") not in ("", "0")

#: The results of operations.
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
#: A shorter wait, in seconds, is a part of the phase that follows it.
SHORTEST_WAIT = 0.001

#: Set around a request whose operations are traced: what their records have as ``parent``.
parent: ContextVar[object | None] = ContextVar("parent of timelines", default=None)
_clock = time.monotonic


#: In a server, during a call: collects the phases that the answer returns to the caller (``Timeline.return_phases``).
returned_phases: ContextVar[list[str] | None] = ContextVar("returned phases", default=None)
#: The header with them: phases, separated by commas, each of its name, its begin and end in µs of CLOCK_MONOTONIC, and
#: the name of the phase that it is a part of.
PHASES_HEADER = "wharf-timeline"
_RETURNED = re.compile(r"(\w{1,32}) (\d{1,18}) (\d{1,18}) (\w{1,32})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of an operation. ``begin`` and ``end``: seconds since the operation began. ``within``: the name of the
    phase that this one is a part of; "": none. ``waits_for``: what the operation waited for; "": it did work."""

    name: str
    begin: float
    end: float
    within: str = ""
    waits_for: str = ""


_Label = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """A timeline that is complete.

    ``what``: create, start, exit, pull, build or build cache GC. ``subject``: the id of the container, the reference of
    the image, or the ref of the build. ``owner``: of the subject. ``began_ns``: since the epoch. ``result``: done,
    failed or cancelled. ``error``: why it failed, at most 256 characters. ``parent``: see the context variable.
    """

    what: str
    subject: str
    owner: str
    began_ns: int
    seconds: float
    result: str
    error: str
    parent: object | None
    # The phases without their objects: a container's three records need less than 1 KiB.
    _labels: tuple[_Label, ...] = field(repr=False)
    _times: bytes = field(repr=False)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """In the order of their ends; parts of a phase are before it. Parallel ones overlap."""
        times = struct.iter_unpack("ff", self._times)
        return tuple(
            Phase(name, begin, end, within, waits_for)
            for (name, within, waits_for), (begin, end) in zip(self._labels, times, strict=True)
        )


class Observer(Protocol):
    """Gets the records. It is called on the thread of the operation and must not block."""

    def ended(self, record: Record) -> None:
        """An operation has ended."""


class Request(Protocol):
    """Makes a request, while it is served, the parent of the timelines of its operations. ``name``: of the method.
    ``headers``: at least ``traceparent`` and ``tracestate`` of those that the client has sent."""

    def __call__(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[object]: ...


def untraced(name: str, headers: Mapping[str, str]) -> AbstractContextManager[object]:
    return nullcontext()


#: Replaced by the exporter of OpenTelemetry.
request: Request = untraced

#: Those that get all records from now on.
observers: list[Observer] = []

#: The labels of the operations on containers, which have few different ones: records share them.
_labels: dict[tuple[_Label, ...], tuple[_Label, ...]] = {}
_FEW = ("create", "start", "exit")
_MOST_LABELS = 256


class Timeline:
    """The timeline of one operation. As a context manager it is what ``current`` returns meanwhile, and is done at the
    end of the block, with the block's error."""

    __slots__ = ("_began", "_began_ns", "_last", "_owner", "_parent", "_phases", "_token", "_what", "subject")

    def __init__(self, what: str, subject: str = "", owner: str = "") -> None:
        self._what, self._owner = what, owner
        #: See ``Record``; may be set until the timeline is done.
        self.subject = subject
        self._parent = parent.get()
        self._began_ns = time.time_ns()
        self._began = self._last = _clock()
        self._phases: list[tuple[_Label, float, float]] = []
        self._token: Token[Part | None] | None = None

    def mark(self, name: str) -> None:
        """A phase has ended; it began at the last mark."""
        now = _clock()
        self.add(name, self._last, now)
        self._last = now

    def waited(self, name: str, waits_for: str) -> None:
        """As ``mark``, for a phase in which the operation waited for something. Omitted if it is shorter than
        ``SHORTEST_WAIT``."""
        now = _clock()
        if now - self._last >= SHORTEST_WAIT:
            self.add(name, self._last, now, waits_for=waits_for)
            self._last = now

    def add(self, name: str, begin: float, end: float, *, within: str = "", waits_for: str = "") -> None:
        """Adds a phase; the times are those of ``CLOCK_MONOTONIC``. A phase beyond ``TIMELINE_PHASES`` is omitted."""
        if len(self._phases) < limits.TIMELINE_PHASES:
            self._phases.append(((name, within, waits_for), begin, end))

    def done(self, error: BaseException | None = None) -> Record:
        """The operation has ended, by ``error`` if that is not None. Notifies the observers."""
        seconds = _clock() - self._began
        result, text = DONE, ""
        if isinstance(error, asyncio.CancelledError):
            result = CANCELLED
        elif error is not None:
            result, text = FAILED, (str(error) or type(error).__name__)[:256]
        labels = tuple(label for label, _, _ in self._phases)
        if self._what in _FEW and len(_labels) < _MOST_LABELS:
            labels = _labels.setdefault(labels, labels)
        times = [at - self._began for _, begin, end in self._phases for at in (begin, end)]
        record = Record(
            self._what,
            self.subject,
            self._owner,
            self._began_ns,
            seconds,
            result,
            text,
            self._parent,
            labels,
            struct.pack(f"{len(times)}f", *times),
        )
        for observer in observers:
            observer.ended(record)
        if ENABLED:
            steps = ", ".join(f"{each.name} {1000 * (each.end - each.begin):.1f}" for each in record.phases)
            log.info("timeline %s %s: %.1f ms = %s", self._what, self.subject[:12], 1000 * seconds, steps)
        return record

    def return_phases(self, *, within: str) -> None:
        """Returns the phases to the caller of the present call, as parts of the caller's phase ``within``."""
        found = returned_phases.get()
        if found is not None:
            found += [
                f"{name} {begin * 1e6:.0f} {end * 1e6:.0f} {inside or within}"
                for (name, inside, _), begin, end in self._phases
            ]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Around work of the operation in another task: ``current`` adds to this timeline there, too."""
        token = _current.set(Part(self, ""))
        try:
            yield
        finally:
            _current.reset(token)

    def __enter__(self) -> Self:
        self._token = _current.set(Part(self, ""))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None
        self.done(error)


class Part:
    """What a function adds to the timeline of an operation that may call it: phases within another phase. Without a
    timeline nothing is recorded."""

    __slots__ = ("_last", "_timeline", "_within")

    def __init__(self, timeline: Timeline | None, within: str) -> None:
        self._timeline, self._within, self._last = timeline, within, _clock()

    def mark(self, name: str) -> None:
        """A phase has ended; it began at the last mark of this part."""
        now = _clock()
        if self._timeline is not None:
            self._timeline.add(name, self._last, now, within=self._within)
        self._last = now

    def waited(self, name: str, waits_for: str) -> None:
        """As ``Timeline.waited``."""
        now = _clock()
        if now - self._last >= SHORTEST_WAIT:
            if self._timeline is not None:
                self._timeline.add(name, self._last, now, within=self._within, waits_for=waits_for)
            self._last = now

    def add_returned(self, text: str) -> None:
        """Adds the phases that a server has returned in ``PHASES_HEADER``. Malformed phases are omitted: the server may
        be another program."""
        if self._timeline is None:
            return
        for each in text.split(","):
            if (found := _RETURNED.fullmatch(each)) is not None:
                begin, end = int(found[2]) / 1e6, int(found[3]) / 1e6
                self._timeline.add(found[1], begin, end, within=found[4])

    @contextmanager
    def phase(self, name: str, waits_for: str = "") -> Iterator["Part"]:
        """The block is a phase; parts that are made in it are within it."""
        if self._timeline is None:
            yield self
            return
        part = Part(self._timeline, name)
        token, begin = _current.set(part), _clock()
        try:
            yield part
        finally:
            _current.reset(token)
            self._timeline.add(name, begin, _clock(), within=self._within, waits_for=waits_for)


_current: ContextVar[Part | None] = ContextVar("current timeline", default=None)


def current() -> Part:
    """A part of the timeline within which the caller runs; a task that it starts runs within it, too."""
    found = _current.get()
    return Part(found._timeline, found._within) if found is not None else Part(None, "")


def latest(records: Sequence[Record], record: Record) -> tuple[Record, ...]:
    """The records with one more, which replaces that of the former operation with the same name."""
    return (*(each for each in records if each.what != record.what), record)
