"""Tasks without processes. ``kill`` with SIGKILL or SIGTERM ends one; a test ends one by :meth:`Tasks.exit`."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from signal import SIGKILL, SIGTERM

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from engine.api.pb import event_messages_pb2, runc_options_pb2, task_pb2
from engine.api.pb import tasks_pb2 as pb
from engine.api.tests.fake.events import Events
from engine.api.tests.fake.state import Call, now
from engine.api.types import AnyValue
from engine.common.errors import Kind, WharfError, not_found

#: Beyond every pid of Linux (PID_MAX_LIMIT is 4194304): no process of the host is meant by accident.
_FIRST_PID = 5_000_000


def _details(exec_id: str) -> Any | None:
    """What containerd's shims tell of the process of an exec."""
    return AnyValue.pack(runc_options_pb2.ProcessDetails(exec_id=exec_id)).to_message() if exec_id else None


@dataclass(slots=True)
class Process:
    message: task_pb2.Process
    spec: bytes = b""
    size: tuple[int, int] = (0, 0)  # width, height
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Tasks:
    """``processes`` by (namespace, container id, exec id); the exec id of a container's first process is "".

    ``pids`` are given to processes. A test whose subject asks the kernel for a process repeats a living one's.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self.pids: Iterator[int] = itertools.count(_FIRST_PID)
        self.processes: dict[tuple[str, str, str], Process] = {}

    def create(self, call: Call, request: pb.CreateTaskRequest) -> pb.CreateTaskResponse:
        id = request.container_id
        if id not in call.space.containers:
            raise not_found(f'container "{id}": not found')
        process = self._add(call, id, "", request)
        created = event_messages_pb2.TaskCreate(container_id=id, pid=process.message.pid)
        self._events.publish_own(call.namespace, "/tasks/create", created)
        return pb.CreateTaskResponse(container_id=id, pid=process.message.pid)

    def exec(self, call: Call, request: pb.ExecProcessRequest) -> Empty:
        self._running(call, request.container_id)
        self._add(call, request.container_id, request.exec_id, request).spec = request.spec.value
        added = event_messages_pb2.TaskExecAdded(container_id=request.container_id, exec_id=request.exec_id)
        self._events.publish_own(call.namespace, "/tasks/exec-added", added)
        return Empty()

    def start(self, call: Call, request: pb.StartRequest) -> pb.StartResponse:
        message = self._at(call, request.container_id, request.exec_id).message
        if message.status != task_pb2.CREATED:
            raise WharfError(Kind.FAILED_PRECONDITION, "cannot start a process that was started")
        message.status = task_pb2.RUNNING
        if request.exec_id:
            self._events.publish_own(
                call.namespace,
                "/tasks/exec-started",
                event_messages_pb2.TaskExecStarted(
                    container_id=request.container_id, exec_id=request.exec_id, pid=message.pid
                ),
            )
        else:
            started = event_messages_pb2.TaskStart(container_id=request.container_id, pid=message.pid)
            self._events.publish_own(call.namespace, "/tasks/start", started)
        return pb.StartResponse(pid=message.pid)

    def kill(self, call: Call, request: pb.KillRequest) -> Empty:
        message = self._at(call, request.container_id, request.exec_id).message
        if message.status == task_pb2.STOPPED:
            raise not_found("process already finished: not found")
        if request.signal in (SIGKILL, SIGTERM):
            self.exit(call.namespace, request.container_id, request.exec_id, 128 + request.signal)
        return Empty()

    def exit(self, namespace: str, container_id: str, exec_id: str = "", status: int = 0) -> None:
        """Ends a process with this exit status."""
        process = self.processes[namespace, container_id, exec_id]
        process.message.status, process.message.exit_status = task_pb2.STOPPED, status
        process.message.exited_at.CopyFrom(now())
        process.ended.set()
        exited = event_messages_pb2.TaskExit(
            container_id=container_id,
            id=exec_id or container_id,
            pid=process.message.pid,
            exit_status=status,
            exited_at=process.message.exited_at,
        )
        self._events.publish_own(namespace, "/tasks/exit", exited)

    async def wait(self, call: Call, request: pb.WaitRequest) -> pb.WaitResponse:
        process = self._at(call, request.container_id, request.exec_id)
        await process.ended.wait()
        return pb.WaitResponse(exit_status=process.message.exit_status, exited_at=process.message.exited_at)

    def delete(self, call: Call, request: pb.DeleteTaskRequest) -> pb.DeleteResponse:
        return self._delete(call, request.container_id, "")

    def delete_process(self, call: Call, request: pb.DeleteProcessRequest) -> pb.DeleteResponse:
        return self._delete(call, request.container_id, request.exec_id)

    def get(self, call: Call, request: pb.GetRequest) -> pb.GetResponse:
        return pb.GetResponse(process=self._at(call, request.container_id, request.exec_id).message)

    def list(self, call: Call, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        found = [
            process.message
            for (namespace, _, exec_id), process in self.processes.items()
            if namespace == call.namespace and not exec_id
        ]
        return pb.ListTasksResponse(tasks=found)

    def pause(self, call: Call, request: pb.PauseTaskRequest) -> Empty:
        self._running(call, request.container_id).message.status = task_pb2.PAUSED
        paused = event_messages_pb2.TaskPaused(container_id=request.container_id)
        self._events.publish_own(call.namespace, "/tasks/paused", paused)
        return Empty()

    def resume(self, call: Call, request: pb.ResumeTaskRequest) -> Empty:
        process = self._at(call, request.container_id, "")
        if process.message.status != task_pb2.PAUSED:
            raise WharfError(Kind.FAILED_PRECONDITION, "cannot resume a process that is not paused")
        process.message.status = task_pb2.RUNNING
        resumed = event_messages_pb2.TaskResumed(container_id=request.container_id)
        self._events.publish_own(call.namespace, "/tasks/resumed", resumed)
        return Empty()

    def resize_pty(self, call: Call, request: pb.ResizePtyRequest) -> Empty:
        self._at(call, request.container_id, request.exec_id).size = request.width, request.height
        return Empty()

    def close_io(self, call: Call, request: pb.CloseIORequest) -> Empty:
        self._at(call, request.container_id, request.exec_id)
        return Empty()

    def list_pids(self, call: Call, request: pb.ListPidsRequest) -> pb.ListPidsResponse:
        self._running(call, request.container_id)
        found = [
            task_pb2.ProcessInfo(pid=process.message.pid, info=_details(exec_id))
            for (namespace, id, exec_id), process in self.processes.items()
            if (namespace, id) == (call.namespace, request.container_id)
            and process.message.status in (task_pb2.RUNNING, task_pb2.PAUSED)
        ]
        return pb.ListPidsResponse(processes=found)

    def update(self, call: Call, request: pb.UpdateTaskRequest) -> Empty:
        self._running(call, request.container_id)
        return Empty()

    def metrics(self, call: Call, request: pb.MetricsRequest) -> pb.MetricsResponse:
        return pb.MetricsResponse()

    def _add(self, call: Call, id: str, exec_id: str, request: pb.CreateTaskRequest | pb.ExecProcessRequest) -> Process:
        key = call.namespace, id, exec_id
        if key in self.processes:
            raise WharfError(Kind.ALREADY_EXISTS, f"task {exec_id or id}: already exists")
        message = task_pb2.Process(
            container_id=id,
            id=exec_id or id,
            pid=next(self.pids),
            status=task_pb2.CREATED,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
            terminal=request.terminal,
        )
        process = self.processes[key] = Process(message)
        return process

    def _delete(self, call: Call, id: str, exec_id: str) -> pb.DeleteResponse:
        message = self._at(call, id, exec_id).message
        if message.status in (task_pb2.RUNNING, task_pb2.PAUSED):
            raise WharfError(Kind.FAILED_PRECONDITION, f"cannot delete running task {exec_id or id}")
        for key in list(self.processes):
            if key == (call.namespace, id, exec_id) or (not exec_id and key[:2] == (call.namespace, id)):
                del self.processes[key]
        if not exec_id:
            deleted = event_messages_pb2.TaskDelete(
                container_id=id, id=id, pid=message.pid, exit_status=message.exit_status, exited_at=message.exited_at
            )
            self._events.publish_own(call.namespace, "/tasks/delete", deleted)
        return pb.DeleteResponse(
            id=exec_id or id, pid=message.pid, exit_status=message.exit_status, exited_at=message.exited_at
        )

    def _running(self, call: Call, id: str) -> Process:
        process = self._at(call, id, "")
        if process.message.status != task_pb2.RUNNING:
            raise WharfError(Kind.FAILED_PRECONDITION, f"task {id} is not running")
        return process

    def _at(self, call: Call, id: str, exec_id: str) -> Process:
        found = self.processes.get((call.namespace, id, exec_id))
        if found is None:
            raise not_found(f"process {exec_id or id}: not found")
        return found
