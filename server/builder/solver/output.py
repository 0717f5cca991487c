"""The output of a running step, shared by all builds that wait for the step."""

import math
import time
from dataclasses import dataclass, field
from typing import Protocol

STARTED = 0
"""Pseudo-stream that carries the id of the step's container."""

MAX_BYTES = 2 << 20
"""Bytes shown per stream of a step (BuildKit's BUILDKIT_STEP_LOG_MAX_SIZE)."""
MAX_BYTES_PER_SECOND = 200 << 10
"""Average output rate allowed since the step started (BUILDKIT_STEP_LOG_MAX_SPEED)."""
TAIL_BYTES = 256 << 10
"""Bytes kept from the end of a clipped stream and shown when the step ends: they usually contain the error."""
SIZE_CLIPPED = b"\n[output clipped, log limit 2MiB reached]\n"
SPEED_CLIPPED = b"\n[output clipped, log limit 200KiB/s reached]\n"


class Listener(Protocol):
    """One build that waits for a step. Called on the loop; must not block."""

    @property
    def clips(self) -> bool:
        """Whether this listener gets the output within BuildKit's limits; if not, it gets every byte written from now
        on."""

    def started(self, since_ns: int) -> None:
        """The step is running since ``since_ns`` (Unix time), perhaps for another build."""

    def output(self, stream: int, data: bytes, at_ns: int) -> None:
        """The process wrote ``data`` to a stream at ``at_ns``."""


class _OutputLimit:
    """Applies the limits to one stream."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._size = 0
        self._clipping = False
        self._tail: bytearray | None = None

    def clip(self, data: bytes) -> bytes:
        """Return the part of ``data`` to show, with a note where clipping starts."""
        limit, note = max(1, math.ceil(time.monotonic() - self._since)) * MAX_BYTES_PER_SECOND, SPEED_CLIPPED
        if limit > MAX_BYTES:
            limit, note = MAX_BYTES, SIZE_CLIPPED
        available = max(0, limit - self._size)
        self._size += len(data)
        clipped = len(data) > available
        if clipped and self._tail is None:
            self._tail = bytearray()
        if self._tail is not None:
            self._tail += data[-TAIL_BYTES:]
            if len(self._tail) > 2 * TAIL_BYTES:
                del self._tail[:-TAIL_BYTES]
        began, self._clipping = clipped and not self._clipping, clipped
        return data[:available] + (note if began else b"")

    def tail(self) -> bytes:
        """Return the last bytes of a clipped stream; empty if it was not clipped."""
        return bytes(self._tail[-TAIL_BYTES:]) if self._tail is not None else b""


@dataclass(slots=True)
class StepOutput:
    """Distributes output to listeners, and keeps it, within BuildKit's limits, for listeners that join later."""

    started_ns: int = field(default_factory=time.time_ns)
    _started: float = field(default_factory=time.monotonic)
    _listeners: list[Listener] = field(default_factory=list)
    _kept: list[tuple[int, bytes, int]] = field(default_factory=list)
    _limits: dict[int, _OutputLimit] = field(default_factory=dict)

    def join(self, listener: Listener) -> None:
        """Add a listener and replay the output so far."""
        self._listeners.append(listener)
        listener.started(self.started_ns)
        for stream, data, at_ns in self._kept:
            listener.output(stream, data, at_ns)
        if not listener.clips:
            self._show_tails([listener])

    def leave(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def write(self, stream: int, data: bytes) -> None:
        """Distribute what the step's process wrote."""
        at_ns, shown = time.time_ns(), data
        if stream != STARTED:
            shown = self._limits.setdefault(stream, _OutputLimit(self._started)).clip(data)
        if shown:
            self._kept.append((stream, shown, at_ns))
        for listener in self._listeners:
            if part := shown if listener.clips else data:
                listener.output(stream, part, at_ns)

    def end(self) -> None:
        """The process has ended: show the tails of clipped streams."""
        self._show_tails([listener for listener in self._listeners if listener.clips])
        self._limits.clear()

    def _show_tails(self, listeners: list[Listener]) -> None:
        at_ns = time.time_ns()
        for stream, clip in self._limits.items():
            if tail := clip.tail():
                for listener in listeners:
                    listener.output(stream, tail, at_ns)
