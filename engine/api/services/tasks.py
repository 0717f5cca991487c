"""The task service: a container's processes. An empty exec id names the container's first process."""

import builtins
import json
from collections.abc import Mapping, Sequence
from signal import SIGKILL

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from engine.api.pb import runc_options_pb2, task_pb2
from engine.api.pb import tasks_pb2 as pb
from engine.api.rpc import Connection
from engine.api.types import (
    PROCESS_TYPE,
    RESOURCES_TYPE,
    AnyValue,
    Descriptor,
    Exit,
    Metric,
    Mount,
    ProcessState,
    TaskStatus,
    to_ns,
)
from engine.common.errors import Kind, WharfError

_SERVICE = "/containerd.services.tasks.v1.Tasks"

_STATUS = {
    task_pb2.CREATED: TaskStatus.CREATED,
    task_pb2.RUNNING: TaskStatus.RUNNING,
    task_pb2.STOPPED: TaskStatus.STOPPED,
    task_pb2.PAUSED: TaskStatus.PAUSED,
    task_pb2.PAUSING: TaskStatus.PAUSING,
}


def _state(message: task_pb2.Process) -> ProcessState:
    return ProcessState(
        container_id=message.container_id or message.id,
        id=message.id,
        pid=message.pid,
        status=_STATUS.get(message.status, TaskStatus.UNKNOWN),
        stdin=message.stdin,
        stdout=message.stdout,
        stderr=message.stderr,
        terminal=message.terminal,
        exit_status=message.exit_status,
        exited_at_ns=to_ns(message.exited_at),
    )


def _json(type_url: str, value: Mapping[str, object]) -> Any:
    return Any(type_url=type_url, value=json.dumps(value, separators=(",", ":")).encode())


def _exit(message: pb.DeleteResponse) -> Exit:
    return Exit(pid=message.pid, status=message.exit_status, exited_at_ns=to_ns(message.exited_at))


