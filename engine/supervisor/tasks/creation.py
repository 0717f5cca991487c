"""Creates a task: bundle, root file system, shim, and the runtime's ``create``."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.api.types import Mount
from engine.common import timeouts
from engine.common.errors import Kind, Reason, WharfError
from engine.common.timeline import Timeline
from engine.shim import protocol
from engine.shim.protocol import Json
from engine.supervisor.shims import OnEvent, ShimClient, Zygote
from engine.supervisor.tasks import orphans
from engine.supervisor.tasks.bundle import bundle_of
from engine.supervisor.tasks.model import Process, Stdio, Task
from engine.supervisor.tasks.options import Call, reraise, shim_stdio
from engine.supervisor.tasks.rootfs import mount_rootfs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The specification of a task. ``config`` is the OCI spec; ``checkpoint`` the digest of one to restore, or
    empty."""

    namespace: str
    id: str
    config: bytes
    call: Call
    rootfs: Sequence[Mount]
    stdio: Stdio
    checkpoint: str = ""
    image: str = ""


class Birth:
    """Creates tasks. ``events(task)`` returns the handler of the shim's events, ``lost(task)`` that of its death."""

    def __init__(
        self,
        state: str,
        zygote: Zygote,
        events: Callable[[Task], OnEvent],
        lost: Callable[[Task], Callable[[], None]],
    ) -> None:
        self._state = state
        self._zygote = zygote
        self._events = events
        self._lost = lost

    async def make(self, wanted: Wanted, created: Callable[[Task], None]) -> Task:
        """Creates a task. ``created`` is called when the container exists, before any event of its shim.

        If it fails, everything is removed.

        :raises WharfError: containerd's error.
        """
        timeline = Timeline(f"task {wanted.id[:12]}")
        given = shim_stdio(wanted.stdio.stdin, wanted.stdio.stdout, wanted.stdio.stderr, terminal=wanted.stdio.terminal)
        given["given"] = wanted.stdio.to_json()
        bundle = bundle_of(self._state, wanted.namespace, wanted.id)
        task = Task(wanted.namespace, wanted.id, bundle, wanted.call, Process("", wanted.stdio))
        try:
            bundle.make(wanted.config, {"runtime": wanted.call.runtime.to_json(), "stdio": wanted.stdio.to_json()})
        except FileExistsError:
            raise WharfError(Kind.ALREADY_EXISTS, f"task {wanted.id}: already exists") from None
        except OSError as error:
            await asyncio.to_thread(bundle.remove)
            raise WharfError(Kind.INTERNAL, f"failed to create the bundle: {error.strerror}") from None
        timeline.mark("bundle")
        sock: socket.socket | None = None
        try:
            mounting = asyncio.create_task(self._mount(wanted.rootfs, bundle.rootfs))
            try:
                sock, task.shim_pid = await self._zygote.fork("shim", bundle.path)
                timeline.mark("fork")
            finally:
                await mounting
            timeline.mark("mounts")
            task.shim = await ShimClient.over(sock, self._events(task), self._lost(task))
            sock = None

            def then(answer: Json) -> None:
                task.init.pid = protocol.integer(answer, "pid")
                task.cgroups = {key: str(value) for key, value in protocol.mapping(answer, "cgroups").items()}
                created(task)
                timeline.mark("create")

            await task.shim.call(
                "create",
                deadline="shim.create",
                then=then,
                container=wanted.id,
                runtime=wanted.call.runtime.to_json(),
                stdio=given,
                no_pivot=wanted.call.no_pivot,
                no_new_keyring=wanted.call.no_new_keyring,
                **({"checkpoint": wanted.image} if wanted.image else {}),
            )
        except BaseException as error:
            if sock is not None:
                sock.close()  # the shim has no container yet and exits
            await asyncio.shield(discard(task))
            # dockerd opens the log itself, so that its sentence about a log driver names no shim.
            if isinstance(error, WharfError) and error.reason is not Reason.LOG_DRIVER:
                raise reraise(error, "failed to create shim task") from None
            raise
        timeline.done()
        return task

    async def _mount(self, rootfs: Sequence[Mount], target: str) -> None:
        if rootfs:
            await asyncio.to_thread(mount_rootfs, rootfs, target)


async def discard(task: Task) -> None:
    """Removes a task in any state. Never raises."""
    shim, task.shim = task.shim, None
    gone = False
    if shim is not None:
        try:
            await shim.call("delete", deadline="task.delete")
            gone = True
        except WharfError as error:
            log.warning("container=%s its shim can't delete it: %s", task.id, error.message)
            orphans.kill_shim(task.shim_pid, task.bundle)
        shim.close()
    if not gone:
        await orphans.clear(task.id, task.bundle, task.call.runtime)
    try:
        await asyncio.to_thread(task.bundle.remove)
    except OSError as error:
        log.error("container=%s %s can't be removed: %s", task.id, os.path.basename(task.bundle.path), error)


timeouts.define("task.settle", 100.0)  # an operation that an earlier supervisor started with a shim has completed
