"""Delivers messages to a log server: a bounded queue in front of a socket that reconnects.

If the server doesn't accept messages, it behaves as dockerd does, with bounds:

* Blocking mode, a slow server: the container waits (``lagging``).
* An unreachable server: the queue is kept until it returns; beyond the limit new messages are lost, unless the driver
  is ``patient`` (fluentd, gelf over TCP): then the container waits.
* Non-blocking mode: beyond ``max-buffer-size`` new messages are lost, the container never waits.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from engine.shim.logs.driver import Pending
from engine.shim.loop import READ, WRITE, Loop, Timer

#: The maximum size of the queue in blocking mode, in bytes.
LIMIT = 1 << 20
#: Seconds for the delivery of queued messages after the container has exited.
FLUSH = 20.0
#: Connection attempts for these messages.
_LAST_ATTEMPTS = 3


class Channel(Protocol):
    """A socket, or an object that the loop can watch like one."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class Delivery:
    """The common part of both kinds of socket. ``retry``: seconds between two connection attempts; ``attempts``: failed
    attempts after which a message is discarded (0: never)."""

    def __init__(self, loop: Loop, *, limit: int, waits: bool, patient: bool, retry: float, attempts: int) -> None:
        self.loop = loop
        self.lost = 0
        self.on_writable: Callable[[], None] | None = None
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self.connected = False
        self._limit = limit
        self._waits = waits
        self._patient = patient
        self._retry = retry
        self._attempts = attempts
        self._failures = 0
        self._was_lagging = False
        self._closing = False
        self._closed = False
        self._timer: Timer | None = None
        self._watched = 0
        self.sock: Channel | None = None
        Pending.count += 1

    @property
    def lagging(self) -> bool:
        """Whether the container must wait."""
        lagging = self._waits and self.queued >= self._limit and (self.connected or self._patient)
        self._was_lagging = self._was_lagging or lagging
        return lagging

    def offer(self, message: bytes) -> None:
        """Queues a message, or loses it."""
        if self._closed:
            return
        full = self.queued and self.queued + len(message) > self._limit
        if full and not (self._waits and (self.connected or self._patient)):
            self.lost += 1
            return
        self.queue.append(message)
        self.queued += len(message)

    @property
    def idle(self) -> bool:
        """Whether all messages are delivered."""
        return not self.queue

    def flush(self) -> None:
        """Sends as much as the server accepts."""
        raise NotImplementedError

    def open(self) -> None:
        """Connects now; may block.

        :raises OSError: the server can't be reached.
        """
        raise NotImplementedError

    def connect(self) -> None:
        """Starts to connect; ``connection_made`` or ``connection_lost`` follows."""
        raise NotImplementedError

    def reset(self) -> None:
        """The connection was lost: a partly sent message will be sent again."""

    def connection_made(self) -> None:
        self.connected = True
        self._failures = 0
        self.flush()

    def connection_lost(self) -> None:
        """Reconnects after a delay."""
        self._drop()
        self._failures += 1
        last = self._closing and self._failures > _LAST_ATTEMPTS
        if self._attempts and self._failures >= self._attempts and self.queue:
            # As in dockerd: the message is discarded, and the next one has the same number of attempts.
            self.lost += 1
            self.sent(self.queue.popleft())
            self._failures = 0
        if last or (self._closing and self.idle):
            self._shut()
            return
        self.loop.call_later(self._retry, self._reconnect)
        self._notify_writable()

    def _reconnect(self) -> None:
        if not self._closed and self.sock is None:
            self.connect()

    def sent(self, message: bytes) -> None:
        self.queued -= len(message)

    def after_flush(self) -> None:
        if self._closing and self.idle:
            self._shut()
            return
        self.watch(self.events())
        self._notify_writable()

    def events(self) -> int:
        """The events that the loop watches while connected."""
        return READ | (WRITE if self.queue else 0)

    def _notify_writable(self) -> None:
        if self._was_lagging and not self.lagging and (self.queued <= self._limit // 2 or not self.connected):
            self._was_lagging = False
            if self.on_writable is not None:
                self.on_writable()

    def watch(self, events: int) -> None:
        """Watches these events of the socket; 0: none."""
        if self.sock is None or events == self._watched:
            return
        if not self._watched:
            self.loop.add(self.sock.fileno(), events, self.ready)
        elif events:
            self.loop.modify(self.sock.fileno(), events)
        else:
            self.loop.remove(self.sock.fileno())
        self._watched = events

    def ready(self, events: int) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        self.connected = False
        self.watch(0)
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.reset()

    def close(self) -> None:
        """No more messages follow: queued ones are delivered within ``FLUSH`` seconds."""
        if self._closing:
            return
        self._closing = True
        self._timer = self.loop.call_later(FLUSH, self._shut)
        if self.connected:
            self.flush()
        if self.idle:
            self._shut()

    def _shut(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.queue.clear()
        self._drop()
        Pending.count -= 1

    def abandon(self) -> None:
        """The driver could not be opened."""
        self._closing = True
        self._shut()