class Tasks:
    """Every method raises NOT_FOUND for a container without a task, or an exec that doesn't exist."""

    def __init__(self, connection: Connection) -> None:
        self._rpc = connection

    async def create(
        self,
        container_id: str,
        *,
        rootfs: Sequence[Mount] = (),
        stdin: str = "",
        stdout: str = "",
        stderr: str = "",
        terminal: bool = False,
        runtime_options: AnyValue | None = None,
        checkpoint: Descriptor | None = None,
    ) -> int:
        """Creates the process, stopped before its first instruction, and returns its pid. ALREADY_EXISTS: it has a
        task."""
        request = pb.CreateTaskRequest(
            container_id=container_id,
            rootfs=[mount.to_message() for mount in rootfs],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )
        if checkpoint is not None:
            request.checkpoint.CopyFrom(checkpoint.to_message())
        if runtime_options is not None:
            request.options.CopyFrom(runtime_options.to_message())
        try:
            return await self._create(request)
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            # The server died during the call. The shim completed it, or nothing is left of it.
            state = await self._found(container_id, "")
            return await self._create(request) if state is None else state.pid

    async def _create(self, request: pb.CreateTaskRequest) -> int:
        return (await self._rpc.call(f"{_SERVICE}/Create", request, pb.CreateTaskResponse, deadline="task.create")).pid

    async def start(self, container_id: str, exec_id: str = "") -> int:
        request = pb.StartRequest(container_id=container_id, exec_id=exec_id)
        try:
            return await self._start(request)
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            state = await self._found(container_id, exec_id)
            if state is None:
                raise
            # A process that has exited by now was started; its exit event follows as usual.
            return await self._start(request) if state.status is TaskStatus.CREATED else state.pid

    async def _start(self, request: pb.StartRequest) -> int:
        return (await self._rpc.call(f"{_SERVICE}/Start", request, pb.StartResponse, deadline="task.start")).pid

    async def _found(self, container_id: str, exec_id: str) -> ProcessState | None:
        try:
            return await self.get(container_id, exec_id)
        except WharfError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None

    async def delete(self, container_id: str) -> Exit:
        """Cleans up after a task that has exited (or was never started); raises FAILED_PRECONDITION while it runs."""
        request = pb.DeleteTaskRequest(container_id=container_id)
        reply = await self._rpc.call(
            f"{_SERVICE}/Delete", request, pb.DeleteResponse, deadline="task.delete", again=True
        )
        return _exit(reply)

    async def delete_exec(self, container_id: str, exec_id: str) -> Exit:
        request = pb.DeleteProcessRequest(container_id=container_id, exec_id=exec_id)
        reply = await self._rpc.call(
            f"{_SERVICE}/DeleteProcess", request, pb.DeleteResponse, deadline="task.delete", again=True
        )
        return _exit(reply)

    async def exec(
        self,
        container_id: str,
        exec_id: str,
        *,
        spec: Mapping[str, object],
        stdin: str = "",
        stdout: str = "",
        stderr: str = "",
        terminal: bool = False,
    ) -> None:
        """Adds a process (``spec``: an OCI process); ``start`` runs it."""
        request = pb.ExecProcessRequest(
            container_id=container_id,
            exec_id=exec_id,
            spec=_json(PROCESS_TYPE, spec),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            terminal=terminal,
        )
        await self._rpc.call(f"{_SERVICE}/Exec", request, Empty, deadline="task.exec")

    async def kill(self, container_id: str, signal: int, *, exec_id: str = "", everything: bool = False) -> None:
        """Raises NOT_FOUND when the process has exited. ``everything``: all processes of the container."""
        request = pb.KillRequest(container_id=container_id, exec_id=exec_id, signal=signal, all=everything)
        # SIGKILL may be sent twice. Don't repeat other signals: the process may have received the first one.
        again = signal == SIGKILL
        await self._rpc.call(f"{_SERVICE}/Kill", request, Empty, deadline="task.kill", again=again)

    async def pause(self, container_id: str) -> None:
        request = pb.PauseTaskRequest(container_id=container_id)
        await self._rpc.call(f"{_SERVICE}/Pause", request, Empty)

    async def resume(self, container_id: str) -> None:
        request = pb.ResumeTaskRequest(container_id=container_id)
        await self._rpc.call(f"{_SERVICE}/Resume", request, Empty)

    async def resize_pty(self, container_id: str, *, exec_id: str = "", width: int, height: int) -> None:
        request = pb.ResizePtyRequest(container_id=container_id, exec_id=exec_id, width=width, height=height)
        await self._rpc.call(f"{_SERVICE}/ResizePty", request, Empty, again=True)

    async def close_io(self, container_id: str, exec_id: str = "", *, stdin: bool = True) -> None:
        """The process reads end of file on its stdin."""
        request = pb.CloseIORequest(container_id=container_id, exec_id=exec_id, stdin=stdin)
        await self._rpc.call(f"{_SERVICE}/CloseIO", request, Empty, again=True)

    async def pids(self, container_id: str) -> "builtins.list[int]":
        """The host pids of every process of the container."""
        request = pb.ListPidsRequest(container_id=container_id)
        reply = await self._rpc.call(f"{_SERVICE}/ListPids", request, pb.ListPidsResponse, again=True)
        return [process.pid for process in reply.processes]

    async def execs(self, container_id: str) -> dict[str, int]:
        """The execs that run: the pid by the exec id."""
        request = pb.ListPidsRequest(container_id=container_id)
        reply = await self._rpc.call(f"{_SERVICE}/ListPids", request, pb.ListPidsResponse, again=True)
        found = {}
        for process in reply.processes:
            info = AnyValue.from_message(process.info)
            if info is not None:
                found[info.unpack(runc_options_pb2.ProcessDetails).exec_id] = process.pid
        return found

    async def wait(self, container_id: str, exec_id: str = "") -> Exit:
        """Returns when the process has exited, without a time limit (the answer carries no pid)."""
        request = pb.WaitRequest(container_id=container_id, exec_id=exec_id)
        reply = await self._rpc.call(f"{_SERVICE}/Wait", request, pb.WaitResponse, deadline=None, again=True)
        return Exit(pid=0, status=reply.exit_status, exited_at_ns=to_ns(reply.exited_at))

    async def get(self, container_id: str, exec_id: str = "") -> ProcessState:
        request = pb.GetRequest(container_id=container_id, exec_id=exec_id)
        return _state((await self._rpc.call(f"{_SERVICE}/Get", request, pb.GetResponse, again=True)).process)

    async def list(self) -> list[ProcessState]:
        reply = await self._rpc.call(f"{_SERVICE}/List", pb.ListTasksRequest(), pb.ListTasksResponse, again=True)
        return [_state(message) for message in reply.tasks]

    async def checkpoint(
        self, container_id: str, *, options: runc_options_pb2.CheckpointOptions | None = None
    ) -> "builtins.list[Descriptor]":
        request = pb.CheckpointTaskRequest(container_id=container_id)
        if options is not None:
            request.options.CopyFrom(AnyValue.pack(options).to_message())
        reply = await self._rpc.call(
            f"{_SERVICE}/Checkpoint", request, pb.CheckpointTaskResponse, deadline="runtime.checkpoint"
        )
        return [Descriptor.from_message(message) for message in reply.descriptors]

    async def update(
        self, container_id: str, resources: Mapping[str, object], *, annotations: Mapping[str, str] | None = None
    ) -> None:
        """Changes the limits of a running container (``resources``: OCI LinuxResources)."""
        request = pb.UpdateTaskRequest(
            container_id=container_id,
            resources=_json(RESOURCES_TYPE, resources),
            annotations=dict(annotations or {}),
        )
        await self._rpc.call(f"{_SERVICE}/Update", request, Empty)

    async def metrics(self, ids: Sequence[str] = ()) -> "builtins.list[Metric]":
        """A sample of each container's counters; without ``ids``, of all containers. Exited containers are left out."""
        request = pb.MetricsRequest(filters=[f"id=={json.dumps(id)}" for id in ids])
        reply = await self._rpc.call(f"{_SERVICE}/Metrics", request, pb.MetricsResponse)
        return [
            Metric(sample.id, to_ns(sample.timestamp), AnyValue.from_message(sample.data)) for sample in reply.metrics
        ]
