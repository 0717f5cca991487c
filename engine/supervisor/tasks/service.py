"""Tasks: the running containers. A task's state is the last one that its shim reported; changes are calls to its shim.

A shim's answers and events are handled in their order (``ShimClient.call``'s ``then``), so subscribers always see
create, start, exit, delete of a task in this order.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

from engine.common import timeouts
from engine.common.errors import Kind, WharfError, not_found
from engine.runtime.probe import probe
from engine.shim import protocol
from engine.shim.process import CREATED, RUNNING, STOPPED
from engine.shim.protocol import Json
from engine.supervisor.events import EventBus
from engine.supervisor.names import check_identifier
from engine.supervisor.shims import OnEvent, Zygote
from engine.supervisor.tasks import orphans
from engine.supervisor.tasks.creation import Birth, Wanted, discard
from engine.supervisor.tasks.model import Process, Stdio, Task
from engine.supervisor.tasks.notices import Notices
from engine.supervisor.tasks.options import shim_stdio
from engine.supervisor.tasks.recovery import Recovery

timeouts.define("task.recover", 5.0)  # the shims of an earlier supervisor report their state

log = logging.getLogger(__name__)

Key = tuple[str, str]


class Tasks:
    """``state`` is the supervisor's state directory."""

    def __init__(self, state: str, zygote: Zygote, bus: EventBus) -> None:
        self.runtime_root = os.path.join(state, "runtime")
        self._state = state
        self._notices = Notices(bus)
        self._tasks: dict[Key, Task] = {}
        self._births: dict[Key, asyncio.Task[Task | None]] = {}
        self._undone: dict[Key, asyncio.Task[None]] = {}
        self._wrecks: set[asyncio.Task[None]] = set()
        self._birth = Birth(state, zygote, self._events_of, self._loss_of)
        self._closed = False

    async def recover(self) -> None:
        """Finds the shims of earlier supervisors, and cleans up containers without one."""
        await asyncio.to_thread(probe)
        recovery = Recovery(self._state, self.runtime_root, self._events_of, self._loss_of, self._found)
        for key, work in recovery.begin():
            self._born(key, work)
        if self._births:
            # Don't wait for a shim in a long operation: requests for its task will wait.
            await asyncio.wait(self._births.values(), timeout=timeouts.seconds("task.recover"))
        await recovery.strays()

    def _born(self, key: Key, birth: "asyncio.Task[Task | None]") -> None:
        self._births[key] = birth

        def done(_: object) -> None:
            if self._births.get(key) is birth:
                del self._births[key]

        birth.add_done_callback(done)

    def _found(self, task: Task) -> None:
        """A shim of an earlier supervisor has reported its state."""
        self._tasks[task.key] = task
        # The last supervisor may or may not have published these exits: a repeated event is better than a lost one.
        for process in (*task.execs.values(), task.init):
            if process.status == STOPPED:
                self._notices.exited(task, process, missed=True)

    async def close(self) -> None:
        """Waits for pending operations and disconnects from the shims, which continue."""
        self._closed = True
        deletions = [task.deleting for task in self._tasks.values() if task.deleting is not None]
        begun = (*self._births.values(), *self._undone.values(), *self._wrecks, *deletions)
        await asyncio.gather(*begun, return_exceptions=True)
        for task in self._tasks.values():
            if task.shim is not None:
                task.shim.close()

    # Queries

    async def get(self, namespace: str, id: str) -> Task:
        """Raises NOT_FOUND if the container has no task."""
        key = (namespace, id)
        birth = self._births.get(key)
        if birth is not None:
            await asyncio.wait([birth])
        task = self._tasks.get(key)
        if task is None:
            raise not_found(f"no running task found: task {id} not found: not found")
        if task.clearing is not None:
            await asyncio.wait([task.clearing])
        return task

    async def list(self, namespace: str) -> Sequence[Task]:
        if self._wrecks:
            await asyncio.wait(self._wrecks)
        return [task for task in self._tasks.values() if task.namespace == namespace]

    # Create and delete

    async def create(self, wanted: Wanted) -> Task:
        """Raises ALREADY_EXISTS if there is one. If the caller is cancelled, the create is undone."""
        key = (wanted.namespace, wanted.id)
        if (undone := self._undone.get(key)) is not None:
            await asyncio.wait([undone])
        if key in self._births or key in self._tasks:
            raise WharfError(Kind.ALREADY_EXISTS, f"task {wanted.id}: already exists")

        def created(task: Task) -> None:
            self._tasks[key] = task
            self._notices.created(task, wanted.rootfs, wanted.checkpoint)

        birth = asyncio.create_task(self._birth.make(wanted, created), name=f"create {wanted.id}")
        self._born(key, birth)
        try:
            return await asyncio.shield(birth)
        except asyncio.CancelledError:
            undo = asyncio.create_task(self._undo(birth), name=f"undo {wanted.id}")
            self._undone[key] = undo
            undo.add_done_callback(lambda _: self._undone.pop(key, None))
            raise

    async def _undo(self, birth: "asyncio.Task[Task]") -> None:
        await asyncio.wait([birth])
        if birth.cancelled() or birth.exception() is not None or self._closed:
            return
        task = birth.result()
        log.info("container=%s its create was cancelled: removing it", task.id)
        if self._tasks.get(task.key) is task and task.init.status == CREATED and task.deleting is None:
            # Like a delete, so that a second one waits for it: the runtime needs the bundle until it has cleaned up.
            task.deleting = asyncio.create_task(self._delete(task, discard(task)), name=f"delete {task.id}")
            await asyncio.wait([task.deleting])

    async def delete(self, namespace: str, id: str) -> Process:
        """Raises FAILED_PRECONDITION while it runs. Returns its exit."""
        task = await self.get(namespace, id)
        if task.deleting is None:
            if task.init.status == RUNNING:
                raise WharfError(Kind.FAILED_PRECONDITION, "cannot delete a running process: failed precondition")
            task.deleting = asyncio.create_task(self._delete(task, self._take_away(task)), name=f"delete {id}")
            await asyncio.shield(task.deleting)
            return task.init
        await asyncio.wait([task.deleting])
        raise not_found(f"no running task found: task {id} not found: not found")

    async def _delete(self, task: Task, away: Coroutine[None, None, None]) -> None:
        try:
            await away
        except BaseException:
            task.deleting = None
            raise
        if self._tasks.get(task.key) is task:
            del self._tasks[task.key]
        gone = not_found(f"task {task.id}: not found")
        for process in (task.init, *task.execs.values()):
            process.forgotten(gone)
        self._notices.deleted(task)

    async def _take_away(self, task: Task) -> None:
        if task.shim is not None:
            shim = task.shim
            try:
                answer = await shim.call("delete", deadline="task.delete")
            except WharfError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                # The shim was killed meanwhile.
                await orphans.clear(task.id, task.bundle, task.call.runtime)
            else:
                if task.init.status != STOPPED:
                    task.init.ended(protocol.integer(answer, "status"), protocol.integer(answer, "at_ns"))
            shim.close()
            task.shim = None
        await asyncio.to_thread(task.bundle.remove)

    # Calls to a shim

    async def start(self, namespace: str, id: str, exec_id: str) -> int:
        task = await self.get(namespace, id)
        process = task.process(exec_id)

        def then(answer: Json) -> None:
            process.pid = protocol.integer(answer, "pid")
            process.status = RUNNING
            self._notices.started(task, process)

        try:
            await self._call(task, "start", deadline="shim.start-process", then=then, exec_id=exec_id)
        except WharfError as error:
            if exec_id and process.status == CREATED and error.kind is Kind.INTERNAL:
                process.ended(255, time.time_ns())
            raise
        return process.pid

    async def add_exec(self, namespace: str, id: str, exec_id: str, spec: Mapping[str, object], stdio: Stdio) -> None:
        task = await self.get(namespace, id)
        check_identifier(exec_id)
        process = Process(exec_id, stdio)
        given = shim_stdio(stdio.stdin, stdio.stdout, stdio.stderr, terminal=stdio.terminal)

        def then(_answer: Json) -> None:
            task.execs[exec_id] = process
            self._notices.exec_added(task, process)

        await self._call(task, "exec", then=then, exec_id=exec_id, spec=spec, stdio={**given, "given": stdio.to_json()})

    async def delete_exec(self, namespace: str, id: str, exec_id: str) -> Process:
        task = await self.get(namespace, id)
        process = task.process(exec_id)

        def then(_answer: Json) -> None:
            task.execs.pop(exec_id, None)
            process.forgotten(not_found(f'process "{exec_id}" of task "{task.id}": not found'))

        if task.shim is None:
            then({})
        else:
            await self._call(task, "delete", then=then, exec_id=exec_id)
        return process

    async def kill(self, namespace: str, id: str, exec_id: str, signal: int, *, everything: bool) -> None:
        # The shim may know execs that this supervisor doesn't: those that it runs for a daemon.
        task = await self.get(namespace, id)
        await self._call(task, "kill", deadline="runtime.kill", exec_id=exec_id, signal=signal, all=everything)

    async def pause(self, namespace: str, id: str) -> None:
        await self._freeze(await self.get(namespace, id), "pause")

    async def resume(self, namespace: str, id: str) -> None:
        await self._freeze(await self.get(namespace, id), "resume")

    async def _freeze(self, task: Task, operation: str) -> None:
        def then(_answer: Json) -> None:
            task.paused = operation == "pause"
            self._notices.frozen(task)

        await self._call(task, operation, deadline="runtime.pause", then=then)

    async def update(self, namespace: str, id: str, resources: Mapping[str, object]) -> None:
        task = await self.get(namespace, id)
        await self._call(task, "update", deadline="runtime.update", resources=resources)

    async def checkpoint(self, namespace: str, id: str, image: str, options: Sequence[str]) -> None:
        """Writes CRIU's images into the directory ``image``; ``options`` are the runtime's."""
        task = await self.get(namespace, id)

        def then(_answer: Json) -> None:
            self._notices.checkpointed(task, image)

        await self._call(task, "checkpoint", deadline="runtime.checkpoint", then=then, image=image, options=options)

    async def resize(self, namespace: str, id: str, exec_id: str, width: int, height: int) -> None:
        task = await self.get(namespace, id)
        await self._call(task, "resize", exec_id=exec_id, width=width, height=height)

    async def close_io(self, namespace: str, id: str, exec_id: str) -> None:
        task = await self.get(namespace, id)
        task.process(exec_id)
        await self._call(task, "close_io", exec_id=exec_id)

    async def pids(self, namespace: str, id: str) -> Sequence[tuple[int, str]]:
        """(pid, exec id or "") of every process."""
        task = await self.get(namespace, id)
        pids = (await self._call(task, "pids")).get("pids")
        return [(int(pid), str(exec_id)) for pid, exec_id in pids] if isinstance(pids, list) else []

    async def wait(self, namespace: str, id: str, exec_id: str) -> Process:
        process = (await self.get(namespace, id)).process(exec_id)
        await process.wait()
        return process

    async def _call(
        self, task: Task, operation: str, *, deadline: str = "shim.call", then: OnEvent | None = None, **more: object
    ) -> Json:
        if task.shim is None:
            raise not_found("process already finished: not found")
        return await task.shim.call(operation, deadline=deadline, then=then, **more)

    # Events of shims

    def _events_of(self, task: Task) -> OnEvent:
        return lambda event: self._told(task, event)

    def _told(self, task: Task, event: Json) -> None:
        match event.get("event"):
            case "oom":
                self._notices.out_of_memory(task)
            case "run":
                self._run(task, event)
            case "exit":
                self._exited(task, event)

    def _run(self, task: Task, event: Json) -> None:
        """An exec that the shim runs for a daemon; the supervisor only records it."""
        process = task.take_exec(protocol.text(event, "exec_id"), event)
        process.status = RUNNING
        self._notices.exec_added(task, process)
        self._notices.started(task, process)

    def _exited(self, task: Task, event: Json) -> None:
        exec_id = protocol.text(event, "exec_id")
        process = task.execs.get(exec_id) if exec_id else task.init
        if process is None or process.status == STOPPED:
            return
        process.pid = protocol.integer(event, "pid")
        process.ended(protocol.integer(event, "status"), protocol.integer(event, "at_ns"))
        self._notices.exited(task, process)
        if event.get("forgotten"):
            task.execs.pop(exec_id, None)

    def _loss_of(self, task: Task) -> Callable[[], None]:
        return lambda: self._lost(task)

    def _lost(self, task: Task) -> None:
        """The shim's socket closed unexpectedly."""
        if self._tasks.get(task.key) is not task or task.deleting is not None or self._closed:
            return  # not created yet, or being deleted: that operation cleans up
        log.error("container=%s its shim (process %d) has died", task.id, task.shim_pid)
        task.shim = None
        task.clearing = work = asyncio.create_task(self._shipwreck(task), name=f"clear {task.id}")
        self._wrecks.add(work)
        work.add_done_callback(self._wrecks.discard)

    async def _shipwreck(self, task: Task) -> None:
        await orphans.clear(task.id, task.bundle, task.call.runtime)
        end = await asyncio.to_thread(orphans.end, task.bundle)
        for process in (*task.execs.values(), task.init):
            if process.status != STOPPED:
                process.ended(*(end if process is task.init else (orphans.UNSEEN, end[1])))
                self._notices.exited(task, process)
