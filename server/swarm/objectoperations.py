"""The operations of the API on the objects of a swarm. ``Manager.objects`` loads them with the first request: they need
0.6 MiB."""

from server.swarm.controllers.constraints import parse_constraints
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.tasks import Freshness
from server.swarm.host import Host
from server.swarm.keys import Keys
from server.swarm.model.objects import Service, Task
from server.swarm.operations.logs import ServiceLogs
from server.swarm.operations.nodes import Nodes
from server.swarm.operations.secrets import Configs, Secrets
from server.swarm.operations.services import Services
from server.swarm.operations.tasks import Tasks
from server.swarm.remote.identity import Identity
from server.swarm.remote.logs import TaskLogs
from server.swarm.state.state import State


class ObjectOperations:
    """Call ``close`` at the end."""

    def __init__(self, host: Host, state: State, keys: Keys, identity: Identity, node_id: str) -> None:
        self._state = state
        self.nodes = Nodes(state, node_id)
        self.secrets = Secrets(state, keys)
        self.configs = Configs(state, keys)
        self.services = Services(state, keys.seal, parse_constraints, host.local_network)
        self.tasks = Tasks(state, self._up_to_date, self.nodes.get)
        self._task_logs = TaskLogs(identity, node_id, host.task_log, self._address_of)
        self.logs = ServiceLogs(state, self.services, self.tasks, self._task_logs)

    def _up_to_date(self, service: Service, task: Task) -> bool:
        return not Freshness(service, Draft(self._state.tables, 0)).outdated(task)

    def _address_of(self, node_id: str) -> str:
        node = self._state.tables.nodes.find(node_id)
        return "" if node is None else node.status.addr

    async def close(self) -> None:
        await self._task_logs.close()
