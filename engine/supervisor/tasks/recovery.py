"""What a supervisor does at its start: finds the shims of earlier ones, and takes away what has none.

Nothing here decides by a name alone: a shim is what answers on its bundle's socket, a container's process is known by
pid and start time.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator

from engine.common.errors import WharfError
from engine.runtime.probe import probe
from engine.shim import protocol
from engine.shim.oci import Runtime
from engine.shim.protocol import Json, ProtocolError
from engine.supervisor.shims import OnEvent, ShimClient
from engine.supervisor.tasks import creation, orphans
from engine.supervisor.tasks.bundle import Bundle, bundles
from engine.supervisor.tasks.model import Process, Stdio, Task
from engine.supervisor.tasks.options import Call

log = logging.getLogger(__name__)


class Recovery:
    """``events`` and ``lost`` as ``Birth`` takes them; ``found`` is called with a task before any event of its shim."""

    def __init__(
        self,
        state: str,
        runtime_root: str,
        events: Callable[[Task], OnEvent],
        lost: Callable[[Task], Callable[[], None]],
        found: Callable[[Task], None],
    ) -> None:
        self._state = state
        self._runtime_root = runtime_root
        self._events = events
        self._lost = lost
        self._found = found
        self._bundles = list(bundles(state))

    def begin(self) -> "Iterator[tuple[tuple[str, str], asyncio.Task[Task | None]]]":
        """Begins with every bundle that there is; what remains of one is None where there was no task."""
        for namespace, id, bundle in self._bundles:
            work = asyncio.create_task(self._one(namespace, id, bundle), name=f"find {id}")
            yield (namespace, id), work

    async def _one(self, namespace: str, id: str, bundle: Bundle) -> Task | None:
        try:
            task = _read(namespace, id, bundle)
        except (OSError, ValueError, KeyError, ProtocolError) as error:
            log.warning("container=%s %s was never finished and is removed (%s)", id, bundle.path, error)
            await asyncio.to_thread(_remove, bundle)
            return None
        try:
            await self._connect(task)
        except (OSError, WharfError, ProtocolError) as error:
            log.warning("container=%s its shim doesn't answer: %s", id, error)
            if task.shim is not None:
                task.shim.close()
                task.shim = None
            orphans.kill_shim(task.shim_pid, bundle)
            await orphans.clear(id, bundle, task.call.runtime)
            state = bundle.shim_state()
            if state.get("init"):
                await asyncio.to_thread(orphans.end, bundle)
                task.take(bundle.shim_state())
                if task.init.pid:
                    self._found(task)
        if task.init.pid:
            log.info("container=%s is found again: %s", id, task.init.status)
            return task
        log.info("container=%s was never created and is removed", id)
        await creation.discard(task)
        return None

    async def _connect(self, task: Task) -> None:
        def then(answer: Json) -> None:
            task.take(answer if answer.get("init") else {**answer, "init": {}})
            if task.init.pid:
                self._found(task)

        task.shim = await ShimClient.at(task.bundle.shim_socket, self._events(task), self._lost(task))
        await task.shim.call("state", deadline="task.settle", then=then)

    async def strays(self) -> None:
        """Takes away shims whose bundle somebody removed, and containers that the runtime remembers for nobody."""
        known = {bundle.path for _, _, bundle in self._bundles}
        for pid in await asyncio.to_thread(lambda: list(_shims_in(os.path.join(self._state, "tasks"), known))):
            log.warning("a shim without a bundle (process %d) is ended", pid)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        kept = {(namespace, id) for namespace, id, _ in self._bundles}
        for runtime, namespace, id in await asyncio.to_thread(lambda: list(_remembered(self._runtime_root))):
            if (namespace, id) not in kept:
                log.warning("container=%s is known to the runtime only and is deleted", id)
                try:
                    await orphans.forget(id, runtime)
                except (WharfError, OSError) as error:
                    log.error("container=%s can't be deleted: %s", id, error)


def _read(namespace: str, id: str, bundle: Bundle) -> Task:
    made = bundle.task()
    runtime = Runtime.from_json(protocol.mapping(made, "runtime"))
    task = Task(namespace, id, bundle, Call(runtime), Process("", Stdio.from_json(protocol.mapping(made, "stdio"))))
    task.shim_pid = protocol.integer(bundle.shim_state(), "shim_pid")
    return task


def _remove(bundle: Bundle) -> None:
    try:
        bundle.remove()
    except OSError as error:
        log.error("%s can't be removed: %s", bundle.path, error)


def _shims_in(directory: str, known: set[str]) -> Iterator[int]:
    """Processes called as our shims are, that work below ``directory`` and not in a known bundle."""
    root = os.path.realpath(directory) + os.sep
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/comm") as file:
                if file.read().strip() != "wharf-shim":
                    continue
            place = os.readlink(f"/proc/{name}/cwd")
            # A removed directory reads as "… (deleted)".
            if place.startswith(root) and place not in known:
                yield int(name)


def _remembered(root: str) -> Iterator[tuple[Runtime, str, str]]:
    """(runtime, namespace, id) of all containers in the runtimes' own state below ``root``."""
    for dialect, binary in probe().usable.items():
        place = os.path.join(root, dialect)
        with contextlib.suppress(FileNotFoundError):
            for namespace in os.listdir(place):
                runtime = Runtime(dialect, binary.path, os.path.join(place, namespace))
                for id in os.listdir(runtime.root):
                    if not id.startswith("."):  # crun keeps a cache there
                        yield runtime, namespace, id
