"""The stdout and stderr of one process: its pipes or pty, fanned out to log and clients."""

import os
import time
from collections.abc import Callable

from engine.shim.logs.driver import LogDriver
from engine.shim.loop import READ, Loop, Timer
from engine.shim.stdio.session import Session
from engine.shim.stdio.sink import STUCK, Sink
from engine.shim.stdio.stdin import Input

_READ = 64 << 10
# Reads per wake-up of one pipe, so that a busy process doesn't starve others.
_ROUNDS = 4


class Streams:
    """The fan-out of one process. ``on_finished`` is called once, when all output was read and logged.

    Clients see the end when the process has exited, not when it closed its output: a client that saw the end may ask
    for the exit status.
    """

    def __init__(
        self,
        loop: Loop,
        log: LogDriver,
        *,
        terminal: bool,
        stdin_once: bool,
        spill_directory: str,
        on_finished: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.log = log
        self.terminal = terminal
        self.stdin_once = stdin_once
        self.input = Input(loop, self._input_ready)
        self.finished = False
        self.ended = False
        self._spill_directory = spill_directory
        self._on_finished = on_finished
        self._sources: dict[int, str] = {}
        self._sinks: list[Sink] = []
        self._stopped = False
        self._timer: Timer | None = None
        self._drained: list[Callable[[], None]] = []
        log.set_on_writable(self.resume)

    # Clients

    def attach(self, sink: Sink) -> None:
        """Adds a consumer: it gets all output from now on. After the end it is ended at once."""
        sink.streams = self
        self._sinks.append(sink)
        if isinstance(sink, Session):
            sink.open()
        if self.finished and not sink.closed and self._may_finish(sink):
            sink.finish()

    def _may_finish(self, sink: Sink) -> bool:
        # containerd's contract: FIFOs close with the process's output.
        return self.ended or not isinstance(sink, Session)

    def remove(self, sink: Sink) -> None:
        """Called by a sink that was closed."""
        if sink in self._sinks:
            self._sinks.remove(sink)
            sink.streams = None
        self.resume()
        self._check_drained()

    @property
    def sessions(self) -> list[Session]:
        return [sink for sink in self._sinks if isinstance(sink, Session)]

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Calls back when all output was read, logged and delivered."""
        self._drained.append(callback)
        self._check_drained()

    def _check_drained(self) -> None:
        if self.finished and not any(sink.pending for sink in self._sinks):
            waiting, self._drained = self._drained, []
            for callback in waiting:
                callback()

    def _input_ready(self) -> None:
        for session in self.sessions:
            if self.input.blocked:
                return
            session.input_ready()

    # Output

    def add_source(self, fd: int, stream: str) -> None:
        """Takes ownership of ``fd`` (the read end of a pipe, or a pty's master)."""
        os.set_blocking(fd, False)
        self._sources[fd] = stream
        self.loop.add(fd, 0 if self._stopped else READ, lambda _events: self._pump(fd))

    def _pump(self, fd: int) -> None:
        for _round in range(_ROUNDS):
            if self._stopped or not self._read(fd):
                return

    def _read(self, fd: int) -> bool:
        """Reads once; returns whether more may be available."""
        stream = self._sources.get(fd)
        if stream is None:
            return False
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        except OSError:
            # EIO: the process has exited (before that, the shim has the terminal open), and no other process has it
            # open.
            data = b""
        if not data:
            self._close_source(fd)
            return False
        self.output(stream, data)
        return len(data) == _READ or self.terminal

    def output(self, stream: str, data: bytes) -> None:
        """Logs the bytes of one read and passes them to the consumers."""
        self.log.write(stream, data, time.time_ns())
        # The list changes when a client turns out to be closed.
        for sink in self._sinks[:] if len(self._sinks) > 1 else self._sinks:
            if sink.accepts(stream):
                sink.push(*sink.encode(stream, data))
        if self.log.lagging or any(sink.lagging for sink in self._sinks):
            self._stop()

    def note(self, line: str) -> None:
        """Writes a line of the engine into the log and to the clients, on a line of its own. Does nothing after the
        end."""
        if self.finished:
            return
        stream, end = ("stdout", b"\r\n") if self.terminal else ("stderr", b"\n")
        rest = self.log.mark().get("rest")
        begun = isinstance(rest, dict) and bool(rest.get(stream))
        self.output(stream, (end if begun else b"") + line.encode() + end)

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            for fd in self._sources:
                # Remove it: a pipe's hangup can't be masked.
                self.loop.remove(fd)
        if self._timer is None:
            self._timer = self.loop.call_later(STUCK, self._check_stuck)

    def _check_stuck(self) -> None:
        self._timer = None
        now = time.monotonic()
        for sink in self._sinks[:]:
            if sink.lagging and sink.may_spill and sink.stuck(now):
                sink.spill(self._spill_directory)
        self.resume()

    def resume(self) -> None:
        """Continues to read, if no consumer is behind any more."""
        if not self._stopped:
            return
        if any(sink.lagging for sink in self._sinks):
            if self._timer is None:
                self._timer = self.loop.call_later(STUCK, self._check_stuck)
            return
        if self.log.lagging:
            return
        self._stopped = False
        for fd in tuple(self._sources):
            self.loop.add(fd, READ, lambda _events, fd=fd: self._pump(fd))  # type: ignore[misc]

    # The end

    def process_ended(self) -> None:
        """The process has exited (or never existed): clients are released when they have all output."""
        if self.ended:
            return
        self.ended = True
        if self.finished:
            for session in self.sessions:
                session.finish()

    def drain(self) -> None:
        """The process has exited: reads what is in the pipes even if a client is behind. A pipe's content is bounded;
        sources that other processes hold open stay open."""
        # At most 4 MiB: a read of a terminal returns 4 KiB, one of a pipe 64 KiB.
        rounds = 1024 if self.terminal else 64
        for fd in tuple(self._sources):
            for _round in range(rounds):
                if not self._read(fd):
                    break

    def close_sources(self) -> None:
        """Closes pipes that other processes still hold open."""
        for fd in tuple(self._sources):
            self._close_source(fd)
        self._finish()

    def _close_source(self, fd: int) -> None:
        stream = self._sources.pop(fd)
        self.loop.remove(fd)
        os.close(fd)
        if stream not in self._sources.values():
            self.log.finish(stream, time.time_ns())
        if not self._sources:
            self._finish()

    @property
    def reading(self) -> bool:
        return bool(self._sources)

    def _finish(self) -> None:
        if self.finished:
            return
        self.finished = True
        if self._timer is not None:
            self._timer.cancel()
        self.input.shut()
        self.log.close()
        for sink in self._sinks[:]:
            if self._may_finish(sink):
                sink.finish()
        self._on_finished()
        self._check_drained()

    def abandon(self) -> None:
        """The process never started: returns the clients' sockets unchanged."""
        for session in self.sessions:
            session.return_socket()
        self.process_ended()
        self.close_sources()
