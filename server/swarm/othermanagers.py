"""The other managers, for the node of a manager whose own store is silent."""

from server.swarm.agent.dispatcher import Dispatcher
from server.swarm.membership import Membership
from server.swarm.remote.client import Managers
from server.swarm.remote.dispatcher import RemoteDispatcher
from server.swarm.remote.identity import Identity
from server.swarm.state.state import State


class OtherManagers:
    """Call ``close`` at the end."""

    def __init__(self, state: State, membership: Membership, identity: Identity) -> None:
        self._state = state
        self._node_id = membership.node_id
        self._managers = Managers(identity, ())
        self._dispatcher = RemoteDispatcher(self._managers, membership.advertise_addr, membership.data_path_addr)

    def dispatcher(self) -> Dispatcher | None:
        """None: there is no other manager. Their addresses are those of the copy of the state in memory, which goes on
        when the store is silent."""
        nodes = (node for node in self._state.tables.nodes if node.id != self._node_id)
        self._managers.know([node.manager.addr for node in nodes if node.manager is not None])
        return self._dispatcher if self._managers.addresses else None

    async def close(self) -> None:
        await self._managers.close()
