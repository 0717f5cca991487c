"""The routes of every node's port."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from starlette.responses import Response

from server.swarm.model.objects import Task
from server.swarm.operations.admission import denied
from server.swarm.operations.logs import TaskLog
from server.swarm.remote import wire
from server.swarmapi.application import Call, Route, SwarmApp
from server.swarmapi.caller import Access, Caller, check
from server.swarmapi.images import ImagePort, ImageRoutes
from server.swarmapi.streams import frames, paced


@dataclass(frozen=True, slots=True)
class NodePort:
    """``swarm_id``, ``node_id``: those of this node. ``is_manager``: whether a node is a manager now, as far as this
    node knows: the certificate of a former one is valid for long. ``task_log``: the log of a task of this node.
    ``period``: seconds between two frames of a stream at the most."""

    swarm_id: str
    node_id: str
    is_manager: Callable[[str], bool]
    task_log: TaskLog
    images: ImagePort
    period: float = wire.SIGN_OF_LIFE


def node_app(port: NodePort) -> SwarmApp:
    async def check_caller(caller: Caller, access: Access) -> None:
        # A worker has no state: what the certificate says is what it knows.
        check(caller, access, port.swarm_id, None)
        if access is Access.MANAGER and not port.is_manager(caller.node_id):
            raise denied(f"node {caller.node_id} is no longer a manager")

    log = partial(_task_log, port)
    routes = [Route("GET", f"{wire.VERSION}/tasks/{{id}}/log", Access.MANAGER, log)]
    return SwarmApp([*routes, *ImageRoutes(port.images).routes()], check_caller)


async def _task_log(port: NodePort, call: Call) -> Response:
    """The query has the service's id, which the attributes of the records name."""
    query = wire.query(call.request.query_params.get("query", ""))
    service_id = call.request.query_params.get("service", "")[:256]
    task = Task(id=call.params["id"], service_id=service_id, node_id=port.node_id)
    return frames(paced(port.task_log(task, query), port.period))
