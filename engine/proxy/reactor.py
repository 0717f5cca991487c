"""The proxy's event loop: epoll and timers. One thread; callbacks must not block.

asyncio would cost 9 MiB of memory and half of the start time of a process that mostly waits.
"""

import contextlib
import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP
ERROR = select.EPOLLERR

Handler = Callable[[int], None]


class Timer:
    """A scheduled call; :meth:`cancel` prevents it."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self.action = None


class Reactor:
    """Calls ``handler(events)`` of each watched socket when it is ready, and timers when they are due."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._running = True

    def watch(self, sock: socket.socket, events: int, handler: Handler) -> None:
        fd = sock.fileno()
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def watches(self, sock: socket.socket) -> bool:
        return sock.fileno() in self._handlers

    def change(self, sock: socket.socket, events: int) -> None:
        self._epoll.modify(sock.fileno(), events)

    def forget(self, sock: socket.socket) -> None:
        """Stops watching; call it before closing the socket. Does nothing for a socket that isn't watched."""
        fd = sock.fileno()
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(FileNotFoundError):
                self._epoll.unregister(fd)

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        timer = Timer(time.monotonic() + seconds, action)
        heapq.heappush(self._timers, (timer.when, next(self._count), timer))
        return timer

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Runs until :meth:`stop`."""
        while self._running:
            for fd, events in self._epoll.poll(self._wait()):
                handler = self._handlers.get(fd)
                if handler:
                    handler(events)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                action = heapq.heappop(self._timers)[2].action
                if action:
                    action()

    def _wait(self) -> float | None:
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, self._timers[0][0] - time.monotonic())
