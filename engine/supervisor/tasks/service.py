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
from engine.shim.container.process import CREATED, RUNNING, STOPPED
from engine.shim.protocol import Json
from engine.supervisor.events import EventBus
from engine.supervisor.names import check_identifier
from engine.supervisor.shims import OnEvent, Zygote
from engine.supervisor.tasks import orphans
from engine.supervisor.tasks.creation import TaskCreator, TaskSpec, discard
from engine.supervisor.tasks.model import Process, Stdio, Task
from engine.supervisor.tasks.options import shim_stdio
from engine.supervisor.tasks.recovery import Recovery
from engine.supervisor.tasks.task_events import TaskEvents

timeouts.define("task.recover", 5.0)  # the shims of an earlier supervisor report their state

log = logging.getLogger(__name__)

Key = tuple[str, str]


class Tasks:
    """``state`` is the supervisor's state directory."""

    def __init__(self, state: str, zygote: Zygote, bus: EventBus) -> None:
        self.runtime_root = os.path.join(state, "runtime")
        self._state = state
        self._events = TaskEvents(bus)
        self._tasks: dict[Key, Task] = {}
        self._creations: dict[Key, asyncio.Task[Task | None]] = {}
        self._undoing: dict[Key, asyncio.Task[None]] = {}
        self._cleanups: set[asyncio.Task[None]] = set()
        self._creator = TaskCreator(state, zygote, self._event_handler, self._death_handler)
        self._closed = False

    async def recover(self) -> None:
        """Finds the shims of earlier supervisors, and cleans up containers without one."""
        await asyncio.to_thread(probe)
        recovery = Recovery(self._state, self.runtime_root, self._event_handler, self._death_handler, self._recovered)
        for key, work in recovery.start():
            self._track_creation(key, work)
        if self._creations:
            # Don't wait for a shim in a long operation: requests for its task will wait.
            await asyncio.wait(self._creations.values(), timeout=timeouts.seconds("task.recover"))
        await recovery.kill_orphans()

    def _track_creation(self, key: Key, creation: "asyncio.Task[Task | None]") -> None:
        self._creations[key] = creation

        def done(_: object) -> None:
            if self._creations.get(key) is creation:
                del self._creations[key]

        creation.add_done_callback(done)

    def _recovered(self, task: Task) -> None:
        """A shim of an earlier supervisor has reported its state."""
        self._tasks[task.key] = task
        # The last supervisor may or may not have published these exits: a repeated event is better than a lost one.
        for process in (*task.execs.values(), task.init):
            if process.status == STOPPED:
                self._events.exited(task, process, missed=True)

    async def close(self) -> None:
        """Waits for pending operations and disconnects from the shims, which continue."""
        self._closed = True
        deletions = [task.deleting for task in self._tasks.values() if task.deleting is not None]
        begun = (*self._creations.values(), *self._undoing.values(), *self._cleanups, *deletions)
        await asyncio.gather(*begun, return_exceptions=True)
        for task in self._tasks.values():
            if task.shim is not None:
                task.shim.close()

    # Queries

    async def get(self, namespace: str, id: str) -> Task:
        """Raises NOT_FOUND if the container has no task."""
        key = (namespace, id)
        creation = self._creations.get(key)
        if creation is not None:
            await asyncio.wait([creation])
        task = self._tasks.get(key)
        if task is None:
            raise not_found(f"no running task found: task {id} not found: not found")
        if task.cleanup is not None:
            await asyncio.wait([task.cleanup])
        return task

    async def list(self, namespace: str) -> Sequence[Task]:
        if self._cleanups:
            await asyncio.wait(self._cleanups)
        return [task for task in self._tasks.values() if task.namespace == namespace]

    # Create and delete

    async def create(self, spec: TaskSpec) -> Task:
        """Raises ALREADY_EXISTS if there is one. If the caller is cancelled, the create is undone."""
        key = (spec.namespace, spec.id)
        if (undoing := self._undoing.get(key)) is not None:
            await asyncio.wait([undoing])
        if key in self._creations or key in self._tasks:
            raise WharfError(Kind.ALREADY_EXISTS, f"task {spec.id}: already exists")

        def created(task: Task) -> None:
            self._tasks[key] = task
            self._events.created(task, spec.rootfs)

        creation = asyncio.create_task(self._creator.make(spec, created), name=f"create {spec.id}")
        self._track_creation(key, creation)
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            undo = asyncio.create_task(self._undo(creation), name=f"undo {spec.id}")
            self._undoing[key] = undo
            undo.add_done_callback(lambda _: self._undoing.pop(key, None))
            raise

    async def _undo(self, creation: "asyncio.Task[Task]") -> None:
        await asyncio.wait([creation])
        if creation.cancelled() or creation.exception() is not None or self._closed:
            return
        task = creation.result()
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
            task.deleting = asyncio.create_task(self._delete(task, self._remove(task)), name=f"delete {id}")
            await asyncio.shield(task.deleting)
            return task.init
        await asyncio.wait([task.deleting])
        raise not_found(f"no running task found: task {id} not found: not found")

    async def _delete(self, task: Task, removal: Coroutine[None, None, None]) -> None:
        """Awaits ``removal``, then removes the task from the list and publishes its deletion."""
        try:
            await removal
        except BaseException:
            task.deleting = None
            raise
        if self._tasks.get(task.key) is task:
            del self._tasks[task.key]
        deleted = not_found(f"task {task.id}: not found")
        for process in (task.init, *task.execs.values()):
            process.set_deleted(deleted)
        self._events.deleted(task)

    async def _remove(self, task: Task) -> None:
        if task.shim is not None:
            shim = task.shim
            try:
                answer = await shim.call("delete", deadline="task.delete")
            except WharfError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                # The shim was killed meanwhile.
                await orphans.clean_up(task.id, task.bundle, task.options.runtime)
            else:
                if task.init.status != STOPPED:
                    task.init.set_exited(protocol.integer(answer, "status"), protocol.integer(answer, "at_ns"))
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
            self._events.started(task, process)

        try:
            await self._call(task, "start", deadline="shim.start-process", then=then, exec_id=exec_id)
        except WharfError as error:
            if exec_id and process.status == CREATED and error.kind is Kind.INTERNAL:
                process.set_exited(255, time.time_ns())
            raise
        return process.pid

    async def add_exec(self, namespace: str, id: str, exec_id: str, spec: Mapping[str, object], stdio: Stdio) -> None:
        task = await self.get(namespace, id)
        check_identifier(exec_id)
        process = Process(exec_id, stdio)
        shim_side = shim_stdio(stdio.stdin, stdio.stdout, stdio.stderr, terminal=stdio.terminal)
        shim_side["given"] = stdio.to_json()

        def then(_answer: Json) -> None:
            task.execs[exec_id] = process
            self._events.exec_added(task, process)

        await self._call(
            task, "exec", then=then, exec_id=exec_id, spec=spec, stdio={**shim_side, "given": stdio.to_json()}
        )

    async def delete_exec(self, namespace: str, id: str, exec_id: str) -> Process:
        task = await self.get(namespace, id)
        process = task.process(exec_id)

        def then(_answer: Json) -> None:
            task.execs.pop(exec_id, None)
            process.set_deleted(not_found(f'process "{exec_id}" of task "{task.id}": not found'))

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
            self._events.frozen(task)

        await self._call(task, operation, deadline="runtime.pause", then=then)

    async def update(self, namespace: str, id: str, resources: Mapping[str, object]) -> None:
        task = await self.get(namespace, id)
        await self._call(task, "update", deadline="runtime.update", resources=resources)

    async def checkpoint(self, namespace: str, id: str, image: str, options: Sequence[str]) -> None:
        """Writes CRIU's images into the directory ``image``; ``options`` are the runtime's."""
        task = await self.get(namespace, id)

        def then(_answer: Json) -> None:
            self._events.checkpointed(task, image)

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

    def _event_handler(self, task: Task) -> OnEvent:
        return lambda event: self._handle_event(task, event)

    def _handle_event(self, task: Task, event: Json) -> None:
        match event.get("event"):
            case "oom":
                self._events.out_of_memory(task)
            case "run":
                self._run(task, event)
            case "exit":
                self._exited(task, event)

    def _run(self, task: Task, event: Json) -> None:
        """An exec that the shim runs for a daemon; the supervisor only records it."""
        process = task.add_exec(protocol.text(event, "exec_id"), event)
        process.status = RUNNING
        self._events.exec_added(task, process)
        self._events.started(task, process)

    def _exited(self, task: Task, event: Json) -> None:
        exec_id = protocol.text(event, "exec_id")
        process = task.execs.get(exec_id) if exec_id else task.init
        if process is None or process.status == STOPPED:
            return
        process.pid = protocol.integer(event, "pid")
        process.set_exited(protocol.integer(event, "status"), protocol.integer(event, "at_ns"))
        self._events.exited(task, process)
        if event.get("forgotten"):
            task.execs.pop(exec_id, None)

    def _death_handler(self, task: Task) -> Callable[[], None]:
        return lambda: self._shim_died(task)

    def _shim_died(self, task: Task) -> None:
        """The shim's socket closed unexpectedly."""
        if self._tasks.get(task.key) is not task or task.deleting is not None or self._closed:
            return  # not created yet, or being deleted: that operation cleans up
        log.error("container=%s its shim (process %d) has died", task.id, task.shim_pid)
        task.shim = None
        task.cleanup = work = asyncio.create_task(self._clean_up(task), name=f"clear {task.id}")
        self._cleanups.add(work)
        work.add_done_callback(self._cleanups.discard)

    async def _clean_up(self, task: Task) -> None:
        await orphans.clean_up(task.id, task.bundle, task.options.runtime)
        end = await asyncio.to_thread(orphans.record_exit, task.bundle)
        for process in (*task.execs.values(), task.init):
            if process.status != STOPPED:
                process.set_exited(*(end if process is task.init else (orphans.UNOBSERVED, end[1])))
                self._events.exited(task, process)
