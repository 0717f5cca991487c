"""Publishes the events /tasks/*, with containerd's payloads."""

from collections.abc import Sequence

from google.protobuf.message import Message

from engine.api.pb import event_messages_pb2 as pb
from engine.api.types import Mount, to_timestamp
from engine.supervisor.events import EventBus
from engine.supervisor.tasks.model import Process, Task


class TaskEvents:
    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    def _publish(self, task: Task, verb: str, message: Message, *, keep: bool = False) -> None:
        self._bus.publish(task.namespace, f"/tasks/{verb}", message, keep=keep)

    def created(self, task: Task, rootfs: Sequence[Mount]) -> None:
        stdio = task.init.stdio
        message = pb.TaskCreate(
            container_id=task.id,
            bundle=task.bundle.path,
            rootfs=[mount.to_message() for mount in rootfs],
            io=pb.TaskIO(stdin=stdio.stdin, stdout=stdio.stdout, stderr=stdio.stderr, terminal=stdio.terminal),
            pid=task.init.pid,
        )
        self._publish(task, "create", message)

    def started(self, task: Task, process: Process) -> None:
        if process.id:
            message = pb.TaskExecStarted(container_id=task.id, exec_id=process.id, pid=process.pid)
            self._publish(task, "exec-started", message)
        else:
            self._publish(task, "start", pb.TaskStart(container_id=task.id, pid=process.pid))

    def exec_added(self, task: Task, process: Process) -> None:
        self._publish(task, "exec-added", pb.TaskExecAdded(container_id=task.id, exec_id=process.id))

    def exited(self, task: Task, process: Process, *, missed: bool = False) -> None:
        """``missed``: it exited before the supervisor's start; subscribers that connect later get the event too."""
        message = pb.TaskExit(
            container_id=task.id,
            id=process.id or task.id,
            pid=process.pid,
            exit_status=process.exit_status,
            exited_at=to_timestamp(process.exited_at_ns),
        )
        self._publish(task, "exit", message, keep=missed)

    def deleted(self, task: Task) -> None:
        message = pb.TaskDelete(
            container_id=task.id,
            pid=task.init.pid,
            exit_status=task.init.exit_status,
            exited_at=to_timestamp(task.init.exited_at_ns),
        )
        self._publish(task, "delete", message)

    def out_of_memory(self, task: Task) -> None:
        self._publish(task, "oom", pb.TaskOOM(container_id=task.id))

    def frozen(self, task: Task) -> None:
        if task.paused:
            self._publish(task, "paused", pb.TaskPaused(container_id=task.id))
        else:
            self._publish(task, "resumed", pb.TaskResumed(container_id=task.id))

    def checkpointed(self, task: Task, checkpoint: str) -> None:
        self._publish(task, "checkpointed", pb.TaskCheckpointed(container_id=task.id, checkpoint=checkpoint))
