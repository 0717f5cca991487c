"""The shim's event loop: epoll, timers and child processes. It replaces asyncio, which costs 9 MiB.

Callbacks run one after the other and must not block. An exception in a callback is passed to ``on_error`` and does not
stop the loop (a container's log continues although one client's session failed).
"""

import contextlib
import heapq
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP
ERROR = select.EPOLLERR
PRIORITY = select.EPOLLPRI

Ready = Callable[[int], None]
Exited = Callable[[int, int], None]

# Reset all to the default: the container would inherit an ignored signal.
_DEFAULT_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})


class Timer:
    """A scheduled call; ``cancel`` may be called at any time."""

    __slots__ = ("_due", "_order", "callback")

    def __init__(self, due: float, order: int, callback: Callable[[], None]) -> None:
        self._due = due
        self._order = order
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: "Timer") -> bool:
        return (self._due, self._order) < (other._due, other._order)

    @property
    def due(self) -> float:
        return self._due


def exit_status(wait_status: int) -> int:
    """A wait status as Docker reports it: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


class Loop:
    """One per process; ``run`` returns after ``stop``."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Ready] = {}
        self._timers: list[Timer] = []
        self._order = 0
        self._soon: list[Callable[[], None]] = []
        self._children: dict[int, Exited] = {}
        self._unexpected: dict[int, tuple[int, int]] = {}
        self._expected = 0
        self._running = False
        #: CPU time of the child whose exit is reported, with that of its children for which it waited.
        self.child_cpu_ns = 0
        self._on_error = on_error
        self.after_round: Callable[[], None] | None = None
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def catch_children(self) -> None:
        """Handles SIGCHLD; call it once, in the process that runs the loop."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self.add(self._wake_read, READ, self._reap)

    # Descriptors

    def add(self, fd: int, events: int, callback: Ready) -> None:
        """Watches ``fd``; the caller removes it before closing it."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Stops watching ``fd``; does nothing if it isn't watched."""
        if self._callbacks.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)

    # Time

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self._order += 1
        timer = Timer(time.monotonic() + seconds, self._order, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._soon.append(callback)

    # Child processes

    def spawn(
        self,
        argv: Sequence[str],
        on_exit: Exited,
        *,
        stdio: tuple[int, int, int],
        environment: Mapping[str, str],
    ) -> int:
        """Starts a program with three descriptors and default signals; ``on_exit(status, time_ns)`` follows.

        Uses posix_spawn instead of fork: it copies no page table and writes to no page of this process.

        :raises OSError: the program can't be executed.
        """
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
        pid = os.posix_spawn(
            argv[0], list(argv), dict(environment), file_actions=actions, setsigmask=[], setsigdef=_DEFAULT_SIGNALS
        )
        self._children[pid] = on_exit
        return pid

    def adopt(self, pid: int, on_exit: Exited) -> None:
        """Watches a process that became our child; it may have exited after ``expect``."""
        ended = self._unexpected.pop(pid, None)
        if ended is None:
            self._children[pid] = on_exit
        else:
            self.call_soon(lambda: on_exit(*ended))

    def expect(self) -> None:
        """A child with a yet unknown pid is expected (pid file): record all exits until ``expected``."""
        self._expected += 1

    def expected(self) -> None:
        self._expected -= 1
        if not self._expected:
            self._unexpected.clear()

    def _reap(self, _events: int = 0) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake_read, 512)) == 512:
                pass
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            now = time.time_ns()
            self.child_cpu_ns = int((used.ru_utime + used.ru_stime) * 1e9)
            callback = self._children.pop(pid, None)
            if callback is not None:
                self._guard(callback, exit_status(status), now)
            elif self._expected:
                self._unexpected[pid] = (exit_status(status), now)

    # Running

    def _guard(self, callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            self._on_error(error)

    def _timeout(self) -> float:
        if self._soon:
            return 0
        while self._timers and self._timers[0].callback is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].due - time.monotonic()) if self._timers else -1

    def _run_due(self) -> None:
        now = time.monotonic()
        while self._timers and (self._timers[0].callback is None or self._timers[0].due <= now):
            callback = heapq.heappop(self._timers).callback
            if callback is not None:
                self._guard(callback)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        self._running = True
        self._reap()
        while self._running:
            for fd, events in self._epoll.poll(self._timeout(), 32):
                # An earlier callback of this round may have closed it.
                callback = self._callbacks.get(fd)
                if callback is not None:
                    self._guard(callback, events)
            if self._timers:
                self._run_due()
            if self._soon:
                calls, self._soon = self._soon, []
                for call in calls:
                    self._guard(call)
            if self.after_round is not None:
                self.after_round()
