"""A thread in a mount namespace of its own: snapshots are mounted there, worked on, and gone with the thread.

The host sees none of these mounts, and none can be left behind: the kernel drops them when the thread ends, also
when the process is killed (mount_namespaces(7)). Mounts of the host still arrive (``MS_SLAVE``), so that an
unmount there is never held up by a namespace that kept it.
"""

import asyncio
import contextlib
import os
import queue
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

from engine.common.errors import Kind, WharfError, internal
from engine.common.system import idmap, linux, mounts
from engine.common.system.processes import Process
from engine.common.threads import run_to_completion

P = ParamSpec("P")
R = TypeVar("R")

_FLAGS = {
    "ro": linux.MS_RDONLY,
    "nosuid": linux.MS_NOSUID,
    "nodev": linux.MS_NODEV,
    "noexec": linux.MS_NOEXEC,
    "bind": linux.MS_BIND,
    "rbind": linux.MS_BIND | linux.MS_REC,
}


class Mount(Protocol):
    """One mount of a snapshot; :class:`engine.api.types.Mount` is one."""

    @property
    def type(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def options(self) -> Sequence[str]: ...


# The mount point of all places of this process, or "": then each makes one of its own below the system's /tmp.
_home = ""


def set_mountpoint(directory: str) -> None:
    """Has all places to come use ``directory``, which is made: one for all, as each sees but its own mount on it. So a
    daemon that is killed leaves nothing behind that the next one doesn't use."""
    global _home
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _home = directory


def mount_all(snapshot: Sequence[Mount], target: str) -> None:
    """Mounts what a snapshotter answered, in order, on ``target``. Blocks.

    :raises OSError: of mount(2), with the target's path.
    """
    for mount in snapshot:
        flags, data = 0, []
        for option in mount.options:
            if option in _FLAGS:
                flags |= _FLAGS[option]
            elif option != "rw":
                data.append(option)
        mounts.mount(mount.source, target, mount.type, flags, ",".join(data))
        if flags & linux.MS_BIND and flags & linux.MS_RDONLY:
            # A bind takes its flags only when it is mounted again (mount(2)).
            linux.mount(None, target, None, flags | linux.MS_REMOUNT, None)


class MountThread:
    """One such thread. Use as an async context manager; :meth:`run` for everything that touches the mounts.

    ``owner``: whose (uid, gid) the files are that the thread makes; None: root's.
    """

    def __init__(self, name: str, *, owner: tuple[int, int] | None = None) -> None:
        self._owner = owner
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"mounts-{name}", daemon=True)
        self._failed: OSError | None = None
        self._base = ""
        self._count = 0

    async def __aenter__(self) -> "MountThread":
        self._base = _home or tempfile.mkdtemp(prefix="wharf-mounts-")
        self._thread.start()
        try:
            await self.run(self._check)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._jobs.put(None)
        await asyncio.shield(asyncio.to_thread(self._thread.join))
        if self._base != _home:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self._base)

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    def _work(self) -> None:
        try:
            linux.unshare(linux.CLONE_NEWNS)
            linux.mount(None, "/", None, linux.MS_SLAVE | linux.MS_REC, None)
            # The mount points live in memory of this namespace: nothing is made on the host's disk.
            linux.mount("tmpfs", self._base, "tmpfs", 0, "mode=0700")
            if self._owner is not None:
                idmap.set_filesystem_ids(*self._owner)
        except OSError as error:
            self._failed = error
        while (job := self._jobs.get()) is not None:
            job()
            del job

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls a blocking function in the thread. If the caller is cancelled, the call is awaited first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()

        def settle(result: R | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                loop.call_soon_threadsafe(settle, None, error)
            else:
                loop.call_soon_threadsafe(settle, result, None)

        self._jobs.put(job)
        return await run_to_completion(future)

    async def mount(self, snapshot: Sequence[Mount]) -> str:
        """Mounts a snapshot in the thread's namespace; returns the path, which is valid only in :meth:`run`.

        :raises WharfError: INTERNAL naming what failed.
        """
        self._count += 1
        target = os.path.join(self._base, str(self._count))

        def work() -> None:
            os.mkdir(target, 0o700)
            try:
                mount_all(snapshot, target)
            except OSError as error:
                raise internal(f"mount of a snapshot at {target}: {error.strerror}") from error

        await self.run(work)
        return target

    async def bind_process_root(self, process: Process) -> str:
        """Mounts the root of a process without what is mounted below it; returns the path, as :meth:`mount`.

        It is the same file system: an overlay that is in use is not to be mounted a second time.

        :raises ProcessLookupError: the process has gone.
        """
        self._count += 1
        target = os.path.join(self._base, str(self._count))

        def work() -> None:
            os.mkdir(target, 0o700)
            home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            there = tree = -1
            try:
                there = process.open("ns/mnt", os.O_RDONLY)
                linux.setns(there, linux.CLONE_NEWNS)
                try:
                    tree = linux.open_tree(linux.AT_FDCWD, "/", linux.OPEN_TREE_CLONE)
                finally:
                    linux.setns(home, linux.CLONE_NEWNS)
                linux.mount_setattr(tree, "", linux.AT_EMPTY_PATH, propagation=linux.MS_PRIVATE)
                linux.move_mount(tree, "", linux.AT_FDCWD, target, linux.MOVE_MOUNT_F_EMPTY_PATH)
            finally:
                for fd in (home, there, tree):
                    if fd >= 0:
                        os.close(fd)

        await self.run(work)
        return target

    async def unmount(self, target: str) -> None:
        """Takes one mount away before the thread ends."""
        await self.run(linux.umount, target, linux.MNT_DETACH)

    async def produce(self, work: Callable[[Callable[[bytes], object]], None]) -> AsyncIterator[bytes]:
        """What a blocking producer gives to its ``out``, with back-pressure.

        A reader that leaves early ends the producer: its next ``out`` raises CANCELLED.
        """
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(8)
        loop = asyncio.get_running_loop()
        left = False

        def out(data: bytes) -> None:
            if left:
                raise WharfError(Kind.CANCELLED, "the reader has gone")
            asyncio.run_coroutine_threadsafe(pieces.put(bytes(data)), loop).result()

        async def run() -> None:
            try:
                await self.run(work, out)
            finally:
                await pieces.put(None)

        task = asyncio.create_task(run())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await task
        finally:
            left = True
            while not task.done():
                while not pieces.empty():
                    pieces.get_nowait()
                await asyncio.wait([task], timeout=0.05)
            if not task.cancelled():
                task.exception()
