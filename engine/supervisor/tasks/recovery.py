"""Recovery at the supervisor's start: finds the shims of earlier supervisors, and removes containers without one.

No decision relies on a name alone: a shim is the process that answers on its bundle's socket, a container's process is
identified by pid and start time.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator

from engine.common import timeouts
from engine.common.errors import WharfError
from engine.runtime.probe import probe
from engine.shim import protocol
from engine.shim.protocol import Json, ProtocolError
from engine.shim.runtime.oci import Runtime
from engine.supervisor.shims import OnEvent, ShimClient
from engine.supervisor.tasks import creation, orphans
from engine.supervisor.tasks.bundle import Bundle, bundles
from engine.supervisor.tasks.model import Process, Stdio, Task
from engine.supervisor.tasks.options import RuntimeOptions

log = logging.getLogger(__name__)

timeouts.define("task.settle", 100.0)  # an operation that an earlier supervisor started with a shim has completed


class Recovery:
    """``on_event`` and ``on_death`` as for ``TaskCreator``; ``on_found`` gets a task before any event of its shim."""

    def __init__(
        self,
        state: str,
        runtime_root: str,
        on_event: Callable[[Task], OnEvent],
        on_death: Callable[[Task], Callable[[], None]],
        on_found: Callable[[Task], None],
    ) -> None:
        self._state = state
        self._runtime_root = runtime_root
        self._on_event = on_event
        self._on_death = on_death
        self._on_found = on_found
        self._bundles = list(bundles(state))

    def start(self) -> "Iterator[tuple[tuple[str, str], asyncio.Task[Task | None]]]":
        """Starts the recovery of every bundle. The result of one is None if the bundle had no container."""
        for namespace, id, bundle in self._bundles:
            work = asyncio.create_task(self._recover(namespace, id, bundle), name=f"find {id}")
            yield (namespace, id), work

    async def _recover(self, namespace: str, id: str, bundle: Bundle) -> Task | None:
        try:
            task = _read(namespace, id, bundle)
        except (OSError, ValueError, KeyError, ProtocolError) as error:
            log.warning("container=%s removing the incomplete bundle %s (%s)", id, bundle.path, error)
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
            await orphans.clean_up(id, bundle, task.options.runtime)
            state = bundle.shim_state()
            if state.get("init"):
                await asyncio.to_thread(orphans.record_exit, bundle)
                task.update(bundle.shim_state())
                if task.init.pid:
                    self._on_found(task)
        if task.init.pid:
            log.info("container=%s recovered, it is %s", id, task.init.status)
            return task
        log.info("container=%s was never created: removed", id)
        await creation.discard(task)
        return None

    async def _connect(self, task: Task) -> None:
        def then(answer: Json) -> None:
            task.update(answer if answer.get("init") else {**answer, "init": {}})
            if task.init.pid:
                self._on_found(task)

        task.shim = await ShimClient.connect(task.bundle.shim_socket, self._on_event(task), self._on_death(task))
        await task.shim.call("state", deadline="task.settle", then=then)

    async def kill_orphans(self) -> None:
        """Kills shims whose bundle was removed, and deletes containers that only the runtime knows."""
        known = {bundle.path for _, _, bundle in self._bundles}
        for pid in await asyncio.to_thread(lambda: list(_shims_in(os.path.join(self._state, "tasks"), known))):
            log.warning("killing a shim without a bundle (process %d)", pid)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        kept = {(namespace, id) for namespace, id, _ in self._bundles}
        for runtime, namespace, id in await asyncio.to_thread(lambda: list(_runtime_containers(self._runtime_root))):
            if (namespace, id) not in kept:
                log.warning("container=%s deleting it, as only the runtime knows it", id)
                try:
                    await orphans.delete(id, runtime)
                except (WharfError, OSError) as error:
                    log.error("container=%s can't delete it: %s", id, error)


def _read(namespace: str, id: str, bundle: Bundle) -> Task:
    request = bundle.task()
    runtime = Runtime.from_json(protocol.mapping(request, "runtime"))
    stdio = Stdio.from_json(protocol.mapping(request, "stdio"))
    task = Task(namespace, id, bundle, RuntimeOptions(runtime), Process("", stdio))
    task.shim_pid = protocol.integer(bundle.shim_state(), "shim_pid")
    return task


def _remove(bundle: Bundle) -> None:
    try:
        bundle.remove()
    except OSError as error:
        log.error("can't remove %s: %s", bundle.path, error)


def _shims_in(directory: str, known: set[str]) -> Iterator[int]:
    """Processes with a shim's name whose working directory is below ``directory``, but not a known bundle."""
    root = os.path.realpath(directory) + os.sep
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/comm") as file:
                if file.read().strip() != "wharf-shim":
                    continue
            place = os.readlink(f"/proc/{name}/cwd")
            # The path of a removed directory ends with " (deleted)".
            if place.startswith(root) and place not in known:
                yield int(name)


def _runtime_containers(root: str) -> Iterator[tuple[Runtime, str, str]]:
    """(runtime, namespace, id) of all containers in the runtimes' own state below ``root``."""
    for dialect, binary in probe().usable.items():
        place = os.path.join(root, dialect)
        with contextlib.suppress(FileNotFoundError):
            for namespace in os.listdir(place):
                runtime = Runtime(dialect, binary.path, os.path.join(place, namespace))
                for id in os.listdir(runtime.root):
                    if not id.startswith("."):  # crun has a cache there
                        yield runtime, namespace, id
