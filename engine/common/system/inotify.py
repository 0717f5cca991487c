"""inotify(7) as an async source of file events."""

import os
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType

from engine.common.system import linux
from engine.common.system.fds import ready

# The events that this project watches, <linux/inotify.h>.
MODIFY = 0x2
MOVED_TO = 0x80
CREATE = 0x100
Q_OVERFLOW = 0x4000

_HEADER = struct.Struct("iIII")
_NONBLOCK = os.O_NONBLOCK
_CLOEXEC = os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Event:
    """``watch`` is the result of ``add`` (-1 with ``Q_OVERFLOW``: events were lost, scan again)."""

    watch: int
    mask: int
    cookie: int
    name: str


def parse(data: bytes) -> list[Event]:
    """Decodes the result of one read(2) of an inotify fd."""
    events, offset = [], 0
    while offset + _HEADER.size <= len(data):
        watch, mask, cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
        offset += length
        events.append(Event(watch, mask, cookie, name))
    return events


class Watcher:
    """One inotify instance: ``async for event in watcher`` or ``await watcher.read()``; close it at the end.

    Many watches share one instance; the kernel limits instances per user (``fs.inotify.max_user_instances``).
    """

    def __init__(self) -> None:
        self._fd = linux.inotify_init(_NONBLOCK | _CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def add(self, path: str, mask: int) -> int:
        """Watches ``path``. FileNotFoundError if it doesn't exist."""
        return linux.inotify_add_watch(self._fd, path, mask)

    def remove(self, watch: int) -> None:
        """Ends a watch; OSError EINVAL if it has ended by itself (file deleted)."""
        linux.inotify_rm_watch(self._fd, watch)

    def read_nowait(self) -> list[Event]:
        """The queued events, possibly none."""
        try:
            return parse(os.read(self._fd, 65536))
        except BlockingIOError:
            return []

    async def read(self) -> list[Event]:
        """Waits for at least one event. One reader at a time."""
        if events := self.read_nowait():
            return events
        while True:
            await ready(self._fd, write=False)
            if events := self.read_nowait():
                return events

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            for event in await self.read():
                yield event

    def close(self) -> None:
        """Ends all watches. Cancel a waiting ``read`` first."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
