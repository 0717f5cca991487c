"""``docker logs``: the log as it is, and as it grows until the container stops."""

import asyncio
import os
from collections.abc import AsyncIterator

from engine.common.errors import Kind, WharfError, conflict, invalid
from engine.common.system import inotify
from engine.common.threads import run_to_completion
from server.containers.context import ContainerContext
from server.containers.logs.config import log_file
from server.containers.logs.format import Query, format_of
from server.containers.logs.reader import End, LogReader
from server.containers.model import Container

_CHANGES = inotify.MODIFY | inotify.MOVED_TO | inotify.CREATE


class _Directory:
    """One watched directory and those who wait for a change in it."""

    __slots__ = ("changed", "watch")

    def __init__(self, watch: int) -> None:
        self.watch = watch
        self.changed: set[asyncio.Event] = set()


class LogWatch:
    """One inotify instance for all followers: the kernel allows few instances, but many watches."""

    def __init__(self) -> None:
        self._watcher: inotify.Watcher | None = None
        self._task: asyncio.Task[None] | None = None
        self._by_path: dict[str, _Directory] = {}
        self._by_watch: dict[int, _Directory] = {}

    def add(self, directory: str, changed: asyncio.Event) -> None:
        """``changed`` is set after each change in ``directory``, until ``remove``."""
        if self._watcher is None:
            self._watcher = inotify.Watcher()
            self._task = asyncio.create_task(self._run(self._watcher), name="log watch")
        place = self._by_path.get(directory)
        if place is None:
            place = _Directory(self._watcher.add(directory, _CHANGES))
            self._by_path[directory] = self._by_watch[place.watch] = place
        place.changed.add(changed)

    def remove(self, directory: str, changed: asyncio.Event) -> None:
        place = self._by_path.get(directory)
        if place is None:
            return
        place.changed.discard(changed)
        if not place.changed:
            del self._by_path[directory]
            self._by_watch.pop(place.watch, None)
            if self._watcher is not None:
                try:
                    self._watcher.remove(place.watch)
                except OSError:
                    return  # the directory is gone, and the watch with it

    async def _run(self, watcher: inotify.Watcher) -> None:
        while True:
            for event in await watcher.read():
                if event.mask & inotify.Q_OVERFLOW:
                    for place in self._by_path.values():
                        for changed in place.changed:
                            changed.set()
                elif (found := self._by_watch.get(event.watch)) is not None:
                    for changed in found.changed:
                        changed.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None


class _Follower:
    """Waits for the log's next change, or the container's end."""

    __slots__ = ("changed", "stopped")

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.stopped = False


class Logs:
    """The log of every container whose driver can be read."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._watch = LogWatch()
        self._followers: dict[str, set[_Follower]] = {}
        context.hooks.drained.append(self._stopped)
        context.hooks.removed.append(self._stopped)

    def open(self, container: Container, query: Query, end: End | None = None) -> AsyncIterator[bytes]:
        """The log in pieces, up to ``end``. Errors are raised now, before the first piece.

        :raises WharfError: INVALID_ARGUMENT: no stream chosen. CONFLICT: the container is being removed.
            NOT_IMPLEMENTED: its driver can't be read.
        """
        if not (query.stdout or query.stderr):
            raise invalid("Bad parameters: you must choose at least one stream")
        if container.state.removing or container.state.dead:
            raise conflict("can not get logs from container which is dead or marked for removal")
        config = container.host_config.log_config
        path = log_file(container)
        if not path:
            raise WharfError(Kind.NOT_IMPLEMENTED, "configured logging driver does not support reading")
        reader = LogReader(path, format_of(config.type), query, end)
        return self._read(container, reader, follow=query.follow)

    async def _read(self, container: Container, reader: LogReader, *, follow: bool) -> AsyncIterator[bytes]:
        follower = _Follower()
        directory = os.path.dirname(reader.path)
        followers = self._followers.setdefault(container.id, set())
        follow = follow and container.state.running
        if follow:
            followers.add(follower)
            self._watch.add(directory, follower.changed)
        try:
            while True:
                follower.changed.clear()
                # Asked before the read: what was written before the end is there to be read after it.
                stopped = follower.stopped
                # A client that leaves waits for the thread: it must not find its file closed.
                data = await run_to_completion(asyncio.to_thread(reader.read))
                if data:
                    yield data
                elif reader.done or stopped or not follow:
                    return
                else:
                    await follower.changed.wait()
        finally:
            if follow:
                self._watch.remove(directory, follower.changed)
                followers.discard(follower)
            if not followers:
                self._followers.pop(container.id, None)
            reader.close()

    def _stopped(self, container: Container) -> None:
        for follower in self._followers.get(container.id, ()):
            follower.stopped = True
            follower.changed.set()

    async def close(self) -> None:
        """Ends the watch; streams that are still open get no more."""
        await self._watch.close()
