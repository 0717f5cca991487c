"""A thread with a private mount namespace, in which snapshots are mounted and read or written.

The host doesn't see these mounts. The kernel removes them when the thread ends, also when the process is killed
(mount_namespaces(7)), so none remain. Mount and unmount events of the host still propagate into the namespace
(``MS_SLAVE``), so that it never keeps a file system of the host busy.
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
from engine.common.system import credentials, linux, mounts
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


# The mount point for all threads of this process; "": each thread creates one below the system's /tmp.
_home = ""


def set_mountpoint(directory: str) -> None:
    """Makes all later threads mount on ``directory``, which is created. One directory suffices, as each thread sees
    only its own mount on it, and a killed daemon leaves no directory that the next one doesn't use."""
    global _home
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _home = directory


def mount_all(snapshot: Sequence[Mount], target: str) -> None:
    """Mounts a snapshotter's mounts, in order, on ``target``. Blocks.

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
            # mount(2) applies flags to a bind mount only in a remount.
            linux.mount(None, target, None, flags | linux.MS_REMOUNT, None)


class MountThread:
    """One thread. Use it as an async context manager; call :meth:`run` for all work on the mounts.

    ``owner``: the (uid, gid) that own the files which the thread creates; None: root.
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
            # Mount points are created in a tmpfs of this namespace, not on the host's disk.
            linux.mount("tmpfs", self._base, "tmpfs", 0, "mode=0700")
            if self._owner is not None:
                credentials.set_filesystem_ids(*self._owner)
        except OSError as error:
            self._failed = error
        while (job := self._jobs.get()) is not None:
            job()
            del job

    async def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a blocking function in the thread. A cancelled caller waits for the function's end."""
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

        :raises WharfError: INTERNAL with the reason.
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
        """Binds the root of a process without the mounts below it; returns the path, as :meth:`mount`.

        An overlay that is in use must not be mounted a second time, so this binds the mounted file system.

        :raises ProcessLookupError: the process has exited.
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
        """Removes one mount before the thread ends."""
        await self.run(linux.umount, target, linux.MNT_DETACH)

    async def produce(self, work: Callable[[Callable[[bytes], object]], None]) -> AsyncIterator[bytes]:
        """Yields what a blocking producer passes to its argument ``out``, with back-pressure.

        If the reader stops early, the producer's next ``out`` raises CANCELLED.
        """
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue(8)
        loop = asyncio.get_running_loop()
        left = False

        def out(data: bytes) -> None:
            if left:
                raise WharfError(Kind.CANCELLED, "the reader has stopped")
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
