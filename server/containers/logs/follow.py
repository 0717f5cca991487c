"""``docker logs``: the log until now, and with ``--follow`` new records until the container stops."""

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
    """A watched directory, and the events to set after a change in it."""

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
        watched = self._by_path.get(directory)
        if watched is None:
            watched = _Directory(self._watcher.add(directory, _CHANGES))
            self._by_path[directory] = self._by_watch[watched.watch] = watched
        watched.changed.add(changed)

    def remove(self, directory: str, changed: asyncio.Event) -> None:
        watched = self._by_path.get(directory)
        if watched is None:
            return
        watched.changed.discard(changed)
        if not watched.changed:
            del self._by_path[directory]
            self._by_watch.pop(watched.watch, None)
            if self._watcher is not None:
                try:
                    self._watcher.remove(watched.watch)
                except OSError:
                    return  # the directory was removed, and the kernel has removed the watch

    async def _run(self, watcher: inotify.Watcher) -> None:
        while True:
            for event in await watcher.read():
                if event.mask & inotify.Q_OVERFLOW:
                    for watched in self._by_path.values():
                        for changed in watched.changed:
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
    """A stream that waits for the log's next change, or the container's exit."""

    __slots__ = ("changed", "stopped")

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.stopped = False


class Logs:
    """The logs of containers whose driver keeps a file."""

    def __init__(self, context: ContainerContext) -> None:
        self._context = context
        self._watch = LogWatch()
        self._followers: dict[str, set[_Follower]] = {}
        context.hooks.drained.append(self._stopped)
        context.hooks.removed.append(self._stopped)

    def open(self, container: Container, query: Query, end: End | None = None) -> AsyncIterator[bytes]:
        """The log in chunks, up to ``end``. Errors are raised by this call, not by the iterator.

        :raises WharfError: INVALID_ARGUMENT: no stream is selected; CONFLICT: the container is being removed;
            NOT_IMPLEMENTED: its driver keeps no file.
        """
        if not (query.stdout or query.stderr):
            raise invalid("must specify at least one of 'stdout' or 'stderr'")
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
                # Get it before the read: all output is in the file when the container has stopped.
                stopped = follower.stopped
                # If the client leaves, wait for the thread before the file is closed.
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
        """Ends the watch; open streams get no new records."""
        await self._watch.close()
