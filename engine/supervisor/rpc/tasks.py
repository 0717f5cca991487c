"""containerd.services.tasks.v1"""

import asyncio
import time

from google.protobuf.any_pb2 import Any
from google.protobuf.empty_pb2 import Empty

from engine.api.pb import runc_options_pb2, types_pb2
from engine.api.pb import tasks_pb2 as pb
from engine.api.types import AnyValue, Mount, to_timestamp
from engine.common.errors import invalid, not_implemented
from engine.supervisor.call import Call
from engine.supervisor.containers import Containers
from engine.supervisor.tasks.creation import TaskSpec
from engine.supervisor.tasks.metrics import sample
from engine.supervisor.tasks.model import Process, Stdio
from engine.supervisor.tasks.options import checkpoint_options, json_object, restored_from, runtime_options
from engine.supervisor.tasks.service import Tasks


class TasksServicer:
    def __init__(self, tasks: Tasks, containers: Containers) -> None:
        self._tasks = tasks
        self._containers = containers

    async def create(self, request: pb.CreateTaskRequest, call: Call) -> pb.CreateTaskResponse:
        record = self._containers.get(call.namespace, request.container_id)
        if request.runtime_path:
            raise not_implemented("a task's runtime_path is not supported")
        if request.HasField("checkpoint"):
            raise not_implemented("checkpoints are restored from a criu_image_path only")
        options = AnyValue.from_message(request.options if request.HasField("options") else record.runtime.options)
        runtime = runtime_options(record.runtime.name, options, root=self._tasks.runtime_root, namespace=call.namespace)
        task = await self._tasks.create(
            TaskSpec(
                call.namespace,
                record.id,
                record.spec.value,
                runtime,
                tuple(Mount.from_message(mount) for mount in request.rootfs),
                Stdio(request.stdin, request.stdout, request.stderr, request.terminal),
                checkpoint=restored_from(options),
            )
        )
        return pb.CreateTaskResponse(container_id=task.id, pid=task.init.pid)

    async def start(self, request: pb.StartRequest, call: Call) -> pb.StartResponse:
        return pb.StartResponse(pid=await self._tasks.start(call.namespace, request.container_id, request.exec_id))

    async def delete(self, request: pb.DeleteTaskRequest, call: Call) -> pb.DeleteResponse:
        process = await self._tasks.delete(call.namespace, request.container_id)
        return _deleted(process, request.container_id)

    async def delete_process(self, request: pb.DeleteProcessRequest, call: Call) -> pb.DeleteResponse:
        if not request.exec_id:
            return await self.delete(pb.DeleteTaskRequest(container_id=request.container_id), call)
        process = await self._tasks.delete_exec(call.namespace, request.container_id, request.exec_id)
        return _deleted(process, request.exec_id)

    async def get(self, request: pb.GetRequest, call: Call) -> pb.GetResponse:
        task = await self._tasks.get(call.namespace, request.container_id)
        return pb.GetResponse(process=task.to_message(task.process(request.exec_id)))

    async def list(self, request: pb.ListTasksRequest, call: Call) -> pb.ListTasksResponse:
        tasks = await self._tasks.list(call.namespace)
        return pb.ListTasksResponse(tasks=[task.to_message(task.init) for task in tasks])

    async def kill(self, request: pb.KillRequest, call: Call) -> Empty:
        await self._tasks.kill(
            call.namespace, request.container_id, request.exec_id, request.signal, everything=request.all
        )
        return Empty()

    async def exec(self, request: pb.ExecProcessRequest, call: Call) -> Empty:
        if not request.exec_id:
            raise invalid("exec id cannot be empty: invalid argument")
        spec = json_object(AnyValue.from_message(request.spec), "process spec")
        stdio = Stdio(request.stdin, request.stdout, request.stderr, request.terminal)
        await self._tasks.add_exec(call.namespace, request.container_id, request.exec_id, spec, stdio)
        return Empty()

    async def resize_pty(self, request: pb.ResizePtyRequest, call: Call) -> Empty:
        await self._tasks.resize(call.namespace, request.container_id, request.exec_id, request.width, request.height)
        return Empty()

    async def close_io(self, request: pb.CloseIORequest, call: Call) -> Empty:
        if request.stdin:
            await self._tasks.close_io(call.namespace, request.container_id, request.exec_id)
        return Empty()

    async def pause(self, request: pb.PauseTaskRequest, call: Call) -> Empty:
        await self._tasks.pause(call.namespace, request.container_id)
        return Empty()

    async def resume(self, request: pb.ResumeTaskRequest, call: Call) -> Empty:
        await self._tasks.resume(call.namespace, request.container_id)
        return Empty()

    async def list_pids(self, request: pb.ListPidsRequest, call: Call) -> pb.ListPidsResponse:
        reply = pb.ListPidsResponse()
        for pid, exec_id in await self._tasks.pids(call.namespace, request.container_id):
            process = reply.processes.add(pid=pid)
            if exec_id:
                details = AnyValue.pack(runc_options_pb2.ProcessDetails(exec_id=exec_id))
                process.info.CopyFrom(details.to_message())
        return reply

    async def checkpoint(self, request: pb.CheckpointTaskRequest, call: Call) -> pb.CheckpointTaskResponse:
        image, options = checkpoint_options(AnyValue.from_message(request.options))
        await self._tasks.checkpoint(call.namespace, request.container_id, image, options)
        return pb.CheckpointTaskResponse()

    async def update(self, request: pb.UpdateTaskRequest, call: Call) -> Empty:
        resources = json_object(AnyValue.from_message(request.resources), "resources")
        await self._tasks.update(call.namespace, request.container_id, resources)
        return Empty()

    async def metrics(self, request: pb.MetricsRequest, call: Call) -> pb.MetricsResponse:
        found = await asyncio.to_thread(sample, await self._tasks.list(call.namespace), request.filters)
        now = to_timestamp(time.time_ns())
        return pb.MetricsResponse(
            metrics=[
                types_pb2.Metric(
                    timestamp=now,
                    id=id,
                    data=Any(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString()),
                )
                for id, message in found
            ]
        )

    async def wait(self, request: pb.WaitRequest, call: Call) -> pb.WaitResponse:
        process = await self._tasks.wait(call.namespace, request.container_id, request.exec_id)
        return pb.WaitResponse(exit_status=process.exit_status, exited_at=to_timestamp(process.exited_at_ns))


def _deleted(process: Process, id: str) -> pb.DeleteResponse:
    return pb.DeleteResponse(
        id=id,
        pid=process.pid,
        exit_status=process.exit_status,
        exited_at=to_timestamp(process.exited_at_ns),
    )
