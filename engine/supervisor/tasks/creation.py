"""Creates a task: bundle, root file system, shim, and the runtime's ``create``."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.api.types import Mount
from engine.common.errors import Kind, Reason, WharfError
from engine.common.timeline import Timeline
from engine.shim import protocol
from engine.shim.protocol import Json
from engine.supervisor.shims import OnEvent, ShimClient, Zygote
from engine.supervisor.tasks import orphans
from engine.supervisor.tasks.bundle import bundle_of
from engine.supervisor.tasks.model import Process, Stdio, Task
from engine.supervisor.tasks.options import RuntimeOptions, prefixed, shim_stdio
from engine.supervisor.tasks.rootfs import mount_rootfs

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The specification of a task. ``config`` is the OCI spec, ``checkpoint`` the directory of a checkpoint to restore
    (empty: the task is created)."""

    namespace: str
    id: str
    config: bytes
    options: RuntimeOptions
    rootfs: Sequence[Mount]
    stdio: Stdio
    checkpoint: str = ""


class TaskCreator:
    """Creates tasks. ``on_event(task)`` returns the handler of the shim's events, ``on_death(task)`` of its exit."""

    def __init__(
        self,
        state: str,
        zygote: Zygote,
        on_event: Callable[[Task], OnEvent],
        on_death: Callable[[Task], Callable[[], None]],
    ) -> None:
        self._state = state
        self._zygote = zygote
        self._on_event = on_event
        self._on_death = on_death

    async def make(self, spec: TaskSpec, created: Callable[[Task], None]) -> Task:
        """Creates a task. ``created`` is called when the container exists, before any event of its shim.

        If it fails, everything is removed.

        :raises WharfError: containerd's error.
        """
        timeline = Timeline(f"task {spec.id[:12]}")
        shim_side = shim_stdio(spec.stdio.stdin, spec.stdio.stdout, spec.stdio.stderr, terminal=spec.stdio.terminal)
        shim_side["given"] = spec.stdio.to_json()
        bundle = bundle_of(self._state, spec.namespace, spec.id)
        task = Task(spec.namespace, spec.id, bundle, spec.options, Process("", spec.stdio))
        try:
            bundle.make(spec.config, {"runtime": spec.options.runtime.to_json(), "stdio": spec.stdio.to_json()})
        except FileExistsError:
            raise WharfError(Kind.ALREADY_EXISTS, f"task {spec.id}: already exists") from None
        except OSError as error:
            await asyncio.to_thread(bundle.remove)
            raise WharfError(Kind.INTERNAL, f"failed to create the bundle: {error.strerror}") from None
        timeline.mark("bundle")
        sock: socket.socket | None = None
        try:
            mounting = asyncio.create_task(self._mount(spec.rootfs, bundle.rootfs))
            try:
                sock, task.shim_pid = await self._zygote.fork("shim", bundle.path)
                timeline.mark("fork")
            finally:
                await mounting
            timeline.mark("mounts")
            task.shim = await ShimClient.from_socket(sock, self._on_event(task), self._on_death(task))
            sock = None

            def then(answer: Json) -> None:
                task.init.pid = protocol.integer(answer, "pid")
                task.cgroups = {key: str(value) for key, value in protocol.mapping(answer, "cgroups").items()}
                created(task)
                _add_runtime(timeline, answer)
                timeline.mark("create")

            await task.shim.call(
                "create",
                deadline="shim.create",
                then=then,
                container=spec.id,
                runtime=spec.options.runtime.to_json(),
                stdio=shim_side,
                no_pivot=spec.options.no_pivot,
                no_new_keyring=spec.options.no_new_keyring,
                **({"checkpoint": spec.checkpoint} if spec.checkpoint else {}),
            )
        except BaseException as error:
            if sock is not None:
                sock.close()  # the shim has no container yet and exits
            await asyncio.shield(discard(task))
            # dockerd opens the log itself, so that its sentence about a log driver names no shim.
            if isinstance(error, WharfError) and error.reason is not Reason.LOG_DRIVER:
                raise prefixed(error, "failed to create shim task") from None
            raise
        timeline.done()
        timeline.return_phases(within="task")
        return task

    async def _mount(self, rootfs: Sequence[Mount], target: str) -> None:
        if rootfs:
            await asyncio.to_thread(mount_rootfs, rootfs, target)


def _add_runtime(timeline: Timeline, answer: Json) -> None:
    """The part of the shim's create in which the runtime ran. Shims of an earlier version don't report it."""
    times = answer.get("runtime")
    if isinstance(times, list) and len(times) == 2 and all(isinstance(each, float) for each in times):
        timeline.add("runtime", *times, within="create")


async def discard(task: Task) -> None:
    """Removes a task in any state. Never raises."""
    shim, task.shim = task.shim, None
    deleted = False
    if shim is not None:
        try:
            await shim.call("delete", deadline="task.delete")
            deleted = True
        except WharfError as error:
            log.warning("container=%s its shim can't delete it: %s", task.id, error.message)
            orphans.kill_shim(task.shim_pid, task.bundle)
        shim.close()
    if not deleted:
        await orphans.clean_up(task.id, task.bundle, task.options.runtime)
    try:
        await asyncio.to_thread(task.bundle.remove)
    except OSError as error:
        log.error("container=%s %s can't be removed: %s", task.id, os.path.basename(task.bundle.path), error)
